"""Clocks: one for each worker, the database and the store. Each runs askew, and jumps when a fault says so."""

from __future__ import annotations

from dataclasses import dataclass

from tests.simulation.events import START_US
from tests.simulation.scheduler import Scheduler


@dataclass(slots=True)
class Clock:
    """Microseconds since 1970, and seconds that never go back."""

    scheduler: Scheduler
    ahead_us: int = 0
    rate: float = 1.0

    def now_us(self) -> int:
        return START_US + int(self.scheduler.now * self.rate * 1_000_000) + self.ahead_us

    @property
    def behind_s(self) -> float:
        """How far it is behind the world's time; negative: ahead."""
        return self.scheduler.now * (1 - self.rate) - self.ahead_us / 1_000_000

    def jump(self, by_us: int) -> None:
        self.ahead_us += by_us
