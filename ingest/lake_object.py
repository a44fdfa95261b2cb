"""Objects of the lake, for as long as it takes: written under names never used twice, and read as files in parts, so
that a few columns do not cost the whole object."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa

from ingest.ids import uuid7
from ingest.lake import Lake, Put, patiently

WHOLE_BYTES = 4 << 20  # smaller objects are cheaper to get at once than in parts


class LakeFile(io.RawIOBase):
    """Read-only and seekable; each read is one ranged request, made by `get(start, end)`."""

    def __init__(self, size: int, get: Callable[[int, int], bytes]) -> None:
        self._size = size
        self._get = get
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._size, self._at + size)
        if end <= self._at:
            return b""
        data = self._get(self._at, end)
        self._at += len(data)
        return data


def opened(lake: Lake, url: str, size: int) -> pa.NativeFile:
    """The object for pyarrow: at once when it is small, in parts when it is not. A store that is away is waited for."""
    if size <= WHOLE_BYTES:
        return pa.BufferReader(got(lake, url, 0, size))
    return pa.PythonFile(LakeFile(size, partial(got, lake, url)), mode="r")


def got(lake: Lake, url: str, start: int | None = None, end: int | None = None) -> bytes:
    """An object, or its bytes in [start, end); a store that is away is waited for. Raises `LakeMissing`."""
    for attempt in patiently():
        with attempt:
            data = lake.get(url, start, end)
    return data


def put_new(
    lake: Lake,
    key: Callable[[str], str],
    data: Any,
    sha256: str,
    now_us: Callable[[], int],
    randbits: Callable[[int], int],
) -> Put:
    """Puts an object until it is there; `key` makes its key of a name. Each try has a name of its own: what became of
    the one before is not known, and nothing is ever written over."""
    for attempt in patiently():
        with attempt:
            put = lake.put(key(uuid7(now_us(), randbits)), data, sha256)
    return put
