"""The worker: a Faust app whose agent takes chunks; it owns the topics, wires the steps and decides nothing.

What is ready when is `batch`'s decision, what memory wants `memory`'s, where to start the API's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import tenacity
from aiokafka import TopicPartition
from prometheus_client import CollectorRegistry, start_http_server

from ingest.beats import all_beats
from ingest.broker import BrokerAway, BrokerSettings, TopicIds
from ingest.catalog import Answer, Catalog, CatalogRefused
from ingest.chunk import Chunk
from ingest.lake import Lake, LakeRefused, LakeUnavailable
from ingest.log_limits import LogLimits
from ingest.metrics import WorkerFigures
from ingest.opening import Found, open_parts
from ingest.part import Part
from ingest.patience import growing_pauses
from ingest.publish import Press
from ingest.settings import Settings, SettingsWrong
from ingest.source import ChunkSource, make_app
from ingest.topic import Means, Topic
from ingest.topic_settings import TopicSettings, topic_settings

log = logging.getLogger(__name__)

OPEN_WAIT_S = 1.0  # how long an assignment waits for a topic's memory before the others go ahead
RETRY_STOPPED_S = 10.0  # how often it is asked whether a stopped topic may be read again
MIB = 2**20
BYTES_PER_ROW_BESIDE_ARROW = 40  # columns of held rows that numpy has allocated: offset and times
BYTES_PER_ROW_HELD = 400  # only to bound the rows of one batch by memory


def now_us() -> int:
    """The worker's clock."""
    return time.time_ns() // 1000


