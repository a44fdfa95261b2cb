"""The source against a real broker: what is in the log arrives exactly once, whatever the log looks like."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions
from confluent_kafka import TopicPartition as ConfluentPartition

from ingest.source import TopicPartition
from tests.ingest.reader import Reader, numbered, produce, producer_of, until
from tests.stack.kafka import Kafka

pytestmark = pytest.mark.slow


def test_records_arrive_in_order_and_once(kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.topic()
    produce(kafka.settings, topic, numbered(0, 1000))

    async def run() -> None:
        async with Reader(kafka.settings, topic, tmp_path) as reader:
            await until(lambda: reader.store.next(topic) == 1000)
            assert reader.store.values(topic) == numbered(0, 1000)
            assert reader.source.in_flight.bytes == 0

    asyncio.run(run())


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_every_compression_is_read(kafka: Kafka, tmp_path: Path, codec: str) -> None:
    topic = kafka.topic()
    produce(kafka.settings, topic, numbered(0, 5000), compression_type=codec, linger_ms=50)

    async def run() -> None:
        async with Reader(kafka.settings, topic, tmp_path) as reader:
            await until(lambda: reader.store.next(topic) == 5000)
            assert reader.store.values(topic) == numbered(0, 5000)

    asyncio.run(run())


def test_only_committed_transactions_are_read_and_their_markers_are_passed(
    kafka: Kafka, tmp_path: Path
) -> None:
    topic = kafka.topic()
    transactional = producer_of(kafka.settings, transactional_id=f"writer-of-{topic}")
    transactional.init_transactions(30)
    kept = []
    for number in range(12):
        produce(kafka.settings, topic, [b"plain %d" % number])
        kept.append(b"plain %d" % number)
        transactional.begin_transaction()
        for part in range(3):
            transactional.produce(topic, b"%d.%d" % (number, part), partition=0)
            transactional.flush()
            produce(kafka.settings, topic, [b"between %d.%d" % (number, part)])
        if number % 3 == 2:
            transactional.abort_transaction(30)
        else:
            transactional.commit_transaction(30)
            kept += [b"%d.%d" % (number, part) for part in range(3)]
        kept += [b"between %d.%d" % (number, part) for part in range(3)]

    async def run() -> None:
        async with Reader(kafka.settings, topic, tmp_path) as reader:
            partition = TopicPartition(topic, 0)
            await until(lambda: len(reader.store.values(topic)) >= len(kept))
            (_, end) = (await reader.source.log_range([partition]))[partition]
            await until(lambda: reader.store.next(topic) == end, why="the last marker is not passed")
            assert sorted(filter(None, reader.store.values(topic))) == sorted(kept)
            end_told, stable_end, confirmed_us = reader.source.ends()[partition]
            assert (end_told, stable_end) == (end, end)
            assert abs(confirmed_us - time.time_ns() // 1000) < 60_000_000

    asyncio.run(run())


def test_an_open_transaction_holds_the_stable_end_back(kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.topic()
    partition = TopicPartition(topic, 0)
    transactional = producer_of(kafka.settings, transactional_id=f"writer-of-{topic}")
    transactional.init_transactions(30)
    produce(kafka.settings, topic, [b"before"])
    transactional.begin_transaction()
    transactional.produce(topic, b"inside", partition=0)
    transactional.flush()
    produce(kafka.settings, topic, [b"behind"])

    async def run() -> None:
        async with Reader(kafka.settings, topic, tmp_path) as reader:
            await until(lambda: reader.source.ends().get(partition, ())[:2] == (3, 1))
            await until(lambda: reader.store.next(topic) == 1)
            assert (await reader.source.log_range([TopicPartition(topic, 0)])) == {
                TopicPartition(topic, 0): (0, 3)
            }
            transactional.commit_transaction(30)
            await until(lambda: reader.store.next(topic) == 4)
            assert reader.store.values(topic) == [b"before", b"inside", b"behind"]

    asyncio.run(run())


def test_compacted_records_leave_no_gap_in_positions(kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.topic(
        cleanup_policy="compact", segment_ms=100, min_cleanable_dirty_ratio=0.01, max_compaction_lag_ms=100
    )
    for number in range(6):  # each time another segment, with the same keys as before
        keys = [b"key %d" % (each % 50) for each in range(100)]
        produce(kafka.settings, topic, numbered(number * 100, number * 100 + 100), keys=keys, linger_ms=100)
        time.sleep(0.2)

    async def run() -> None:
        # of the closed segments the newest record of each key, and all of the open one
        left = [*range(450, 600)]
        await until(lambda: _offsets(kafka, topic) == left, 60)
        async with Reader(kafka.settings, topic, tmp_path) as reader:
            await until(lambda: reader.store.next(topic) == 600)
            assert reader.store.offsets(topic) == left
            assert not reader.errors

    asyncio.run(run())


def _offsets(kafka: Kafka, topic: str) -> list[int]:
    """Offsets that another client reads now."""
    consumer = Consumer(
        {**kafka.settings.confluent_config(), "group.id": "looking", "enable.partition.eof": True}
    )
    consumer.assign([ConfluentPartition(topic, 0, 0)])
    found = []
    while (message := consumer.poll(10)) is not None and not message.error():
        found.append(message.offset())
    consumer.close()
    return found


def test_a_record_of_five_megabytes_passes_among_small_ones(kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.topic(partitions=4, max_message_bytes=16 * 2**20)
    large = b"x" * 5_000_000
    for partition in range(4):
        produce(kafka.settings, topic, numbered(0, 2000), partition)
        produce(kafka.settings, topic, [large], partition)
        produce(kafka.settings, topic, numbered(2000, 4000), partition)

    async def run() -> None:
        async with Reader(kafka.settings, topic, tmp_path, partition_fetch_bytes=2**20) as reader:
            await until(lambda: all(reader.store.next(topic, each) == 4001 for each in range(4)))
            assert reader.store.values(topic) == [*numbered(0, 2000), large, *numbered(2000, 4000)] * 4

    asyncio.run(run())


def test_a_position_below_the_log_is_an_error_until_the_owner_moves_it(kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.topic()
    produce(kafka.settings, topic, numbered(0, 100))
    kafka.delete_records(topic, 60)

    async def run() -> None:
        async with Reader(kafka.settings, topic, tmp_path) as reader:
            await until(lambda: len(reader.errors) >= 2, why="the error is said once and not again")
            assert {each.error.kind for each in reader.errors if each.error} == {"out_of_range"}
            assert (reader.errors[0].start, reader.errors[0].next) == (0, 0)
            assert reader.chunks < 10  # no loop
            reader.skip_what_is_gone = True
            await until(lambda: reader.store.next(topic) == 100)
            assert reader.store.values(topic) == numbered(60, 100)

    asyncio.run(run())


def test_a_position_beyond_the_log_is_an_error_and_others_are_read(kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.topic(partitions=2)
    for partition in range(2):
        produce(kafka.settings, topic, numbered(0, 100), partition)

    async def run() -> None:
        reader = Reader(kafka.settings, topic, tmp_path)
        reader.store.partitions[TopicPartition(topic, 0)].next = 5000
        async with reader:
            await until(lambda: reader.errors and reader.store.next(topic, 1) == 100)
            assert (await reader.source.log_range([TopicPartition(topic, 0)])) == {
                TopicPartition(topic, 0): (0, 100)
            }
            produce(kafka.settings, topic, numbered(100, 200), 1)
            await until(lambda: reader.store.next(topic, 1) == 200)
            assert len(reader.errors) < 10

    asyncio.run(run())


def test_a_partition_that_the_owner_leaves_out_waits_for_its_word(kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.topic(partitions=2)
    for partition in range(2):
        produce(kafka.settings, topic, numbered(0, 10), partition)
    stopped = TopicPartition(topic, 1)

    async def run() -> None:
        reader = Reader(kafka.settings, topic, tmp_path)
        reader.left_out.add(stopped)
        async with reader:
            await until(lambda: reader.store.next(topic, 0) == 10)
            assert reader.store.next(topic, 1) == 0
            assert reader.source.positions.unplaced() == 1
            reader.left_out.clear()
            reader.source.reposition([stopped], "it may go on")
            await until(lambda: reader.store.next(topic, 1) == 10, 5)

    asyncio.run(run())


def test_a_paused_partition_goes_on_where_it_stopped(kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.topic(partitions=2)
    paused = TopicPartition(topic, 0)

    async def run() -> None:
        async with Reader(kafka.settings, topic, tmp_path) as reader:
            produce(kafka.settings, topic, numbered(0, 10), 0)
            await until(lambda: reader.store.next(topic, 0) == 10)
            reader.source.pause(paused)
            number = reader.source.positions.paused[paused].positioning
            for partition in range(2):
                produce(kafka.settings, topic, numbered(10, 20), partition)
            await until(lambda: reader.store.next(topic, 1) == 10)
            assert reader.store.next(topic, 0) == 10
            reader.source.resume(paused)
            await until(lambda: reader.store.next(topic, 0) == 20)
            assert reader.source.positions.reading[paused].positioning == number
            assert reader.store.values(topic)[:20] == numbered(0, 20)

    asyncio.run(run())


def test_a_held_source_stays_a_member_and_goes_on(kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.topic(partitions=4)

    async def run() -> None:
        async with Reader(kafka.settings, topic, tmp_path, session_timeout_s=4.0, heartbeat_s=0.3) as reader:
            await until(lambda: reader.source.last_fetch_us())
            reader.source.hold(True)
            for partition in range(4):
                produce(kafka.settings, topic, numbered(0, 100), partition)
            await asyncio.sleep(6)  # longer than the session
            assert reader.store.values(topic) == []
            reader.source.hold(False)
            await until(lambda: len(reader.store.values(topic)) == 400)
            assert len(reader.assignments) == 1

    asyncio.run(run())


def test_bytes_in_flight_are_bounded(kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.topic(partitions=4)
    for partition in range(4):
        produce(kafka.settings, topic, [b"x" * 1000] * 4000, partition, batch_size=100_000)
    limit, largest = 1_000_000, 300_000

    async def run() -> None:
        most = 0
        reader = Reader(kafka.settings, topic, tmp_path, in_flight_bytes=limit, partition_fetch_bytes=largest)
        held, release = [], reader.source.release
        reader.source.release = held.append  # type: ignore[method-assign]
        async with reader:
            while len(reader.store.values(topic)) < 16_000:
                await asyncio.sleep(0.01)
                most = max(most, reader.source.in_flight.bytes)
                if reader.source.in_flight.full:
                    release(held.pop(0))
        assert limit <= most <= limit + 2 * largest

    asyncio.run(run())


def test_a_partition_about_which_the_broker_is_silent_is_named(
    kafka: Kafka, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    topic = kafka.topic()

    async def run() -> None:
        async with Reader(kafka.settings, topic, tmp_path) as reader:
            answered = await until(reader.source.last_fetch_us)
            assert reader.source.tap is not None
            reader.source.tap.say_unanswered(answered)
            assert "told nothing" not in caplog.text
            reader.source.tap.say_unanswered(answered + 60_000_000)
            assert f"told nothing for a while about {topic}-0: have they a leader?" in caplog.text

    asyncio.run(run())


def test_what_was_committed_is_acknowledged_to_kafka(kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.topic()
    produce(kafka.settings, topic, numbered(0, 100))

    async def run() -> None:
        async with Reader(kafka.settings, topic, tmp_path, group="lag") as reader:
            await until(lambda: reader.source.membership.commits)
            await until(lambda: _acknowledged(kafka, "lag", topic) == 100)
            reader.source.acknowledge({TopicPartition("not ours", 0): 5})
            assert reader.source.membership.commit_errors == 0

    asyncio.run(run())


def _acknowledged(kafka: Kafka, group: str, topic: str) -> int:
    admin = kafka.admin()
    asked = [ConsumerGroupTopicPartitions(group, [ConfluentPartition(topic, 0)])]
    found = admin.list_consumer_group_offsets(asked)[group].result(30)
    return int(found.topic_partitions[0].offset)
