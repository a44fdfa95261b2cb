"""A worker reduced to what the source needs of one: an app, an agent, and positions in a store that workers share.

The store stands for the API: a commit is taken only if it starts at the version that is stored. So every test can ask
at the end whether each record arrived exactly once.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from ingest.broker import BrokerSettings
from ingest.chunk import Chunk
from ingest.drain import records
from ingest.source import ChunkSource, TopicPartition, make_app
from ingest.watchdog import Signs, Watchdog

Row = tuple[int, bytes | None]  # offset, value


@dataclass
class Stored:
    """Of one partition: where the next commit starts, its version, and all rows committed."""

    next: int = 0
    version: int = 0
    rows: list[Row] = field(default_factory=list)


class Store:
    """Positions and rows, compare-and-set."""

    def __init__(self) -> None:
        self.partitions: dict[TopicPartition, Stored] = defaultdict(Stored)
        self.conflicts = 0

    def commit(self, partition: TopicPartition, version: int, rows: list[Row], following: int) -> int | None:
        """The new version; None when another worker was faster."""
        stored = self.partitions[partition]
        if stored.version != version:
            self.conflicts += 1
            return None
        stored.rows += rows
        stored.next = following
        stored.version += 1
        return stored.version

    def values(self, topic: str) -> list[bytes | None]:
        """All values of a topic, partition by partition, in the order in which they were committed."""
        mine = sorted(each for each in self.partitions if each.topic == topic)
        return [value for each in mine for _, value in self.partitions[each].rows]

    def offsets(self, topic: str, partition: int = 0) -> list[int]:
        return [offset for offset, _ in self.partitions[TopicPartition(topic, partition)].rows]

    def next(self, topic: str, partition: int = 0) -> int:
        return self.partitions[TopicPartition(topic, partition)].next


@dataclass
class Holding:
    """What a worker holds of one partition."""

    positioning: int
    version: int
    next: int
    rows: list[Row] = field(default_factory=list)


class Reader:
    """One worker. Use as an asynchronous context manager; options go to the source."""

    def __init__(
        self,
        broker: BrokerSettings,
        pattern: str,
        folder: Path,
        *,
        store: Store | None = None,
        name: str = "one",
        group: str | None = None,
        commit_every: int = 1,
        skip_what_is_gone: bool = False,
        **options: Any,
    ) -> None:
        self.store = store or Store()
        self.errors: list[Chunk] = []
        self.chunks = 0
        self.left_out: set[TopicPartition] = set()
        self.assignments: list[frozenset[TopicPartition]] = []
        self.before_starts: Callable[[], Awaitable[None]] | None = None
        self.skip_what_is_gone = skip_what_is_gone
        self.ended_by_watchdog: list[str] = []
        self._commit_every = commit_every
        self._versions: dict[TopicPartition, int] = {}
        self._held: dict[TopicPartition, Holding] = {}
        self.app = make_app(f"reader-{name}", datadir=str(folder))
        self.channel = self.app.channel()
        self.app.agent(self.channel)(self._take)
        tuned = {
            "session_timeout_s": 6.0,
            "heartbeat_s": 0.5,
            "metadata_max_age_s": 1.0,
            "fetch_min_bytes": 1,
        }
        self.source = ChunkSource(
            self.app, self.channel, self, broker=broker, group=group or f"group-of-{pattern}", pattern=f"^{pattern}$",
            worker_name=name, clock=lambda: time.time_ns() // 1000,
            **({"in_flight_bytes": 64 << 20, "watchdog": self._watchdog} | tuned | options),
        )  # fmt: skip

    async def __aenter__(self) -> Reader:
        await self.app.start()
        await self.app.add_runtime_dependency(self.source)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.app.stop()
        assert not self.ended_by_watchdog

    def _watchdog(self, signs: Callable[[], Signs]) -> Watchdog:
        """One that does not end the tests' own process."""
        return Watchdog(signs, end=self.ended_by_watchdog.append)

    def reached(self, topic: str, partition: int = 0) -> int:
        """How far this worker has read, committed or not; -1: it does not read the partition."""
        held = self._held.get(TopicPartition(topic, partition))
        return held.next if held else -1

    # Owner

    async def starts(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        if self.before_starts is not None:
            await self.before_starts()
        wanted = [each for each in partitions if each not in self.left_out]
        if self.skip_what_is_gone:
            for each, (first, _) in (await self.source.log_range(wanted)).items():
                self.store.partitions[each].next = max(first, self.store.partitions[each].next)
        self._versions |= {each: self.store.partitions[each].version for each in wanted}
        return {each: self.store.partitions[each].next for each in wanted}

    def positioned(self, partition: TopicPartition, positioning: int, start: int) -> None:
        self._held[partition] = Holding(positioning, self._versions[partition], start)

    async def revoked(self, partitions: Iterable[TopicPartition]) -> None:
        for each in partitions:
            self._commit(each)
        self._held.clear()

    def assigned(self, partitions: Iterable[TopicPartition]) -> None:
        self.assignments.append(frozenset(partitions))

    # Agent

    async def _take(self, stream: Any) -> None:
        async for chunk in stream.noack():
            self.chunks += 1
            partition = TopicPartition(chunk.topic, chunk.partition)
            held = self._held.get(partition)
            if held is None or held.positioning != chunk.positioning:
                pass  # left over from before
            elif chunk.error is not None:
                self.errors.append(chunk)
            elif chunk.start != held.next:
                self.source.reposition([partition], f"starts at {chunk.start}, wanted {held.next}")
            else:
                found = records(chunk)
                held.rows += zip(found.offsets.tolist(), found.values, strict=True)
                held.next = chunk.next
                if self.chunks % self._commit_every == 0:
                    self._commit(partition)
            self.source.release(chunk)

    def _commit(self, partition: TopicPartition) -> None:
        held = self._held.get(partition)
        if held is None:
            return
        version = self.store.commit(partition, held.version, held.rows, held.next)
        if version is None:
            del self._held[partition]
            self.source.reposition([partition], "another worker was faster")
        else:
            held.version, held.rows = version, []
            self.source.acknowledge({partition: held.next})


async def until(what: Callable[[], Any], seconds: float = 30, why: str = "") -> Any:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not (found := what()):
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds} s{': ' if why else ''}{why}")
        await asyncio.sleep(0.05)
    return found


def produce(
    broker: BrokerSettings,
    topic: str,
    values: Iterable[bytes],
    partition: int = 0,
    keys: Iterable[bytes | None] = repeat(None),
    **config: Any,
) -> None:
    """Write values in order; `config` with underscores for dots."""
    producer = producer_of(broker, **config)
    for key, value in zip(keys, values, strict=False):
        producer.produce(topic, value, key, partition)
        producer.poll(0)
    assert producer.flush(30) == 0


def producer_of(broker: BrokerSettings, **config: Any) -> Producer:
    """A producer; `config` with underscores for dots."""
    settings = {key.replace("_", "."): value for key, value in config.items()}
    return Producer(
        {**broker.confluent_config(), "message.max.bytes": 15_000_000, "log_level": 0, **settings}
    )


def numbered(first: int, beyond: int) -> list[bytes]:
    """Values that tell their place."""
    return [b"%d" % number for number in range(first, beyond)]
