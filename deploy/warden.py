"""Ends a stack whose owner is gone.

Run as a program: `warden.py MARK [FOLDER]`. It waits until its standard input closes, which happens when
the owner closes it and also when the owner is killed without a chance to clean up. Then it ends every process
that carries the mark in its environment, and removes FOLDER, and what these processes say in TUKANG_LEAVES that they
leave elsewhere. Nothing of the project is imported here.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import psutil

GRACE_SECONDS = 5


def marked(mark: str) -> list[psutil.Process]:
    """Every process whose environment says that it belongs to the stack `mark`."""
    found = psutil.process_iter(["environ"])  # what may not be read comes as None: it is not ours
    return [each for each in found if (each.info["environ"] or {}).get("TUKANG_STACK") == mark]


def leaves(process: psutil.Process) -> list[Path]:
    """Files that a process of the stack leaves behind when it is killed, as its environment says."""
    said = (process.info["environ"] or {}).get("TUKANG_LEAVES", "")
    return [Path(each) for each in said.split(os.pathsep) if each]


def end(mark: str) -> None:
    """Ask all to stop, then kill, until nobody is left: a dying process may just have had a child."""
    left: set[Path] = set()
    while processes := marked(mark):
        left.update(path for each in processes for path in leaves(each))
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in processes:
                _signal(process, number)
            deadline = time.monotonic() + GRACE_SECONDS
            while (processes := [each for each in processes if _lives(each)]) and time.monotonic() < deadline:
                time.sleep(0.02)
    for path in left:
        path.unlink(missing_ok=True)


def _lives(process: psutil.Process) -> bool:
    """A zombie does not: it waits for its parent to look at it, which may be the owner that waits for us."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return  # it went by itself between the look and the signal


if __name__ == "__main__":
    sys.stdin.buffer.read()
    end(sys.argv[1])
    if len(sys.argv) > 2:
        shutil.rmtree(sys.argv[2], ignore_errors=True)
