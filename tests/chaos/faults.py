"""What breaks, and how: one method for each kind of fault. Which, when and for how long is drawn from a seed.

A fault runs in a thread and holds its target meanwhile, so that faults of different targets meet and faults of one do
not. Each ends with its target whole again.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.producers import Topics
from tests.chaos.program import Program
from tests.chaos.town import SESSION_S, Town
from tests.stack.proxy import Proxy

MOST_AT_ONCE = 3
EXIT_PATIENCE_S = 90.0
PARTITIONS = 6


@dataclass
class Journal:
    """What was done, and what went wrong that must not."""

    file: Path
    counts: Counter[str] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        line = f"{time.monotonic() - self.began:7.1f} s  {text}"
        self.lines.append(line)
        with self.file.open("a") as file:  # at once: a run that is broken off still tells
            file.write(f"{line}\n")

    def fail(self, text: str) -> None:
        self.say(text)
        self.failures.append(text)


class Faults:
    """Breaks a town until told to stop. Call `run` in one thread; `heal` when it is over."""

    def __init__(self, town: Town, topics: Topics, seed: int, *, pause_s: float, new_topics: int) -> None:
        """`pause_s`: mean pause between two beginnings. `new_topics`: at most so many are made."""
        self.town = town
        self.topics = topics
        self.journal = Journal(town.folder / "journal.txt")
        self.ended = threading.Event()
        self._chance = random.Random(seed)
        self._pause_s = pause_s
        self._new_topics = new_topics
        self._made_workers = 0
        self._locks: dict[str, threading.Lock] = {}
        self._slots = threading.Semaphore(MOST_AT_ONCE)
        self._threads: list[threading.Thread] = []
        self._kinds: dict[str, Callable[[random.Random], None]] = {
            "worker kill -9": self.kill_worker,
            "worker stopped (TERM), then started": self.term_worker,
            "worker paused beyond the session, then continued": self.pause_worker,
            "worker added, later removed": self.add_worker,
            "api kill -9": self.kill_api,
            "api stopped (TERM)": self.term_api,
            "api paused": self.pause_api,
            "Kafka kill -9": lambda chance: self.restart_kafka(chance, hard=True),
            "Kafka restarted (TERM)": lambda chance: self.restart_kafka(chance, hard=False),
            "PostgreSQL kill -9": lambda chance: self.restart_postgres(chance, hard=True),
            "PostgreSQL restarted": lambda chance: self.restart_postgres(chance, hard=False),
            "SeaweedFS kill -9": lambda chance: self.restart_store(chance, hard=True),
            "SeaweedFS restarted (TERM)": lambda chance: self.restart_store(chance, hard=False),
            "connections cut": self.cut,
            "connections slowed": self.slow,
            "connections silent": self.hang,
            "connections refused": self.refuse,
            "new topic": self.new_topic,
        }
        self._bag: list[str] = []

    # -- the order of things -------------------------------------------------------------------------------------

    def run(self) -> None:
        """One fault after the other, each kind in its turn but in random order, up to three at once."""
        while not self.ended.is_set():
            kind = self._draw()
            chance = random.Random(self._chance.random())
            self._slots.acquire()
            if self.ended.is_set():
                self._slots.release()
                break
            thread = threading.Thread(target=self._one, args=(kind, chance), name=kind, daemon=True)
            self._threads.append(thread)
            thread.start()
            self.ended.wait(self._chance.expovariate(1 / self._pause_s))

    def _draw(self) -> str:
        if not self._bag:
            self._bag = list(self._kinds)
            self._chance.shuffle(self._bag)
        return self._bag.pop()

    def _one(self, kind: str, chance: random.Random) -> None:
        try:
            self._kinds[kind](chance)
            self.journal.counts[kind] += 1
        except BaseException as error:
            self.journal.fail(f"the fault itself failed: {kind}: {type(error).__name__}: {error}")
        finally:
            self._slots.release()

    def outages(self, seconds: float) -> None:
        """Broker, store, API and database away, one after the other, each for so long. Call it after `heal`."""
        for name, proxy in self._proxies():
            self.journal.say(f"{name} away for {seconds:.0f} s")
            proxy.refuse()
            time.sleep(seconds)
            proxy.fine()
            self.journal.counts[f"{name} away for {seconds:.0f} s"] += 1
            time.sleep(20)

    def heal(self) -> None:
        """Waits until the last fault is over; then nothing is broken."""
        self.ended.set()
        for thread in self._threads:
            thread.join(300)
            if thread.is_alive():
                self.journal.fail(f"the fault {thread.name} did not end")

    @contextmanager
    def holding(self, target: str) -> Iterator[None]:
        with self._locks.setdefault(target, threading.Lock()):
            yield

    def _worker(self, chance: random.Random) -> Program:
        return chance.choice([each for each in self.town.workers.values() if each.name.startswith("worker")])

    # -- workers -------------------------------------------------------------------------------------------------

    def kill_worker(self, chance: random.Random) -> None:
        name = self._worker(chance).name
        with self.holding(name):
            self.journal.say(f"kill -9 {name}")
            program = self.town.workers[name]
            program.expected = False
            program.kill()
            time.sleep(chance.uniform(0, 4))
            self.town.start_worker(name)

    def term_worker(self, chance: random.Random) -> None:
        name = self._worker(chance).name
        with self.holding(name):
            self._stop(name)
            time.sleep(chance.uniform(0, 4))
            self.town.start_worker(name)

    def pause_worker(self, chance: random.Random) -> None:
        name = self._worker(chance).name
        with self.holding(name):
            program, seconds = self.town.workers[name], chance.uniform(SESSION_S + 1, SESSION_S * 2.5)
            self.journal.say(f"pause {name} for {seconds:.1f} s")
            program.signal(signal.SIGSTOP)
            time.sleep(seconds)
            program.signal(signal.SIGCONT)

    def add_worker(self, chance: random.Random) -> None:
        self._made_workers += 1
        name = f"extra-{self._made_workers}"
        self.journal.say(f"add {name}")
        self.town.start_worker(name)
        self.ended.wait(chance.uniform(8, 20))
        self._stop(name)

    def _stop(self, name: str) -> None:
        """TERM; a worker must end by itself, with 0, whatever else is broken."""
        program = self.town.workers[name]
        program.expected = False
        if not program.running:
            return
        self.journal.say(f"TERM {name}")
        program.signal(signal.SIGTERM)
        try:
            code = program.process.wait(EXIT_PATIENCE_S)
        except Exception:
            self.journal.fail(
                f"{name} did not end within {EXIT_PATIENCE_S:.0f} s of TERM{program.part.tail(60)}"
            )
            program.kill()
            return
        # Before its handler is there, a process that has just been started dies of the signal.
        if code not in (0, -signal.SIGTERM):
            self.journal.fail(f"{name} ended with {code} after TERM{program.part.tail(60)}")

    # -- APIs ----------------------------------------------------------------------------------------------------

    def kill_api(self, chance: random.Random) -> None:
        name = chance.choice(list(self.town.apis))
        with self.holding(name):
            self.journal.say(f"kill -9 {name}")
            self.town.apis[name].kill()
            time.sleep(chance.uniform(0, 4))
            self.town.restart_api(name)

    def term_api(self, chance: random.Random) -> None:
        name = chance.choice(list(self.town.apis))
        with self.holding(name):
            self.journal.say(f"TERM {name}")
            self.town.apis[name].part.end()
            time.sleep(chance.uniform(0, 4))
            self.town.restart_api(name)

    def pause_api(self, chance: random.Random) -> None:
        name = chance.choice(list(self.town.apis))
        with self.holding(name):
            seconds = chance.uniform(2, 8)
            self.journal.say(f"pause {name} for {seconds:.1f} s")
            self.town.apis[name].pause(signal.SIGSTOP)
            time.sleep(seconds)
            self.town.apis[name].pause(signal.SIGCONT)

    # -- what it stands on ---------------------------------------------------------------------------------------

    def restart_kafka(self, chance: random.Random, *, hard: bool) -> None:
        with self.holding("kafka"):
            self.journal.say(f"{'kill -9' if hard else 'TERM'} Kafka")
            (self.town.kafka.kill if hard else self.town.kafka.stop)()
            time.sleep(chance.uniform(0, 4))
            self.town.kafka.start()

    def restart_postgres(self, chance: random.Random, *, hard: bool) -> None:
        with self.holding("postgres"):
            self.journal.say(f"{'kill -9' if hard else 'stop'} PostgreSQL")
            (self.town.postgres.kill if hard else self.town.postgres.stop)()
            time.sleep(chance.uniform(0, 4))
            self.town.postgres.start()

    def restart_store(self, chance: random.Random, *, hard: bool) -> None:
        with self.holding("store"):
            self.journal.say(f"{'kill -9' if hard else 'TERM'} SeaweedFS")
            store = self.town.store
            if hard and store.process is not None:
                store.process.kill()
                store.process.wait()
            store.end()
            time.sleep(chance.uniform(0, 4))
            store.start()

    # -- connections ---------------------------------------------------------------------------------------------

    def _proxy(self, chance: random.Random) -> tuple[str, Proxy]:
        return chance.choice(self._proxies())

    def _proxies(self) -> list[tuple[str, Proxy]]:
        town = self.town
        return [
            ("broker", town.broker_proxy),
            ("store", town.store_proxy),
            ("API", town.api_proxy),
            ("database", town.database_proxy),
        ]

    def cut(self, chance: random.Random) -> None:
        name, proxy = self._proxy(chance)
        with self.holding(f"way to the {name}"):
            times = chance.randrange(1, 4)
            self.journal.say(f"cut all connections to the {name}, {times} times")
            for _ in range(times):
                proxy.cut()
                time.sleep(chance.uniform(0.1, 2))

    def slow(self, chance: random.Random) -> None:
        self._trouble(chance, "slow", lambda proxy: proxy.slow(chance.uniform(20_000, 300_000)))

    def hang(self, chance: random.Random) -> None:
        self._trouble(chance, "silence", Proxy.hang)

    def refuse(self, chance: random.Random) -> None:
        self._trouble(chance, "refuse", Proxy.refuse)

    def _trouble(self, chance: random.Random, what: str, make: Callable[[Proxy], None]) -> None:
        name, proxy = self._proxy(chance)
        with self.holding(f"way to the {name}"):
            seconds = chance.uniform(3, 12)
            self.journal.say(f"{what} connections to the {name} for {seconds:.1f} s")
            make(proxy)
            time.sleep(seconds)
            proxy.fine()

    # -- topics --------------------------------------------------------------------------------------------------

    def new_topic(self, chance: random.Random) -> None:
        with self.holding("topics"):
            number = len(self.topics.partitions) + 1
            if number > self._new_topics + 2:
                return self.cut(chance)
            name = f"chaos-{number}"
            with self.holding("kafka"):  # it must be there to make one
                self.town.kafka.topic(name, PARTITIONS, message_timestamp_type="CreateTime")
            self.journal.say(f"new topic {name}")
            self.topics.partitions[name] = PARTITIONS
        return None
