"""What producers send: events with disorder, repeats, rubbish, and times that stand in; and their way to Arrow.

In place of JSON: a record carries its event as an object, and `decode` makes from many of them what `ingest.decode`
would. The index of the record stands in the key, so that the proof knows each row again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ingest import columns, dead_letters
from ingest.chunk import Chunk, Records
from ingest.decode import Decoded, DecodeRules
from ingest.schema import TopicSchema

START_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
SECOND_US = 1_000_000
HOUR_US = 3_600 * SECOND_US
NO_DEAD_LETTERS = dead_letters.SCHEMA.empty_table()


@dataclass(slots=True, frozen=True)
class Event:
    """The content of one record."""

    id: str | None
    time_us: int
    stood_in: bool = False  # no time of its own: the record's stands in
    content: int = 0  # stands for the bytes: equal, equal
    bad: bool = False  # cannot become a row
    tombstone: bool = False


@dataclass(slots=True)
class Record:
    """One record of a log, with virtual times. `gone_at`: when the broker deleted it."""

    index: int
    life: int
    partition: int
    offset: int
    event: Event
    at: float
    readable_at: float | None  # None: a transaction hides it
    transaction: int | None = None
    aborted: bool = False
    gone_at: float | None = None
    gone_by: str = ""

    @property
    def time_ms(self) -> int:
        """Its timestamp, by the producer's clock."""
        return int(self.at * 1000) + START_US // 1000


@dataclass(slots=True)
class Stream:
    """The events of one topic, as its producers make them up."""

    rng: random.Random
    lateness_us: int
    window_us: int
    step_us: int
    repeats: float
    rubbish: float
    stand_ins: float
    late: float
    minutes: bool  # times are whole minutes
    now_us: int = START_US
    made: int = 0

    def next(self, sent_before: Sequence[Event]) -> Event:
        """An event for a partition whose last events are `sent_before`."""
        rng = self.rng
        self.made += 1
        if rng.random() < self.rubbish:
            return Event(None, self.now_us, bad=True, content=self.made)
        if sent_before and rng.random() < self.repeats:
            return self._again(rng.choice(sent_before))
        self.now_us += int(rng.expovariate(1 / self.step_us))
        if rng.random() < 0.01:
            self.now_us += rng.randrange(3 * HOUR_US)
        time_us = self.now_us - int(rng.random() ** 3 * 1.2 * self.lateness_us)
        chance = rng.random()
        if chance < self.late:
            time_us -= int(rng.random() * 3 * self.lateness_us)
        elif chance < self.late * 1.2:
            time_us -= rng.randrange(3 * HOUR_US)
        elif chance < self.late * 1.3:
            time_us += rng.randrange(2 * self.lateness_us + 1)
        if self.minutes:
            time_us -= time_us % (60 * SECOND_US)
        stood_in = rng.random() < self.stand_ins
        event_id = None if rng.random() < 0.05 else f"e{self.made}"
        return Event(event_id, time_us, stood_in, self.made, tombstone=rng.random() < 0.03)

    def _again(self, event: Event) -> Event:
        """A producer sends an event again: mostly the same, sometimes with other bytes or a time of its own."""
        rng = self.rng
        if event.bad:
            return event
        content = event.content if rng.random() < 0.85 else self.made
        if event.stood_in or rng.random() < 0.1:
            shift = int(rng.gauss(0, 0.7) * max(self.window_us, SECOND_US))
            return Event(event.id, event.time_us + shift, event.stood_in, content, False, event.tombstone)
        return Event(event.id, event.time_us, False, content, False, event.tombstone)


def records(chunk: Chunk) -> Records:
    """In place of `ingest.drain.records`: the chunk's batches are lists of `Record`."""
    found = [record for batch in chunk.batches for record in batch if record.offset >= chunk.start]
    chunk.batches = []
    return Records(
        np.array([record.offset for record in found], np.int64),
        np.array([record.time_ms for record in found], np.int64),
        [index_key(record.index) for record in found],
        [record.event for record in found],  # type: ignore[misc]
    )


def index_key(index: int) -> bytes:
    return index.to_bytes(4, "big")


def decode(
    records: Records, lake_partition: int, schema: TopicSchema, rules: DecodeRules, fetched_at_us: int
) -> Decoded:
    """In place of `ingest.decode.decode`: one row or dead letter for each record."""
    events: list[Any] = records.values
    good = [i for i, event in enumerate(events) if not event.bad]
    bad = [i for i, event in enumerate(events) if event.bad]
    rows = [events[i] for i in good]
    count = len(good)
    stamps = records.timestamps_ms[good] * 1000 if count else np.empty(0, np.int64)
    table = pa.table(
        [
            pa.array(np.full(count, lake_partition, np.int32)),
            pa.array(records.offsets[good] if count else np.empty(0, np.int64)),
            pa.array([event.id for event in rows], pa.string()),
            pa.array(np.array([event.time_us for event in rows], np.int64)).view(columns.TIME),
            pa.array(["record" if event.stood_in else "event" for event in rows], pa.string()),
            pa.array(stamps).view(columns.TIME),
            pa.array([records.keys[i] for i in good], pa.binary()),
            pa.nulls(count, columns.HEADERS),
            pa.array(np.zeros(count, np.bool_)),
            pa.array([event.tombstone for event in rows], pa.bool_()),
        ],
        schema=columns.SYSTEM,
    )
    content = np.array([event.content for event in rows], np.int64)
    return Decoded(table, _dead(records, bad, lake_partition), schema, content)


def _dead(records: Records, bad: list[int], lake_partition: int) -> pa.Table:
    if not bad:
        return NO_DEAD_LETTERS
    given = {
        "_lake_partition": pa.array([lake_partition] * len(bad), pa.int32()),
        "_offset": pa.array(records.offsets[bad]),
        "_key": pa.array([records.keys[i] for i in bad], pa.binary()),
        "_reason": pa.array(["not_json"] * len(bad), pa.string()),
    }
    return pa.table(
        [given.get(field.name, pa.nulls(len(bad), field.type)) for field in dead_letters.SCHEMA],
        schema=dead_letters.SCHEMA,
    )
