"""Who writes to Kafka during the chaos: a plain producer and a transactional one, each in a thread of its own.

Each keeps what it knows for sure of its events: acknowledged, committed, aborted. What a broken connection left open it
does not claim. Event times run faster than the clock, so that a window of an hour passes in minutes.
"""

from __future__ import annotations

import json
import random
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from confluent_kafka import KafkaException, Producer

TICK_S = 0.1
EVENT_SECONDS = 30.0  # of event time pass in one second
ABORTED = 0.3  # of the transactions
COPIES = 0.02  # of the events are sent again
LATE = 0.03
RUBBISH = 0.001
PRODUCER_OF = 10**12  # numbers of the second producer begin here

Record = tuple[str, int, bytes]  # topic, partition, value


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics written to, with their partitions; grows while the chaos lasts."""

    partitions: dict[str, int]

    def any(self, chance: random.Random) -> tuple[str, int]:
        name = chance.choice(list(self.partitions))
        return name, chance.randrange(self.partitions[name])


class Events:
    """Makes events with ascending numbers: most in order, some late, some copies, some no events at all."""

    def __init__(self, topics: Topics, seed: int, first: int, name: str, began: float) -> None:
        self.next = first
        self.copies = COPIES
        self._topics = topics
        self._chance = random.Random(seed)
        self._name = name
        self._began = began
        self._start = began - 48 * 3600  # in the past, since event times run ahead of the clock
        self.recent: deque[Record] = deque(maxlen=20_000)

    def make(self) -> tuple[int | None, Record]:
        """The next record, and its number if it is a new event."""
        chance = self._chance.random()
        if chance < self.copies and self.recent:
            return None, self._chance.choice(self.recent)
        topic, partition = self._topics.any(self._chance)
        if chance < COPIES + RUBBISH:
            return None, (topic, partition, b'{"id": "no event"')
        late_s = (
            self._chance.uniform(30, 900) if chance < COPIES + RUBBISH + LATE else self._chance.uniform(0, 4)
        )
        at = self._start + (time.time() - self._began) * EVENT_SECONDS - late_s
        number, self.next = self.next, self.next + 1
        value = {
            "id": f"{self._name}-{number}",
            "n": number,
            "at": datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds"),
            "amount": number % 1000 / 8,
            "who": {"name": f"w{number % 97}"},
        }
        return number, (topic, partition, json.dumps(value).encode())


class PlainProducer(threading.Thread):
    """Writes at a rate until `finish`; `acknowledged` are the numbers that Kafka confirmed."""

    def __init__(
        self, config: dict[str, object], topics: Topics, rate: float, seed: int, began: float
    ) -> None:
        super().__init__(name="plain-producer", daemon=True)
        self.events = Events(topics, seed, 0, "p", began)
        self.acknowledged = array("q")
        self.failed = 0
        self.records = 0
        self._rate = rate
        self._config = {"enable.idempotence": True, "linger.ms": 20, "message.timeout.ms": 300_000, **config}
        self._ended = threading.Event()
        self.error: BaseException | None = None

    def finish(self) -> None:
        self._ended.set()
        self.join(120)

    def run(self) -> None:
        try:
            self._run()
        except BaseException as error:  # told by the one who waits for the thread
            self.error = error
            raise

    def _run(self) -> None:
        producer = Producer(self._config)
        began, made = time.monotonic(), 0
        while not self._ended.is_set():
            wanted = int((time.monotonic() - began) * self._rate)
            if wanted - made > 3 * self._rate:  # the broker was away: not all at once
                began, made, wanted = time.monotonic(), 0, 0
            while made < wanted:
                number, (topic, partition, value) = self.events.make()
                try:
                    producer.produce(topic, value, partition=partition, on_delivery=self._confirm(number))
                except BufferError:
                    producer.poll(0.5)
                    break
                if number is not None:
                    self.events.recent.append((topic, partition, value))
                made += 1
                self.records += 1
            producer.poll(0)
            time.sleep(TICK_S)
        left = producer.flush(100)
        self.failed += left

    def _confirm(self, number: int | None) -> Callable[[object, object], None]:
        def told(error: object, _message: object) -> None:
            if error is not None:
                self.failed += 1
            elif number is not None:
                self.acknowledged.append(number)

        return told


class TransactionalProducer(threading.Thread):
    """Writes transactions at a rate until `finish`, and aborts some; `committed` and `aborted` are sure."""

    def __init__(
        self, config: dict[str, object], topics: Topics, rate: float, seed: int, began: float
    ) -> None:
        super().__init__(name="transactional-producer", daemon=True)
        self.events = Events(topics, seed, PRODUCER_OF, "t", began)
        self.committed: list[range] = []
        self.aborted: list[range] = []
        self.unsure: list[range] = []
        self.records = 0
        self.restarts = 0
        self._rate = rate
        self._chance = random.Random(seed + 1)
        self._config = {
            "transactional.id": f"chaos-{seed}",
            "transaction.timeout.ms": 30_000,
            "linger.ms": 5,
            **config,
        }
        self._ended = threading.Event()
        self.error: BaseException | None = None

    def finish(self) -> None:
        self._ended.set()
        self.join(120)

    def run(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self.error = error
            raise

    def _run(self) -> None:
        producer = self._begin()
        while not self._ended.is_set():
            began = time.monotonic()
            first = self.events.next
            commit = self._chance.random() >= ABORTED
            try:
                fresh = self._transaction(producer, commit)
            except KafkaException:
                # Whether it is in the log nobody here knows: the check reads the log.
                self.unsure.append(range(first, self.events.next))
                self.restarts += 1
                time.sleep(0.5)
                producer = self._begin()
            else:
                numbers = range(first, self.events.next)
                (self.committed if commit else self.aborted).append(numbers)
                if commit:
                    self.events.recent.extend(fresh)
            time.sleep(max(0.0, 2 * TICK_S - (time.monotonic() - began)))

    def _begin(self) -> Producer:
        """A producer of our own transactional id, however long the broker takes; it fences the one before."""
        while True:
            producer = Producer(self._config)
            try:
                producer.init_transactions(20)
                return producer
            except KafkaException:
                if self._ended.is_set():
                    raise
                time.sleep(0.5)

    def _transaction(self, producer: Producer, commit: bool) -> list[Record]:
        producer.begin_transaction()
        fresh: list[Record] = []
        for _ in range(int(self._rate * 2 * TICK_S)):
            number, (topic, partition, value) = self.events.make()
            producer.produce(topic, value, partition=partition)
            self.records += 1
            if number is not None:
                fresh.append((topic, partition, value))
        if commit:
            self._patiently(producer.commit_transaction)
        else:
            producer.flush(20)
            self._patiently(producer.abort_transaction)
        return fresh

    def _patiently(self, act: Callable[[float], None]) -> None:
        for attempt in range(4):
            try:
                act(20)
                return
            except KafkaException as failed:
                if attempt == 3 or not failed.args[0].retriable():
                    raise
