"""Membership: this worker in its consumer group. Errors of the group, rounds that are needed, offsets for lag tools.

aiokafka keeps quiet about three things, and a beat here looks after them: an error of the group waits unlogged until
somebody takes it; partitions added to a topic are not noticed, since members send no topics; and an assignment may name
topics that this member has not seen yet. Nothing here reads records or knows positions.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError
from aiokafka.structs import TopicPartition

from ingest.assignor import RendezvousAssignor
from ingest.broker import BrokerAway, BrokerRefused

log = logging.getLogger(__name__)

BEAT_SECONDS = 2.0
COMMIT_SECONDS = 10.0
SETTLE_SECONDS = 2.0  # for a commit on its way when the assignment ends
SAY_AGAIN_BEATS = 30  # the same trouble is said once a minute
LONGEST_STRANGERS_BEATS = 300  # each round stops the whole group for a moment
KNOCK_SECONDS = 10.0  # the beat waits for it, and the watchdog waits longer for the beat
AWAY = "waiting for the broker"


class Membership:
    """What the group's coordinator is asked for, apart from aiokafka's own joining and heartbeats."""

    def __init__(self, assignor: RendezvousAssignor, knock: Callable[[], Awaitable[None]]) -> None:
        """`knock` asks whether the broker lets us in; it raises BrokerAway or BrokerRefused."""
        self.assignor = assignor
        self.member = False  # an assignment was received and not taken away since
        self.away: str | None = None  # why the broker does not serve us now, in words
        self.beats = 0
        self.errors = 0
        self.commits = 0
        self.commit_errors = 0
        self._knock = knock
        self._consumer: AIOKafkaConsumer | None = None
        self._wanted: dict[TopicPartition, int] = {}
        self._committing: asyncio.Task[None] | None = None
        self._said: dict[str, int] = {}  # trouble -> the beat when it was said
        self._strangers_wait = self._strangers_pause = 0
        self._away_since: int | None = None

    def joins(self, consumer: AIOKafkaConsumer) -> None:
        """From now on the beat looks after this started consumer."""
        self._consumer = consumer

    def wait_for(self, why: str | None) -> None:
        """The broker does not serve us now, in words; None: it does again."""
        self.away = why

    @property
    def generation(self) -> int:
        """The group's generation as of the last join; -1: not a member."""
        return -1 if self._consumer is None else int(self._consumer._coordinator.generation)

    @property
    def broker_known(self) -> bool:
        """Whether the group's coordinator is known: it answered, and no request to it has failed since."""
        return self._consumer is not None and self._consumer._coordinator.coordinator_id is not None

    @property
    def dead(self) -> str | None:
        """A background task of the client that has ended, in words."""
        if self._consumer is None:
            return None
        tasks = {
            "the coordination task": self._consumer._coordinator._coordination_task,
            "the fetch task": self._consumer._fetcher._fetch_task,
            "the metadata task": self._consumer._client._sync_task,
        }
        return next((name for name, task in tasks.items() if task is not None and task.done()), None)

    async def run(self, sleep: Callable[[float], Any], stopping: Callable[[], bool]) -> None:
        """Beat until `stopping`; `sleep` must return early when the service stops."""
        while not stopping():
            self.beats += 1
            if self._consumer is not None:
                self._take_errors(self._consumer)
                await self._look_for_broker()
                self._look_for_strangers(self._consumer)
                self._look_for_partitions(self._consumer)
            await sleep(BEAT_SECONDS)

    def acknowledge(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit these offsets to the group soon; newer ones replace those that wait. One request at a time: they
        would pile up while the broker is away."""
        self._wanted |= offsets
        if self._wanted and (self._committing is None or self._committing.done()):
            self._committing = asyncio.get_running_loop().create_task(self._commit())

    def enters(self) -> None:
        """An assignment was received."""
        self.member = True

    async def leaves(self) -> None:
        """The assignment ends. Commits must be over before this member joins again: one that arrives with the old
        generation makes the client throw its membership away, and with it start another round for everybody."""
        if self._committing is not None:
            await asyncio.wait([self._committing], timeout=SETTLE_SECONDS)
            self._committing.cancel()
        self._wanted.clear()
        self.member = False
        self.assignor.partition_counts = None

    async def _commit(self) -> None:
        while self._wanted and self._consumer is not None:
            offsets, self._wanted = self._wanted, {}
            try:
                await asyncio.wait_for(self._consumer.commit(offsets), COMMIT_SECONDS)
            except (
                Exception
            ) as error:  # advisory: whatever is wrong, the truth is elsewhere; counted and said
                self.commit_errors += 1
                self._say(
                    f"offsets were not acknowledged to Kafka ({_named(error)}); only lag tools see that"
                )
            else:
                self.commits += 1

    def _take_errors(self, consumer: AIOKafkaConsumer) -> None:
        try:
            consumer._coordinator.check_errors()
        except GroupAuthorizationFailedError as error:
            self.errors += 1
            self._say(
                f"the broker does not let us into group {error.args[0]}: the user needs READ on the group"
            )
        except KafkaError as error:
            self.errors += 1
            self._say(f"trouble in the group: {_named(error)}; joining again")

    async def _look_for_broker(self) -> None:
        """While the group's coordinator does not answer, say what is waited for, and why."""
        if self.broker_known:
            self.away = None
            if self._away_since is not None and self._said.pop(AWAY, None) is not None:
                log.info("the broker is back after %.0f s", (self.beats - self._away_since) * BEAT_SECONDS)
            self._away_since = None
        elif self._away_since is None:
            self._away_since = self.beats
        elif self.beats > self._away_since + 1 and self._due(AWAY):
            try:
                await asyncio.wait_for(self._knock(), KNOCK_SECONDS)
                self.away = "it answers, but the group's coordinator does not yet"
            except (BrokerAway, BrokerRefused) as error:
                self.away = str(error)
            except TimeoutError:
                self.away = "it does not answer"
            log.warning("%s: %s", AWAY, self.away)

    def _look_for_strangers(self, consumer: AIOKafkaConsumer) -> None:
        """Partitions of topics unknown here were left out of the assignment: ask for another round, not too often,
        since another member may be allowed to see what this one is not."""
        strangers = consumer._subscription.strangers
        if not strangers or not self.member:
            self._strangers_pause = self._strangers_pause if strangers else 0
            return
        self._strangers_wait -= 1
        if self._strangers_wait > 0:
            return
        self._strangers_pause = min(LONGEST_STRANGERS_BEATS, max(1, self._strangers_pause * 2))
        self._strangers_wait = self._strangers_pause
        log.warning(
            "%d partitions of topics that this worker does not see (%s) were assigned to it: asking for another round",
            len(strangers), ", ".join(sorted({each.topic for each in strangers})[:5]),
        )  # fmt: skip
        consumer._client.force_metadata_update()
        consumer._coordinator.request_rejoin()

    def _look_for_partitions(self, consumer: AIOKafkaConsumer) -> None:
        """The leader asks for another round when the topics are not as it assigned them."""
        assigned = self.assignor.partition_counts
        if assigned is None or not self.member:
            return
        now = self.assignor.matched(consumer._client.cluster)
        if now != assigned:
            changed = sorted(
                each for each in now.keys() | assigned.keys() if now.get(each) != assigned.get(each)
            )
            log.info("topics have changed (%s): asking for another round", ", ".join(changed[:5]))
            self.assignor.partition_counts = None
            consumer._coordinator.request_rejoin()

    def _say(self, trouble: str) -> None:
        """Log a trouble, again only after a while."""
        if self._due(trouble):
            log.warning("%s", trouble)

    def _due(self, trouble: str) -> bool:
        """Whether a trouble is to be said now. It counts as said then."""
        self._said = {each: at for each, at in self._said.items() if self.beats - at < SAY_AGAIN_BEATS}
        return self._said.setdefault(trouble, self.beats) == self.beats


def _named(error: BaseException) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0][:200]
