"""The source over the simulated broker: the production `ChunkSource` with another tap, and a group.

The laws of the source (what is read, from where, what heals) are its own; here is only what aiokafka would do.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from aiokafka.structs import TopicPartition

from ingest.broker import BrokerAway
from ingest.chunk import Chunk, ChunkError, ErrorKind
from ingest.flight import InFlight
from ingest.positioning import Positions, Reading, Reconciler
from ingest.source import ChunkSource

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World

Partitions = frozenset[TopicPartition]

FLUSH_LIMIT_S = 6.0


class SimulatedTap:
    """In place of `ingest.tap.Tap`: the same laws, over the logs of the simulated broker."""

    def __init__(self, world: World, process: Process, positions: Positions) -> None:
        self.dropped = 0
        self.errors: dict[str, int] = {}
        self.world = world
        self.process = process
        self.positions = positions
        self.rng = world.stream(f"tap {process.name}")
        self._ends: dict[TopicPartition, tuple[int, int, int]] = {}

    def fetched(self) -> list[TopicPartition]:
        """Partitions that have something to take; with it the broker tells where their logs end."""
        if not self.world.reaches_broker(self.process):
            return []
        found = []
        for each, reading in self.positions.reading.items():
            log = self.world.log(each)
            if log is None or self.rng.random() < 0.2:
                continue
            self._ends[each] = (log.end, log.stable_end, self.process.clock.now_us())
            if reading.position != log.stable_end or self.rng.random() < self.world.fetch_errors:
                found.append(each)
        return found

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(self.rng.uniform(0.15, 1.2 * seconds))

    def take(self, partition: TopicPartition) -> list[Chunk]:
        reading, log = self.positions.reading.get(partition), self.world.log(partition)
        if reading is None or log is None:
            return []
        if self.rng.random() < self.world.fetch_errors:
            self.world.count("fetch error")
            kind: ErrorKind = self.rng.choice(["fetch", "crc", "jump"])
            return [self._fail(partition, reading, ChunkError(kind, "made up"))]
        if not log.start <= reading.position <= log.end:
            return [self._fail(partition, reading, ChunkError("out_of_range", "out of range"))]
        chunks = []
        for _ in range(self.rng.choice([1, 1, 2, 3])):
            records, upto = log.read(reading.position, self.rng.choice(self.world.plan.fetches))
            if upto == reading.position:
                break
            at, number = reading.position, reading.positioning
            batches = [records] if records else []
            now = self.process.clock.now_us()
            chunks.append(
                Chunk(
                    partition.topic, partition.partition, number, at, upto, batches, len(records), now,
                    log.end, log.stable_end,
                )
            )  # fmt: skip
            reading.position = upto
        return self.world.spoil(chunks)

    def assigned(self, partition: TopicPartition) -> bool:
        return partition in self.positions.assigned

    def seek(self, partition: TopicPartition, reading: Reading) -> None:
        self._ends.pop(partition, None)
        self.positions.reading[partition] = reading

    def leave(self, partition: TopicPartition) -> None:
        self.positions.drop(partition)

    def ends(self, partition: TopicPartition) -> tuple[int, int, int] | None:
        return self._ends.get(partition)

    def partitions_of(self, topic: str) -> tuple[list[int], int] | None:
        return list(range(self.world.topics[topic].partitions)), self.process.clock.now_us()

    async def log_range(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        await asyncio.sleep(self.rng.expovariate(1 / 0.02))
        if not self.world.reaches_broker(self.process):
            raise BrokerAway("away")
        found = {each: self.world.log(each) for each in partitions}
        first = {each: log.start for each, log in found.items() if log is not None}
        await asyncio.sleep(self.rng.expovariate(1 / 0.02))
        found = {each: self.world.log(each) for each in partitions}
        return {
            each: (first[each], log.end) for each, log in found.items() if log is not None and each in first
        }

    async def offset_at(self, partition: TopicPartition, time_ms: int) -> int | None:
        await asyncio.sleep(self.rng.expovariate(1 / 0.02))
        log = self.world.log(partition)
        found = [] if log is None else [o for o, record in log.records.items() if record.time_ms >= time_ms]
        return min(found, default=None)

    def _fail(self, partition: TopicPartition, reading: Reading, error: ChunkError) -> Chunk:
        self.leave(partition)
        self.positions.wait(partition)
        at, number = reading.position, reading.positioning
        now = self.process.clock.now_us()
        return Chunk(partition.topic, partition.partition, number, at, at, fetched_at_us=now, error=error)


class Channel:
    """From the source to the agent: in order, some time later."""

    subscriber_count = 1

    def __init__(self, accept: Any, rng: random.Random) -> None:
        self._accept = accept
        self._rng = rng
        self._free_at = 0.0

    async def put(self, chunk: Chunk) -> None:
        loop = asyncio.get_running_loop()
        self._free_at = max(self._free_at, loop.time()) + self._rng.expovariate(1 / 0.01)
        loop.call_at(self._free_at, self._accept, chunk)


class SimulatedMembership:
    """In place of `ingest.membership.Membership`: offsets for lag tools go nowhere."""

    away: str | None = None

    def enters(self) -> None:
        pass

    async def leaves(self) -> None:
        pass

    def acknowledge(self, offsets: Any) -> None:
        pass


class SimulatedSource(ChunkSource):
    """The production source without its client: what it decides is inherited."""

    def __init__(self, process: Process, owner: Any) -> None:
        world = process.world
        self.owner = owner
        self.channel = Channel(owner._accept, world.stream(f"channel {process.name}"))
        self.held = False
        self.drains = 0
        self.flushes_cut_off = 0
        self.positions = Positions()
        self.in_flight = InFlight(10**9)
        self.membership = SimulatedMembership()  # type: ignore[assignment]
        self.tap = SimulatedTap(world, process, self.positions)  # type: ignore[assignment]
        self._reconciler = Reconciler(owner, self.positions, self._place)
        self._leaving: Partitions = frozenset()

    async def fetch(self) -> None:
        """The loop of `ChunkSource._fetch`, for a client that is always connected."""
        consumer: Any = SimpleNamespace(_subscription=SimpleNamespace(fetch_context=nullcontext))
        while True:
            async for chunk in self._drain(consumer, self.tap):
                await self.channel.put(chunk)
            self.drains += 1
            if self.held:
                await asyncio.sleep(0.5)

    async def reconcile(self) -> None:
        await self._reconciler.run(asyncio.sleep, lambda: False)

    async def rebalanced(self, group: Group, process: Process, generation: int) -> None:
        """What aiokafka's coordinator does with its listener in one round."""
        await self._give_up(self.positions.assigned)
        await group.others_gave_up(process, generation)
        if generation == group.generation and process in group.members:
            self._take_over(group.shares[process])
            group.world.retention.disturb()  # until now nobody read them


