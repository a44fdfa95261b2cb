"""Bytes of records to columns of events: the seam by content type.

Pure. JSON is read here; another format adds a function of the same shape and nothing else: what it gives, `Parsed`, is
all that the later steps know. Pieces go the fast way; only those that it refuses, and the rows that it doubts, are read
record by record, and only what the schema has no place for is learnt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.chunk import Records
from ingest.columns import event_schema
from ingest.conform import conform_columns
from ingest.dead_letters import Letter, Unreadable
from ingest.fast import FastParser
from ingest.learn import Limits, learn
from ingest.place import Placer, Row, Unplaced
from ingest.schema import TopicSchema
from ingest.strict import Reader

PIECE = 1_000  # records that go the slow way together
PIECE_BYTES = 32_000_000

Indexes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Parsed:
    """Columns as in `event_schema(schema)`; row j is record `at[j]`. The other records are `letters`."""

    columns: list[pa.Array]
    at: Indexes
    schema: TopicSchema
    letters: list[Letter]


@dataclass(slots=True)
class _Part:
    columns: list[pa.Array]
    at: Indexes
    schema: TopicSchema


def read_json(
    records: Records,
    events: Indexes,
    lake_partition: int,
    schema: TopicSchema,
    limits: Limits,
    types: Mapping[tuple[str, ...], str],
) -> Parsed:
    """Reads the records `events` as JSON."""
    reading = _Reading(records, lake_partition, schema, limits, types)
    for piece in _cut(records, events, len(events) or 1):
        if not reading.fast(piece):
            for smaller in _cut(records, piece, PIECE):
                if not reading.fast(smaller):
                    reading.slow(smaller)
    return reading.finished()


def _cut(records: Records, events: Indexes, count: int) -> list[Indexes]:
    """Pieces of at most `count` records and about PIECE_BYTES."""
    pieces = []
    for start in range(0, len(events), count):
        piece = events[start : start + count]
        if len(piece) == 1:
            pieces.append(piece)
            continue
        sizes = np.fromiter((len(records.values[i] or b"") for i in piece), np.int64, len(piece))
        group = np.cumsum(sizes) // PIECE_BYTES
        pieces += np.split(piece, np.flatnonzero(np.diff(group)) + 1)
    return pieces


class _Reading:
    """One chunk on its way to columns."""

    def __init__(
        self,
        records: Records,
        lake_partition: int,
        schema: TopicSchema,
        limits: Limits,
        types: Mapping[tuple[str, ...], str],
    ) -> None:
        self._records = records
        self._lake_partition = lake_partition
        self._schema = schema
        self._limits = limits
        self._types = types
        self._reader = Reader()
        self._parts: list[_Part] = []
        self._letters: list[Letter] = []

    def fast(self, piece: Indexes) -> bool:
        values: Any = self._records.values
        if len(piece) != len(values):
            values = [values[i] for i in piece.tolist()]
        parser = self._compiled("fast", FastParser)
        parsed = parser.parse(values)
        if parsed is None:
            return False
        if not len(parsed.doubtful):
            self._parts.append(_Part(parsed.columns, piece, self._schema))
            return True
        sure = np.ones(len(piece), bool)
        sure[parsed.doubtful] = False
        mask = pa.array(sure)
        self._parts.append(_Part([c.filter(mask) for c in parsed.columns], piece[sure], self._schema))
        self.slow(piece[~sure])
        return True

    def slow(self, piece: Indexes) -> None:
        read = self._reader.read
        events, at = [], []
        for index in piece.tolist():
            value = self._records.values[index]
            assert value is not None
            try:
                events.append(read(value))
            except Unreadable as why:
                self._letters.append(Letter(index, why.reason, why.text, why.at))
            else:
                at.append(index)
        placer, rows = self._placed(events, at)
        self._parts.append(_Part(placer.columns(rows), np.array(at, np.int64), self._schema))

    def _placed(self, events: list[Any], at: list[int]) -> tuple[Placer, list[Row]]:
        placer = self._placer()
        try:
            return placer, placer.rows(events)
        except Unplaced:
            self._learn(zip(at, events, strict=True))
            placer = self._placer()
            return placer, placer.rows(events)

    def _learn(self, events: Any) -> None:
        offsets = self._records.offsets
        wider = learn(
            self._schema,
            ((int(offsets[i]), event) for i, event in events),
            self._lake_partition,
            self._limits,
        )
        self._schema = wider.declare(self._types) if self._types else wider

    def _placer(self) -> Placer:
        key = ("placer", self._limits)
        known: Placer | None = self._schema.memo.get(key)
        if known is None:
            known = self._schema.memo[key] = Placer(self._schema, self._limits)
        return known

    def _compiled(self, key: str, make: Any) -> Any:
        known = self._schema.memo.get(key)
        if known is None:
            known = self._schema.memo[key] = make(self._schema)
        return known

    def finished(self) -> Parsed:
        """All parts in the widest schema."""
        wanted = event_schema(self._schema)
        columns = []
        for part in self._parts:
            try:
                columns.append(conform_columns(part.columns, event_schema(part.schema), wanted, len(part.at)))
            except ValueError:  # integers that are doubles now, and do not fit: read again
                left = [other for other in self._parts if other is not part]
                self._parts = left
                self.slow(part.at)
                return self.finished()
        at = [part.at for part in self._parts]
        if len(columns) == 1:
            return Parsed(columns[0], at[0], self._schema, self._letters)
        joined = [
            pa.concat_arrays([part[i] for part in columns]) if columns else pa.nulls(0, field.type)
            for i, field in enumerate(wanted)
        ]
        return Parsed(
            joined, np.concatenate(at) if at else np.zeros(0, np.int64), self._schema, self._letters
        )
