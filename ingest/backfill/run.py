"""Backfill of a time range: its rows leave their files and come back as they are read now, by `rewrite` commits.

1. `units`: the live files with rows of the range, in portions of a bounded number of rows.
2. Their offsets are read again, decoded, and compared by identity with what the files have.
3. A unit in which nothing differs stays as it is; of another all rows go into new files.
4. One commit takes all such files out and the new ones in; more than one only above the limit of files.

Dead letters of the range are replayed after it (`ingest.letters.replay`). Objects mean nothing until a commit names
them, and a commit is refused when a file that it read is not live any more: killed anywhere, nothing is wrong.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ingest.backfill.again import Again
from ingest.backfill.compare import NAME, NAMED, TWIN, Difference, Outcome, compared, times_of
from ingest.backfill.units import MOST_FILES, File, by_partition, overlaps, retyped_columns, units
from ingest.catalog import CommitConflict, SchemaMoved
from ingest.columns import SYSTEM
from ingest.conform import conform
from ingest.decode import Decoded, decode
from ingest.encode import Encoded, What, encode
from ingest.ids import uuid7
from ingest.lake import patiently
from ingest.lake_file import arrow_file
from ingest.letters.replay import Replay
from ingest.publish import object_key
from ingest.schema import TopicSchema, merge
from ingest.topic_settings import TopicSettings, topic_settings

log = logging.getLogger(__name__)

PORTION_ROWS = 262_144  # row groups of larger files in memory at once, about
NAMES = 4_000_000  # of one file of names
TRIES = 20


class BackfillRefused(Exception):
    """Nothing was read again, or not all; the text says why and what to do."""


@dataclass(slots=True)
class Filled:
    """What a backfill found, and which commits it made."""

    files: int = 0  # with rows of the range
    difference: Difference = field(default_factory=Difference)
    sequences: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Commit:
    """What the next commit names."""

    id: str
    remove: list[int] = field(default_factory=list)
    beside: set[int] = field(default_factory=set)
    entries: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, Counter[int]] = field(
        default_factory=lambda: {
            name: Counter() for name in ("rows_in", "rows_out", "dead_out", "duplicates")
        }
    )
    named: list[pa.Table] = field(default_factory=list)
    difference: Difference = field(default_factory=Difference)


@dataclass(frozen=True, slots=True)
class Backfill:
    """One topic's backfill. `tools`: the lake, the API and the clock; `again`: None when Kafka has nothing of it;
    `partitions`: which broker partition a lake partition is, of those that Kafka still has."""

    tools: Replay
    topic: str
    start_us: int
    end_us: int
    again: Again | None
    partitions: Mapping[int, int]

    async def run(self, *, dry_run: bool) -> Filled:
        """Rewrites what differs. Raises `BackfillRefused`, `KafkaSilent`, `BrokerAway`, `CommitRefused`."""
        filled = Filled()
        for _ in range(TRIES):
            try:
                await self._once(filled, dry_run=dry_run)
            except CommitConflict as conflict:
                log.info("topic %s: the lake moved meanwhile, beginning anew: %s", self.topic, conflict)
                continue
            return filled
        raise BackfillRefused(f"the lake moved {TRIES} times meanwhile: try again when upkeep is done")

    async def _once(self, filled: Filled, *, dry_run: bool) -> None:
        state = self.tools.inquiry.topic(self.topic)
        settings = topic_settings(
            state["settings_version"], state["settings"], state["settings_own"], self.tools.environment
        )
        if settings.wrong is not None:
            raise BackfillRefused(f"the topic's settings cannot be followed here: {settings.wrong}")
        at = state["sequence"]
        live = [f for f in self.tools.inquiry.files(self.topic, at) if f["what"] == "rows"] if at else []
        inside = [file for file in live if overlaps(file, self.start_us, self.end_us - 1)]
        chosen = {file["id"] for file in inside}
        work = _Work(self, state, settings, [file for file in live if file["id"] not in chosen], dry_run)
        await work.begin()
        filled.files = max(filled.files, len(inside))
        for unit in units(inside):
            await work.unit(unit, filled)
        await work.commit(filled)


class _Work:
    """One pass over the files of a range, as of one sequence."""

    def __init__(
        self,
        backfill: Backfill,
        state: Mapping[str, Any],
        settings: TopicSettings,
        others: Sequence[File],
        dry_run: bool,
    ) -> None:
        self._of, self._tools, self._state = backfill, backfill.tools, state
        self._settings, self._others, self._dry_run = settings, others, dry_run
        self._schema = TopicSchema()
        self._fresh: list[pa.Table] = []  # ids given in this pass, for the rows that follow
        self._next = self._new_commit()

    async def begin(self) -> None:
        if self._state["schema_version"]:
            self._schema = TopicSchema.from_json(await self._tools.catalog.schema(self._of.topic))

    async def unit(self, files: Sequence[File], filled: Filled) -> None:
        """Compares some files, and takes them into the next commit if anything differs."""
        # Before the files are written, since they say which commit they are of.
        coming = 3 * (sum(file["rows"] for file in files) // PORTION_ROWS + 1)
        if max(len(self._next.entries) + coming, len(self._next.remove) + len(files)) > MOST_FILES:
            await self.commit(filled)
        difference, encoded, beside = Difference(), list[Encoded](), set[int]()
        counts: dict[str, Counter[int]] = {name: Counter() for name in self._next.counts}
        named, fresh = list[pa.Table](), list[pa.Table]()
        retyped: set[str] = set()
        portions = self._portions(files, retyped)
        while (table := await asyncio.to_thread(next, portions, None)) is not None:
            outcome, twins_of = await self._portion(table, fresh, retyped)
            difference.add(outcome.difference)
            fresh.append(outcome.fresh)
            beside |= twins_of if outcome.duplicates.total() else set()
            counts["rows_in"] += by_partition(table)
            counts["rows_out"] += by_partition(outcome.rows)
            counts["dead_out"] += by_partition(outcome.dead)
            counts["duplicates"] += outcome.duplicates
            named.append(outcome.named)
            if not self._dry_run:
                encoded += await asyncio.to_thread(self._encoded, outcome)
        if not difference.any or self._dry_run:
            filled.difference.add(difference)
            self._fresh += fresh
            return
        commit = self._next
        commit.difference.add(difference)
        commit.remove += [file["id"] for file in files]
        commit.beside |= beside
        for name, counted in counts.items():
            commit.counts[name] += counted
        commit.entries += [await asyncio.to_thread(self._put, each) for each in encoded]
        commit.named += named
        self._fresh += fresh
        if sum(table.num_rows for table in commit.named) > NAMES:
            await self._put_names()

    async def commit(self, filled: Filled) -> None:
        """Makes the commit of what was taken so far, if there is anything. Raises `CommitConflict`."""
        commit = self._next
        if not commit.remove:
            return
        await self._put_names()
        numbers = sorted({number for counted in commit.counts.values() for number in counted})
        answer = await self._tools.catalog.commit(
            self._of.topic,
            {
                "id": commit.id,
                "kind": "rewrite",
                "epoch": self._state["epoch"],
                "worker": self._tools.name,
                "rule_version": self._state["rule_version"],
                "schema_version": self._schema.version,
                "lines": [
                    {"lake_partition": number}
                    | {name: counted[number] for name, counted in commit.counts.items()}
                    for number in numbers
                ],
                "files": commit.entries,
                "remove": commit.remove,
                "beside": sorted(commit.beside - set(commit.remove)),
            },
        )
        filled.sequences.append(int(answer["sequence"]))
        filled.difference.add(commit.difference)
        self._next = self._new_commit()

    def _new_commit(self) -> _Commit:
        return _Commit(uuid7(self._tools.now_us(), self._tools.randbits))

    def _portions(self, files: Sequence[File], retyped: set[str]) -> Iterator[pa.Table]:
        """The rows of files, a bounded number at a time; `retyped` gets the columns that have another type there."""
        held: list[pa.Table] = []
        for file in files:

            def part(start: int, end: int, url: str = str(file["url"])) -> bytes:
                for attempt in patiently():
                    with attempt:
                        data = self._tools.lake.get(url, start, end)
                return data

            with pq.ParquetFile(arrow_file(int(file["bytes"]), part), pre_buffer=True) as parquet:
                retyped |= retyped_columns(parquet.schema_arrow, self._schema.arrow())
                for number in range(parquet.num_row_groups):
                    table = parquet.read_row_group(number)
                    own = [
                        name for name in table.schema.names if name != "_sequence"
                    ]  # a rewrite has its own
                    held.append(conform(table.select(own), self._schema))
                    if sum(each.num_rows for each in held) >= PORTION_ROWS:
                        yield pa.concat_tables(held)
                        held = []
        if held:
            yield pa.concat_tables(held)

    async def _portion(
        self, old: pa.Table, fresh: Sequence[pa.Table], retyped: set[str]
    ) -> tuple[Outcome, set[int]]:
        times = np.asarray(old.column("_event_time").cast(pa.int64()).to_numpy(), np.int64)
        asked = (times >= self._of.start_us) & (times < self._of.end_us)
        numbers = np.asarray(old.column("_lake_partition").to_numpy())
        asked_numbers = sorted(set(numbers[asked].tolist()) & self._of.partitions.keys())
        parts = {
            number: await self._read(number, old, asked & (numbers == number)) for number in asked_numbers
        }
        twins, beside = await asyncio.to_thread(self._twins, old, parts)
        known = pa.concat_tables([twins, *self._fresh, *fresh])
        outcome = await asyncio.to_thread(
            lambda: compared(old, asked, parts, self._schema, self._settings, known, retyped)
        )
        return outcome, beside

    async def _read(self, number: int, old: pa.Table, mask: npt.NDArray[np.bool_]) -> list[Decoded]:
        """The records of rows of one lake partition, decoded by a schema that the API has (or would have)."""
        assert self._of.again is not None
        rows = old.filter(pa.array(mask)).select(["_offset", "_event_time", "_time_from"]).sort_by("_offset")
        offsets = np.asarray(rows.column("_offset").to_numpy(), np.int64)
        # When they were fetched first, as far as it is known: by it a time is believed or not.
        fetched = np.full(len(offsets), self._tools.now_us(), np.int64)
        stood_in = pc.equal(rows.column("_time_from").cast(pa.string()), "fetch").to_numpy()
        times = np.asarray(rows.column("_event_time").cast(pa.int64()).to_numpy(), np.int64)
        fetched[stood_in] = times[stood_in]
        parts = []
        async for records in self._of.again.records(self._of.partitions[number], offsets):
            seen = fetched[np.searchsorted(offsets, records.offsets)]
            while True:
                part = await asyncio.to_thread(
                    decode, records, number, self._schema, self._settings.decode, seen
                )
                wider = merge(self._schema, part.schema)
                if wider == self._schema:
                    break
                await self._widen(wider)
            parts.append(part)
        return parts

    async def _widen(self, wider: TopicSchema) -> None:
        if self._dry_run:
            self._schema = wider
            return
        try:
            answer = await self._tools.catalog.register_schema(self._of.topic, wider.to_json())
            self._schema = TopicSchema.from_json(answer)
        except SchemaMoved as moved:
            self._schema = TopicSchema.from_json(moved.current)

    def _twins(self, old: pa.Table, parts: Mapping[int, Sequence[Decoded]]) -> tuple[pa.Table, set[int]]:
        """Rows of files that stay as they are, with an id that a row of these has now and had not before."""
        found = [pa.schema([SYSTEM.field(name) for name in TWIN]).empty_table()]
        new = [part.table.select([*TWIN, "_offset"]) for some in parts.values() for part in some]
        if not new:
            return found[0], set()
        key = [*NAME, "_event_id"]
        rows = pa.concat_tables(new).join(old.select(key), key, join_type="left anti").select(TWIN)
        rows = rows.filter(pc.is_valid(rows.column("_event_id")))
        if not rows.num_rows:
            return found[0], set()
        times, stood_in = times_of(rows, self._settings)
        window = self._settings.dedup_window_us
        between = (int(times.min()) - window, int(times.max()) + window)
        ids, beside = pc.unique(rows.column("_event_id")), set[int]()
        for file in self._others:
            if stood_in.any() or overlaps(file, *between):
                for table in self._portions([file], set()):
                    same = table.select(TWIN).filter(pc.is_in(table.column("_event_id"), value_set=ids))
                    if same.num_rows:
                        found.append(same)
                        beside.add(file["id"])
        return pa.concat_tables(found), beside

    def _encoded(self, outcome: Outcome) -> list[Encoded]:
        late = outcome.rows.column("_late")
        wanted: list[tuple[pa.Table, What, bool]] = [
            (outcome.rows.filter(pc.invert(late)), "rows", False),
            (outcome.rows.filter(late), "rows", True),
            (outcome.dead, "dead_letters", False),
        ]
        return [self._file(table, what, is_late) for table, what, is_late in wanted if table.num_rows]

    def _file(self, table: pa.Table, what: What, late: bool) -> Encoded:
        footer = {
            "topic": self._of.topic,
            "epoch": self._state["epoch"],
            "commit": self._next.id,
            "kind": "rewrite",
            "schema_version": self._schema.version,
            "what": what,
        }
        return encode(
            table.combine_chunks(),
            footer,
            what=what,
            late=late,
            schema_version=self._schema.version,
            period_us=self._settings.period_us,
        )

    def _put(self, file: Encoded) -> dict[str, Any]:
        for attempt in patiently():
            with attempt:
                name = uuid7(self._tools.now_us(), self._tools.randbits)
                key = object_key(self._of.topic, name, file.what, file.late)
                put = self._tools.lake.put(key, file.data, file.sha256)
        return file.entry(put.url, put.modified_at)

    async def _put_names(self) -> None:
        named, self._next.named = self._next.named, []
        if named:
            file = await asyncio.to_thread(
                self._file, pa.concat_tables(named).select(NAMED), "deletes", False
            )
            self._next.entries.append(await asyncio.to_thread(self._put, file))
