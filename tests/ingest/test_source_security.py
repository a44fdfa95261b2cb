"""The source and a broker that asks who is there."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from ingest.broker import BrokerRefused
from tests.ingest.reader import Reader, numbered, produce, until
from tests.stack.kafka import Kafka

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("who", ["secure", "mutual"])
def test_chunks_arrive_over_tls(secure_kafka: Kafka, tmp_path: Path, who: str) -> None:
    topic, broker = secure_kafka.topic(), getattr(secure_kafka, who)
    produce(broker, topic, numbered(0, 1000))

    async def run() -> None:
        async with Reader(broker, topic, tmp_path) as reader:
            await until(lambda: reader.store.next(topic) == 1000)
            assert reader.store.values(topic) == numbered(0, 1000)
            await until(lambda: reader.source.membership.commits)

    asyncio.run(run())


def test_a_wrong_password_ends_the_source_with_one_line(
    secure_kafka: Kafka, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "password").write_text("another")
    broker = replace(secure_kafka.secure, password_file=tmp_path / "password")

    async def run() -> None:
        async with Reader(broker, "any", tmp_path) as reader:
            await until(lambda: reader.app.crashed)
            assert isinstance(reader.app.crash_reason, BrokerRefused)
            assert isinstance(reader.source.crash_reason, BrokerRefused)

    asyncio.run(run())
    critical = [each for each in caplog.records if each.levelno >= logging.CRITICAL]
    assert len(critical) == 1
    assert "wrong user name or password for user 'tukang'" in critical[0].getMessage()
    assert "\n" not in critical[0].getMessage()
    assert not any(each.exc_info for each in caplog.records)


def test_a_group_that_may_not_be_joined_is_said_and_joined_once_it_may(
    secure_kafka: Kafka, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    topic, broker = secure_kafka.topic("guarded"), secure_kafka.poor
    produce(secure_kafka.settings, topic, numbered(0, 10))
    secure_kafka.allow("READ", "TOPIC", topic)

    async def run() -> None:
        async with Reader(broker, topic, tmp_path, group="closed") as reader:
            await until(
                lambda: "does not let us into group closed: the user needs READ on the group" in caplog.text
            )
            secure_kafka.allow("READ", "GROUP", "closed")
            await until(lambda: reader.store.next(topic) == 10)

    asyncio.run(run())


def test_a_topic_that_may_be_seen_but_not_read_is_an_error_without_a_loop(
    secure_kafka: Kafka, tmp_path: Path
) -> None:
    closed, opened, broker = (
        secure_kafka.topic("half-closed"),
        secure_kafka.topic("half-open"),
        secure_kafka.poor,
    )
    for topic in (closed, opened):
        produce(secure_kafka.settings, topic, numbered(0, 10))
    secure_kafka.allow("READ", "GROUP", "half")
    secure_kafka.allow("READ", "TOPIC", opened)
    secure_kafka.allow("DESCRIBE", "TOPIC", closed)

    async def run() -> None:
        async with Reader(broker, "half-.*", tmp_path, group="half") as reader:
            await until(lambda: reader.store.next(opened) == 10 and len(reader.errors) >= 2)
            assert {(each.topic, each.error.kind) for each in reader.errors if each.error} == {
                (closed, "fetch")
            }
            assert "TopicAuthorizationFailedError" in str(reader.errors[0].error)
            assert reader.chunks < 20
            secure_kafka.allow("READ", "TOPIC", closed)
            await until(lambda: reader.store.next(closed) == 10, 15)

    asyncio.run(run())
