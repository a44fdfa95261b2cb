"""One chaos: start the town, write to it, break it for a while, heal it, and prove that nothing is lost or doubled.

`make chaos MINUTES=60` runs it at length and prints what happened; `test_chaos.py` runs it short.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.chaos.check import Findings, check, in_lake
from tests.chaos.faults import PARTITIONS, Faults
from tests.chaos.producers import PlainProducer, Topics, TransactionalProducer
from tests.chaos.town import Town

SETTINGS = {"event_id": ["id"], "event_time": ["at"], "lateness": "5s", "dedup_window": "1h"}
CATCH_UP_S = 240.0


@dataclass
class Outcome:
    """What a chaos came to. `wrong` must be empty."""

    seed: int
    faults: dict[str, int]
    journal: list[str]
    findings: list[Findings]
    records: int  # written by the producers, aborted ones too
    transactions: dict[str, int]
    commits: int
    seconds: dict[str, float]
    wrong: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """In words and figures."""
        lines = [
            f"seed {self.seed}; {self.seconds['faults'] / 60:.1f} minutes of faults; {os.cpu_count()} cores"
        ]
        lines += [f"{count:5d}  {kind}" for kind, count in sorted(self.faults.items())]
        lines += [f"{sum(self.faults.values()):5d}  faults in all", ""]
        lines += [
            f"{self.records} records written, transactions: {self.transactions}, {self.commits} commits"
        ]
        lines += [
            f"{each.topic}: {each.records} committed in Kafka, {each.rows} rows, {each.duplicates} duplicates, "
            f"{each.dead_letters} dead letters; {each.lost} lost, {each.doubled} doubled, {each.invented} invented, "
            f"{each.changed} changed {each.examples or ''}"
            for each in self.findings
        ]
        lines += [", ".join(f"{name}: {seconds:.0f} s" for name, seconds in self.seconds.items())]
        lines += ["", *(self.wrong or ["nothing is wrong"])]
        return "\n".join(lines)


def chaos(
    folder: Path,
    seed: int,
    seconds: float,
    *,
    pause_s: float,
    rate: float,
    new_topics: int,
    outage_s: float = 0.0,
) -> Outcome:
    """Runs it; `rate` in records per second, half of it in transactions. `outage_s`: then everybody away in turn."""
    took: dict[str, float] = {}
    clock = time.monotonic()

    def lap(name: str) -> None:
        nonlocal clock
        took[name] = time.monotonic() - clock
        clock = time.monotonic()

    with Town(folder, TOPICS="^chaos-.+", GROUP="chaos", FLUSH_AGE="4s") as town:
        topics = Topics({})
        town.default("chaos", "chaos-.+", SETTINGS)
        for number in (1, 2):
            topics.partitions[town.kafka.topic(f"chaos-{number}", PARTITIONS)] = PARTITIONS
        for number in (1, 2, 3):
            town.start_worker(f"worker-{number}")
        lap("start")
        config = {**town.kafka.settings.confluent_config(), "log_level": 0}
        began = time.time()
        plain = PlainProducer(config, topics, rate / 2, seed, began)
        transactional = TransactionalProducer(config, topics, rate / 2, seed, began)
        plain.start()
        transactional.start()
        faults = Faults(town, topics, seed, pause_s=pause_s, new_topics=new_topics)
        over = threading.Event()
        watch = threading.Thread(target=_watch, args=(town, faults, over), daemon=True)
        breaking = threading.Thread(target=faults.run, daemon=True)
        watch.start()
        breaking.start()
        time.sleep(seconds)
        faults.heal()
        breaking.join(60)
        lap("faults")
        if outage_s:
            faults.outages(outage_s)
            lap("outages")
        plain.finish()
        transactional.finish()
        lap("last records")
        wrong = faults.journal.failures
        try:
            town.wait("every partition at its end", lambda: _caught_up(town, topics), CATCH_UP_S, 1.0)
        except AssertionError as late:
            wrong.append(str(late))
        over.set()
        lap("catch up")
        wrong += _silent(town)
        findings = [check(town, topic, folder) for topic in topics.partitions]
        wrong += [f"{each.topic}: {each}" for each in findings if each.wrong]
        wrong += _known(folder, topics, plain, transactional)
        lap("check")
        code, said = town.verify()
        if code != 0:
            wrong.append(f"tukang verify ended with {code}:\n{said}")
        lap("verify")
        commits = sum(town.get(f"/topics/{topic}")["sequence"] for topic in topics.partitions)
    return Outcome(
        seed,
        dict(faults.journal.counts),
        faults.journal.lines,
        findings,
        plain.records + transactional.records,
        {
            "committed": len(transactional.committed),
            "aborted": len(transactional.aborted),
            "unsure": len(transactional.unsure),
        },
        commits,
        took,
        wrong,
    )


def _watch(town: Town, faults: Faults, over: threading.Event) -> None:
    """Sees who ends without having been told to: a failure, after which it is started again as it would be for real."""
    while not over.wait(1):
        for program in list(town.workers.values()):
            if program.expected and not program.running:
                faults.journal.fail(
                    f"{program.name} ended by itself with {program.process.poll()}{program.part.tail(60)}"
                )
                with faults.holding(program.name):
                    if town.workers[program.name] is program and program.expected:
                        town.start_worker(program.name)


def _caught_up(town: Town, topics: Topics) -> bool:
    """Whether the lake is where Kafka ends, with nothing held back."""
    for topic in topics.partitions:
        ends = town.ends(topic)
        for part in town.get(f"/topics/{topic}")["partitions"]:
            if part["next"] != ends.pop(part["broker_partition"], 0) or part["carried_count"]:
                return False
        if any(ends.values()):
            return False
    return True


def _silent(town: Town) -> list[str]:
    """Workers that do not run, or run and do not report."""
    wrong = []
    reporting = {each["name"]: each["state"] for each in town.get("/workers")["workers"]}
    for program in town.workers.values():
        if not program.expected:
            continue
        if not program.running:
            wrong.append(f"{program.name} is dead{program.part.tail(60)}")
        elif reporting.get(program.name) != "reporting":
            wrong.append(f"{program.name} runs, and the API hears nothing of it{program.part.tail(60)}")
    return wrong


def _known(
    folder: Path, topics: Topics, plain: PlainProducer, transactional: TransactionalProducer
) -> list[str]:
    """What the producers know for sure against the lake."""
    lake = np.unique(in_lake(folder, topics.partitions).column("n").to_numpy())
    wrong = [f"{each.name} died: {each.error}" for each in (plain, transactional) if each.error]
    missing = np.setdiff1d(np.asarray(plain.acknowledged, dtype=np.int64), lake)
    if len(missing):
        wrong.append(f"{len(missing)} acknowledged events are not in the lake: {missing[:10]}")
    for ranges, must in ((transactional.committed, True), (transactional.aborted, False)):
        numbers = np.concatenate(
            [np.arange(each.start, each.stop) for each in ranges] or [np.empty(0, np.int64)]
        )
        is_in = np.isin(numbers, lake)
        if (bad := numbers[is_in != must]).size:
            state = "committed events are not" if must else "aborted events are"
            wrong.append(f"{bad.size} {state} in the lake: {bad[:10]}")
    return wrong


def main() -> int:
    """The command line of `make chaos`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--rate", type=float, default=3000, help="records per second")
    parser.add_argument("--pause", type=float, default=8, help="mean seconds between two faults")
    parser.add_argument("--outage", type=float, default=0, help="then each of all away for so many seconds")
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it there")
    asked = parser.parse_args()
    seed = secrets.randbelow(10**6) if asked.seed is None else asked.seed
    sys.stdout.write(f"seed {seed}\n")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory(prefix="tukang-chaos-") as made:
        folder = asked.keep or Path(made)
        folder.mkdir(exist_ok=True, parents=True)
        outcome = chaos(
            folder,
            seed,
            asked.minutes * 60,
            pause_s=asked.pause,
            rate=asked.rate,
            new_topics=4,
            outage_s=asked.outage,
        )
    sys.stdout.write(outcome.summary() + "\n")
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
