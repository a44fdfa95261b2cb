"""The source in its group: rebalances, and topics and partitions that come and go."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from ingest.assignor import PATTERN_LIMIT
from ingest.broker import TopicIds
from ingest.source import TopicPartition
from tests.ingest.reader import Reader, Store, numbered, produce, producer_of, until
from tests.stack.kafka import Kafka

pytestmark = pytest.mark.slow


def test_members_come_and_go_and_nothing_is_lost_or_doubled(kafka: Kafka, tmp_path: Path) -> None:
    topic, store, partitions = kafka.topic(partitions=6), Store(), 6
    producer = producer_of(kafka.settings)

    def make(name: str) -> Reader:
        return Reader(
            kafka.settings, topic, tmp_path / name, store=store, name=name, group=topic, commit_every=3
        )

    async def run() -> None:
        sent, producing = [0], asyncio.Event()
        producing.set()

        async def write() -> None:
            while producing.is_set():
                for partition in range(partitions):
                    producer.produce(topic, b"%d" % sent[0], partition=partition)
                sent[0] += 1
                producer.poll(0)
                await asyncio.sleep(0.002)

        writing = asyncio.create_task(write())
        async with AsyncExitStack() as first:
            one = await first.enter_async_context(make("one"))
            await until(lambda: len(one.assignments) == 1 and store.next(topic) > 50)
            async with make("two") as two:
                await until(lambda: two.assignments and len(two.assignments[-1]) == 3)
                assert len(one.assignments[-1]) == 3
                assert not one.assignments[-1] & two.assignments[-1]
                mark = sent[0] + 50
                await until(lambda: min(store.next(topic, each) for each in range(partitions)) > mark)
                async with make("three") as three:
                    await until(lambda: three.assignments and len(three.assignments[-1]) == 2)
                await until(lambda: len(one.assignments[-1]) == 3)
            await until(lambda: len(one.assignments[-1]) == 6)
            producing.clear()
            await writing
            producer.flush()
            await until(lambda: all(one.reached(topic, each) == sent[0] for each in range(partitions)))
        for partition in range(partitions):  # what was not committed before, the stop has flushed
            assert store.offsets(topic, partition) == list(range(sent[0]))

    asyncio.run(run())


def test_a_member_that_lost_the_group_without_knowing_publishes_nothing_twice(
    kafka: Kafka, tmp_path: Path
) -> None:
    topic, store = kafka.topic(partitions=2), Store()
    options = {"store": store, "group": topic, "session_timeout_s": 2.0, "heartbeat_s": 0.3}

    async def run() -> None:
        async with Reader(kafka.settings, topic, tmp_path / "a", name="zombie", **options) as zombie:  # type: ignore[arg-type]
            await until(lambda: len(zombie.source.positions.reading) == 2)
            assert zombie.source._consumer is not None
            await zombie.source._consumer._coordinator._stop_heartbeat_task()
            async with Reader(kafka.settings, topic, tmp_path / "b", name="heir", **options) as heir:  # type: ignore[arg-type]
                await until(lambda: heir.assignments and len(heir.assignments[-1]) == 2)
                for first in range(0, 1000, 100):
                    for partition in range(2):
                        produce(kafka.settings, topic, numbered(first, first + 100), partition)
                    await asyncio.sleep(0.05)
                await until(lambda: all(store.next(topic, each) == 1000 for each in range(2)))
                assert store.conflicts > 0  # both have read the same
        for partition in range(2):
            assert store.offsets(topic, partition) == list(range(1000))

    asyncio.run(run())


def test_a_new_topic_that_matches_is_read(kafka: Kafka, tmp_path: Path) -> None:
    first = kafka.topic("flowers-red")
    produce(kafka.settings, first, numbered(0, 10))

    async def run() -> None:
        async with Reader(kafka.settings, "flowers-.*", tmp_path) as reader:
            await until(lambda: reader.store.next(first) == 10)
            second = kafka.topic("flowers-blue")
            produce(kafka.settings, kafka.topic("weeds"), numbered(0, 10))
            produce(kafka.settings, second, numbered(0, 10))
            produce(kafka.settings, first, numbered(10, 20))
            await until(lambda: reader.store.next(second) == 10 and reader.store.next(first) == 20, 15)
            assert reader.store.values(first) == numbered(0, 20)
            assert {each.topic for each in reader.store.partitions} == {first, second}

    asyncio.run(run())


def test_a_group_whose_pattern_matches_nothing_yet_waits_for_a_topic(kafka: Kafka, tmp_path: Path) -> None:
    async def run() -> None:
        async with Reader(kafka.settings, "later-.*", tmp_path) as reader:
            await until(lambda: reader.assignments == [frozenset()])
            topic = kafka.topic("later-on")
            produce(kafka.settings, topic, numbered(0, 10))
            await until(lambda: reader.store.next(topic) == 10, 15)

    asyncio.run(run())


def test_partitions_that_are_added_are_read(kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.topic(partitions=1)
    produce(kafka.settings, topic, numbered(0, 10))

    async def run() -> None:
        async with Reader(kafka.settings, topic, tmp_path) as reader:
            await until(lambda: reader.store.next(topic) == 10)
            kafka.add_partitions(topic, 3)
            await asyncio.sleep(0.5)  # the broker needs a moment until producers may write there
            produce(kafka.settings, topic, numbered(0, 10), 2)
            await until(lambda: reader.store.next(topic, 2) == 10, 15)
            assert reader.assignments[-1] == {TopicPartition(topic, each) for each in range(3)}
            assert reader.store.offsets(topic, 0) == list(range(10))

    asyncio.run(run())


def test_a_deleted_topic_leaves_without_a_loop(kafka: Kafka, tmp_path: Path) -> None:
    stays, goes = kafka.topic("trees-oak"), kafka.topic("trees-elm")
    for topic in (stays, goes):
        produce(kafka.settings, topic, numbered(0, 10))

    async def run() -> None:
        async with Reader(kafka.settings, "trees-.*", tmp_path) as reader:
            await until(lambda: reader.store.next(stays) == 10 and reader.store.next(goes) == 10)
            kafka.delete(goes)
            await until(lambda: reader.assignments[-1] == {TopicPartition(stays, 0)}, 15)
            rounds, chunks = len(reader.assignments), reader.chunks
            await asyncio.sleep(3)
            assert len(reader.assignments) == rounds
            assert reader.chunks <= chunks + 2
            produce(kafka.settings, stays, numbered(10, 20))
            await until(lambda: reader.store.next(stays) == 20)
            assert (
                goes not in kafka.admin().list_topics(timeout=10).topics
            )  # asking for it did not make it again

    asyncio.run(run())


def test_a_topic_made_again_is_out_of_range_and_has_another_id(kafka: Kafka, tmp_path: Path) -> None:
    topic, ids = kafka.topic("phoenix"), TopicIds(kafka.settings)
    produce(kafka.settings, topic, numbered(0, 50))

    async def run() -> None:
        async with Reader(kafka.settings, topic, tmp_path) as reader:
            await until(lambda: reader.store.next(topic) == 50)
            before = await ids.ask([topic, "never-made"])
            kafka.delete(topic)
            await until(lambda: reader.assignments[-1] == frozenset(), 15)
            kafka.topic(topic)
            produce(kafka.settings, topic, numbered(0, 5))
            await until(lambda: reader.errors, 15)
            assert reader.errors[0].error is not None
            assert reader.errors[0].error.kind == "out_of_range"
            assert reader.store.values(topic) == numbered(0, 50)
            after = await ids.ask([topic])
            assert before.keys() == after.keys() == {topic}
            assert None not in (before[topic], after[topic])
            assert before != after

    asyncio.run(run())


def test_a_member_survives_topics_that_it_does_not_know(
    kafka: Kafka, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two patterns too long to be sent: the leader takes the other member's for its own."""
    known, unknown, store = kafka.topic("known", partitions=2), kafka.topic("unknown", partitions=2), Store()
    wide, narrow = f"({known}|{unknown}|{'x' * PATTERN_LIMIT})", f"({known}|{'x' * PATTERN_LIMIT})"

    async def run() -> None:
        options = {"store": store, "group": "unlike"}
        leader = Reader(kafka.settings, wide, tmp_path / "wide", name="wide", **options)  # type: ignore[arg-type]
        member = Reader(kafka.settings, narrow, tmp_path / "narrow", name="narrow", **options)  # type: ignore[arg-type]
        async with leader:
            await until(lambda: leader.assignments)
            async with member:
                await until(
                    lambda: (
                        "topics that this worker does not see (unknown) were assigned to it" in caplog.text
                    )
                )
                for partition in range(2):
                    produce(kafka.settings, known, numbered(0, 10), partition)
                await until(lambda: all(store.next(known, each) == 10 for each in range(2)))
                assert {each.topic for each in member.assignments[-1]} <= {known}
                rounds = len(member.assignments)
                await asyncio.sleep(5)
                assert len(member.assignments) <= rounds + 3
                assert member.source.membership.dead is None
            await until(lambda: len(leader.assignments[-1]) == 4)

    asyncio.run(run())


def test_a_hanging_answer_about_positions_stops_neither_heartbeats_nor_rebalances(
    kafka: Kafka, tmp_path: Path
) -> None:
    topic, store = kafka.topic(partitions=2), Store()
    options = {"store": store, "group": topic, "session_timeout_s": 4.0, "heartbeat_s": 0.3}

    async def run() -> None:
        one = Reader(kafka.settings, topic, tmp_path / "one", name="one", **options)  # type: ignore[arg-type]
        one.before_starts = lambda: asyncio.sleep(6)
        async with one:
            await until(lambda: one.assignments)
            async with Reader(kafka.settings, topic, tmp_path / "two", name="two", **options) as two:  # type: ignore[arg-type]
                await until(lambda: two.assignments and len(two.assignments[-1]) == 1)
                for partition in range(2):
                    produce(kafka.settings, topic, numbered(0, 100), partition)
                await until(lambda: all(store.next(topic, each) == 100 for each in range(2)))
                assert len(one.assignments) == 2  # nobody was thrown out
        assert store.conflicts == 0

    asyncio.run(run())
