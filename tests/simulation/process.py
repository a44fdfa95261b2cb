"""One worker process: the production `Worker` on an event loop of its own, with simulated surroundings.

It dies, stands still and wakes; what was under way at that moment stays under way for all others.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ingest.beats import all_beats
from ingest.settings import Settings
from ingest.worker import Worker
from tests.simulation.catalogue import SimulatedCatalog
from tests.simulation.clocks import Clock
from tests.simulation.scheduler import ProcessLoop
from tests.simulation.store import BUCKET, SimulatedLake

if TYPE_CHECKING:
    from tests.simulation.world import World

MEMORY = 1 << 40  # what is used is made up
SETTINGS = Settings(broker="none:9092", bucket=BUCKET, api="http://none", memory=MEMORY, topics="^.*$")  # type: ignore[call-arg,arg-type]


class SimulatedWorker(Worker):
    """The production worker; what it makes itself to reach the outside is replaced (`seams.py`)."""

    def __init__(self, process: Process) -> None:
        world = process.world
        self.process = process
        super().__init__(
            SETTINGS.model_copy(update={"name": process.name}),
            SimulatedLake(world.store),  # type: ignore[arg-type]
            SimulatedCatalog(process, world.network),
            None,  # type: ignore[arg-type]
        )
        self.means = replace(self.means, most_rows=lambda: world.plan.most_rows)

    def used_bytes(self) -> int:
        return int(MEMORY * self.process.memory_share)


class Process:
    """A name that a worker runs under, over all its starts."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.clock = Clock(world.scheduler)
        self.starts = 0
        self.memory_share = 0.1
        self.loop: ProcessLoop | None = None
        self.worker: SimulatedWorker | None = None
        self.wanted = True  # the fleet wants it to run
        self._dead: list[ProcessLoop] = []
        self._rebalancing: asyncio.Lock = asyncio.Lock()

    @property
    def alive(self) -> bool:
        return self.loop is not None and not self.loop.dead

    @property
    def paused(self) -> bool:
        return self.loop is not None and self.loop.paused

    def start(self) -> None:
        self.starts += 1
        self.randbits = self.world.stream(f"names {self.name} {self.starts}").getrandbits
        self._rebalancing = asyncio.Lock()
        self.loop = ProcessLoop(self.world.scheduler, self, self.world.thread_delays, self._error)
        self.loop.call_soon(self._begin)

    def _begin(self) -> None:
        self.worker = worker = SimulatedWorker(self)
        for work in (
            worker.source.fetch(),
            worker.source.reconcile(),
            *all_beats(worker, self.clock.now_us, worker._log_limits.ask),
        ):
            worker._spawn(work)
        self.world.group.join(self, new=True)

    def crash(self) -> None:
        if self.loop is not None:
            self.loop.kill()
            self._dead.append(self.loop)
        self.worker = None

    def told_to_join(self, generation: int) -> None:
        """The heartbeat says that there is a new round."""
        if self.alive and self.loop is not None:
            self.loop.call_soon(lambda: self._spawn(self._join(generation)))

    def stop(self) -> None:
        """SIGTERM: flush, leave the group, end."""
        if self.alive and self.loop is not None:
            self.loop.call_soon(lambda: self._spawn(self._leave()))

    def _spawn(self, work: Any) -> None:
        if self.worker is None:
            work.close()
        else:
            self.worker._spawn(work)

    async def _join(self, generation: int) -> None:
        async with self._rebalancing:
            if self.worker is not None and generation == self.world.group.generation:
                await self.worker.source.rebalanced(self.world.group, self, generation)

    async def _leave(self) -> None:
        async with self._rebalancing:
            if self.worker is not None:
                await self.worker.source._give_up(self.worker.source.positions.assigned)
        self.world.group.leave(self)
        self.crash()

    def _error(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.world.wrong.append(f"{self.name}: {context.get('message')}: {error!r}")
