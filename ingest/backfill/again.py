"""Records that are in the lake, read from Kafka again: exactly these offsets, and those Kafka no longer has left out.

A reader of its own, without a group: nobody's positions move. What a fetched batch means is in `ingest.drain`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from ingest.broker import BrokerSettings, knock
from ingest.chunk import Records
from ingest.drain import records
from ingest.positioning import Positions
from ingest.quiet import quiet_client
from ingest.tap import Tap

Offsets = npt.NDArray[np.int64]

FAR = 50_000  # offsets: a longer stretch that nobody asked for is jumped over
SILENT_S = 60.0  # without an answer of the broker
TRIES = 5
MIB = 2**20


class KafkaSilent(Exception):
    """The broker does not give a partition's records."""


class Again:
    """Reads chosen offsets of one topic. Open it with `reading`."""

    def __init__(self, consumer: AIOKafkaConsumer, topic: str, partitions: list[int]) -> None:
        self._positions = Positions()
        self._tap = Tap(consumer, self._positions, lambda: time.time_ns() // 1_000)
        self._topic = topic
        self._positions.reassign(TopicPartition(topic, each) for each in partitions)

    async def records(self, partition: int, wanted: Offsets) -> AsyncIterator[Records]:
        """The records at these offsets (ascending), in order. What the log no longer has does not come.

        Raises KafkaSilent, BrokerAway.
        """
        of = TopicPartition(self._topic, partition)
        tries = 0
        while len(wanted):
            known = await self._tap.log_range([of])
            if of not in known:
                raise KafkaSilent(f"{self._topic}-{partition} has no leader now: try again later")
            first, end = known[of]
            wanted = wanted[(wanted >= first) & (wanted < end)]
            broken = None
            async for next_, found, broken in self._stretch(of, wanted):
                if broken is None:
                    tries = 0
                    chosen = np.isin(found.offsets, wanted, assume_unique=True)
                    wanted = wanted[np.searchsorted(wanted, next_) :]
                    if chosen.any():
                        yield found.where(chosen)
            if broken is not None:
                tries += 1
                if tries == TRIES:
                    raise KafkaSilent(f"{self._topic}-{partition} cannot be read: {broken}")
                await asyncio.sleep(0.2 * 2**tries)

    async def _stretch(
        self, of: TopicPartition, wanted: Offsets
    ) -> AsyncIterator[tuple[int, Records, str | None]]:
        """Reads until behind the last offset, a far jump, or an error: (position behind, records, error)."""
        if not len(wanted):
            return
        position = int(wanted[0])
        far = np.flatnonzero(np.diff(wanted) > FAR)
        last = int(wanted[far[0]] if len(far) else wanted[-1])
        self._tap.seek(of, self._positions.place(position))
        try:
            heard = time.monotonic()
            while position <= last:
                # What came of others is dropped: while it lies there the client asks their broker for nothing.
                chunks = [chunk for each in self._tap.fetched() for chunk in self._tap.take(each)]
                if chunks:
                    heard = time.monotonic()
                elif time.monotonic() - heard > SILENT_S:
                    raise KafkaSilent(f"{of.topic}-{of.partition}: nothing came for {SILENT_S:.0f} s")
                else:
                    await self._tap.wait(0.5)
                for chunk in chunks:
                    if chunk.error is not None:
                        yield position, _NONE, f"{chunk.error.kind}, {chunk.error.text}"
                        return
                    position = chunk.next
                    yield position, await asyncio.to_thread(records, chunk), None
        finally:
            self._tap.leave(of)


_NONE = Records(np.empty(0, np.int64), np.empty(0, np.int64), [], [])


@dataclass(frozen=True, slots=True)
class Source:
    """What Kafka has of a topic. `partitions`: the broker partition of each lake partition that it still has; `again`:
    None when it has none; `same_life`: whether the topic is still the one that they are of."""

    again: Again | None
    partitions: Mapping[int, int]
    same_life: Callable[[], Awaitable[bool]]


@asynccontextmanager
async def reading(broker: BrokerSettings, topic: str, partitions: list[int]) -> AsyncIterator[Again]:
    """A reader of these broker partitions. Raises BrokerAway, BrokerRefused."""
    quiet_client()
    await knock(broker)
    consumer = AIOKafkaConsumer(
        **broker.kafka_arguments(),
        client_id="tukang-backfill",
        group_id=None,
        auto_offset_reset="none",
        enable_auto_commit=False,
        isolation_level="read_committed",
        max_partition_fetch_bytes=8 * MIB,
    )
    try:
        await consumer.start()
        each_partition = [TopicPartition(topic, each) for each in partitions]
        consumer.assign(each_partition)
        for each in each_partition:
            # The client fetches nothing from a broker while it seeks a position for one of its partitions.
            consumer.seek(each, 0)
            consumer.pause(each)
        await consumer._client.force_metadata_update()
        yield Again(consumer, topic, partitions)
    finally:
        await consumer.stop()
