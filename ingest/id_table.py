"""Event ids by number: texts, what is known of each, and an index by hash.

Here lives one table of ids in memory: rows in the order in which they came, numbered from 0, and an open-addressing
index from the hash of an id to its first row. No rule of what a duplicate is may live here (`dedup.py`), no I/O, no
clock.

A row costs 33 bytes, its text, and 8 to 16 bytes of index. Everything is done for many rows at once, in numpy and
Arrow, which release the GIL; only the hashing holds it.
"""

from __future__ import annotations

from array import array
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Longs = npt.NDArray[np.int64]
Flags = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

PIECE = 1 << 16  # rows that enter at once: bounds the temporary arrays
_SMALLEST_INDEX = 1 << 6
_ROW_BYTES = 8 + 8 + 8 + 8 + 1


def binary(ids: pa.Array[Any] | pa.ChunkedArray[Any]) -> pa.LargeBinaryArray:
    """Returns the ids as one array of bytes with 64-bit offsets."""
    if isinstance(ids, pa.ChunkedArray):
        ids = ids.combine_chunks()
    return cast(
        pa.LargeBinaryArray, ids if pa.types.is_large_binary(ids.type) else ids.cast(pa.large_binary())
    )


class IdTable:
    """Ids and what is known of each row: `times`, `contents`, `flags`, all of `rows` entries.

    Rows enter in two steps. `add` enters all rows of a call for the time being and says which of them meet a row with
    the same hash; `settle` says which stay, and numbers those anew. Between the two, numbers at or above `settled`
    are provisional.
    """

    def __init__(self) -> None:
        self.settled = 0
        self.rows = 0
        self.text_bytes = 0
        self._hashes: Longs = np.zeros(0, np.int64)
        self._times: Longs = np.zeros(0, np.int64)
        self._contents: Longs = np.zeros(0, np.int64)
        self._starts: Longs = np.zeros(1, np.int64)
        self._flags: Flags = np.zeros(0, np.uint8)
        self._text: Flags = np.zeros(0, np.uint8)
        self._index = np.zeros(_SMALLEST_INDEX, np.uint32)  # number of the row plus one, 0: free
        self._used = 0  # slots of the index that are not free
        self._others: dict[int, array[int]] = {}  # hash: further rows than the first, in order
        self._unsettled: dict[
            int, int
        ] = {}  # hash: how many of its further rows were settled before this call
        self._claimed: tuple[Longs, Longs] = (np.zeros(0, np.int64), np.zeros(0, np.int64))
        self._buried = 0  # rows before this number ...
        self._buried_before = 0  # ... with a time before this one are gone

    @property
    def times(self) -> Longs:
        return self._times[: self.rows]

    @property
    def contents(self) -> Longs:
        return self._contents[: self.rows]

    @property
    def flags(self) -> Flags:
        return self._flags[: self.rows]

    @property
    def nbytes(self) -> int:
        arrays = (
            self._hashes,
            self._times,
            self._contents,
            self._starts,
            self._flags,
            self._text,
            self._index,
        )
        return sum(each.nbytes for each in arrays) + sum(
            200 + 8 * len(each) for each in self._others.values()
        )

    def bury(self, before: int) -> None:
        """Rows that are here now and whose time is before `before` are gone; their memory comes back later."""
        self._buried, self._buried_before = self.settled, before
        gone = int(np.count_nonzero(self.times < before))
        if 4 * gone > self.rows:
            self.compact(~self.gone(np.arange(self.rows)))

    def gone(self, rows: Longs) -> Bools:
        """Which of these rows are buried."""
        return (rows < self._buried) & (self._times[rows] < self._buried_before)

    def add(
        self, ids: pa.LargeBinaryArray, times: Longs, contents: Longs, flags: Flags
    ) -> tuple[Longs, Longs]:
        """Enters rows (at most `PIECE`, no nulls) and returns their hashes and, for each, the row it meets or -1.

        The row it meets is the first with the same hash, of before or of this call: its text is to be compared, and
        it may be gone. A row that meets none stands in the index from now on and must be kept at `settle`.
        """
        count = len(ids)
        hashes = np.fromiter(map(hash, ids.to_pylist()), np.int64, count)
        self._make_room(count)
        first = self.settled
        self._write_text(ids, first)
        self._hashes[first : first + count] = hashes
        self._times[first : first + count] = times
        self._contents[first : first + count] = contents
        self._flags[first : first + count] = flags
        self.rows = first + count
        met, slots = self._claim(hashes, first)
        mine = np.flatnonzero(met < 0)
        self._claimed = (mine, slots[mine])
        return hashes, met

    def others(self, hashed: int) -> array[int] | None:
        """Rows with that hash beyond the first one, in order."""
        return self._others.get(hashed)

    def add_other(self, hashed: int, row: int) -> None:
        """Remembers a provisional row beside the first of the same hash; it must be kept at `settle`."""
        rows = self._others.setdefault(hashed, array("q"))
        self._unsettled.setdefault(hashed, len(rows))
        rows.append(row)

    @property
    def any_others(self) -> bool:
        return bool(self._others)

    def settle(self, keep: Bools) -> None:
        """Ends what `add` began: rows without `keep` never were here, the others are numbered without gaps."""
        first, count = self.settled, len(keep)
        kept = int(np.count_nonzero(keep))
        if kept < count:
            numbers = first + np.cumsum(keep) - 1
            mine, slots = self._claimed
            self._index[slots] = numbers[mine] + 1
            for hashed, before in self._unsettled.items():
                rows = self._others[hashed]
                for i in range(before, len(rows)):
                    rows[i] = int(numbers[rows[i] - first])
            texts = self._texts().slice(first, count).filter(pa.array(keep))
            for column in (self._hashes, self._times, self._contents, self._flags):
                column[first : first + kept] = column[first : first + count][keep]
            self._write_text(texts, first)
            self.rows = first + kept
        self.settled = self.rows
        self._unsettled.clear()

    def same_text(self, rows: Longs, ids: pa.LargeBinaryArray | pa.LargeBinaryScalar) -> Bools:
        """Compares byte for byte: row `rows[i]` with `ids[i]`, or all of them with one id."""
        if not len(rows):
            return np.zeros(0, np.bool_)
        equal = pc.equal(self._texts().take(rows), ids)
        return np.asarray(equal.to_numpy(zero_copy_only=False), dtype=np.bool_)

    def text(self, row: int) -> bytes:
        return self._text[self._starts[row] : self._starts[row + 1]].tobytes()

    def mark(self, rows: Longs | int, contents: Longs | int, flag: int) -> None:
        """Sets the content of rows, and a flag."""
        self._contents[rows] = contents
        self._flags[rows] |= flag

    def compact(self, alive: Bools) -> None:
        """Forgets all rows without `alive` and gives their memory back; rows are numbered anew, in the same order."""
        rows = np.flatnonzero(alive)
        texts = self._texts().filter(pa.array(alive))
        size = int(np.asarray(texts.buffers()[1]).view(np.int64)[-1]) if len(rows) else 0
        for name in ("_hashes", "_times", "_contents", "_flags"):
            setattr(self, name, getattr(self, name)[rows])
        self._starts = np.zeros(len(rows) + 1, np.int64)
        self._text = np.zeros(size, np.uint8)
        self.rows = self.settled = len(rows)
        if len(rows):
            self._write_text(texts, 0)
        self.text_bytes = size
        self._buried = 0
        self._rebuild_index(len(rows))

    def _texts(self) -> pa.LargeBinaryArray:
        """A view on the texts of all rows; not to be held while rows enter."""
        starts: Any = self._starts[: self.rows + 1]
        text: Any = self._text
        buffers = [None, pa.py_buffer(starts), pa.py_buffer(text)]
        return cast(pa.LargeBinaryArray, pa.Array.from_buffers(pa.large_binary(), self.rows, buffers))

    def _write_text(self, ids: pa.LargeBinaryArray, first: int) -> None:
        """Writes texts behind those of the rows before `first`."""
        count = len(ids)
        buffers: list[Any] = ids.buffers()
        _, offsets, data = buffers
        starts = np.frombuffer(offsets, np.int64)[ids.offset : ids.offset + count + 1]
        begin, size = int(starts[0]), int(starts[-1] - starts[0])
        at = int(self._starts[first])
        self._text = _grown(self._text, at + size)
        if size:
            self._text[at : at + size] = np.frombuffer(data, np.uint8)[begin : begin + size]
        self._starts[first + 1 : first + 1 + count] = starts[1:] - begin + at
        self.text_bytes = at + size

    def _make_room(self, count: int) -> None:
        if 2 * (self._used + count) > len(self._index):
            gone = self.gone(np.arange(self.rows))
            if gone.any():  # else a buried row would take the place of a living one with the same hash
                self.compact(~gone)
            self._rebuild_index(self._used + count)
        needed = self.settled + count
        self._hashes = _grown(self._hashes, needed)
        self._times = _grown(self._times, needed)
        self._contents = _grown(self._contents, needed)
        self._flags = _grown(self._flags, needed)
        self._starts = _grown(self._starts, needed + 1)

    def _rebuild_index(self, expected: int) -> None:
        """Makes the index anew for so many rows, less than half full; dead rows stand in it until `compact`."""
        slots = _SMALLEST_INDEX
        while slots < 2 * expected:
            slots *= 2
        self._index = np.zeros(slots, np.uint32)
        self._used = 0
        self._others = {}
        for first in range(0, self.settled, PIECE):
            hashes = self._hashes[first : min(first + PIECE, self.settled)]
            met, _ = self._claim(hashes, first)
            for i in np.flatnonzero(met >= 0).tolist():
                self._others.setdefault(int(hashes[i]), array("q")).append(first + i)

    def _claim(self, hashes: Longs, first: int) -> tuple[Longs, Longs]:
        """Finds each hash in the index or takes a free slot for it; of equal ones the first row takes it."""
        index, last = self._index, len(self._index) - 1
        shift = np.uint64(64 - last.bit_length())
        slots = (hashes.view(np.uint64) >> shift).astype(np.int64)
        met = np.full(len(hashes), -1, np.int64)
        todo = np.arange(len(hashes))
        while len(todo):
            at = slots[todo]
            held = index[at].astype(np.int64) - 1
            free = held < 0
            may_take = free
            if self._buried and not self._others:
                may_take = free | (self._hashes[held] == hashes[todo]) & self.gone(held)
            # numpy lets the last of repeated slots win; turned round, that is the first row.
            index[at[may_take][::-1]] = (first + 1 + todo[may_take])[::-1]
            here = index[at].astype(np.int64) - 1
            mine = here == first + todo
            self._used += int(np.count_nonzero(mine & free))
            rest = np.flatnonzero(~mine)
            todo, here = todo[rest], here[rest]
            equal = self._hashes[here] == hashes[todo]
            met[todo[equal]] = here[equal]
            todo = todo[~equal]
            slots[todo] = (slots[todo] + 1) & last
        return met, slots


def _grown(column: Any, needed: int) -> Any:
    """The same entries with room for `needed`; doubles, so that copying stays rare."""
    if needed <= len(column):
        return column
    grown = np.empty(max(needed, 2 * len(column), 16), column.dtype)  # what is not written takes no memory
    grown[: len(column)] = column
    return grown