def fetch_size(memory: int) -> int:
    """How much is fetched at once, and held before it is decoded, in bytes: decoded it may be ten times as large."""
    return min(32 * MIB, max(2 * MIB, memory // 32))


class Worker:
    """Owns the topics of one worker process; what `ingest.source` asks of it is `positioning.Owner`."""

    def __init__(self, settings: Settings, lake: Lake, catalog: Catalog, broker: BrokerSettings) -> None:
        self.settings = settings
        self.lake = lake
        self.catalog = catalog
        self.topics: dict[str, Topic] = {}
        self.stopped = asyncio.Event()
        self.failure: BaseException | None = None
        self._topic_ids = TopicIds(broker)
        self._log_limits = LogLimits(broker)
        self._decoders = ThreadPoolExecutor(max(2, os.cpu_count() or 2) + 2, "decode")
        self._encoders = ThreadPoolExecutor(max(1, (os.cpu_count() or 2) - 1), "encode")
        self._uploads = ThreadPoolExecutor(8, "put")
        self._opening: dict[str, asyncio.Task[None]] = {}
        self._overdue: set[str] = set()  # topics whose opening took longer than was waited for
        self._asked_at: dict[str, float] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self.holding = False
        self.means = Means(
            catalog=catalog,
            press=Press(
                lake, catalog, self._encoders, self._uploads, now_us, secrets.randbits, settings.name
            ),
            decoders=self._decoders,
            slots=asyncio.Semaphore(max(2, os.cpu_count() or 2)),
            topic_id=self._topic_id_patiently,
            now_us=now_us,
            most_rows=lambda: max(1000, settings.memory // 4 // BYTES_PER_ROW_HELD),
        )
        self.app = make_app(settings.name)
        self.chunks = self.app.channel()
        self.app.agent(self.chunks)(self._agent)
        session_s = settings.broker_session_timeout.total_seconds()
        fetch_bytes = fetch_size(settings.memory)
        self.source = ChunkSource(
            self.app,
            self.chunks,
            self,
            broker=broker,
            group=settings.group,
            pattern=settings.pattern,
            worker_name=settings.name,
            in_flight_bytes=fetch_bytes,
            fetch_bytes=fetch_bytes,
            partition_fetch_bytes=fetch_bytes // 2,
            clock=now_us,
            session_timeout_s=session_s,
            heartbeat_s=min(3.0, session_s / 3),
            metadata_max_age_s=settings.broker_metadata_age.total_seconds(),
        )

    # -- what the source asks (positioning.Owner) ----------------------------------------------------------------

    async def starts(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Where to read each partition; a topic that is stopped, or not opened yet, is left out."""
        asked: dict[str, set[int]] = defaultdict(set)
        for tp in partitions:
            asked[tp.topic].add(tp.partition)
        for name, wanted in asked.items():
            topic = self.topics.get(name)
            closed = {
                p for p in wanted if topic is None or p not in topic.parts or not topic.parts[p].checked
            }
            if closed and name not in self._opening and not self._rests(name):
                self._asked_at[name] = time.monotonic()
                self._opening[name] = self._spawn(self._open(name, closed))
        if pending := [self._opening[name] for name in asked if name in self._opening]:
            await asyncio.wait(pending, timeout=OPEN_WAIT_S)
            self._overdue |= asked.keys() & self._opening.keys()
        return {
            TopicPartition(name, p): part.expected
            for name, wanted in asked.items()
            if name in self.topics and name not in self._opening
            for p, part in self.topics[name].parts.items()
            if p in wanted and part.checked
        }

    def positioned(self, tp: TopicPartition, positioning: int, start: int) -> None:
        """The next chunks of `tp` carry this number, the first one begins at `start`."""
        if part := self.part(tp.topic, tp.partition):
            part.positioning = positioning
            if part.committed.next is not None:  # a quiet partition would show lag for ever
                self.source.acknowledge({tp: part.committed.next})

    def assigned(self, partitions: Iterable[TopicPartition]) -> None:
        """Drops what is held of partitions that are not ours any more."""
        ours = set(partitions)
        for topic in self.topics.values():
            topic.forget([p for p in topic.parts if TopicPartition(topic.name, p) not in ours])

    async def revoked(self, partitions: Iterable[TopicPartition]) -> None:
        """Publishes what is ready; what is held stays until the next assignment says whose it is."""
        if self.failure is not None:
            return
        for topic in self.topics.values():
            for part in topic.parts.values():
                part.checked = False
                part.positioning = -1
        await self.flush({tp.topic for tp in partitions})

    def _rests(self, name: str) -> bool:
        """Whether a stopped topic was asked for too short a time ago."""
        topic = self.topics.get(name)
        if topic is None or topic.state in ("starting", "running"):
            return False
        asked_at = self._asked_at.get(name, -RETRY_STOPPED_S)  # forgotten when the topic's settings change
        return topic.state == "refused" or time.monotonic() - asked_at < RETRY_STOPPED_S

    async def _open(self, name: str, wanted: set[int]) -> None:
        try:
            if (topic := self.topics.get(name)) is not None and topic.publishing is not None:
                await asyncio.wait({topic.publishing})
            tps = [TopicPartition(name, p) for p in wanted]
            topic_id = await self._topic_id(name)
            answer = (
                await self.catalog.positions(
                    [{"topic": name, "topic_id": topic_id, "partitions": sorted(wanted)}]
                )
            )[0]
            # After the positions: an older end of the log, with commits of another worker since, would look truncated.
            ranges = await self.source.log_range(frozenset(tps))
            settings = self._settings_of(answer)
            if topic is None:
                topic = self.topics[name] = Topic(name, self.means, settings, self._dropper(name))
            found = Found(
                topic_id,
                {tp.partition: ranges[tp] for tp in tps},
                lambda p, time_ms: self.source.offset_at(TopicPartition(name, p), time_ms),
            )
            await open_parts(topic, answer, settings, found, self.lake, self.catalog, now_us())
        except KeyError as missing:
            log.warning("topic %s is not opened yet: the broker tells nothing of %s", name, missing)
        except (TimeoutError, BrokerAway, LakeUnavailable) as error:
            log.warning("topic %s is not opened yet: %s", name, error)
        finally:
            del self._opening[name]
            if (
                name in self._overdue
            ):  # whoever asked did not wait: the partitions are to be asked for again, now
                self._overdue.discard(name)
                self.source.reposition(
                    frozenset(TopicPartition(name, p) for p in wanted), "the topic is opened"
                )

    def _dropper(self, name: str) -> Any:
        return lambda partitions, why: self.source.reposition(
            frozenset(TopicPartition(name, p) for p in partitions), why
        )

    def _settings_of(self, answer: Answer) -> TopicSettings:
        return topic_settings(
            answer["settings_version"], answer["settings"], answer["settings_own"], self.settings
        )

    async def _topic_id(self, name: str) -> str | None:
        return (await self._topic_ids.ask([name])).get(name)

    async def _topic_id_patiently(self, name: str) -> str | None:
        """For a batch that is put and waits for its commit: asked until the broker is there."""
        tries = tenacity.AsyncRetrying(**growing_pauses(log, "the broker", BrokerAway))
        found: str | None = await tries(self._topic_id, name)
        return found

    # -- chunks --------------------------------------------------------------------------------------------------

    async def _agent(self, chunks: Any) -> None:
        async for chunk in chunks.noack():
            self._accept(chunk)

    def part(self, topic: str, partition: int) -> Part | None:
        known = self.topics.get(topic)
        return known.parts.get(partition) if known else None

    def _accept(self, chunk: Chunk) -> None:
        """Files a chunk behind the ones before it; one that does not start where the last ended is dropped."""
        part = self.part(chunk.topic, chunk.partition)
        if part is None or chunk.positioning != part.positioning:
            self.source.release(chunk)
            return
        tp = frozenset({TopicPartition(chunk.topic, chunk.partition)})
        if chunk.error is not None:
            log.warning("topic %s, partition %d: %s", chunk.topic, chunk.partition, chunk.error.text)
            self.source.release(chunk)
            if chunk.error.kind == "out_of_range":
                self.topics[chunk.topic].drop(
                    chunk.error.text
                )  # opening looks at the log anew and says what is gone
            return
        if chunk.start != part.expected:
            self.source.release(chunk)
            self.source.reposition(tp, f"a chunk starts at {chunk.start}, not at {part.expected}")
            return
        part.expected = chunk.next
        topic = self.topics[chunk.topic]
        part.tail = self._spawn(self._take(topic, part, chunk, part.tail))

    async def _take(self, topic: Topic, part: Part, chunk: Chunk, before: asyncio.Task[None] | None) -> None:
        try:
            await topic.take(part, chunk, before)
        finally:
            self.source.release(chunk)

    # -- publishing ----------------------------------------------------------------------------------------------

    def used_bytes(self) -> int:
        """What Arrow holds, what the source holds, and the dedup memory."""
        helds = [part.held for topic in self.topics.values() for part in topic.parts.values()]
        beside = sum(held.row_count for held in helds) * BYTES_PER_ROW_BESIDE_ARROW
        seen = sum(held.seen.nbytes for held in helds)
        return int(pa.total_allocated_bytes()) + beside + self.source.in_flight.bytes + seen

    def publish(self, topic: Topic, early: Collection[int] = ()) -> asyncio.Task[None]:
        async def run() -> None:
            try:
                await topic.publish(early)
                self.source.acknowledge(
                    {
                        TopicPartition(topic.name, p): part.committed.next
                        for p, part in topic.parts.items()
                        if part.committed.next is not None
                    }
                )
            finally:
                topic.publishing = None

        if topic.publishing is None:
            topic.publishing = self._spawn(run())
        return topic.publishing

    async def flush(self, names: Iterable[str]) -> None:
        """Publishes what is ready of these topics. The caller bounds the time."""

        async def one(topic: Topic) -> None:
            if tails := [part.tail for part in topic.parts.values() if part.tail is not None]:
                await asyncio.wait(tails)
            if topic.publishing is not None:
                await asyncio.wait({topic.publishing})
            if topic.parts:
                await asyncio.wait({self.publish(topic)})

        await asyncio.gather(*(one(self.topics[name]) for name in set(names) if name in self.topics))

    # -- life ----------------------------------------------------------------------------------------------------

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        """A task whose failure ends the worker: what we do not understand is read again by the next one."""
        task: asyncio.Task[Any] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and self.failure is None:
            # A refusal is the user's to mend, and says how; what we do not understand shows where it is.
            told = isinstance(error, (CatalogRefused, LakeRefused))
            log.error("the worker ends: %s", error, exc_info=None if told else error)
            self.failure = error
            self.stopped.set()

    async def run(self) -> None:
        """Until SIGTERM, SIGINT or a failure, which is raised."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopped.set)
        if self.settings.metrics:
            registry = CollectorRegistry()
            registry.register(WorkerFigures(self))
            host, _, port = self.settings.metrics.rpartition(":")
            try:
                start_http_server(int(port), host or "127.0.0.1", registry)
            except (OSError, ValueError) as error:
                raise SettingsWrong(
                    f"TUKANG_METRICS={self.settings.metrics}: nothing can listen there ({error});"
                    " it wants host:port with a port that is free"
                ) from error
        await self.app.start()
        await self.app.add_runtime_dependency(self.source)
        beats = [self._spawn(work) for work in all_beats(self, now_us, self._log_limits.ask)]
        watch = self._spawn(self.app.wait_until_stopped())
        ended = asyncio.ensure_future(self.stopped.wait())
        await asyncio.wait({ended, watch}, return_when=asyncio.FIRST_COMPLETED)
        for task in beats:
            task.cancel()
        await self.app.stop()
        self.lake.close()
        await self.catalog.close()
        if self.failure is None and self.app.crashed:
            self.failure = self.app.crash_reason or RuntimeError("the Faust app crashed")
        if self.failure is not None:
            raise self.failure

    def change(self, answer: Answer) -> None:
        """New settings, a pause, a rule: the topic is dropped and opened again with what the API says now."""
        topic = self.topics.get(answer["topic"])
        if topic is None:
            return
        log.info("topic %s: settings changed", topic.name)
        self._asked_at.pop(topic.name, None)
        if topic.parts:
            topic.drop("its settings changed")
        elif topic.state != "refused":
            topic.state = "starting"
