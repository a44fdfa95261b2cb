"""Bytes of records to columns of events: the seam by content type.

Pure. JSON is read here; another format adds a function of the same shape (`Read`), a line in `READERS`, and nothing
else: what it gives, `Parsed`, is all that the later steps know. Pieces go the fast way; only those that it refuses, and
the rows that it doubts, are read record by record, and only what the schema has no place for is learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.chunk import Records
from ingest.columns import event_schema
from ingest.dead_letters import Letter, Unreadable
from ingest.declared import Declared
from ingest.fast import FastParser, Refused
from ingest.joined import Joined
from ingest.learn import Limits, learn
from ingest.place import Placer, Row, Unplaced
from ingest.schema import TopicSchema, with_text
from ingest.shape import VARIANTS, Variant
from ingest.strict import Reader
from ingest.triage import EARLY, Suspects, suspects

BLOCK = 4_000  # records that are tried at once when some in the chunk are wrong
REMEMBERED = 50  # chunks
PIECE = 1_000  # records that go the slow way together
PIECE_BYTES = 32_000_000
SLOW = 200  # records read one by one before they become arrays: what a core's own cache takes
ROUNDS = 16  # attempts to take out the records that stop a piece
FEW = 100  # records to learn from before others are tried
MOST_VARIED = 3  # fields of another kind at once

Indexes = npt.NDArray[np.int64]
Find = Callable[[Joined], Indexes]


@dataclass(frozen=True, slots=True)
class Parsed:
    """Columns as in `event_schema(schema)`; row j is record `at[j]`. The other records are `letters`.

    `event` reads one record of them again, as a value of `ingest.values`: for what stands in a column as text.
    """

    columns: list[pa.Array]
    at: Indexes
    schema: TopicSchema
    letters: list[Letter]
    event: Callable[[bytes], Any]


# (records, indexes of those that are events, size of every value, lake partition, schema, limits, declared)
Read = Callable[[Records, Indexes, Indexes, int, TopicSchema, Limits, Declared], Parsed]


@dataclass(slots=True)
class _Part:
    columns: list[pa.Array]
    at: Indexes
    schema: TopicSchema
    fast: bool


def read_json(
    records: Records,
    events: Indexes,
    sizes: Indexes,
    lake_partition: int,
    schema: TopicSchema,
    limits: Limits,
    declared: Declared,
) -> Parsed:
    """Reads the records `events` as JSON. `sizes`: of every record's value, in bytes."""
    reading = _Reading(records, sizes, lake_partition, schema, limits, declared)
    reading.read(events)
    return reading.finished()


READERS: Mapping[str, Read] = {"json": read_json}


