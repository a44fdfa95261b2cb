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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ingest.backfill.again import Source
from ingest.backfill.commit import Counts, Rewrite, counts
from ingest.backfill.compare import NAME, TWIN, Difference, Outcome, compared, times_of
from ingest.backfill.decoding import Decoding
from ingest.backfill.missing import NotAllThere, found_again, gone, outside, unaccounted
from ingest.backfill.units import MOST_FILES, File, by_partition, overlaps, retyped_columns, units
from ingest.catalog import CommitConflict
from ingest.columns import SYSTEM
from ingest.conform import conform
from ingest.decode import Decoded
from ingest.encode import Encoded
from ingest.lake_object import opened
from ingest.letters.replay import Replay
from ingest.position import Position
from ingest.schema import TopicSchema
from ingest.topic_settings import TopicSettings, topic_settings

log = logging.getLogger(__name__)

PORTION_ROWS = 262_144  # row groups of larger files in memory at once, about
TRIES = 20


class BackfillRefused(Exception):
    """Nothing was read again, or not all; the text says why and what to do."""


@dataclass(slots=True)
class Filled:
    """What a backfill found, and which commits it made."""

    files: int = 0  # with rows of the range
    gone: int = 0  # whose objects the store has no more
    difference: Difference = field(default_factory=Difference)
    sequences: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Backfill:
    """One topic's backfill. `tools`: the lake, the API and the clock; `source`: Kafka."""

    tools: Replay
    topic: str
    start_us: int
    end_us: int
    source: Source

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
        positions = await self._positions()  # before the listing: what is carried now may be in a file then
        state = self.tools.inquiry.topic(self.topic)
        settings = topic_settings(
            state["settings_version"], state["settings"], state["settings_own"], self.tools.environment
        )
        if settings.wrong is not None:
            raise BackfillRefused(f"the topic's settings cannot be followed here: {settings.wrong}")
        at = state["sequence"]
        every = list(self.tools.inquiry.files(self.topic, at)) if at else []
        lost = await asyncio.to_thread(gone, self.tools.lake, self.topic, every)
        missing = {file["id"] for file in lost}
        live = [file for file in every if file["what"] == "rows" and file["id"] not in missing]
        inside = [file for file in live if overlaps(file, self.start_us, self.end_us - 1)]
        chosen = {file["id"] for file in inside}
        work = _Work(self, state, settings, [file for file in live if file["id"] not in chosen], dry_run)
        await work.begin()
        filled.files = max(filled.files, len(inside))
        if lost:
            there = [file for file in every if file["id"] not in missing]
            await work.lost(lost, there, live, positions, filled)
        for unit in units(inside):
            await work.unit(unit, filled)
        await work.commit(filled)

    async def _positions(self) -> list[Position]:
        if not self.source.partitions:
            return []
        asked = {"topic": self.topic, "partitions": sorted(self.source.partitions.values())}
        [answer] = await self.tools.catalog.positions([asked])
        found = [Position.from_json(each) for each in answer["positions"]]
        return [each for each in found if each.lake_partition in self.source.partitions]


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
        self._decoding = Decoding(
            backfill.tools, backfill.topic, backfill.source, settings, dry_run, TopicSchema()
        )
        self._lost: set[int] = set()  # files that the store has no more
        self._fresh: list[pa.Table] = []  # ids given in this pass, for the rows that follow
        self._next = Rewrite(backfill.tools, backfill.topic, state["epoch"], settings.period_us)

    async def begin(self) -> None:
        if self._state["schema_version"]:
            self._decoding.schema = TopicSchema.from_json(await self._tools.catalog.schema(self._of.topic))

    async def unit(self, files: Sequence[File], filled: Filled) -> None:
        """Compares some files, and takes them into the next commit if anything differs."""
        # Before the files are written, since they say which commit they are of.
        coming = 3 * (sum(file["rows"] for file in files) // PORTION_ROWS + 1)
        if max(len(self._next.entries) + coming, len(self._next.remove) + len(files)) > MOST_FILES:
            await self.commit(filled)
        difference, encoded, beside = Difference(), list[Encoded](), set[int]()
        counted, named, fresh = counts(), list[pa.Table](), list[pa.Table]()
        types = list[pa.Schema]()
        portions = self._portions(files, types)
        while (table := await asyncio.to_thread(next, portions, None)) is not None:
            outcome, twins_of = await self._portion(table, fresh, types)
            difference.add(outcome.difference)
            fresh.append(outcome.fresh)
            self._check_held(fresh)
            beside |= twins_of if outcome.duplicates.total() else set()
            counted["rows_in"] += by_partition(table)
            counted["rows_out"] += by_partition(outcome.rows)
            counted["dead_out"] += by_partition(outcome.dead)
            counted["duplicates"] += outcome.duplicates
            named.append(outcome.named)
            if not self._dry_run:
                encoded += await asyncio.to_thread(self._next.encoded, outcome, self._decoding.schema)
        self._fresh += fresh
        if not difference.any or self._dry_run:
            filled.difference.add(difference)
            return
        await self._take(files, difference, counted, encoded, named, beside)

    def _check_held(self, fresh: Sequence[pa.Table]) -> None:
        """New ids are in memory, since any row that follows may have one of them: half of it may be theirs."""
        held = sum(table.nbytes for table in [*self._fresh, *fresh])
        limit = int(self._tools.environment.memory)
        if held > limit // 2:
            count = sum(table.num_rows for table in [*self._fresh, *fresh])
            raise BackfillRefused(
                f"{count} rows get another id, more than half of the memory holds (TUKANG_MEMORY is {limit} bytes): "
                "give it more, or take shorter ranges one after the other; what was committed stands"
            )

    async def lost(
        self,
        lost: Sequence[File],
        there: Sequence[File],
        live: Sequence[File],
        positions: Sequence[Position],
        filled: Filled,
    ) -> None:
        """Brings back the files of which the store has no object, from the records that no other file names."""
        names = ", ".join(file["url"] for file in lost[:3]) + (" ..." if len(lost) > 3 else "")
        where = f"{len(lost)} live files are gone from the store ({names})"
        if beyond := outside(lost, self._of.start_us, self._of.end_us):
            raise BackfillRefused(
                f"{where}: to bring back what they had, say --from {beyond[0]} --to {beyond[1]}"
            )
        deletes, begins = await asyncio.to_thread(self._history)
        offsets = await asyncio.to_thread(
            unaccounted, self._tools.lake, [*there, *deletes], positions, begins
        )
        now_us = self._tools.now_us()
        parts = {
            number: await self._decoding.offsets(number, some, np.full(len(some), now_us, np.int64))
            for number, some in offsets.items()
        }
        twins, beside = await asyncio.to_thread(self._twins, None, parts, live)
        try:
            outcome, counted = await asyncio.to_thread(
                found_again, parts, self._decoding.schema, self._settings, twins, lost
            )
        except NotAllThere as left:
            raise BackfillRefused(
                f"{where}, and Kafka has {left} of them: put the objects back from a copy of the bucket"
            ) from left
        filled.gone = max(filled.gone, len(lost))
        self._fresh.append(outcome.fresh)
        if self._dry_run:
            filled.difference.add(outcome.difference)
            return
        encoded = await asyncio.to_thread(self._next.encoded, outcome, self._decoding.schema)
        self._lost = {file["id"] for file in lost}
        await self._take(lost, outcome.difference, counted, encoded, [outcome.named], beside)

    async def commit(self, filled: Filled) -> None:
        """Makes the commit of what was taken so far, if there is anything. Raises `CommitConflict`."""
        commit = self._next
        if not commit.remove:
            return
        await commit.name([], self._decoding.schema, at_least=0)
        # After the last fetch: else the records could be of another life of the topic.
        if not await self._of.source.same_life():
            raise BackfillRefused("the topic was made anew at the broker meanwhile: nothing was written")
        answer = await self._tools.catalog.commit(
            self._of.topic, commit.body(self._state, self._decoding.schema)
        )
        filled.sequences.append(int(answer["sequence"]))
        filled.difference.add(commit.difference)
        if lost := sorted(self._lost & set(commit.remove)):
            # Loaders that have not passed their commits need not wait for objects that nobody has.
            await self._tools.catalog.swept(self._of.topic, lost, lost=True)
        self._next = commit.another()

    async def _take(
        self,
        files: Sequence[File],
        difference: Difference,
        counted: Counts,
        encoded: list[Encoded],
        named: list[pa.Table],
        beside: set[int],
    ) -> None:
        """Files that leave, and what comes in their place, go into the next commit."""
        commit = self._next
        commit.difference.add(difference)
        commit.remove += [file["id"] for file in files]
        commit.beside |= beside
        for name, some in counted.items():
            commit.counts[name] += some
        await commit.put(encoded)
        await commit.name(named, self._decoding.schema)

    def _history(self) -> tuple[list[File], dict[int, int]]:
        """Every `deletes` file, and where the ledger begins in each lake partition: before that nothing is known."""
        inquiry, topic, head = self._tools.inquiry, self._of.topic, self._state["sequence"]
        oldest = inquiry.oldest(topic)
        begins: dict[int, int] = {}
        if oldest > 1:
            begins = {number: np.iinfo(np.int64).max for number in self._of.source.partitions}
            for line in inquiry.lines(topic, oldest - 1, head):
                if line["kind"] == "append":
                    begins[line["lake_partition"]] = min(
                        begins.get(line["lake_partition"], line["from_offset"]), line["from_offset"]
                    )
        files = inquiry.files(topic, head, after=oldest - 1)
        return [file for file in files if file["what"] == "deletes"], begins

    def _portions(self, files: Sequence[File], types: list[pa.Schema]) -> Iterator[pa.Table]:
        """The rows of files, a bounded number at a time; `types` gets the files' own schemas."""
        held: list[pa.Table] = []
        for file in files:
            source = opened(self._tools.lake, str(file["url"]), int(file["bytes"]))
            with pq.ParquetFile(source, pre_buffer=True) as parquet:
                types.append(parquet.schema_arrow)
                for number in range(parquet.num_row_groups):
                    table = parquet.read_row_group(number)
                    own = [
                        name for name in table.schema.names if name != "_sequence"
                    ]  # a rewrite has its own
                    held.append(conform(table.select(own), self._decoding.schema))
                    if sum(each.num_rows for each in held) >= PORTION_ROWS:
                        yield pa.concat_tables(held)
                        held = []
        if held:
            yield pa.concat_tables(held)

    async def _portion(
        self, old: pa.Table, fresh: Sequence[pa.Table], types: Sequence[pa.Schema]
    ) -> tuple[Outcome, set[int]]:
        times = np.asarray(old.column("_event_time").cast(pa.int64()).to_numpy(), np.int64)
        asked = (times >= self._of.start_us) & (times < self._of.end_us)
        numbers = np.asarray(old.column("_lake_partition").to_numpy())
        asked_numbers = sorted(set(numbers[asked].tolist()) & self._of.source.partitions.keys())
        parts = {
            number: await self._decoding.rows(number, old, asked & (numbers == number))
            for number in asked_numbers
        }
        twins, beside = await asyncio.to_thread(self._twins, old, parts, self._others)
        known = pa.concat_tables([twins, *self._fresh, *fresh])
        # By the schema of now: what was read may have made it another.
        now = self._decoding.schema.arrow()
        retyped = {name for each in types for name in retyped_columns(each, now)}
        outcome = await asyncio.to_thread(
            lambda: compared(old, asked, parts, self._decoding.schema, self._settings, known, retyped)
        )
        return outcome, beside

    def _twins(
        self, old: pa.Table | None, parts: Mapping[int, Sequence[Decoded]], files: Sequence[File]
    ) -> tuple[pa.Table, set[int]]:
        """Rows of `files` with an id that a row of these has now and had not in `old`; the files that have such."""
        found = [pa.schema([SYSTEM.field(name) for name in TWIN]).empty_table()]
        new = [part.table.select([*TWIN, "_offset"]) for some in parts.values() for part in some]
        if not new:
            return found[0], set()
        key = [*NAME, "_event_id"]
        rows = pa.concat_tables(new)
        if old is not None:
            rows = rows.join(old.select(key), key, join_type="left anti")
        rows = rows.select(TWIN)
        rows = rows.filter(pc.is_valid(rows.column("_event_id")))
        if not rows.num_rows:
            return found[0], set()
        times, stood_in = times_of(rows, self._settings)
        window = self._settings.dedup_window_us
        between = (int(times.min()) - window, int(times.max()) + window)
        ids, beside = pc.unique(rows.column("_event_id")), set[int]()
        for file in files:
            if stood_in.any() or overlaps(file, *between):
                for table in self._portions([file], []):
                    same = table.select(TWIN).filter(pc.is_in(table.column("_event_id"), value_set=ids))
                    if same.num_rows:
                        found.append(same)
                        beside.add(file["id"])
        return pa.concat_tables(found), beside
