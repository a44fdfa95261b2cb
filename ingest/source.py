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
from pathlib import Path
from typing import Any

import faust
import mode
from aiokafka import AIOKafkaConsumer
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from ingest import internals
from ingest.assignor import KnownTopicsOnly, RendezvousAssignor
from ingest.broker import BrokerAway, BrokerRefused, BrokerSettings, knock
from ingest.chunk import Chunk
from ingest.flight import InFlight
from ingest.membership import Membership
from ingest.positioning import Owner, Partitions, Positions, Reconciler
from ingest.quiet import quiet_client
from ingest.tap import Tap
from ingest.watchdog import Signs, Watchdog

log = logging.getLogger(__name__)

MIB = 2**20
FLUSH_SECONDS = 20.0  # for the owner's flush when partitions are taken away: far below the rebalance timeout
LEAVE_SECONDS = 15.0  # for the client to leave the group and close
IDLE_SECONDS = 0.5  # one wait for data
HELD_SECONDS = 0.05  # one wait while nothing may be drained
LONGEST_PAUSE_SECONDS = 5.0  # between two attempts to reach the broker
REFUSALS = 3  # in a row: a broker that has just started may not know its users yet


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
        self._arguments: dict[str, Any] = {
            "client_id": f"tukang-{worker_name}",
            "group_id": group,
            "session_timeout_ms": int(session_timeout_s * 1000),
            "heartbeat_interval_ms": int(heartbeat_s * 1000),
            "rebalance_timeout_ms": int(rebalance_timeout_s * 1000),
            "request_timeout_ms": int(
                rebalance_timeout_s * 1500
            ),  # a join waits for all members in one request
            "max_poll_interval_ms": 10**10,  # a source that is held for long must stay a member
            "metadata_max_age_ms": int(metadata_max_age_s * 1000),
            "auto_offset_reset": "none",  # a jump must be an error
            "enable_auto_commit": False,
            "isolation_level": "read_committed",
            "max_partition_fetch_bytes": partition_fetch_bytes,
            "fetch_max_bytes": fetch_bytes,
            "fetch_min_bytes": fetch_min_bytes,
            "fetch_max_wait_ms": int(fetch_wait_s * 1000),
            "client_rack": client_rack,
            "partition_assignment_strategy": (self.membership.assignor,),
        }
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
            await _close(self._consumer)

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
        consumer = await self._connect()
        if consumer is None:
            return
        self.app.flow_control.resume()
        consumer.subscribe(pattern=self.membership.assignor.pattern, listener=_Listener(self))
        while not self.should_stop:
            async for chunk in self._drain(consumer, self.tap):
                await self.channel.put(chunk)
            self.drains += 1

    @mode.Service.task
    async def _reconcile(self) -> None:
        await self._reconciler.run(self.sleep, lambda: self.should_stop)

    @mode.Service.task
    async def _beat(self) -> None:
        await self.membership.run(self.sleep, lambda: self.should_stop)

    async def _connect(self) -> AIOKafkaConsumer | None:
        """A started consumer, however long it takes. None: the service stops. Raises BrokerRefused."""
        pause, refusals = 0.5, 0
        while not self.should_stop:
            try:
                await knock(self.broker)
                self._consumer = AIOKafkaConsumer(**self.broker.kafka_arguments(), **self._arguments)
                self._consumer._subscription = KnownTopicsOnly()
                await self._consumer.start()
            except (BrokerAway, BrokerRefused, KafkaError, OSError) as error:
                refusals = refusals + 1 if isinstance(error, BrokerRefused) else 0
                if refusals == REFUSALS:
                    raise
                if self._consumer is not None:
                    await _close(self._consumer)
                    self._consumer = None
                self.membership.away = str(error)
                log.warning("waiting for the broker: %s; asking again in %.1f s", error, pause)
                await self.sleep(pause)
                pause = min(LONGEST_PAUSE_SECONDS, pause * 2)
            else:
                self.tap = Tap(self._consumer, self.positions, self._clock)
                self.membership.joins(self._consumer)
                self.membership.away = None
                log.info("connected to the broker at %s", self.broker.servers)
                return self._consumer
        return None

    async def _drain(self, consumer: AIOKafkaConsumer, tap: Tap | None) -> AsyncIterator[Chunk]:
        """All that may be drained now, or a short wait."""
        assert tap is not None
        with (
            consumer._subscription.fetch_context()
        ):  # entered every time: it is the client's clock of being alive
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
            count = len(partitions)
            log.warning(
                "the flush of %d partitions was cut off after %.0f s: they are read again",
                count,
                FLUSH_SECONDS,
            )
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


async def _close(consumer: AIOKafkaConsumer) -> None:
    """Leave the group and close, within a time limit. In a task of its own: while the broker is away the client's own
    close can end in a cancellation, which must not look like ours."""
    leaving = asyncio.ensure_future(consumer.stop())
    await asyncio.wait([leaving], timeout=LEAVE_SECONDS)
    if leaving.done() and not leaving.cancelled() and leaving.exception() is None:
        return
    log.warning("the Kafka client did not close in order: the group notices after the session timeout")
    leaving.cancel()
    closing = asyncio.ensure_future(consumer._client.close())
    await asyncio.wait([closing], timeout=LEAVE_SECONDS)
    if closing.done() and not closing.cancelled():
        closing.exception()


class App(faust.App):
    """A Faust app without Faust's own Kafka consumer and producer: the source brings the chunks."""

    class BootStrategy(faust.app.base.BootStrategy):
        enable_kafka = False


def make_app(name: str, datadir: Path, **options: Any) -> App:
    """The app of a worker. Raises InternalsChanged when the libraries are not those the source was made for.

    `options` go to Faust and win over what stands here.
    """
    internals.check()
    settings: dict[str, Any] = {
        "datadir": str(datadir),
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
