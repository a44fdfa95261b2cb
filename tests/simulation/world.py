"""One seed's world: it runs a while with faults, then without, until everything that can be in the lake is.

Every draw comes from a stream of its own that is named and seeded, so that one more draw here moves nothing there.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections import Counter
from dataclasses import replace
from typing import Any

from aiokafka.structs import TopicPartition

from api.accept import reset_topic
from api.positions import make_topic
from ingest.position import time_to_text
from tests.simulation.broker import Log, Topic
from tests.simulation.catalogue import Api, Empty, Network
from tests.simulation.clocks import Clock
from tests.simulation.events import START_US, Stream
from tests.simulation.faults import Faults
from tests.simulation.plan import Plan
from tests.simulation.process import Process
from tests.simulation.proof import Proof
from tests.simulation.retention import Retention
from tests.simulation.scheduler import Scheduler
from tests.simulation.source import Group
from tests.simulation.store import Store

log = logging.getLogger(__name__)

PATIENCE_S = 8.0  # of an operator after a reset
ASKED_AGAIN_S = 7.0  # until each worker has asked again for a topic that was stopped
REST_LIMIT_S = 200.0


class World:
    """Everything there is. `wrong` collects what should never happen while it does."""

    def __init__(self, plan: Plan, empty: Empty) -> None:
        self.plan = plan
        self.scheduler = Scheduler()
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.topics: dict[str, Topic] = {}
        self.database_clock = Clock(self.scheduler)
        self.store_clock = Clock(self.scheduler)
        self.store = Store(self.stream("store"), self.store_clock, self.count)
        self.api = Api(empty.copy(self.database_clock))
        self.api.on_commit = self._committed
        self.retention = Retention(self)
        self.network = Network(self.scheduler, self.stream("network"), self.api, self.count)
        self.network.mean_s = plan.network_s
        self.network.reports = plan.reports
        self.network.on_step = self._step
        self.network.on_end = self.retention.disturb
        self.group = Group(self)
        self.processes = [Process(self, f"worker-{number}") for number in range(plan.workers)]
        self.paused_topics: set[str] = set()
        self.resets: dict[str, float] = {}  # topic -> when an operator set it anew
        self.closed: dict[tuple[str, int], float] = {}  # lake partition -> when that was
        self.opened: dict[tuple[str, int], float] = {}
        self.broker_away_until = 0.0
        self.threads_slow = 0.0
        self.fetch_errors = 0.0
        self.chunks_lost = 0.0
        self.crash_at_step = 0.0
        self._threads = self.stream("threads")
        self._spoiling = self.stream("spoiling")
        self._ids = self.stream("ids")
        self._operator = self.stream("operator")
        self.faults = Faults(self)
        self.proof = Proof(self)

    # -- what the parts ask ---------------------------------------------------------------------------------------

    def stream(self, name: str) -> random.Random:
        return random.Random(f"{name} {self.plan.seed}")

    def count(self, what: str, lasting_s: float = 0.0) -> None:
        """A fault happened."""
        log.info("fault: %s", what)
        self.counts[what] += 1
        self.retention.disturb(lasting_s)

    def log(self, tp: TopicPartition) -> Log | None:
        topic = self.topics[tp.topic]
        return topic.logs[tp.partition] if tp.partition < len(topic.logs) else None

    def reaches_broker(self, process: Process) -> bool:
        return self.scheduler.now >= self.broker_away_until

    async def ask_topic_id(self, process: Process, name: str) -> str | None:
        await asyncio.sleep(self._ids.expovariate(1 / 0.01))
        if not self.reaches_broker(process):
            await asyncio.sleep(self.broker_away_until - self.scheduler.now)
        return self.topics[name].id

    def thread_delays(self, executor: Any) -> tuple[float, float]:
        mean = {"decode": 0.005, "encode": 0.02, "put": self.plan.put_s}.get(executor, 0.05)
        slow = self._threads.random() < self.threads_slow
        mean *= 30 if slow else 1
        # At most 30 s each: the longest of many draws would outlast the rest in which everything must come to its end.
        before, after = (min(30.0, self._threads.expovariate(1 / mean)) for _ in range(2))
        if slow:
            self.count("slow thread", before + after)
        return before, after

    def spoil(self, chunks: list[Any]) -> list[Any]:
        """A chunk that is lost, or comes twice, between the source and the agent; another one follows it, or nobody
        could miss it."""
        if len(chunks) < 2 or self._spoiling.random() >= self.chunks_lost:
            return chunks
        at = self._spoiling.randrange(len(chunks) - 1)
        if self._spoiling.random() < 0.7:
            self.count("chunk lost")
            return chunks[:at] + chunks[at + 1 :]
        self.count("chunk doubled")
        again = replace(chunks[at], batches=[list(batch) for batch in chunks[at].batches])
        return [*chunks[: at + 1], again, *chunks[at + 1 :]]

    def _step(self, process: Process, step: str) -> None:
        if self._spoiling.random() < self.crash_at_step and process.alive:
            self.count("crash at a step")
            self.faults.crash(process)

    # -- a life ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Faults, then rest. What is wrong then is in `wrong`, or for the proof to find."""
        self._make_topics()
        for process in self.processes:
            self.scheduler.after(self.stream(f"start {process.name}").uniform(0, 1), process.start)
        self.faults.begin()
        for name in self.topics:
            self._produce(name, self.stream(f"producer {name}"))
        while self.scheduler.now < self.plan.duration_s and not self.wrong:
            self.scheduler.run_until(self.scheduler.now + 1.0)
            self._look_after()
            self._operate(0.3)
        self.faults.end()
        self._rest()

    def _make_topics(self) -> None:
        plan = self.plan
        settings = {
            "lateness": f"{plan.lateness_us // 1_000_000}s",
            "dedup_window": f"{plan.window_us // 1_000_000}s",
            "flush_rows": plan.flush_rows,
            "flush_age": f"{int(plan.flush_age_s * 1000)}ms",
            "on_differing": "keep" if plan.keep_differing else "drop",
            "period": "hour",
        }
        if plan.timed:
            settings["event_time"] = ["at"]
        for number in range(plan.topics):
            name = f"topic-{number}"
            self.topics[name] = Topic(name, plan.partitions, lambda: self.scheduler.now)
            with self.api.database.write() as connection:
                make_topic(connection, name, settings, self.database_clock.now_us())

    def _produce(self, name: str, rng: random.Random) -> None:
        plan, topic = self.plan, self.topics[name]
        events = Stream(
            self.stream(f"events {name}"), plan.lateness_us, plan.window_us, plan.step_us, plan.repeats,
            plan.rubbish, plan.stand_ins, plan.late, plan.minutes,
        )  # fmt: skip
        sent: dict[int, list[Any]] = {}

        def send() -> None:
            if self.scheduler.now >= plan.duration_s:
                return
            partition = rng.randrange(topic.partitions)
            if plan.quiet_partitions and partition > 0 and rng.random() < 0.8:
                partition = 0
            for _ in range(rng.choice([1, 1, 30]) if plan.bursts and rng.random() < 0.1 else 1):
                if partition in topic.lost_tail:
                    break  # an unclean election is only seen while the log is shorter than it was
                event = events.next(sent.setdefault(partition, []))
                sent[partition].append(event)
                topic.append(partition, event, self.faults.transaction(topic))
            self.scheduler.after(rng.expovariate(plan.rate), send)

        self.scheduler.after(rng.uniform(0, 1), send)

    def _look_after(self) -> None:
        """Processes that ended by themselves did so for a defect."""
        self.wrong += self.api.wrong
        for process in self.processes:
            worker = process.worker
            if worker is not None and worker.failure is not None:
                self.wrong.append(f"{process.name} ended by itself: {worker.failure!r}")

    def _rest(self) -> None:
        limit = self.scheduler.now + REST_LIMIT_S
        while not self.wrong:
            self.scheduler.run_until(self.scheduler.now + 1.0)
            self._look_after()
            self._operate(1.0)
            unfinished = self.unfinished()
            if not unfinished:
                break
            if self.scheduler.now > limit:
                self.wrong.append(
                    f"no rest after {REST_LIMIT_S:.0f} s without faults: {'; '.join(unfinished)}"
                )
        self.scheduler.run_until(self.scheduler.now + 1.0)

    def unfinished(self) -> list[str]:
        """What should still come into the lake, in words."""
        found = []
        stored = {(row["topic"], row["broker_partition"]): row for row in self.stored_positions()}
        for name, topic in self.topics.items():
            for partition, log in enumerate(topic.logs):
                row = stored.get((name, partition))
                if row is None:
                    found.append(f"{name}-{partition}: no position")
                elif row["next"] is None:
                    if log.end > log.start:
                        found.append(f"{name}-{partition}: never committed")
                elif row["next"] != log.end or row["carried_count"]:
                    found.append(
                        f"{name}-{partition}: next {row['next']} of {log.end}, {row['carried_count']} carried"
                    )
        return found

    def stored_positions(self) -> list[dict[str, Any]]:
        """The open lake partitions, as the database has them."""
        return self.rows(
            "SELECT t.name AS topic, p.* FROM lake_partitions p JOIN topics t ON t.id = p.topic_id WHERE p.open"
        )

    def rows(self, query: str) -> list[dict[str, Any]]:
        with self.api.database.read() as connection:
            return [dict(row._mapping) for row in connection.exec_driver_sql(query)]

    # -- what faults do to the whole ------------------------------------------------------------------------------

    def _operate(self, chance: float) -> None:
        """An operator who sees a stopped topic decides sooner or later where it goes on."""
        for name, topic in self.topics.items():
            states = {
                process.worker.topics[name].state
                for process in self.processes
                if process.worker is not None and name in process.worker.topics
            }
            stopped = states & {"new_life", "truncated"}
            if stopped and topic.life == 1 and not topic.lost_tail and name not in self.resets:
                self.wrong.append(f"{name} is {stopped}, and nothing happened to it")
            rested = self.scheduler.now - self.resets.get(name, -PATIENCE_S) >= PATIENCE_S
            if stopped and rested and self.network.api_up and self._operator.random() < chance:
                self._reset(topic)

    def _reset(self, topic: Topic) -> None:
        rng = self._operator
        at_ms = START_US // 1000 + int(rng.uniform(0, self.scheduler.now) * 1000)
        start = rng.choice(
            ["earliest", "earliest", "end", str(rng.randrange(100)), time_to_text(at_ms * 1000)]
        )
        self.counts["topic reset"] += 1
        log.info("operator: %s is reset to %s", topic.name, start)
        with self.api.database.write() as connection:
            closed, opened = reset_topic(
                connection, lambda _: self.database_clock.now_us(), topic.name, start or ""
            )
        self.resets[topic.name] = self.scheduler.now
        self.retention.disturb(ASKED_AGAIN_S)
        self.closed |= {(topic.name, number): self.scheduler.now for number in closed}
        self.opened |= {(topic.name, number): self.scheduler.now for number in opened}
        topic.lost_tail.clear()

    def api_is_up(self) -> None:
        self.network.api_up = True

    def pause_topic(self, name: str, *, paused: bool) -> None:
        """What `tukang topics pause` and `resume` do."""
        self.retention.disturb(0.0 if paused else ASKED_AGAIN_S)
        self.paused_topics = self.paused_topics | {name} if paused else self.paused_topics - {name}
        self._write("UPDATE topics SET paused_us = ? WHERE name = ?", (1 if paused else None, name))

    def change_settings(self, name: str, changes: dict[str, Any]) -> None:
        self.retention.disturb()
        [row] = self.rows(f"SELECT settings FROM topics WHERE name = '{name}'")
        settings = json.dumps({**json.loads(row["settings"]), **changes})
        self._write(
            "UPDATE topics SET settings = ?, settings_version = settings_version + 1 WHERE name = ?",
            (settings, name),
        )

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        with self.api.database.write() as connection:
            connection.exec_driver_sql(statement, values)

    def _committed(self, topic: str, content: dict[str, Any]) -> None:
        self.proof.check_commit(topic, content)

    def end(self) -> None:
        """Lets go of everything."""
        for process in self.processes:
            process.crash()
        self.scheduler.clear()
