"""One topic in a worker: its assigned partitions, and the way of their chunks from the source to a commit.

Here the eight steps meet. Decisions are elsewhere (`held`, `batch`, `ledger`); here is what runs in which order, in
which thread, and what happens when the API says no.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar, TypeVarTuple

import numpy as np

from ingest import batch, drain, metrics
from ingest.catalog import Answer, Catalog, CommitConflict, CommitRefused, SchemaMoved
from ingest.chunk import Chunk, Records
from ingest.decode import Decoded, decode
from ingest.held import Held, stands_in
from ingest.ids import uuid7
from ingest.letter_rate import LetterRate
from ingest.part import Part
from ingest.publish import Press
from ingest.schema import TopicSchema, merge
from ingest.topic_settings import TopicSettings

log = logging.getLogger(__name__)

SAID = 8  # lake partitions of a commit that the log names: there may be hundreds

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Means:
    """What the topics of a worker share."""

    catalog: Catalog
    press: Press
    decoders: Executor
    slots: asyncio.Semaphore  # decoding at the same time
    topic_id: Callable[[str], Awaitable[str | None]]
    now_us: Callable[[], int]
    most_rows: Callable[[], int]


class Topic:
    """A topic whose partitions, or some of them, are this worker's.

    `on_drop(partitions, why)` is called when all that is held was dropped and the partitions must be positioned anew.
    """

    def __init__(
        self, name: str, means: Means, settings: TopicSettings, on_drop: Callable[[Iterable[int], str], None]
    ) -> None:
        self.name = name
        self.means = means
        self.settings = settings
        self.on_drop = on_drop
        self.epoch = ""
        self.rule_version = 0
        self.schema = TopicSchema()
        self.parts: dict[int, Part] = {}
        self.publishing: asyncio.Task[None] | None = None
        self.state = "starting"
        self.reason: str | None = None
        self.flooded: set[str] = set()
        # By lake partition and version: where the log was seen to end before that position (`opening` judges).
        self.ended_before: dict[tuple[int, str | None], list[int]] = {}
        self.totals: Counter[str] = Counter()
        self.letter_rate = LetterRate()
        self._lock = asyncio.Lock()  # held rows: one chunk or one cut at a time
        self._schema_lock = asyncio.Lock()

    # -- 1 fetch, 2 decode, 3 dedup ------------------------------------------------------------------------------

    async def take(self, part: Part, chunk: Chunk, before: asyncio.Task[None] | None) -> None:
        """Decodes a chunk beside others, then takes its records in their turn."""
        async with self.means.slots:
            try:
                records = await self._run(_records, chunk, part.held)
            except drain.CorruptRecordException as error:
                self.stop("refused", f"a batch of partition {chunk.partition} cannot be read: {error}")
                return
            decoded = await self._decode(part, records, chunk.fetched_at_us) if len(records) else None
        if before is not None:
            await asyncio.wait({before})
        if not part.alive:
            return
        now_us = self.means.now_us()
        async with self._lock:
            if decoded is None:
                part.held.pass_over(chunk.next, now_us)
                return
            flooding = await self._run(self._hold, part, records, decoded, chunk.next, now_us)
        for event_id in set(flooding) - self.flooded:
            self.flooded.add(event_id)
            log.error(
                "topic %s: more than 1,000 records with event id %r and different bytes in an hour; they are kept"
                " from now on. Some producer does not make ids of its own",
                self.name,
                event_id,
            )

    def _hold(
        self, part: Part, records: Records, decoded: Decoded, next_offset: int, now_us: int
    ) -> list[str]:
        table = decoded.table
        stood_in = stands_in(table) if self.settings.timed else np.zeros(table.num_rows, np.bool_)
        return part.held.add(
            table,
            decoded.dead,
            decoded.content,
            stood_in,
            records.offsets,
            next_offset,
            now_us,
            keep_differing=self.settings.keep_differing,
        )

    async def _decode(self, part: Part, records: Records, fetched_at_us: int) -> Decoded:
        """Decodes; when that needs a wider schema, agrees on it with the API and decodes again if others differ."""
        lake_partition = part.held.base.lake_partition
        while True:
            schema = self.schema
            decoded = await self._run(
                decode, records, lake_partition, schema, self.settings.decode, fetched_at_us
            )
            if decoded.schema == schema:
                return decoded
            agreed = await self._agree(decoded.schema)
            if agreed == decoded.schema:
                return decoded

    async def _agree(self, wanted: TopicSchema) -> TopicSchema:
        """The API's schema once it holds all that `wanted` holds (compare-and-set, merged on a conflict)."""
        async with self._schema_lock:
            while True:
                merged = merge(self.schema, wanted)
                if merged == self.schema:
                    return self.schema
                try:
                    answer = await self.means.catalog.register_schema(self.name, merged.to_json())
                except SchemaMoved as moved:
                    self.schema = TopicSchema.from_json(moved.current)
                else:
                    self.schema = TopicSchema.from_json(answer)
                    log.info("topic %s: schema version %d", self.name, self.schema.version)

    async def _run(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self.means.decoders, function, *arguments)

    # -- 4 reorder, 5 encode, 6 put, 7 commit --------------------------------------------------------------------

    def idle(self) -> dict[int, bool]:
        """Lake partition -> idle, by the last confirmation of the log's end."""
        lateness_us = self.settings.flush.lateness_us
        return {
            part.held.base.lake_partition: (part.tail is None or part.tail.done())
            and part.held.idle(part.end, part.confirmed_at_us, lateness_us)
            for part in self.parts.values()
        }

    def due(self, now_us: int) -> str | None:
        """Why the topic is due, or None; None too while a batch of it is on its way."""
        if self.publishing is not None or not self.parts:
            return None
        if any(part.hurries for part in self.parts.values()):
            return "log's start"
        helds = [part.held for part in self.parts.values()]
        if self.settings.error_mode == "suspend" and any(
            held.dead and not len(held.awaited) for held in helds
        ):
            return "dead letters"
        return batch.due(helds, self.settings.flush, self.idle(), now_us)

    def ready_rows(self) -> int:
        """How many rows would go out now."""
        lateness_us, idle = self.settings.flush.lateness_us, self.idle()
        return sum(
            part.held.ready(lateness_us, idle=idle[part.held.base.lake_partition])
            for part in self.parts.values()
        )

    async def publish(self, early: Collection[int] = ()) -> None:
        """One batch: cut, encode, put, commit. A conflict drops the topic; a refusal stops it.

        `early`: lake partitions whose held-back rows go too, besides those that Kafka is about to forget.
        """
        parts = {part.held.base.lake_partition: part for part in self.parts.values()}
        commit_id = uuid7(self.means.now_us(), self.means.press.randbits)
        async with self._lock:
            # Rows stand under what they were read under, whatever the topic is told until their commit.
            epoch, rule_version = self.epoch, self.rule_version
            hurried = [part for part in parts.values() if part.hurries]
            early = {*early, *(part.held.base.lake_partition for part in hurried)}
            for part in hurried:  # before the cut: what is noted meanwhile is of rows that it may leave
                part.endangered = False
            cut = await self._run(self._cut, list(parts.values()), commit_id, early)
        if cut is None:
            return
        press = self.means.press
        files = await press.encode(cut, epoch, rule_version, self.settings.period_us)
        entries = await press.put(self.name, files)
        topic_id = await self.means.topic_id(self.name)
        known = {line.position.topic_id for line in cut.lines} - {None, topic_id}
        if known and topic_id is not None:
            self.stop("new_life", f"the topic was made again: its id was {known.pop()}, now it is {topic_id}")
            return
        cut = cut.with_topic_id(topic_id)
        try:
            answer = await press.commit(cut, epoch, rule_version, files, entries)
        except CommitConflict as conflict:
            self.totals["conflicts"] += 1
            self.drop(f"commit refused, {conflict}")
            return
        except CommitRefused as refused:
            self.stop("refused", str(refused))
            return
        metrics.count(self.totals, cut.lines)
        self._watch_letters(cut)
        # The next chunks are being deduplicated in a thread: nothing is forgotten under it.
        async with self._lock:
            for line in cut.lines:
                part = parts[line.lake_partition]
                part.committed = line.position
                part.held.committed(line.position, self.settings.dedup_window_us)
        log.info(
            "topic %s: sequence %d, %d rows in %d files, %s",
            self.name,
            answer["sequence"],
            sum(line.written for line in cut.lines),
            len(files),
            ", ".join(
                f"{line.lake_partition}:{line.from_offset}-{line.to_offset}" for line in cut.lines[:SAID]
            )
            + (f" and {len(cut.lines) - SAID} more" if len(cut.lines) > SAID else ""),
        )
        if self.settings.error_mode == "suspend" and any(line.dead_letters for line in cut.lines):
            self.stop("suspended", _first_letter(cut, answer["sequence"]))

    def alarm(self) -> str | None:
        """What is wrong with a topic that is read all the same; None: nothing."""
        return self.letter_rate.alarm(self.means.now_us(), self.settings.dead_letter_alarm)

    def _watch_letters(self, cut: batch.Cut) -> None:
        """Says once when too many records are dead letters, and once when no more."""
        consumed = sum(line.consumed for line in cut.lines)
        self.letter_rate.add(self.means.now_us(), consumed, sum(line.dead_letters for line in cut.lines))
        alarm = self.alarm()
        if alarm is not None and not self.letter_rate.raised:
            log.error("topic %s: %s", self.name, alarm)
        elif alarm is None and self.letter_rate.raised:
            log.info("topic %s: no longer too many dead letters", self.name)
        self.letter_rate.raised = alarm is not None

    def _cut(self, parts: list[Part], commit_id: str, early: Collection[int]) -> batch.Cut | None:
        return batch.cut(
            self.name,
            [part.held for part in parts],
            self.schema,
            self.settings.flush,
            self.idle(),
            commit_id,
            most_rows=self.means.most_rows(),
            early=early,
        )

    async def shed(self, part: Part, to_bytes: int) -> None:
        """Cuts the dedup memory of one partition down, oldest hours first; it shows as a window cut short."""
        async with self._lock:
            await self._run(part.held.seen.shed, to_bytes)
        log.warning(
            "topic %s, partition %d: the dedup window is cut short to keep within the memory",
            self.name,
            part.held.base.partition,
        )

    # -- what ends it --------------------------------------------------------------------------------------------

    def drop(self, why: str) -> None:
        """Drops all that is held of the topic, the dedup memory too, and has its partitions positioned anew."""
        log.warning("topic %s: all that is held is dropped and read again: %s", self.name, why)
        partitions = self._forget(self.parts)
        self.on_drop(partitions, why)

    def stop(self, state: str, reason: str) -> None:
        """Stops the topic: shown, and not retried, until an operator acts."""
        log.error("topic %s is stopped (%s): %s; `tukang status` says what to do", self.name, state, reason)
        self.state, self.reason = state, reason
        self.drop(reason)

    def forget(self, partitions: Iterable[int]) -> None:
        """Drops what is held of partitions that are somebody else's now."""
        self._forget(
            {partition: self.parts[partition] for partition in partitions if partition in self.parts}
        )

    def _forget(self, parts: Mapping[int, Part]) -> list[int]:
        gone = list(parts)
        for partition in gone:
            self.parts.pop(partition).alive = False
        return gone

    def lake_partitions(self) -> list[int]:
        """The lake partitions held."""
        return [part.held.base.lake_partition for part in self.parts.values()]

    @property
    def bytes(self) -> int:
        """What is held, in bytes."""
        return sum(part.held.bytes for part in self.parts.values())

    @property
    def working(self) -> bool:
        """Whether a chunk or a batch is under way."""
        return self.publishing is not None or any(
            part.tail is not None and not part.tail.done() for part in self.parts.values()
        )

    def described(self, answer: Answer, settings: TopicSettings) -> None:
        """Takes what the API says of the topic."""
        self.settings = settings
        self.epoch = answer["epoch"]
        self.rule_version = answer["rule_version"]


def _records(chunk: Chunk, held: Held) -> Records:
    """The chunk's records that are new or awaited."""
    records = drain.records(chunk)
    mask = held.wanted(records.offsets)
    return records if mask is None else records.where(mask)


def _first_letter(cut: batch.Cut, sequence: int) -> str:
    """Which dead letter stopped the topic; what to do the API tells."""
    letters = cut.dead_parts[0].slice(0, 1).to_pylist()[0]
    return (
        f"commit {sequence} has dead letters (error_mode: suspend), first offset {letters['_offset']} of lake partition"
        f" {letters['_lake_partition']}, {letters['_reason']}: {letters['_reason_text']}"
    )
