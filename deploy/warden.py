"""Ends a stack whose owner is gone.

Run as a program: `warden.py MARK [FOLDER]`. It waits until its standard input closes, which happens when
the owner closes it and also when the owner is killed without a chance to clean up. Then it ends every process
that carries the mark in its environment, and removes FOLDER. Nothing of the project is imported here.
"""

import shutil
import signal
import sys

import psutil

GRACE_SECONDS = 5


def marked(mark: str) -> list[psutil.Process]:
    """Every process whose environment says that it belongs to the stack `mark`."""
    found = psutil.process_iter(["environ"])  # what may not be read comes as None: it is not ours
    return [each for each in found if (each.info["environ"] or {}).get("TUKANG_STACK") == mark]


def end(mark: str) -> None:
    """Ask all to stop, then kill, until nobody is left: a dying process may just have had a child."""
    while processes := marked(mark):
        for process in processes:
            _signal(process, signal.SIGTERM)
        _, stubborn = psutil.wait_procs(processes, timeout=GRACE_SECONDS)
        for process in stubborn:
            _signal(process, signal.SIGKILL)
        psutil.wait_procs(stubborn, timeout=GRACE_SECONDS)


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
