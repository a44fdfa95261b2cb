"""A part that does not come up says why in one line; nobody survives its owner, however that one ended."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from deploy.part import LOOPBACK, Part, StackError, Ward, clean_environment, free_ports

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEPER!r}])"
OWNER = """
import os, sys, time
from pathlib import Path
from deploy.part import Part, Ward
folder = Path(sys.argv[1])
with Ward(remove=folder) as ward:
    part = Part("parent", [sys.executable, "-c", sys.argv[2]], folder=folder, ready=lambda: True,
                environment=ward.environment)
    part.start()
    while "up" not in part.tail():
        time.sleep(0.02)
    print(ward.mark, flush=True)
    time.sleep(600)
"""


def part(folder: Path, program: str, **options: object) -> Part:
    arguments = {"folder": folder, "ready": lambda: True} | options
    return Part("part", [sys.executable, "-c", program], **arguments)  # type: ignore[arg-type]


def carrying(mark: str) -> list[psutil.Process]:
    every = psutil.process_iter(["environ"])
    return [each for each in every if (each.info["environ"] or {}).get("TUKANG_STACK") == mark]


def wait_until_nobody_carries(mark: str) -> None:
    while carrying(mark):  # the test's own timeout ends this
        time.sleep(0.05)


def test_a_part_that_dies_at_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    dying = part(tmp_path, "import sys; print('no disk left'); sys.exit(3)", ready=lambda: False)
    with pytest.raises(StackError, match="part ended at start with exit code 3") as caught:
        dying.start()
    assert "no disk left" in str(caught.value)
    assert str(tmp_path / "part.log") in str(caught.value)


def test_a_part_that_ends_at_start_without_an_error_is_no_started_part(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="exit code 0"):
        part(tmp_path, "print('bye')", ready=lambda: False).start()


def test_a_part_that_does_not_come_up_is_ended_and_said_so(tmp_path: Path) -> None:
    silent = part(tmp_path, SLEEPER, ready=lambda: False, start_seconds=0.5)
    with pytest.raises(StackError, match="part was not ready after"):
        silent.start()
    assert not silent.alive()


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=f"port {port}, wanted for part, is taken"):
            part(tmp_path, SLEEPER, port=port).start()


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    absent = Part("part", [str(tmp_path / "absent")], folder=tmp_path, ready=lambda: True)
    with pytest.raises(StackError, match=r"the program .*absent.* is not there"):
        absent.start()


def test_ports_that_are_free_differ() -> None:
    assert len(set(free_ports(20))) == 20


def test_settings_of_the_user_do_not_reach_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("TUKANG_CONFIG", "production.toml")
    environment = clean_environment({"TUKANG_API": "embedded"})
    assert "AWS_PROFILE" not in environment
    assert "TUKANG_CONFIG" not in environment
    assert environment["TUKANG_API"] == "embedded"
    assert environment["PATH"] == os.environ["PATH"]


def test_ending_a_part_ends_its_children(tmp_path: Path) -> None:
    with Ward() as ward:
        parent = part(tmp_path, PARENT, environment=ward.environment)
        parent.start()
        while len(carrying(ward.mark)) < 2:
            time.sleep(0.02)
        parent.end()
        wait_until_nobody_carries(ward.mark)


def test_a_part_that_ended_by_itself_tells_its_code_and_leaves_no_child(tmp_path: Path) -> None:
    told = tmp_path / "end"
    orphaning = (
        f"import os, subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {SLEEPER!r}])\n"
        f"while not os.path.exists({str(told)!r}): time.sleep(0.01)\n"
        "sys.exit(4)"
    )
    with Ward() as ward:
        parent = part(
            tmp_path, orphaning, environment=ward.environment, ready=lambda: bool(carrying(ward.mark))
        )
        parent.start()
        told.touch()
        while parent.alive():
            time.sleep(0.02)
        assert parent.end() == 4
        wait_until_nobody_carries(ward.mark)
        assert parent.end() is None


def test_what_its_owner_forgot_is_ended_with_the_ward_and_the_folder_goes(tmp_path: Path) -> None:
    folder = tmp_path / "stack"
    folder.mkdir()
    with Ward(remove=folder) as ward:
        part(folder, PARENT, environment=ward.environment).start()
    assert not carrying(ward.mark)
    assert not folder.exists()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_nobody_survives_an_owner_that_was_killed(tmp_path: Path, how: signal.Signals) -> None:
    folder = tmp_path / "stack"
    folder.mkdir()
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder), PARENT], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    mark = owner.stdout.readline().strip()
    assert len(carrying(mark)) == 2
    owner.send_signal(how)
    owner.wait()
    wait_until_nobody_carries(mark)
    while folder.exists():
        time.sleep(0.05)
    owner.stdout.close()
