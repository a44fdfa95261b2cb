"""The source: a service of the Faust app that owns the Kafka consumer and hands chunks to an agent.

Step 1 of an event's way. Where reading starts is asked of the worker (`Owner`), never of Kafka; what a fetched batch
means is in `drain.py`, who reads what in `assignor.py`, what heals in `positioning.py`. No record is looked at here,
and nothing slow is awaited: heartbeats run on the same event loop.

The laws of the source:
1. Only a partition in `positions.reading` is drained, and only from the position that stands there.
2. Whatever is wrong with one partition takes that one out of `reading`; the reconciler's beat is the retry.
3. With every change of the assignment everything is given up first, then positioned anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any

import faust
import mode
from aiokafka import AIOKafkaConsumer
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.structs import TopicPartition

from ingest import internals
from ingest.assignor import RendezvousAssignor
from ingest.broker import BrokerRefused, BrokerSettings, knock
from ingest.chunk import Chunk
from ingest.client import arguments, close, connect
from ingest.flight import InFlight
from ingest.membership import Membership
from ingest.positioning import Owner, Partitions, Positions, Reconciler
from ingest.quiet import quiet_client
from ingest.tap import Tap
from ingest.watchdog import Signs, Watchdog

log = logging.getLogger(__name__)

MIB = 2**20
FLUSH_SECONDS = 20.0  # for the owner's flush when partitions are taken away: far below the rebalance timeout
IDLE_SECONDS = 0.5  # one wait for data
HELD_SECONDS = 0.05  # one wait while nothing may be drained
UNANSWERED_SECONDS = 60.0  # until it is said that the broker tells nothing about a partition


class ChunkSource(mode.Service):
    """Chunks of all topics that match a pattern, from where the owner says, to one channel with one agent.

    Counters are plain attributes, for metrics. Everything but `release` belongs to the event loop.
    """

    def __init__(
        self,
        app: faust.App,
        channel: Any,
        owner: Owner,
        *,
        broker: BrokerSettings,
        group: str,
        pattern: str,
        worker_name: str,
        in_flight_bytes: int,
        clock: Callable[[], int],
        session_timeout_s: float = 30.0,
        heartbeat_s: float = 3.0,
        rebalance_timeout_s: float = 60.0,
        metadata_max_age_s: float = 300.0,
        partition_fetch_bytes: int = 16 * MIB,
        fetch_bytes: int = 32 * MIB,
        fetch_min_bytes: int = 64 * 1024,
        fetch_wait_s: float = 0.5,
        client_rack: str | None = None,
        watchdog: Callable[[Callable[[], Signs]], Watchdog] = Watchdog,
        **service: Any,
    ) -> None:
        """`pattern`: a regular expression that a whole topic name must match. `in_flight_bytes`: nothing is drained
        above it; what was fetched of one partition (`partition_fetch_bytes`, or one larger batch) may go beyond.
        `clock`: microseconds since 1970."""
        self.app, self.channel, self.owner, self.broker = app, channel, owner, broker
        self.held = False
        self.drains = 0  # rounds of the fetch loop
        self.flushes_cut_off = 0
        self.positions = Positions()
        self.in_flight = InFlight(in_flight_bytes)
        self.membership = Membership(RendezvousAssignor(worker_name, pattern), lambda: knock(broker))
        self.tap: Tap | None = None  # None: not connected yet
        self._clock = clock
        self._consumer: AIOKafkaConsumer | None = None
        self._reconciler = Reconciler(owner, self.positions, self._place)
        self._watchdog = watchdog(self.signs)
        self._leaving: Partitions = (
            frozenset()
        )  # taken away, but still ours to acknowledge while the owner flushes
        self._arguments = arguments(
            group=group,
            worker_name=worker_name,
            assignor=self.membership.assignor,
            session_timeout_s=session_timeout_s,
            heartbeat_s=heartbeat_s,
            rebalance_timeout_s=rebalance_timeout_s,
            metadata_max_age_s=metadata_max_age_s,
            partition_fetch_bytes=partition_fetch_bytes,
            fetch_bytes=fetch_bytes,
            fetch_min_bytes=fetch_min_bytes,
            fetch_wait_s=fetch_wait_s,
            client_rack=client_rack,
        )
        super().__init__(**service)

    # What the worker calls

    def reposition(self, partitions: Iterable[TopicPartition], why: str) -> None:
        """Stop reading these and ask the owner anew where they start: after a refused commit, a gap, a jump, and
        when a stopped topic may go on."""
        changed = self.positions.assigned.intersection(partitions)
        if changed and self.tap is not None:
            log.info("positioning %d partitions anew: %s", len(changed), why)
            for each in changed:
                self.tap.leave(each)
            self._reconciler.wake(changed)

    def pause(self, partition: TopicPartition) -> None:
        """Stop reading one partition; `resume` goes on where it stopped, under the same positioning."""
        reading = self.positions.reading.get(partition)
        if reading is not None and self.tap is not None:
            self.tap.leave(partition)
            self.positions.paused[partition] = reading

    def resume(self, partition: TopicPartition) -> None:
        """Read a paused partition on. One that was positioned anew or taken away since is left as it is."""
        reading = self.positions.paused.pop(partition, None)
        if reading is not None and self.tap is not None:
            self.tap.seek(partition, reading)

    def hold(self, on: bool) -> None:
        """Drain nothing (memory is short), or go on. Heartbeats go on; each broker is asked once more at most."""
        self.held = on

    def release(self, chunk: Chunk) -> None:
        """The chunk's bytes are no longer held. Call it when its records were decoded; from any thread, even twice."""
        self.in_flight.release(chunk)

    def acknowledge(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Tell Kafka how far the lake is, for lag tools. Advisory: errors are counted and change nothing."""
        ours = self.positions.assigned | self._leaving
        self.membership.acknowledge({each: offset for each, offset in offsets.items() if each in ours})

    async def log_range(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        """First offset in the log, and its end (high watermark). What does not exist, or has no leader now, is left
        out. Raises BrokerAway when the broker does not answer."""
        return {} if self.tap is None else await self.tap.log_range(partitions)

    async def offset_at(self, partition: TopicPartition, time_ms: int) -> int | None:
        """The first offset with a timestamp at or after `time_ms`; None: no record is so new. Raises KafkaError."""
        return None if self.tap is None else await self.tap.offset_at(partition, time_ms)

    def partitions_of(self, topic: str) -> tuple[list[int], int] | None:
        """All partitions that the topic has at the broker, and when the broker said so; None: not known."""
        return None if self.tap is None else self.tap.partitions_of(topic)

    def ends(self) -> dict[TopicPartition, tuple[int, int, int]]:
        """Of the partitions being read: end of the log, last stable offset (-1: the broker does not tell), and when
        an answer of the broker confirmed both, in us by this machine's clock."""
        if self.tap is None:
            return {}
        answers = {each: self.tap.ends(each) for each in self.positions.reading}
        return {each: ends for each, ends in answers.items() if ends is not None}

    def last_fetch_us(self) -> int | None:
        """When the broker last answered for a partition that is read now, in us. None: not yet."""
        return max((confirmed for _, _, confirmed in self.ends().values()), default=None)

    @property
    def waiting_for(self) -> str | None:
        """Why the broker does not serve us now, in words; None: it does, or it was not long ago."""
        return self.membership.away

    def signs(self) -> Signs:
        """Signs of life, for the watchdog; read from its thread."""
        group = self.membership
        return Signs(
            group.beats, self.drains, self.tap is not None, group.member, group.broker_known, group.dead
        )

    # The service

    async def on_start(self) -> None:
        quiet_client()
        self._watchdog.start()

    async def on_stop(self) -> None:
        self._watchdog.stop()
        if not self.crashed:  # after a crash others may own the partitions already
            await self._give_up(self.positions.assigned)
        if self._consumer is not None:
            await close(self._consumer)

    async def crash(self, reason: BaseException) -> None:
        """A refusal of the broker is the user's to mend: one line, no traceback."""
        if not isinstance(reason, BrokerRefused):
            return await super().crash(reason)
        log.critical("%s", reason)
        for node in self.beacon.walk():
            if isinstance(node.data, mode.Service):
                node.data._crash(reason)
        return None

    @mode.Service.task
    async def _fetch(self) -> None:
        consumer = await connect(
            self.broker, self._arguments, self.sleep, lambda: self.should_stop, self.membership.wait_for
        )
        if consumer is None:
            return
        self._consumer = consumer
        self.tap = tap = Tap(consumer, self.positions, self._clock)
        self.membership.joins(consumer)
        self.app.flow_control.resume()
        consumer.subscribe(pattern=self.membership.assignor.pattern, listener=_Listener(self))
        while not self.should_stop:
            async for chunk in self._drain(consumer, tap):
                await self.channel.put(chunk)
            self.drains += 1

    @mode.Service.task
    async def _reconcile(self) -> None:
        await self._reconciler.run(self.sleep, lambda: self.should_stop)

    @mode.Service.task
    async def _beat(self) -> None:
        await self.membership.run(self.sleep, lambda: self.should_stop)

    @mode.Service.task
    async def _look_for_unanswered(self) -> None:
        """Say which partitions the broker does not serve while it serves others."""
        while not self.should_stop:
            round_before, before = self.positions.round, self._clock()
            await self.sleep(UNANSWERED_SECONDS)
            well = self.tap is not None and not self._stopped_up and self.membership.away is None
            if self.tap is not None and well and round_before == self.positions.round:
                self.tap.say_unanswered(before)

    async def _drain(self, consumer: AIOKafkaConsumer, tap: Tap) -> AsyncIterator[Chunk]:
        """All that may be drained now, or a short wait."""
        with consumer._subscription.fetch_context():  # every time: the client's clock of being alive
            if self._stopped_up:
                await asyncio.sleep(HELD_SECONDS)
                return
            fetched = tap.fetched()
            for partition in fetched:
                chunks = [] if self._stopped_up else tap.take(partition)
                for chunk in chunks:
                    self.in_flight.add(chunk)
                for chunk in chunks:
                    yield chunk
            if not fetched:
                await tap.wait(IDLE_SECONDS)

    @property
    def _stopped_up(self) -> bool:
        """Nothing may be drained now. A channel without an agent would lose chunks without a word."""
        return self.held or self.in_flight.full or not self.channel.subscriber_count

    def _place(self, partition: TopicPartition, start: int) -> bool:
        """The reconciler's hand: tell the owner, seek, read. No await in it, so that nothing comes between."""
        if self.tap is None or partition not in self.positions.assigned or not self.tap.assigned(partition):
            return False
        reading = self.positions.place(start)
        self.owner.positioned(partition, reading.positioning, start)
        self.tap.seek(partition, reading)
        return True

    async def _give_up(self, partitions: Partitions) -> None:
        """Read nothing any more, let the owner flush what it holds, and stop speaking for these partitions."""
        self.positions.reassign(())
        self._leaving = partitions
        try:
            if partitions:
                await asyncio.wait_for(self.owner.revoked(partitions), FLUSH_SECONDS)
        except TimeoutError:
            self.flushes_cut_off += 1
            log.warning("the flush of %d partitions was cut off: they are read again", len(partitions))
        finally:
            self._leaving = frozenset()
        await self.membership.leaves()

    def _take_over(self, partitions: Partitions) -> None:
        self.positions.reassign(partitions)
        self.membership.enters()
        self.owner.assigned(partitions)
        self._reconciler.wake()


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """aiokafka only logs what a listener raises, and the member would never start: here it ends the service."""

    def __init__(self, source: ChunkSource) -> None:
        self._source = source

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        try:
            await self._source._give_up(frozenset(revoked))
        except Exception as error:
            await self._source.crash(error)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        try:
            self._source._take_over(frozenset(assigned))
        except Exception as error:
            await self._source.crash(error)


class App(faust.App):
    """A Faust app without Faust's own Kafka consumer and producer: the source brings the chunks."""

    class BootStrategy(faust.app.base.BootStrategy):
        enable_kafka = False

    def _create_directories(self) -> None:
        """None: Faust keeps tables there, and would leave the folders when it is killed."""


def make_app(name: str, **options: Any) -> App:
    """The app of a worker. Raises InternalsChanged when the libraries are not those the source was made for.

    `options` go to Faust and win over what stands here.
    """
    internals.check()
    settings: dict[str, Any] = {
        "broker": "kafka://localhost",  # never connected: `enable_kafka` is off
        "web_enabled": False,
        "topic_disable_leader": True,
        "topic_allow_declare": False,
        "reply_create_topic": False,
        "table_standby_replicas": 0,
        "stream_wait_empty": False,
        "stream_recovery_delay": 0,
        "stream_buffer_maxsize": 1024,  # not the limiter: bytes are
        "agent_supervisor": mode.CrashingSupervisor,
    }
    return App(name, **(settings | options))