class Group:
    """The consumer group's coordinator: who is a member, and who reads what."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = world.stream("group")
        self.generation = 0
        self.members: list[Process] = []
        self.shares: dict[Process, Partitions] = {}
        self._given_up: set[Process] = set()

    def join(self, process: Process, *, new: bool = False) -> None:
        """A member joins, or joins again; a process that starts is another member than the one of its name before."""
        if new and process in self.members:
            self.members.remove(process)
        if process not in self.members:
            self.members.append(process)
            self.rebalance()

    def leave(self, process: Process) -> None:
        if process in self.members:
            self.members.remove(process)
            self.rebalance()

    def rebalance(self) -> None:
        """A round: every member is told, some later than others."""
        self.generation += 1
        self.world.count("rebalance round")
        self._given_up = set()
        self.shares = {member: frozenset() for member in self.members}
        if not self.members:
            return
        every = [
            TopicPartition(name, p) for name, t in self.world.topics.items() for p in range(t.partitions)
        ]
        self.rng.shuffle(every)
        for number, each in enumerate(every):
            member = self.members[number % len(self.members)]
            self.shares[member] |= {each}
        for member in self.members:
            told = partial(member.told_to_join, self.generation)
            self.world.scheduler.after(self.rng.uniform(0, 0.6), told)

    async def others_gave_up(self, process: Process, generation: int) -> None:
        """The barrier of a round: until every member that lives came to it, or its time is over. Without it, members
        read what others still flush: a harder case than the group's protocol allows."""
        if not self.world.plan.barrier:
            return
        self._given_up.add(process)
        waited = 0.0
        while generation == self.generation and waited < FLUSH_LIMIT_S:
            if self._given_up.issuperset(self.members):
                return
            await asyncio.sleep(0.2)
            waited += 0.2
