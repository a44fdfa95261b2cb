"""Folders that upkeep works in: one that a process holds is never taken, and none outlives its process for long."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ingest.scratch import PREFIX, remove_left, scratch, scratch_for_all

HOLDS_ONE = """
from ingest.scratch import scratch
with scratch() as folder:
    (folder / "source.parquet").write_text("x")
    print(folder, flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def temp_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_a_killed_process_leaves_goes_and_what_a_living_one_has_stays(temp_folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS_ONE],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"TMPDIR": str(temp_folder)},
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    assert folder.parent == temp_folder
    foreign = temp_folder / "tukang-other-1"
    foreign.mkdir()
    (temp_folder / f"{PREFIX}file").write_text("no folder")
    try:
        assert remove_left() == []
        assert (folder / "source.parquet").exists()
    finally:
        process.kill()
        process.communicate()
    assert folder.exists(), "else there is nothing to show"
    assert remove_left() == [folder]
    assert {each.name for each in temp_folder.iterdir()} == {foreign.name, f"{PREFIX}file"}


def test_a_folder_is_gone_after_its_work_also_when_that_failed(temp_folder: Path) -> None:
    with scratch() as folder:
        assert remove_left() == []
        assert folder.exists()

    def fails() -> None:
        with scratch():
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert list(temp_folder.iterdir()) == []


def test_those_who_begin_and_those_who_clean_up_do_not_meet_by_chance() -> None:
    def begin(_: int) -> bool:
        with scratch() as folder:
            (folder / "a").write_text("a")
            return folder.exists()

    with ThreadPoolExecutor(8) as pool:
        cleaned = [pool.submit(remove_left) for _ in range(300)]
        assert all(pool.map(begin, range(600)))
        assert sum(len(each.result()) for each in cleaned) < 600


def test_a_process_has_all_that_it_puts_aside_in_its_folder() -> None:
    usual = tempfile.gettempdir()
    with scratch_for_all():
        with tempfile.TemporaryDirectory() as aside:
            assert Path(aside).parent.name.startswith(PREFIX)
        own = Path(tempfile.gettempdir())
    assert not own.exists()
    assert tempfile.gettempdir() == usual
