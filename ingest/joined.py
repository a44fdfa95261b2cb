"""Records one after the other in one buffer, a line break after each: what whole pieces are parsed and searched in.

Pure, and made once: taking records out or apart copies bytes, not objects. What the bytes mean is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Rows = npt.NDArray[np.int64]

_WHITE = b" \t\n\r"  # what JSON takes for white space


@dataclass(frozen=True, slots=True)
class Joined:
    """`data[starts[i]:ends[i]]` is record i, and a line break stands at `ends[i]`."""

    data: bytes
    starts: Rows
    ends: Rows

    @classmethod
    def of(cls, values: Sequence[bytes], sizes: Rows) -> Joined:
        """The records (each of its size in bytes), without white space around objects."""
        joined = cls._of(values, sizes)
        wrong = joined.misshapen()
        if not len(wrong):
            return joined
        bare = {row: values[row].strip(_WHITE) for row in wrong.tolist()}
        changed = {row: value for row, value in bare.items() if len(value) != sizes[row]}
        if not changed:
            return joined
        stripped, sizes = list(values), sizes.copy()
        for row, value in changed.items():
            stripped[row], sizes[row] = value, len(value)
        return cls._of(stripped, sizes)

    @classmethod
    def _of(cls, values: Sequence[bytes], sizes: Rows) -> Joined:
        ends = np.cumsum(sizes + 1) - 1
        return cls(b"\n".join(values) + b"\n", ends - sizes, ends)

    def __len__(self) -> int:
        return len(self.starts)

    def misshapen(self) -> Rows:
        """Records that do not begin and end as an object does (an empty one does not), or have a zero byte."""
        data = np.frombuffer(self.data, np.uint8)
        wrong = (data[self.starts] != ord("{")) | (data[self.ends - 1] != ord("}"))
        at = self.data.find(b"\0")
        while at >= 0:
            row = int(np.searchsorted(self.starts, at, "right")) - 1
            wrong[row] = True
            at = self.data.find(b"\0", int(self.ends[row]))
        return np.flatnonzero(wrong)

    def not_utf8(self) -> Rows:
        if self._utf8():
            return np.zeros(0, np.int64)
        high = np.flatnonzero(np.frombuffer(self.data, np.uint8) >= 0x80)
        return np.array([row for row in self.rows_at(high).tolist() if not self._decodes(row)], np.int64)

    def _decodes(self, row: int) -> bool:
        try:
            self.data[self.starts[row] : self.ends[row]].decode()
        except UnicodeDecodeError:
            return False
        return True

    def _utf8(self) -> bool:
        if self.data.isascii():
            return True
        bounds = pa.py_buffer(np.array([0, len(self.data)], np.int64))
        try:
            pa.LargeStringArray.from_buffers(1, bounds, pa.py_buffer(self.data)).validate(full=True)
        except pa.ArrowInvalid:
            return False
        return True

    def rows_at(self, positions: Rows) -> Rows:
        """The rows in which these bytes stand, none twice."""
        if len(positions) > len(self):
            return np.flatnonzero(
                np.diff(np.searchsorted(np.sort(positions), np.append(self.starts, len(self.data))))
            )
        return np.unique(np.searchsorted(self.starts, positions, "right") - 1)

    def rows_with(self, pattern: re.Pattern[bytes]) -> Rows:
        return self.rows_at(self._found(pattern))

    def rows_with_two(self, pattern: re.Pattern[bytes]) -> Rows:
        rows = np.searchsorted(self.starts, self._found(pattern), "right") - 1
        return np.flatnonzero(np.bincount(rows, minlength=len(self)) > 1)

    def _found(self, pattern: re.Pattern[bytes]) -> Rows:
        return np.fromiter(map(re.Match.start, pattern.finditer(self.data)), np.int64)

    def texts(self) -> pa.Array:
        """The records as strings of Arrow, without a copy; a line break at the end of each."""
        bounds = np.append(self.starts, len(self.data)).astype(np.int32)
        return pa.StringArray.from_buffers(len(self), pa.py_buffer(bounds), pa.py_buffer(self.data))

    def only(self, rows: Rows) -> Joined:
        """These records alone."""
        view = memoryview(self.data)
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        first, last = rows[np.append(0, breaks)], rows[np.append(breaks, len(rows)) - 1]
        bounds = zip(self.starts[first].tolist(), (self.ends[last] + 1).tolist(), strict=True)
        data = b"".join([view[begin:end] for begin, end in bounds])
        lengths = (self.ends - self.starts)[rows]
        ends = np.cumsum(lengths + 1) - 1
        return Joined(data, ends - lengths, ends)
