"""Duplicates: which rows of one lake partition carry an event id that was seen within the window.

Here lives the rule, as an order of rows and nothing else: the first copy wins. No I/O and no clock may live here,
and nothing that is shared between lake partitions.

The rule, row by row in order of offset. A row without an id is never a duplicate. Else it is compared with the rows
remembered under the same id, byte for byte:

1. none is remembered: it is kept and remembered;
2. the id floods (more than `FLOOD` differing copies within this row's event-time hour): it is kept, not remembered;
3. one with the same bytes is near: a duplicate, dropped. *Near* is at most the window away in event time; a row
   whose time stands in for a missing one is near to everything, and everything to it;
4. one whose bytes are not known (it was loaded from the lake) is near: a duplicate, dropped, never counted differing;
5. only such with other bytes are near: differing; dropped and counted as a duplicate too, or, with
   `on_differing="keep"`, kept and remembered;
6. none is near: kept and remembered, a further copy.

What counts towards a flood: rows of 5 and 6, and of 4 where two copies of the same loaded row differ from each other.
Memory goes by whole hours of event time. It answers for no time before `window_from_us`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.id_table import PIECE, Bools, Flags, IdTable, Longs, binary

HOUR_US = 3_600_000_000
FLOOD = 1_000

OnDiffering = Literal["drop", "keep"]

_STOOD_IN = 1  # the row's time is not the event's own
_UNKNOWN = 2  # the row's bytes are not known
_WITNESSED = 4  # unknown, but the bytes of one copy of it are: they stand in the row's content


@dataclass(slots=True)
class Verdict:
    """What became of the rows of one call; `keep` is parallel to them."""

    keep: npt.NDArray[np.bool_]
    duplicates: int = 0  # dropped
    differing: int = 0  # of these, with other bytes than every near copy
    kept_differing: int = 0  # kept all the same: by `on_differing="keep"` or for a flood
    flooding: list[str] = field(default_factory=list)  # ids of which rows were kept for a flood: an alarm


class Seen:
    """The event ids of one lake partition within the window.

    For one thread at a time. Beyond about 50 bytes per id and its text nothing grows with the ids, and a look-up does
    not grow with the hours of the window.
    """

    def __init__(self, window_us: int, *, budget_bytes: int | None = None) -> None:
        self.window_us = window_us
        self.budget_bytes = budget_bytes
        self._table = IdTable()
        self._copies: dict[tuple[bytes, int], int] = {}  # (id, hour): what counts towards a flood
        self._flooded: set[int] = set()  # hashes of ids that flood
        self._forgotten_us: int | None = None  # `forget` came so far
        self._cut_us: int | None = None  # the budget cut so far

    def __len__(self) -> int:
        """Rows in memory, those counted that are forgotten and not yet cleared away."""
        return self._table.rows

    @property
    def nbytes(self) -> int:
        return self._table.nbytes + 250 * len(self._copies)

    @property
    def window_from_us(self) -> int | None:
        """Where the budget cut the window short: event times before this are not known. None: nothing is missing."""
        if self._cut_us is None or (self._forgotten_us is not None and self._cut_us <= self._forgotten_us):
            return None
        return self._cut_us

    def sift(
        self,
        ids: pa.Array[Any] | pa.ChunkedArray[Any],
        times_us: Longs,
        stood_in: Bools,
        content: Longs,
        *,
        on_differing: OnDiffering = "drop",
    ) -> Verdict:
        """Judges rows in order of offset and remembers what it keeps.

        `ids` are strings or null; `times_us`, `stood_in` and `content` are parallel to them: event time, whether it
        stands in for a missing one, and a hash of the record's value (equal bytes, equal hash).
        """
        verdict = Verdict(np.ones(len(ids), np.bool_))
        for rows, texts in _pieces(ids):
            flags = np.where(stood_in[rows], _STOOD_IN, 0).astype(np.uint8)
            piece = _Piece(texts, times_us[rows], content[rows], flags)
            self._sift_piece(piece, on_differing, verdict)
            verdict.keep[rows] = piece.keep
        verdict.flooding.sort()
        self._keep_to_budget()
        return verdict

    def load(self, ids: pa.Array[Any] | pa.ChunkedArray[Any], times_us: Longs, stood_in: Bools) -> None:
        """Remembers rows that are in the lake, before anything is sifted; their bytes are not known.

        Further copies of an id count towards a flood: that is how they came into the lake.
        """
        for rows, texts in _pieces(ids):
            flags = np.where(stood_in[rows], _STOOD_IN | _UNKNOWN, _UNKNOWN).astype(np.uint8)
            piece = _Piece(texts, times_us[rows], np.zeros(len(texts), np.int64), flags)
            hashes, met = self._table.add(piece.texts, piece.times, piece.contents, piece.flags)
            again = np.flatnonzero(met >= 0)
            columns = (again, met[again], piece.times[again], piece.flags[again], hashes[again])
            known = zip(
                _bytes(piece.texts.take(again)), *(column.tolist() for column in columns), strict=True
            )
            for text, i, first, time, its_flags, hashed in known:
                row = _Row(text, i, first, False, time, 0, its_flags, hashed)
                if self._living(row) and self._count_copy(text, hashed, time):
                    piece.remember[i] = False
                else:
                    self._table.add_other(hashed, self._table.settled + i)
            self._table.settle(piece.remember)
        self._keep_to_budget()

    def forget(self, before_us: int) -> None:
        """Drops the hours that end at or before `before_us` (watermark less window); never goes back."""
        horizon_us = before_us // HOUR_US * HOUR_US
        if self._forgotten_us is not None and horizon_us < self._forgotten_us:
            return
        self._forgotten_us = horizon_us
        self._table.bury(horizon_us)
        self._forget_copies(horizon_us // HOUR_US)

    def shed(self, to_bytes: int) -> None:
        """Drops the oldest hours until at most `to_bytes` are held; of a single hour the half that came first."""
        while self.nbytes > to_bytes and self._table.rows:
            hours = self._table.times // HOUR_US
            names, sizes = np.unique(hours, return_counts=True)
            if len(names) == 1:
                alive = np.arange(self._table.rows) >= (self._table.rows + 1) // 2
                cut = int(names[0]) + 1
            else:
                excess = self._table.rows * (1 - to_bytes / self.nbytes)
                gone = min(int(np.searchsorted(np.cumsum(sizes), excess)) + 1, len(names) - 1)
                alive = hours >= names[gone]
                cut = int(names[gone - 1]) + 1
            self._table.compact(alive & ~self._table.gone(np.arange(self._table.rows)))
            self._cut_us = max(cut * HOUR_US, self._cut_us or cut * HOUR_US)
            self._forget_copies(cut)

    def _keep_to_budget(self) -> None:
        if self.budget_bytes is not None and self.nbytes > self.budget_bytes:
            self.shed(self.budget_bytes * 7 // 8)  # an eighth more than needed, so that it is rare

    def _sift_piece(self, piece: _Piece, on_differing: OnDiffering, verdict: Verdict) -> None:
        table = self._table
        hashes, met = table.add(piece.texts, piece.times, piece.contents, piece.flags)
        again = np.flatnonzero(met >= 0)
        if not len(again):
            table.settle(piece.remember)
            return
        first, contents = met[again], piece.contents[again]
        texts = piece.texts.take(again)
        alive = table.same_text(first, texts) & ~table.gone(first)
        near = alive & self._near(first, piece.times[again], piece.flags[again])
        if not self._flooded and not table.any_others:
            self._witness_all(first, near, contents)
        known = (table.flags[first] & (_UNKNOWN | _WITNESSED)) != _UNKNOWN
        plain = near & known & (table.contents[first] == contents)
        if self._flooded:
            plain &= ~np.isin(hashes[again], np.fromiter(self._flooded, np.int64, len(self._flooded)))
        if not plain.all():
            plain &= ~np.isin(first, first[~plain])  # rows of one id are judged in their order
        piece.keep[again[plain]] = False
        verdict.duplicates += int(np.count_nonzero(plain))
        rest = np.flatnonzero(~plain)
        columns = (again, first, alive, piece.times[again], contents, piece.flags[again], hashes[again])
        for text, *row in zip(
            _bytes(texts.take(rest)), *(column[rest].tolist() for column in columns), strict=True
        ):
            self._judge(_Row(text, *row), piece, on_differing, verdict)
        piece.remember &= piece.keep
        table.settle(piece.remember)

    def _judge(self, row: _Row, piece: _Piece, on_differing: OnDiffering, verdict: Verdict) -> None:
        """Judges one row by the rule at the head of this file."""
        table, i = self._table, row.number
        copies = [row.met] if row.alive and table.others(row.hashed) is None else self._living(row)
        if not copies:
            table.add_other(row.hashed, table.settled + i)
            return
        if self._copies.get((row.text, row.time // HOUR_US), 0) > FLOOD:
            self._keep_flooding(row, piece, verdict)
            return
        any_near = same = False
        unknown: int | None = None
        columns = (table.times, table.flags, table.contents)
        known = zip(copies, *(column[copies].tolist() for column in columns), strict=True)
        for copy, time, flags, content in known:
            if abs(time - row.time) <= self.window_us or (flags | row.flags) & _STOOD_IN:
                any_near = True
                if not flags & _UNKNOWN:
                    same = same or content == row.content
                elif unknown is None:
                    unknown = copy
        if same or (unknown is not None and self._witness(unknown, row.content)):
            piece.keep[i] = False
            verdict.duplicates += 1
        elif self._count_copy(row.text, row.hashed, row.time):
            self._keep_flooding(row, piece, verdict)
        elif not any_near:
            table.add_other(row.hashed, table.settled + i)
        elif on_differing == "drop" or unknown is not None:
            piece.keep[i] = False
            verdict.duplicates += 1
            verdict.differing += unknown is None
        else:
            table.add_other(row.hashed, table.settled + i)
            verdict.kept_differing += 1

    def _near(self, rows: Longs, times: Any, flags: Any) -> Bools:
        apart = np.abs(self._table.times[rows] - times)
        near: Bools = (apart <= self.window_us) | (((self._table.flags[rows] | flags) & _STOOD_IN) != 0)
        return near

    def _living(self, row: _Row) -> list[int]:
        """The rows remembered under an id, in order; their text is compared, the hash is only a hint."""
        rows = np.array([row.met, *(self._table.others(row.hashed) or ())], np.int64)
        rows = rows[~self._table.gone(rows)]
        if len(rows) < 8:
            return [each for each in rows.tolist() if self._table.text(each) == row.text]
        return cast(
            list[int], rows[self._table.same_text(rows, pa.scalar(row.text, pa.large_binary()))].tolist()
        )

    def _witness(self, row: int, content: int) -> bool:
        """Takes note of a copy of a row whose bytes are not known; False if an earlier copy had other bytes."""
        if self._table.flags[row] & _WITNESSED:
            return int(self._table.contents[row]) == content
        self._table.mark(row, content, _WITNESSED)
        return True

    def _witness_all(self, first: Longs, near: Bools, contents: Longs) -> None:
        """The same for many rows, of which none has a further copy: the first to meet a row speaks for it."""
        new = near & ((self._table.flags[first] & (_UNKNOWN | _WITNESSED)) == _UNKNOWN)
        if not near.all():
            new &= ~np.isin(first, first[~near])
        if new.any():
            rows, at = np.unique(first[new], return_index=True)
            self._table.mark(rows, contents[new][at], _WITNESSED)

    def _count_copy(self, text: bytes, hashed: int, time: int) -> bool:
        """Counts a copy towards a flood of its id; True if it floods."""
        key = (text, time // HOUR_US)
        self._copies[key] = count = self._copies.get(key, 0) + 1
        if count > FLOOD:
            self._flooded.add(hashed)
        return count > FLOOD

    def _forget_copies(self, before_hour: int) -> None:
        if self._copies:
            self._copies = {key: count for key, count in self._copies.items() if key[1] >= before_hour}
            self._flooded = {hash(text) for (text, _), count in self._copies.items() if count > FLOOD}

    @staticmethod
    def _keep_flooding(row: _Row, piece: _Piece, verdict: Verdict) -> None:
        piece.remember[row.number] = False
        verdict.kept_differing += 1
        text = row.text.decode("utf-8", "replace")
        if text not in verdict.flooding:
            verdict.flooding.append(text)


@dataclass(slots=True)
class _Row:
    """A row that meets another with the same hash and is judged alone."""

    text: bytes
    number: int  # in its piece
    met: int  # in the table
    alive: bool  # what it meets has the same text and is not gone
    time: int
    content: int
    flags: int
    hashed: int


class _Piece:
    """Rows with an id, at most `PIECE` of them."""

    __slots__ = ("contents", "flags", "keep", "remember", "texts", "times")

    def __init__(self, texts: pa.LargeBinaryArray, times: Longs, contents: Longs, flags: Flags) -> None:
        self.texts = texts
        self.times = times
        self.contents = contents
        self.flags = flags
        self.keep = np.ones(len(texts), np.bool_)
        self.remember = np.ones(len(texts), np.bool_)


def _pieces(ids: pa.Array[Any] | pa.ChunkedArray[Any]) -> list[tuple[Any, pa.LargeBinaryArray]]:
    """The rows that have an id, in pieces: an index into the parallel arrays, and the ids."""
    texts = binary(ids)
    if texts.null_count:
        rows = np.flatnonzero(texts.is_valid().to_numpy(zero_copy_only=False))
        texts = texts.drop_null()
        return [(rows[at : at + PIECE], texts.slice(at, PIECE)) for at in range(0, len(rows), PIECE)]
    return [(slice(at, at + PIECE), texts.slice(at, PIECE)) for at in range(0, len(texts), PIECE)]


def _bytes(texts: pa.LargeBinaryArray) -> list[bytes]:
    """Ids without nulls as Python objects: for the few rows that are judged one by one."""
    return cast(list[bytes], texts.to_pylist())
