"""Folders for what upkeep and loaders have on disk while they work. None outlives its process for long, however that
ended.

A folder is held by a lock on itself (flock), which ends with the process that took it. Folders that nobody holds are of
processes that were killed: the next one on the same machine removes them.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "tukang-work-"


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder below the temp folder (TMPDIR), gone at the end."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX))
        held = _held(path)
        if held is not None:  # else somebody took it for one that is left, before it was locked
            break
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(held)


@contextmanager
def scratch_for_all() -> Iterator[None]:
    """Whatever this process puts into the temp folder lies in one that is held, and goes with it."""
    before = tempfile.tempdir
    with scratch() as folder:
        tempfile.tempdir = str(folder)
        try:
            yield
        finally:
            tempfile.tempdir = before


def remove_left() -> list[Path]:
    """Removes the folders of processes that are gone; which."""
    gone = []
    for path in sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*")):
        held = _held(path)
        if held is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(held)
            gone.append(path)
    return gone


def _held(path: Path) -> int | None:
    """Locks a folder of ours. None: it is another's, or gone."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(opened).st_uid == os.geteuid() and os.path.samestat(os.fstat(opened), path.stat()):
            return opened
    except OSError:
        pass  # a process holds it, or removed it meanwhile
    os.close(opened)
    return None
