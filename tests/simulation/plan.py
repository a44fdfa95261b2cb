"""What one seed means: how large its world is, what its topics are like, and which faults happen how often.

Half of the kinds of faults are left out of each seed, others then come more often: rare orders of few faults are found
that way which an even mixture hides.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

FAULTS = (
    "crash",
    "pause",
    "long pause",
    "rebalance",
    "scale",
    "request lost",
    "reply lost",
    "request doubled",
    "request late",
    "put failed",
    "put reply lost",
    "slow threads",
    "crash at a step",
    "API restart",
    "broker away",
    "fetch error",
    "chunk lost",
    "worker clock",
    "database clock",
    "store clock",
    "a day passes",
    "sweep",
    "retention",
    "retention ahead",
    "compaction",
    "truncation",
    "new life",
    "partition added",
    "memory",
    "transactions",
    "topic paused",
    "settings changed",
)
TOLD_BY_REPORTS = {
    "topic paused",
    "settings changed",
    "truncation",
    "new life",
}  # the answers to them, that is


@dataclass(slots=True)
class Plan:
    """The draw of one seed."""

    seed: int
    workers: int
    partitions: int
    topics: int
    duration_s: float
    rate: float  # events per second and topic, on average
    bursts: bool
    lateness_us: int
    window_us: int
    timed: bool
    flush_rows: int
    flush_age_s: float
    most_rows: int
    step_us: int  # of event time, between two events
    repeats: float
    rubbish: float
    stand_ins: float
    late: float
    minutes: bool
    quiet_partitions: bool
    keep_differing: bool
    retention_ms: int | None
    skew: bool
    barrier: bool  # the group waits for all members before it gives partitions to others
    fetches: tuple[int, ...]  # how many offsets a fetch may bring
    reports: bool
    put_s: float  # mean times
    network_s: float
    faults: dict[str, float] = field(default_factory=dict)  # kind -> how much of it, 0 to 1

    def has(self, fault: str) -> bool:
        return fault in self.faults


def plan(seed: int) -> Plan:
    rng = random.Random(f"plan {seed}")
    mood = rng.random()
    share = rng.choice([0.15, 0.3, 0.5])
    faults = {kind: rng.random() for kind in FAULTS if rng.random() < share}
    if mood < 0.08:
        faults = {}
    elif mood < 0.14:  # what a worker can only keep ahead of where little else is broken
        faults = {kind: faults.get(kind, 0.0) for kind in ("retention", rng.choice(FAULTS))}
    second = 1_000_000
    for rare in ("truncation", "new life"):  # a topic that stops tells less than one that goes on
        if rare in faults and rng.random() < 0.6:
            del faults[rare]
    lateness_us = rng.choice([0, 1, 1, 2, 3, 5]) * second
    retention_ms = None
    put_s, most_rows = rng.choice([0.05, 0.3, 1.0]), rng.choice([2, 5, 15, 1000])
    if "retention" in faults:  # which a worker can only keep ahead of when it is fast enough
        put_s, most_rows = 0.05, 1000
        retention_ms = rng.choice([6_000, 10_000])
        lateness_us = rng.choice([2, 5, 9]) * second
    drawn = Plan(
        seed=seed,
        workers=rng.choice([1, 2, 2, 3]),
        partitions=rng.choice([1, 1, 2, 3, 4]),
        topics=rng.choice([1, 1, 1, 2]),
        duration_s=rng.choice([5, 9, 9, 14, 20]),
        rate=rng.choice([2, 6, 12]),
        bursts=rng.random() < 0.5,
        lateness_us=lateness_us,
        window_us=rng.choice([0, 60, 3600, 3600, 7200]) * second,
        timed=rng.random() < 0.85,
        flush_rows=rng.choice([3, 10, 40, 1000]),
        flush_age_s=rng.choice([0.3, 0.3, 1, 2]),
        most_rows=most_rows,
        step_us=rng.choice([second // 2, 2 * second, 60 * second]),
        repeats=rng.choice([0, 0.1, 0.4]),
        rubbish=rng.choice([0, 0.03, 0.2]),
        stand_ins=rng.choice([0, 0, 0.05, 0.3]),
        late=rng.choice([0, 0.05, 0.3]),
        minutes=rng.random() < 0.2,
        quiet_partitions=rng.random() < 0.4,
        keep_differing=rng.random() < 0.2,
        retention_ms=retention_ms,
        skew=bool(faults) and rng.random() < 0.3,
        barrier=rng.random() < 0.6,
        fetches=rng.choice([(1, 3, 10), (3, 10, 30), (30, 100)]),
        reports=bool(faults.keys() & TOLD_BY_REPORTS),
        put_s=put_s,
        network_s=min(rng.choice([0.02, 0.1, 0.4]), 0.1 if retention_ms else 1.0),
        faults=faults,
    )
    if (
        retention_ms is not None and 0.08 <= mood < 0.14
    ):  # rows wait for longer than the broker keeps their records
        drawn.lateness_us, drawn.step_us, drawn.stand_ins = 9 * second, second // 10, 0
    return drawn
