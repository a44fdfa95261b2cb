"""One assigned broker partition of a topic in a worker: what is held of it, and how far its chunks came."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ingest.held import Held
from ingest.log_limits import Limits, endangered
from ingest.position import Position


@dataclass(slots=True, eq=False)
class Part:
    """From an assignment until it is dropped."""

    held: Held
    committed: Position  # as the API has stored it
    expected: int  # where the next chunk has to start
    checked: bool = False  # against the API, since the last assignment
    positioning: int = -1
    tail: asyncio.Task[None] | None = None  # the last chunk under way; chunks are taken in their order
    alive: bool = True  # False: dropped; what is still under way for it counts for nothing
    end: int = -1  # the log's end, confirmed, when the whole log is readable; else -1
    confirmed_at_us: int = 0
    endangered: bool = False  # Kafka is about to forget rows that are held: they go with the next cut

    @property
    def hurries(self) -> bool:
        """Whether held-back rows must go, and can: a cut takes no part of which carried records are still awaited."""
        return self.endangered and not len(self.held.awaited)

    def watch(self, log_ends: tuple[int, int], limits: Limits, now_ms: int) -> bool:
        """Notes and returns whether Kafka is about to forget records that a restart would have to read again.

        A batch that is under way counts as committed: either it will be, or all that is held is dropped.
        """
        held = self.held
        carried = held.base.carried
        needed = int(carried[0]) if len(carried) else held.first
        if endangered(needed, held.oldest_ms(), log_ends, limits, held.first, now_ms):
            self.endangered = True
        return self.endangered
