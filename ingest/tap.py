"""The tap: what the Kafka client has fetched and where it stands, partition by partition.

All handling of aiokafka's fetcher is here: taking results out of it as chunks, seeking, pausing, asking for the log's
ends. Nothing here decides where reading starts or when, and nothing here knows the group.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import FetchError, FetchResult
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.structs import TopicPartition

from ingest.broker import BrokerAway
from ingest.chunk import Chunk, ChunkError, ErrorKind
from ingest.drain import let_go, walk
from ingest.positioning import Positions, Reading
from ingest.raw_batch import keep_bytes

log = logging.getLogger(__name__)

LOG_RANGE_SECONDS = 15.0
FETCHED_END_MS = 50  # with no time at all Tansu tells nothing
NO_BACKOFF_END = 1e6  # seconds


class Tap:
    """Draws chunks from one started consumer. Belongs to the event loop; only the waits are coroutines."""

    def __init__(self, consumer: AIOKafkaConsumer, positions: Positions, clock: Callable[[], int]) -> None:
        self.dropped = 0  # fetched results that were not where reading should go on
        self.errors: dict[str, int] = {}  # kind of chunk error -> number
        self._consumer = consumer
        self._fetcher: Any = consumer._fetcher
        self._positions = positions
        self._clock = clock
        # An undrained partition keeps its broker from being fetched for this long, so that what is held while
        # nothing is drained stays one answer per broker. All that may be drained is, at once, even errors.
        self._fetcher._prefetch_backoff = NO_BACKOFF_END
        keep_bytes()

    def fetched(self) -> list[TopicPartition]:
        """Partitions that have something to take."""
        return list(self._fetcher._records)

    async def wait(self, seconds: float) -> None:
        """Until something new was fetched, or the time is over."""
        waiter = self._fetcher._create_fetch_waiter()
        await asyncio.wait([waiter], timeout=seconds)
        if not waiter.cancel():
            waiter.exception()  # trouble of the group arrives here too; the membership's beat handles it

    def take(self, partition: TopicPartition) -> list[Chunk]:
        """Take what was fetched of one partition out of the client: as chunks in order, perhaps with an error chunk
        at the end (the partition is then read no more), or nothing where reading must not go on from it."""
        result = self._fetcher._records.get(partition)
        reading = self._positions.reading.get(partition)
        state = self._state(partition)
        if result is None:
            return []
        if reading is None or state is None:
            self._discard(partition)
            self.dropped += 1
            return []
        if isinstance(result, FetchError):
            kind: ErrorKind = "out_of_range" if isinstance(result._error, OffsetOutOfRangeError) else "fetch"
            return [self._fail(partition, reading, ChunkError(kind, _said(result._error)))]
        if (
            state.position != reading.position
        ):  # the client passed over something, such as a batch cut by the broker
            text = f"the client stands at offset {state.position}, reading at {reading.position}"
            return [self._fail(partition, reading, ChunkError("jump", text))]
        if not result.check_assignment(partition):
            self._discard(partition)
            self.dropped += 1
            return []
        chunks, error = self._chunks(partition, reading, state, result._partition_records)
        result._update_position()
        self._discard(partition)
        self._positions.hurry(partition)  # it works: another trouble is a new one
        return [*chunks, self._fail(partition, reading, error)] if error else chunks

    def assigned(self, partition: TopicPartition) -> bool:
        """Whether the client holds the partition now, as part of an assignment that is not over."""
        return self._state(partition) is not None

    def seek(self, partition: TopicPartition, reading: Reading) -> None:
        """Fetch from where the reading stands. Nothing happens when the partition is not assigned (any more)."""
        if self.assigned(partition):
            self._consumer.seek(partition, reading.position)
            self._positions.reading[partition] = reading
            self._consumer.resume(partition)

    def leave(self, partition: TopicPartition) -> None:
        """Read a partition no more, and forget what was fetched of it."""
        self._positions.drop(partition)
        if self._state(partition) is not None:
            self._consumer.pause(partition)
        self._discard(partition)

    def ends(self, partition: TopicPartition) -> tuple[int, int, int] | None:
        """End of the log, last stable offset (-1: not told), and when an answer of the broker said so, in us by this
        machine's clock. None: no answer since the partition was assigned."""
        state = self._state(partition)
        if state is None or state.highwater is None:
            return None
        return state.highwater, -1 if state.lso is None else state.lso, state.timestamp * 1000

    def partitions_of(self, topic: str) -> tuple[list[int], int] | None:
        """All partitions that the topic has at the broker, and when the broker said so, in us by this machine's
        clock; None: it is not known."""
        cluster = self._consumer._client.cluster
        known = cluster.partitions_for_topic(topic)
        return None if known is None else (sorted(known), int(cluster._last_successful_refresh_ms * 1000))

    def say_unanswered(self, since_us: int) -> None:
        """Log the partitions being read about which the broker has told nothing since then: their leader is away, or
        fails in a way that the client only logs."""
        told = {each: self.ends(each) for each in self._positions.reading}
        silent = sorted(each for each, ends in told.items() if ends is None or ends[2] < since_us)
        if silent:
            names = ", ".join(f"{each.topic}-{each.partition}" for each in silent[:5])
            more = f" and {len(silent) - 5} more" if len(silent) > 5 else ""
            log.warning(
                "the broker has told nothing for a while about %s%s: have they a leader?", names, more
            )

    async def offset_at(self, partition: TopicPartition, time_ms: int) -> int | None:
        """The first offset with a timestamp at or after `time_ms`; None: no record is so new."""
        found = (await self._consumer.offsets_for_times({partition: time_ms}))[partition]
        return None if found is None else int(found.offset)

    async def log_range(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        """First offset in the log and its end. See `ChunkSource.log_range`."""
        leader = self._consumer._client.cluster.leader_for_partition
        leaders = {each: leader(each) for each in partitions}
        here = [each for each, node in leaders.items() if node not in (None, -1)]
        milliseconds = int(LOG_RANGE_SECONDS * 1000)
        try:
            first, end = await asyncio.gather(
                self._fetcher.beginning_offsets(here, milliseconds),
                self._fetcher.end_offsets(here, milliseconds),
            )
            told = {each: end[each] for each in here if each in first and each in end}
            nodes = {leaders[each] for each in told}
            for node in nodes:
                told |= await self._fetched_ends(
                    node, {tp: at for tp, at in told.items() if leaders[tp] == node}
                )
        except KafkaError as error:
            raise BrokerAway(
                f"the broker does not tell where the log begins and ends: {_said(error)}"
            ) from error
        return {each: (first[each], end) for each, end in told.items()}

    async def _fetched_ends(self, node: Any, ends: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
        """The ends again, as an answer to a fetch there tells them. Asked for its latest offset a broker tells the last
        stable one, and Tansu the second of its last batch; both may lie before what was read already."""
        topics: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
        for each, end in ends.items():
            topics[each.topic].append((each.partition, end, 1))
        request = FetchRequest(
            FETCHED_END_MS, 0, 1, self._fetcher._isolation_level, list(topics.items()), rack_id=""
        )
        answer = await self._consumer._client.send(node, request)
        return {
            TopicPartition(topic, partition): max(high_watermark, ends[TopicPartition(topic, partition)])
            for topic, partitions in answer.topics
            for partition, error, high_watermark, *_ in partitions
            if error == 0
        }

    def _chunks(
        self, partition: TopicPartition, reading: Reading, state: Any, fetched: Any
    ) -> tuple[list[Chunk], ChunkError | None]:
        now = self._clock()
        stretches, error = walk(fetched)
        chunks = [
            Chunk(
                partition.topic,
                partition.partition,
                reading.positioning,
                each.start,
                each.next,
                each.batches,
                each.bytes,
                now,
                state.highwater,
                -1 if state.lso is None else state.lso,
            )
            for each in stretches
        ]
        reading.position = fetched.next_fetch_offset
        return chunks, error

    def _fail(self, partition: TopicPartition, reading: Reading, error: ChunkError) -> Chunk:
        self.leave(partition)
        self._positions.wait(partition)
        self.errors[error.kind] = self.errors.get(error.kind, 0) + 1
        at, number = reading.position, reading.positioning
        return Chunk(
            partition.topic, partition.partition, number, at, at, fetched_at_us=self._clock(), error=error
        )

    def _state(self, partition: TopicPartition) -> Any:
        """aiokafka's state of an assigned partition. None: not assigned, or an assignment that is over."""
        subscription = self._consumer._subscription.subscription
        assignment = None if subscription is None else subscription.assignment
        return assignment.state_value(partition) if assignment is not None and assignment.active else None

    def _discard(self, partition: TopicPartition) -> None:
        """Forget what was fetched; without the wake the broker would not be asked again."""
        result = self._fetcher._records.pop(partition, None)
        if isinstance(result, FetchResult):
            let_go(result._partition_records)
        self._fetcher._notify(self._fetcher._wait_consume_future)


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