class _Reading:
    """One chunk on its way to columns."""

    def __init__(
        self,
        records: Records,
        sizes: Indexes,
        lake_partition: int,
        schema: TopicSchema,
        limits: Limits,
        declared: Declared,
    ) -> None:
        self._records = records
        self._sizes = sizes
        self._lake_partition = lake_partition
        self._schema = schema
        self._limits = limits
        self._declared = declared
        self._reader = Reader()
        self._parts: list[_Part] = []
        self._letters: list[Letter] = []

    def read(self, events: Indexes) -> None:
        for piece in self._cut(events):
            joined = Joined.of(self._values(piece), self._sizes[piece])
            for name, find in EARLY.items():
                piece, joined = self._early(name, find, piece, joined)
            self._read_piece(piece, joined, {})

    def _early(self, name: str, find: Find, piece: Indexes, joined: Joined) -> tuple[Indexes, Joined]:
        """Takes out what lately stopped pieces only after all of them was parsed."""
        memo = self._schema.memo
        if not memo.get(name):
            return piece, joined
        rows = find(joined)
        memo[name] = REMEMBERED if len(rows) else memo[name] - 1
        if not 0 < len(rows) < len(piece) // 3:
            return piece, joined
        self._slow(piece[rows])
        return _without(piece, joined, rows)

    def finished(self) -> Parsed:
        """Everything in the widest schema: what was read by an earlier one is read again, since a place that was not
        there yet may be there now."""
        while stale := [part for part in self._parts if part.schema is not self._schema]:
            self._parts = [part for part in self._parts if part.schema is self._schema]
            again = [part.at for part in stale if part.fast]
            if again:
                self.read(np.sort(np.concatenate(again)))
            for part in stale:
                if not part.fast:
                    self._slow(part.at)
        wanted = event_schema(self._schema)
        at = [part.at for part in self._parts]
        read = self._reader.read
        if len(at) == 1:
            return Parsed(self._parts[0].columns, at[0], self._schema, self._letters, read)
        if not at:
            empty = [pa.nulls(0, field.type) for field in wanted]
            return Parsed(empty, np.zeros(0, np.int64), self._schema, self._letters, read)
        columns = [pa.concat_arrays([part.columns[i] for part in self._parts]) for i in range(len(wanted))]
        return Parsed(columns, np.concatenate(at), self._schema, self._letters, read)

    def _read_piece(self, piece: Indexes, joined: Joined, variant: Variant) -> None:
        """All at once, less the records that seem to be why that does not go; those apart. When that does not help,
        in smaller pieces, and record by record only those that fail again."""
        for _ in range(ROUNDS):
            refused = self._fast(piece, joined, variant)
            if refused is None:
                return
            suspected = suspects(joined, refused)
            if suspected is None:
                break
            if suspected.late:
                self._schema.memo[suspected.late] = REMEMBERED
            before, rows = self._schema, suspected.rows
            other = self._variant(variant, suspected)
            if other is not None and len(rows) > FEW:
                self._read_piece(piece[rows], joined.only(rows), other)
            else:
                # A few first: when they teach what was missing, the others may go the fast way.
                self._slow(piece[rows[:FEW]])
                if self._schema is before:
                    self._slow(piece[rows[FEW:]])
                else:
                    rows = rows[:FEW]
            piece, joined = _without(piece, joined, rows)
            if not len(piece):
                return
            if refused.why not in ("shape", "utf8") and len(piece) > BLOCK:  # not again all of it for nothing
                for start in range(0, len(piece), BLOCK):
                    rows = np.arange(start, min(start + BLOCK, len(piece)))
                    self._read_piece(piece[rows], joined.only(rows), variant)
                return
        for start in range(0, len(piece), PIECE):
            rows = np.arange(start, min(start + PIECE, len(piece)))
            if self._fast(piece[rows], joined.only(rows), {}) is not None:
                self._slow(piece[rows])

    def _variant(self, variant: Variant, suspected: Suspects) -> Variant | None:
        """The variant in which one more field has another kind, if that can be read at once."""
        if suspected.kind not in VARIANTS or suspected.path in variant or len(variant) >= MOST_VARIED:
            return None
        own = self._schema.root
        for name in suspected.path:
            if own.kind != "struct" or name not in own.fields:
                return None
            own = own.fields[name]
        if (
            own.sibling is None
            or own.declaration is not None
            or own.kind == suspected.kind
            or own.kind == "json"
        ):
            return None
        return {**variant, suspected.path: suspected.kind}

    def _cut(self, events: Indexes) -> list[Indexes]:
        """Pieces of about PIECE_BYTES at most."""
        if not len(events):
            return []
        sizes = self._sizes[events]
        ends = np.flatnonzero(np.diff(np.cumsum(sizes) // PIECE_BYTES)) + 1
        return np.split(events, ends) if len(ends) else [events]

    def _values(self, piece: Indexes) -> Any:
        values = self._records.values
        return values if len(piece) == len(values) else [values[i] for i in piece.tolist()]

    def _fast(self, piece: Indexes, joined: Joined, variant: Variant) -> Refused | None:
        parsed = self._parser(variant).parse(joined)
        if isinstance(parsed, Refused):
            return parsed
        if not len(parsed.doubtful):
            self._parts.append(_Part(parsed.columns, piece, self._schema, True))
            return None
        # The rows that are sure stay; the others are read one by one.
        sure = np.ones(len(piece), bool)
        sure[parsed.doubtful] = False
        mask = pa.array(sure)
        columns = [column.filter(mask) for column in parsed.columns]
        self._parts.append(_Part(columns, piece[sure], self._schema, True))
        self._slow(piece[~sure])
        return None

    def _slow(self, piece: Indexes) -> None:
        for start in range(0, len(piece), SLOW):
            self._one_by_one(piece[start : start + SLOW])

    def _one_by_one(self, piece: Indexes) -> None:
        read = self._reader.read
        events, at = [], []
        for index, value in zip(piece.tolist(), self._values(piece), strict=True):
            try:
                events.append(read(value))
            except Unreadable as why:
                self._letters.append(Letter(index, why.reason, why.text, why.at))
            else:
                at.append(index)
        if not at:
            return
        placer, rows = self._placed(events, at)
        self._parts.append(_Part(placer.columns(rows), np.array(at, np.int64), self._schema, False))

    def _placed(self, events: list[Any], at: list[int]) -> tuple[Placer, list[Row]]:
        while True:
            placer = self._placer()
            try:
                return placer, placer.rows(events)
            except Unplaced:
                before = self._schema
                self._learn(at, events)
                if self._schema is before:
                    return self._placed_apart(events)

    def _placed_apart(self, events: list[Any]) -> tuple[Placer, list[Row]]:
        """Learning did not help, which must not happen. No record may stop a topic: such a one is kept as text."""
        self._schema = replace(self._schema, root=with_text(self._schema.root, "unplaced"))
        placer = self._placer()
        rows = []
        for event in events:
            try:
                rows.append(placer.row(event))
            except Unplaced:
                rows.append(placer.row_of_text(event))
        return placer, rows

    def _learn(self, at: list[int], events: list[Any]) -> None:
        offsets = self._records.offsets[at].tolist()
        samples = zip(offsets, events, strict=True)
        self._schema = learn(self._schema, samples, self._lake_partition, self._limits, self._declared)

    def _placer(self) -> Placer:
        memo, key = self._schema.memo, ("placer", self._limits, self._declared)
        known: Placer | None = memo.get(key)
        if known is None:
            known = memo[key] = Placer(self._schema, self._limits, self._declared)
        return known

    def _parser(self, variant: Variant) -> FastParser:
        memo, key = self._schema.memo, ("fast", self._declared, tuple(sorted(variant.items())))
        known: FastParser | None = memo.get(key)
        if known is None:
            known = memo[key] = FastParser(self._schema, self._declared, variant)
        return known


def _without(piece: Indexes, joined: Joined, rows: Indexes) -> tuple[Indexes, Joined]:
    left = np.ones(len(piece), bool)
    left[rows] = False
    kept = np.flatnonzero(left)
    return piece[kept], joined.only(kept) if len(kept) else joined
