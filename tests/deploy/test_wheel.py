"""The wheel holds what it needs and nothing else, and plays the demo far from the clone."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import psutil
import pytest

from deploy import flights

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT)], check=True)
    (built,) = folder.glob("tukang-*.whl")
    return built


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's contents, whose `tukang` is not the clone's."""
    folder = tmp_path_factory.mktemp("elsewhere")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    subprocess.run([*command, str(wheel)], check=True)
    return folder


def tukang(elsewhere: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "tukang", *arguments],
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(elsewhere)},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def test_the_wheel_holds_the_packages_and_their_data_and_no_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.partition("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"ingest", "api", "loaders", "deploy", "tukang.py"}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for package in ("ingest", "api", "loaders", "deploy")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted <= names
    assert {"api/openapi.yaml", "api/migrations/script.py.mako"} <= names
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_the_front_door_opens_outside_the_clone(elsewhere: Path) -> None:
    told = tukang(elsewhere, "--help")
    assert told.returncode == 0, told.stderr
    assert "demo" in told.stdout


def test_the_demo_ends_complete_without_a_terminal_and_leaves_no_process(elsewhere: Path) -> None:
    played = tukang(elsewhere, "demo")
    assert played.returncode == 0, played.stdout + played.stderr
    assert played.stdout.split()[-1] == "complete"
    figures = {
        label.strip(): int(together.replace(",", ""))
        for label, together in re.findall(
            r"^\s*([A-Za-z ]+?)\s{2,}.*?([\d,]+)\s*$", played.stdout, re.MULTILINE
        )
    }
    events, broken, empty = 328_521 + 328_063, 2 * 11, 2 * flights.EMPTY
    copies = 3_285 + 3_280
    assert figures["events read"] == events + copies + broken + empty
    assert figures["duplicates removed"] == copies
    assert figures["dead letters"] == broken
    assert figures["rows in the lake"] == events + empty
    assert figures["of them without a value"] == empty
    assert 2 <= figures["Parquet files of rows"] < 100
    every = psutil.process_iter(["environ"])
    assert not [each for each in every if (each.info["environ"] or {}).get("PYTHONPATH") == str(elsewhere)]


def test_a_folder_that_is_not_empty_is_refused_in_one_line(elsewhere: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    refused = tukang(elsewhere, "demo", "--keep", str(tmp_path))
    assert refused.returncode != 0
    assert refused.stderr.strip().count("\n") == 0
    assert "not an empty folder" in refused.stderr
