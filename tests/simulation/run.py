"""One seed from beginning to end, and many of them."""

from __future__ import annotations

import gc
import logging
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field

from tests.simulation.catalogue import Empty
from tests.simulation.mutants import MUTANTS
from tests.simulation.plan import plan
from tests.simulation.seams import seams
from tests.simulation.world import World

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Outcome:
    """What became of one seed."""

    seed: int
    wrong: list[str]
    faults: Counter[str] = field(default_factory=Counter)
    figures: Counter[str] = field(default_factory=Counter)


_empty: list[Empty] = []


def run_seed(seed: int, mutant: str | None = None, *, tell: bool = False) -> Outcome:
    """One seed. Never raises for what the world did; `tell` logs its history."""
    if not _empty:
        _empty.append(Empty())
    gc.disable()
    sys.unraisablehook = lambda _: None  # coroutines of dead processes, when they are collected
    world = World(plan(seed), _empty[0])
    if tell:
        _tell(world)
    with seams(world.scheduler, world.plan), MUTANTS[mutant]() if mutant else nullcontext():
        world.run()
        if not world.wrong:
            world.proof.check()
    figures = world.proof.figures
    figures["records"] = sum(len(topic.made) for topic in world.topics.values())
    figures["steps"] = world.scheduler.steps
    figures["conflicts"] = world.api.counts["position-moved"]
    outcome = Outcome(seed, list(dict.fromkeys(world.wrong)), world.counts, figures)
    world.end()
    if seed % 50 == 0:
        gc.collect()
    return outcome


def run_seeds(seeds: Iterable[int], mutant: str | None) -> list[Outcome]:
    """Several seeds in a process of their own."""
    logging.disable(logging.CRITICAL)
    return [run_seed(seed, mutant) for seed in seeds]


def _tell(world: World) -> None:
    """Every line of a log begins with the virtual time and the process."""

    def told(record: logging.LogRecord) -> bool:
        running = world.scheduler.running
        who = running.process.name if running is not None else "world"
        record.msg = f"{world.scheduler.now:8.3f} {who}: {record.msg}"
        return True

    for handler in logging.root.handlers:
        handler.addFilter(told)
    log.info("%s", world.plan)
