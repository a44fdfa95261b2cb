"""The faults of a seed: when which of them happens, to whom.

Each kind that the plan names comes again and again at random times while the world runs; chances (of a lost request, a
slow thread) hold for spells. At the end all of them stop, and what was broken is mended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.broker import Topic
    from tests.simulation.process import Process
    from tests.simulation.world import World

SECOND_US = 1_000_000
HOUR_US = 3_600 * SECOND_US
SAFE_AGE_US = 24 * HOUR_US
SESSION_S = 2.0  # of the consumer group
APART_US = 5 * 60 * SECOND_US  # the sweep stops when the clocks are further apart


class Faults:
    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = world.stream("faults")
        self.over = False
        self._transaction: dict[str, int] = {}
        self._transactions = 0
        self._kinds: dict[str, tuple[float, Callable[[], None]]] = {
            "crash": (3.5, self._crash),
            "pause": (3.5, lambda: self._pause(self.rng.uniform(0.2, 1.5))),
            "long pause": (6, lambda: self._pause(self.rng.uniform(4, 25))),
            "rebalance": (3, world.group.rebalance),
            "scale": (5, self._scale),
            "API restart": (5, self._restart_api),
            "broker away": (6, self._broker_away),
            "worker clock": (4, self._jump_worker),
            "database clock": (4, lambda: self._jump("database clock", world.database_clock)),
            "store clock": (4, lambda: self._jump("store clock", world.store_clock)),
            "a day passes": (5, self._day),
            "sweep": (3, self._sweep),
            "retention": (0.7, self._retention),
            "retention ahead": (6, self._retention_ahead),
            "compaction": (5, self._compact),
            "truncation": (9, self._truncate),
            "new life": (9, self._new_life),
            "partition added": (8, self._add_partition),
            "memory": (4, self._memory),
            "transactions": (0.8, self._end_transactions),
            "topic paused": (6, self._pause_topic),
            "settings changed": (6, self._change_settings),
        }

    def begin(self) -> None:
        world, plan = self.world, self.world.plan
        if plan.skew:
            for clock in (world.database_clock, world.store_clock, *(each.clock for each in world.processes)):
                clock.ahead_us = self.rng.randrange(-60 * SECOND_US, 60 * SECOND_US)
                clock.rate = self.rng.uniform(0.98, 1.02)
        for kind, (seconds, act) in self._kinds.items():
            if plan.has(kind):
                self._again(kind, seconds / (0.3 + plan.faults[kind]), act)
        self._spells()

    def end(self) -> None:
        """From now on nothing is broken any more; what was is mended."""
        self.over = True
        world = self.world
        world.plan.most_rows = 1_000_000
        for topic in world.topics.values():
            for transaction in topic.open_transactions:
                topic.end_transaction(transaction, abort=self.rng.random() < 0.3)
            if topic.name in world.paused_topics:
                world.pause_topic(topic.name, paused=False)
        world.api_is_up()
        world.broker_away_until = 0.0
        self._chances(0.0)
        for process in world.processes:
            process.memory_share = 0.1
            if process.paused:
                self._wake(process)
            if not process.alive:
                process.start()

    # -- faults that last ----------------------------------------------------------------------------------------

    def _spells(self) -> None:
        """Times in which requests, puts, threads and fetches go wrong, and times in which they do not."""
        if self.over:
            return
        self._chances(self.rng.choice([0, 0, 1, 1, 3]))
        self.world.scheduler.after(self.rng.uniform(0.5, 4), self._spells)

    def _chances(self, force: float) -> None:
        world, plan = self.world, self.world.plan

        def chance(kind: str, most: float) -> float:
            return min(0.6, plan.faults.get(kind, 0.0) * most * force)

        world.network.request_lost = chance("request lost", 0.1)
        world.network.reply_lost = chance("reply lost", 0.15)
        world.network.doubled = chance("request doubled", 0.2)
        world.network.late = chance("request late", 0.15)
        world.store.failing = chance("put failed", 0.3)
        world.store.forgetting = chance("put reply lost", 0.2)
        world.threads_slow = chance("slow threads", 0.05)
        world.fetch_errors = chance("fetch error", 0.1)
        world.chunks_lost = chance("chunk lost", 0.1)
        world.crash_at_step = chance("crash at a step", 0.05)

    def _again(self, kind: str, seconds: float, act: Callable[[], None]) -> None:
        def happen() -> None:
            if not self.over:
                act()
                self._again(kind, seconds, act)

        self.world.scheduler.after(self.rng.expovariate(1 / seconds), happen)

    # -- processes -----------------------------------------------------------------------------------------------

    def _some(self) -> Process | None:
        running = [each for each in self.world.processes if each.alive and not each.paused]
        return self.rng.choice(running) if running else None

    def _crash(self) -> None:
        if process := self._some():
            self.world.count("crash")
            self.crash(process)

    def crash(self, process: Process) -> None:
        process.crash()
        self.world.scheduler.after(self.rng.choice([0.2, 1, 3]), lambda: self._start_again(process))
        self._expelled_after_session(process, process.starts)

    def _start_again(self, process: Process) -> None:
        if not process.alive and process.wanted:
            process.start()

    def _expelled_after_session(self, process: Process, start: int) -> None:
        def expel() -> None:
            if process.starts == start and (not process.alive or process.paused):
                self.world.group.leave(process)

        self.world.scheduler.after(SESSION_S, expel)

    def _pause(self, seconds: float) -> None:
        process = self._some()
        if process is None or process.loop is None:
            return
        self.world.count("pause" if seconds < SESSION_S else "pause beyond the session", seconds)
        process.loop.pause()
        loop = process.loop
        self._expelled_after_session(process, process.starts)
        self.world.scheduler.after(seconds, lambda: self._wake(process) if process.loop is loop else None)

    def _wake(self, process: Process) -> None:
        if process.loop is None or not process.paused:
            return
        loop = process.loop
        loop.wake()

        def beat() -> None:
            if process.loop is loop and process.alive:
                self.world.group.join(process)

        self.world.scheduler.after(self.rng.uniform(0, 1.5), beat)

    def _scale(self) -> None:
        """One worker fewer, or one more again."""
        running = [each for each in self.world.processes if each.wanted]
        if len(running) > 1 and self.rng.random() < 0.5:
            process = self.rng.choice(running)
            if process.alive and not process.paused:
                self.world.count("worker stopped")
                process.wanted = False
                process.stop()
            return
        for process in self.world.processes:
            if not process.wanted:
                self.world.count("worker added")
                process.wanted = True
                if not process.alive:
                    process.start()
                return

    def _memory(self) -> None:
        if process := self._some():
            process.memory_share = self.rng.choice([0.55, 0.8, 0.8])
            short_s = self.rng.uniform(0.5, 3)
            self.world.count("memory", short_s)

            def relieved() -> None:
                process.memory_share = 0.1

            self.world.scheduler.after(short_s, relieved)

    # -- API, store, broker, clocks ------------------------------------------------------------------------------

    def _restart_api(self) -> None:
        away_s = self.rng.choice([0.1, 1, 3])
        self.world.count("API restart", away_s)
        self.world.network.api_up = False
        self.world.scheduler.after(away_s, self.world.api_is_up)

    def _broker_away(self) -> None:
        away_s = self.rng.uniform(0.3, 4)
        self.world.count("broker away", away_s)
        self.world.broker_away_until = self.world.scheduler.now + away_s

    def _jump_worker(self) -> None:
        self.world.count("worker clock jump")
        by = self.rng.choice([self.rng.uniform(-60, 60), self.rng.uniform(0, 86_400)])
        self.rng.choice(self.world.processes).clock.jump(int(by * SECOND_US))

    def _jump(self, kind: str, clock: object) -> None:
        self.world.count(f"{kind} jump")
        by = self.rng.choice([1, 60, 7200]) * self.rng.uniform(-1, 1)
        clock.jump(int(by * SECOND_US))  # type: ignore[attr-defined]

    def _day(self) -> None:
        """A long time passes in which only what is under way waits: all clocks go ahead together."""
        self.world.count("a day passes")
        by = int(self.rng.choice([1, 13, 30]) * HOUR_US)
        world = self.world
        for clock in (world.database_clock, world.store_clock, *(each.clock for each in world.processes)):
            clock.jump(by)
        if self.rng.random() < 0.5:
            self._sweep()

    def _sweep(self) -> None:
        """Upkeep's sweep, as it will be: unnamed objects beyond the safe age, and only while the clocks agree."""
        world = self.world
        now_us = world.store_clock.now_us()
        if abs(now_us - world.database_clock.now_us()) > APART_US:
            return
        self.world.count("sweep")
        named = {row["url"] for row in world.rows("SELECT url FROM files")}
        world.store.sweep(named, now_us - SAFE_AGE_US)

    # -- the log -------------------------------------------------------------------------------------------------

    def transaction(self, topic: Topic) -> int | None:
        """Which transaction the next event belongs to; None: none."""
        if not self.world.plan.has("transactions") or self.over:
            return None
        if self.rng.random() < 0.3:
            return None
        if topic.name not in self._transaction:
            self._transactions += 1
            self._transaction[topic.name] = self._transactions
        return self._transaction[topic.name]

    def _end_transactions(self) -> None:
        for topic in self.world.topics.values():
            transaction = self._transaction.get(topic.name)
            if transaction is not None and self.rng.random() < 0.8:
                del self._transaction[topic.name]
                abort = self.rng.random() < 0.3
                self.world.counts["transaction aborted" if abort else "transaction committed"] += 1
                topic.end_transaction(transaction, abort=abort)

    def _retention(self) -> None:
        """Records older than the retention go, as a broker does it that a worker can keep ahead of."""
        world = self.world
        limit = world.scheduler.now - (world.plan.retention_ms or 0) / 1000
        for topic in world.topics.values():
            for partition, log in enumerate(topic.logs):
                upto = log.start
                while upto < log.end and (upto not in log.records or log.records[upto].at < limit):
                    upto += 1
                if upto > log.start and any(offset in log.records for offset in range(log.start, upto)):
                    world.counts["retention"] += 1
                    world.retention.check(topic, partition, upto)
                    topic.delete_before(partition, upto, "retention")

    def _retention_ahead(self) -> None:
        topic = self.rng.choice(list(self.world.topics.values()))
        partition = self.rng.randrange(topic.partitions)
        log = topic.logs[partition]
        if log.end > log.start:
            self.world.count("retention ahead of the reader")
            upto = log.end if self.rng.random() < 0.2 else self.rng.randint(log.start, log.end)
            topic.delete_before(partition, upto, "retention ahead")

    def _compact(self) -> None:
        topic = self.rng.choice(list(self.world.topics.values()))
        self.world.count("compaction")
        topic.compact(self.rng.randrange(topic.partitions), self.rng, self.rng.choice([0.1, 0.6]))

    def _truncate(self) -> None:
        topic = self.rng.choice(list(self.world.topics.values()))
        partition = self.rng.randrange(topic.partitions)
        log = topic.logs[partition]
        if log.end - log.start > 2 and not topic.open_transactions:
            self.world.count("log truncated")
            topic.truncate(partition, self.rng.randrange(log.start + 1, log.end))

    def _new_life(self) -> None:
        topic = self.rng.choice(list(self.world.topics.values()))
        self.world.count("topic made again")
        self._transaction.pop(topic.name, None)
        topic.make_again()

    def _add_partition(self) -> None:
        topic = self.rng.choice(list(self.world.topics.values()))
        if topic.partitions < 5:
            self.world.count("partition added")
            topic.add_partition()
            self.world.scheduler.after(self.rng.uniform(0, 1), self.world.group.rebalance)

    # -- operators -----------------------------------------------------------------------------------------------

    def _pause_topic(self) -> None:
        name = self.rng.choice(list(self.world.topics))
        self.world.counts["topic paused"] += 1
        self.world.pause_topic(name, paused=True)
        self.world.scheduler.after(
            self.rng.uniform(0.5, 5), lambda: self.world.pause_topic(name, paused=False)
        )

    def _change_settings(self) -> None:
        self.world.counts["settings changed"] += 1
        name = self.rng.choice(list(self.world.topics))
        self.world.change_settings(name, {"flush_rows": self.rng.choice([2, 8, 50])})
