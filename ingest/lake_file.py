"""An object of the lake as a file that can be read in parts, so that a few columns do not cost the whole object."""

from __future__ import annotations

import io
from collections.abc import Callable

import pyarrow as pa

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


def arrow_file(size: int, get: Callable[[int, int], bytes]) -> pa.NativeFile:
    """The object for pyarrow: at once when it is small, in parts when it is not."""
    if size <= WHOLE_BYTES:
        return pa.BufferReader(get(0, size))
    return pa.PythonFile(LakeFile(size, get), mode="r")
