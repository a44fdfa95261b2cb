"""The demo on a terminal, interrupted and killed: whatever happens to it, no process of it stays."""

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from deploy import demo, flights

pytestmark = pytest.mark.slow


class Played:
    """A demo in a process of its own; everything it starts carries `mark` in its environment."""

    def __init__(self, *arguments: str, terminal: bool = False) -> None:
        self.mark = uuid4().hex
        self.said = b""
        ours, theirs = pty.openpty() if terminal else os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tukang", "demo", *arguments],
            env=os.environ
            | {"DEMO_MARK": self.mark, "PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "100"},
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._output = ours

    def read_until(self, text: bytes) -> None:
        while text not in self.said:
            try:
                piece = os.read(self._output, 65536)
            except OSError:  # a terminal whose other end is closed
                piece = b""
            assert piece, f"it ended without {text!r}:\n{self.said.decode()}"
            self.said += piece

    def end(self) -> int:
        """Its exit code; what it said last is added to `said`."""
        while True:
            try:
                piece = os.read(self._output, 65536)
            except OSError:
                break
            if not piece:
                break
            self.said += piece
        return self.process.wait()

    def left(self) -> list[psutil.Process]:
        every = psutil.process_iter(["environ", "status"])
        return [
            each
            for each in every
            if (each.info["environ"] or {}).get("DEMO_MARK") == self.mark and each.pid != self.process.pid
        ]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._output)


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Path]:
    """Where this test's demos make their folders; empty again when they are gone."""
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(tmp_path)
    yield tmp_path
    if before is None:
        del os.environ["TMPDIR"]
    else:
        os.environ["TMPDIR"] = before


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_demo_stops_everything_and_says_so(folders: Path, how: signal.Signals) -> None:
    played = Played()
    try:
        played.read_until(b"a worker")
        assert len(played.left()) >= 5  # broker, store, API, worker, warden
        os.kill(played.process.pid, how)
        os.kill(played.process.pid, how)  # as somebody does who cannot wait
        assert played.end() == 128 + how
        assert "interrupted; everything it started is stopped" in played.said.decode()
        assert not played.left()
        assert not list(folders.iterdir())
    finally:
        played.close()


def test_a_killed_demo_leaves_no_process_and_no_folder(folders: Path) -> None:
    played = Played()
    try:
        played.read_until(b"a worker")
        played.process.kill()
        played.process.wait()
        while played.left() or list(folders.iterdir()):  # the test's own timeout ends this
            time.sleep(0.1)
    finally:
        played.close()


def test_on_a_terminal_it_stays_up_until_ctrl_c_and_ends_complete(folders: Path) -> None:
    played = Played(terminal=True)
    try:
        played.read_until(b"Ctrl-C stops everything")
        (folder,) = folders.glob("tukang-demo-*")
        asked = subprocess.run(
            ["sh", "-c", '. "$0"; exec "$1" -m tukang sql "SELECT count(*) AS n FROM arrivals" --format csv',
             str(folder / "environment"), sys.executable],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=True,
        )  # fmt: skip
        assert asked.stdout.split() == ["n", str(328_063 + flights.EMPTY)]
        os.kill(played.process.pid, signal.SIGINT)
        assert played.end() == 0
        assert (
            played.said.decode().split()[-1].endswith("complete")
        )  # the terminal's own signs may stand before it
        assert not played.left()
        assert not list(folders.iterdir())
    finally:
        played.close()


def test_the_demo_believes_the_earliest_flight_and_remembers_the_latest() -> None:
    """Its settings follow from the data: nobody arrived more than 86 minutes early, or a day late."""
    assert (demo.SETTINGS["max_ahead"], demo.SETTINGS["dedup_window"]) == ("2h", "2d")
    ahead = []
    for table in flights.happened().values():
        found = pc.extract_regex(table["value"].cast(pa.string()), '"scheduled":"(?P<time>[^"]+)Z"')
        scheduled = pc.struct_field(found, "time").cast(pa.timestamp("ms")).cast(pa.int64())
        ahead.append(pc.min_max(pc.subtract(scheduled, table["timestamp"])).as_py())
    assert max(each["max"] for each in ahead) == 86 * 60_000
    assert min(each["min"] for each in ahead) > -24 * 3_600_000
