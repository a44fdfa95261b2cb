"""A trial: several members, a broker that is restarted, members that come, go, hang and are robbed; then the count."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import pytest
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka import TopicPartition as ConfluentPartition

from ingest.source import TopicPartition
from tests.ingest.reader import Reader, Store, producer_of, until
from tests.stack.kafka import Kafka

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("TUKANG_TRIAL_SECONDS", "20"))
SEED = int(os.environ.get("TUKANG_TRIAL_SEED", "0")) or Random().randrange(1, 10**6)
TOPICS, PARTITIONS = ("trial-a", "trial-b"), 3


class Trial:
    """Members of one group over one store, and what is done to them."""

    def __init__(self, kafka: Kafka, folder: Path, random: Random) -> None:
        self.kafka, self.folder, self.random = kafka, folder, random
        self.store = Store()
        self.members: dict[str, tuple[Reader, AsyncExitStack]] = {}
        self.made = 0
        self.faults: Counter[str] = Counter()

    async def add(self) -> None:
        self.made += 1
        name = f"member-{self.made}"
        reader = Reader(
            self.kafka.settings, "trial-.*", self.folder / name, store=self.store, name=name, group="trial",
            commit_every=self.random.choice([1, 3, 10]), session_timeout_s=3.0, heartbeat_s=0.3,
            rebalance_timeout_s=10.0,
        )  # fmt: skip
        stack = AsyncExitStack()
        await stack.enter_async_context(reader)
        self.members[name] = (reader, stack)

    async def fault(self) -> None:
        name, (reader, stack) = self.random.choice(list(self.members.items()))
        kind = self.random.choices(
            ["add", "remove", "robbed", "hang", "fail", "reposition", "hold", "restart", "partition"],
            [3, 3, 2, 2, 2, 4, 2, 1, 1],
        )[0]
        if kind == "add" and len(self.members) < 4:
            await self.add()
        elif kind == "remove" and len(self.members) > 1:
            del self.members[name]
            await stack.aclose()
        elif (
            kind == "robbed" and reader.source._consumer is not None
        ):  # its session ends, and it does not know
            await reader.source._consumer._coordinator._stop_heartbeat_task()
        elif kind in ("hang", "fail"):
            reader.before_starts = lambda: trouble(kind)
            reader.source.reposition(reader.source.positions.assigned, "trial")
            asyncio.get_running_loop().call_later(4, lambda: setattr(reader, "before_starts", None))
        elif kind == "reposition":
            some = [each for each in reader.source.positions.assigned if self.random.random() < 0.5]
            reader.source.reposition(some, "trial")
        elif kind == "hold":
            reader.source.hold(True)
            asyncio.get_running_loop().call_later(3, reader.source.hold, False)
        elif kind == "restart" and self.faults[kind] < 3:
            await asyncio.to_thread(self.random.choice([self.kafka.stop, self.kafka.kill]))
            await asyncio.sleep(self.random.choice([0.5, 4.0]))
            await asyncio.to_thread(self.kafka.start)
        else:
            return
        self.faults[kind] += 1


async def trouble(kind: str) -> None:
    if kind == "fail":
        raise ConnectionError("trial")
    await asyncio.sleep(3)


async def write(kafka: Kafka, random: Random, going: asyncio.Event) -> None:
    """A plain producer, and one with transactions of which some are aborted."""
    plain = producer_of(kafka.settings, delivery_timeout_ms=300_000)
    numbers = iter(range(10**9))

    def send(producer: Producer, number: int) -> None:
        producer.produce(random.choice(TOPICS), b"%d" % number, partition=random.randrange(PARTITIONS))
        producer.poll(0)

    def transaction(number: int) -> None:
        try:
            producer = producer_of(kafka.settings, transactional_id="trial", transaction_timeout_ms=10_000)
            producer.init_transactions(10)
            for _ in range(5):
                producer.begin_transaction()
                for _ in range(50):
                    send(producer, number)
                if random.random() < 0.3:
                    producer.abort_transaction(10)
                else:
                    producer.commit_transaction(10)
        except KafkaException:
            return  # the broker is away: whatever was written is not committed, or is, and the count will show

    while going.is_set():
        for _ in range(200):
            send(plain, next(numbers))
        await asyncio.to_thread(transaction, next(numbers))
        await asyncio.sleep(0.05)
    await asyncio.to_thread(plain.flush, 120)


def committed(kafka: Kafka, topic: str, partition: int) -> tuple[list[int], int]:
    """Offsets that another client reads, and the end of the log."""
    settings = {"group.id": "count", "enable.partition.eof": True, "isolation.level": "read_committed"}
    consumer = Consumer({**kafka.settings.confluent_config(), **settings})
    where = ConfluentPartition(topic, partition, 0)
    _, end = consumer.get_watermark_offsets(where, timeout=30)
    consumer.assign([where])
    found = []
    while (message := consumer.poll(30)) is not None and not message.error():
        found.append(int(message.offset() or 0))
    consumer.close()
    return found, end


@pytest.mark.timeout(SECONDS * 2 + 240)
def test_a_trial_loses_nothing_and_doubles_nothing(own_kafka: Kafka, tmp_path: Path) -> None:
    random = Random(SEED)
    for topic in TOPICS:
        own_kafka.topic(topic, partitions=PARTITIONS)

    async def run() -> Trial:
        trial = Trial(own_kafka, tmp_path, random)
        going = asyncio.Event()
        going.set()
        await trial.add()
        await trial.add()
        writing = asyncio.create_task(write(own_kafka, Random(SEED), going))
        end = asyncio.get_running_loop().time() + SECONDS
        while asyncio.get_running_loop().time() < end:
            await asyncio.sleep(random.uniform(0.2, 2.0))
            await trial.fault()
        going.clear()
        await writing
        await asyncio.sleep(11)  # open transactions time out
        wanted = {
            TopicPartition(topic, partition): await asyncio.to_thread(committed, own_kafka, topic, partition)
            for topic in TOPICS
            for partition in range(PARTITIONS)
        }
        readers = [reader for reader, _ in trial.members.values()]
        await until(
            lambda: all(
                max(each.reached(tp.topic, tp.partition) for each in readers) == last
                for tp, (_, last) in wanted.items()
            ),
            60,
            f"seed {SEED}: not everything was read",
        )
        for _, stack in trial.members.values():
            await stack.aclose()
        for tp, (offsets, last) in wanted.items():
            assert trial.store.offsets(tp.topic, tp.partition) == offsets, f"seed {SEED}"
            assert trial.store.next(tp.topic, tp.partition) == last
        return trial

    trial = asyncio.run(run())
    rows = sum(len(each.rows) for each in trial.store.partitions.values())
    print(f"seed {SEED}: {sum(trial.faults.values())} faults {dict(trial.faults)}, {rows} rows,"  # noqa: T201
          f" {trial.store.conflicts} conflicts")  # fmt: skip
