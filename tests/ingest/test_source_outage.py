"""The source while others are away: the broker at start, later, at the stop; the answer to where reading starts."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import pytest

from deploy.part import LOOPBACK, free_ports
from ingest.broker import BrokerSettings
from tests.ingest.reader import Reader, numbered, produce, until
from tests.stack.kafka import Kafka

pytestmark = pytest.mark.slow


def test_a_start_while_the_broker_is_away_waits_and_says_so(
    own_kafka: Kafka, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ingest")
    topic = own_kafka.topic()
    produce(own_kafka.settings, topic, numbered(0, 10))
    own_kafka.stop()

    async def run() -> None:
        async with Reader(own_kafka.settings, topic, tmp_path) as reader:
            await asyncio.sleep(3)
            assert "waiting for the broker: no server of the broker answers" in caplog.text
            await asyncio.to_thread(own_kafka.start)
            await until(lambda: reader.store.next(topic) == 10)

    asyncio.run(run())


def test_a_stop_while_the_broker_was_never_there_is_quick(tmp_path: Path) -> None:
    nobody = BrokerSettings(servers=f"{LOOPBACK}:{free_ports(1)[0]}")

    async def run() -> float:
        async with Reader(nobody, "any", tmp_path):
            await asyncio.sleep(1)
            began = time.monotonic()
        return time.monotonic() - began

    assert asyncio.run(run()) < 20


def test_a_stop_while_the_broker_is_away_ends_and_leaves_nothing_running(
    own_kafka: Kafka, tmp_path: Path
) -> None:
    topic = own_kafka.topic()

    async def run() -> float:
        async with Reader(own_kafka.settings, topic, tmp_path) as reader:
            await until(lambda: reader.source.last_fetch_us())
            await asyncio.to_thread(own_kafka.kill)
            await asyncio.sleep(2)  # the client sleeps between its attempts
            began = time.monotonic()
        took = time.monotonic() - began
        left = [each for each in asyncio.all_tasks() if "aiokafka" in repr(each)]
        assert not left
        return took

    assert asyncio.run(run()) < 40  # the flush and the leaving have limits


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_reading_goes_on_by_itself_when_the_broker_is_back(
    own_kafka: Kafka, tmp_path: Path, end: str
) -> None:
    topic = own_kafka.topic(partitions=2)
    for partition in range(2):
        produce(own_kafka.settings, topic, numbered(0, 100), partition)

    async def run() -> None:
        async with Reader(own_kafka.settings, topic, tmp_path, session_timeout_s=3.0) as reader:
            await until(lambda: all(reader.store.next(topic, each) == 100 for each in range(2)))
            await asyncio.to_thread(getattr(own_kafka, end))
            await asyncio.sleep(5)  # longer than the session
            await asyncio.to_thread(own_kafka.start)
            for partition in range(2):
                produce(own_kafka.settings, topic, numbered(100, 200), partition)
            await until(lambda: all(reader.store.next(topic, each) == 200 for each in range(2)), 20)
            for partition in range(2):
                assert reader.store.offsets(topic, partition) == list(range(200))
            assert not reader.errors

    asyncio.run(run())


def test_positions_that_are_not_told_are_asked_for_again(
    kafka: Kafka, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    topic = kafka.topic()
    produce(kafka.settings, topic, numbered(0, 10))
    asked = 0

    async def fail() -> None:
        nonlocal asked
        asked += 1
        raise ConnectionError("the API is away")

    async def run() -> None:
        reader = Reader(kafka.settings, topic, tmp_path)
        reader.before_starts = fail
        async with reader:
            await until(lambda: asked >= 3)
            assert "no positions for 1 partitions: the API is away" in caplog.text
            assert reader.source.positions.unplaced() == 1
            reader.before_starts = None
            await until(lambda: reader.store.next(topic) == 10, 10)

    asyncio.run(run())
