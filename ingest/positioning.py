"""Positioning: from where each assigned partition is read, and the one loop that heals every partition that is not.

Start, rebalance, refused commit, gap, broken batch and slow answers all end the same way: the partition is assigned,
but not read. The reconciler asks the owner where such partitions start, until none is left. Of Kafka's client nothing
is known here but the name of a partition.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from aiokafka.structs import TopicPartition

log = logging.getLogger(__name__)

Partitions = frozenset[TopicPartition]

BEAT_SECONDS = 2.0
LONGEST_WAIT_BEATS = 4  # for a partition that was not placed: an answer that comes back is used within 10 s
LONGEST_PAUSE_SECONDS = 5.0  # between two questions that failed
ASK_SECONDS = 60.0


class Owner(Protocol):
    """What the source asks of the worker. All of it runs on the one event loop."""

    async def starts(self, partitions: Partitions) -> Mapping[TopicPartition, int]:
        """Where to read each partition: the first offset that is wanted. What is left out (a stopped topic) is asked
        for again later. May raise: asked again after growing pauses."""

    def positioned(self, partition: TopicPartition, positioning: int, start: int) -> None:
        """Called just before the seek. Chunks with this number follow, the first one at `start`; any other number
        is left over from before."""

    async def revoked(self, partitions: Partitions) -> None:
        """These partitions go to another worker, or the worker stops: flush. Cancelled after a time limit."""

    def assigned(self, partitions: Partitions) -> None:
        """All that this worker reads from now on. Replaces what was assigned before."""


@dataclass(slots=True)
class Reading:
    """A partition that is being read: the next chunk must start here."""

    position: int
    positioning: int


class Positions:
    """Which partitions are assigned, and which of them are read, from where.

    The law: a partition is in `reading` exactly when the client may fetch it. `round` grows with every change of the
    assignment, so that an answer to an older question can be told.
    """

    def __init__(self) -> None:
        self.assigned: Partitions = frozenset()
        self.round = 0
        self.reading: dict[TopicPartition, Reading] = {}
        self.paused: dict[TopicPartition, Reading] = {}
        self._last_positioning = 0
        self._waits: dict[TopicPartition, tuple[int, int]] = {}  # beats still to wait, beats waited last time

    def reassign(self, partitions: Iterable[TopicPartition]) -> None:
        """Another assignment, perhaps an empty one: nothing is read until it is placed anew."""
        self.assigned = frozenset(partitions)
        self.round += 1
        self.reading.clear()
        self.paused.clear()
        self._waits.clear()

    def place(self, start: int) -> Reading:
        """A reading from `start` on, under a number never used before."""
        self._last_positioning += 1
        return Reading(start, self._last_positioning)

    def drop(self, partition: TopicPartition) -> None:
        """Read a partition no more until it is placed anew."""
        self.reading.pop(partition, None)
        self.paused.pop(partition, None)

    def due(self) -> Partitions:
        """Assigned, neither read nor paused, and not told to wait."""
        waiting = {each for each, (beats, _) in self._waits.items() if beats > 0}
        return self.assigned - self.reading.keys() - self.paused.keys() - waiting

    def unplaced(self) -> int:
        """How many assigned partitions are not read and not paused."""
        return len(self.assigned - self.reading.keys() - self.paused.keys())

    def wait(self, partition: TopicPartition) -> None:
        """Ask for a partition later: after 1, 2, 4 beats, then every 4."""
        _, before = self._waits.get(partition, (0, 0))
        beats = min(LONGEST_WAIT_BEATS, max(1, before * 2))
        self._waits[partition] = (beats, beats)

    def hurry(self, partition: TopicPartition) -> None:
        """Something changed for a partition: ask at once."""
        self._waits.pop(partition, None)

    def beat(self) -> None:
        """One beat has passed."""
        self._waits = {
            each: (left - 1, last) for each, (left, last) in self._waits.items() if each in self.assigned
        }


class Reconciler:
    """Asks the owner where the partitions start that are assigned and not read, for as long as there are any."""

    def __init__(
        self, owner: Owner, positions: Positions, place: Callable[[TopicPartition, int], bool]
    ) -> None:
        """`place(partition, start)` seeks; False: it is not assigned any more."""
        self.rounds = 0
        self.failures = 0
        self._owner = owner
        self._positions = positions
        self._place = place
        self._asked: set[TopicPartition] = set()
        self._awake = asyncio.Event()
        self._pause = 0.0

    def wake(self, changed: Iterable[TopicPartition] = ()) -> None:
        """Do not wait for the beat. An answer on its way for a changed partition is not used."""
        self._asked.difference_update(changed)
        for each in changed:
            self._positions.hurry(each)
        self._awake.set()

    async def run(self, sleep: Callable[[float], Any], stopping: Callable[[], bool]) -> None:
        """Beat until `stopping`; `sleep` must return early when the service stops."""
        while not stopping():
            await self.reconcile()
            self.rounds += 1
            if self._pause:
                await sleep(self._pause)
                continue
            try:
                await asyncio.wait_for(self._awake.wait(), BEAT_SECONDS)
            except TimeoutError:
                self._positions.beat()
            self._awake.clear()

    async def reconcile(self) -> None:
        """One question for all that are due, and their placing."""
        due, asked_in = self._positions.due(), self._positions.round
        if not due:
            return
        self._asked = set(due)
        try:
            starts = await asyncio.wait_for(self._owner.starts(due), ASK_SECONDS)
        except Exception as error:  # whatever the owner's trouble is, asking again is the answer; it is said
            self.failures += 1
            self._pause = min(LONGEST_PAUSE_SECONDS, max(0.5, self._pause * 2))
            log.warning(
                "no positions for %d partitions: %s; nothing is read from them, asking again in %.1f s",
                len(due), error or type(error).__name__, self._pause,
            )  # fmt: skip
            return
        self._pause = 0.0
        if asked_in != self._positions.round:
            return
        for each in due & self._asked:
            if each not in starts:
                self._positions.wait(each)
            elif not self._place(each, starts[each]):
                log.info("%s-%d is not assigned any more: not placed", each.topic, each.partition)
