"""The source against Tansu, the broker of the embedded stack."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from deploy.part import Ward
from deploy.tansu import Tansu
from ingest.broker import BrokerSettings, TopicIds
from ingest.source import TopicPartition
from tests.ingest.reader import Reader, Store, numbered, produce, until

pytestmark = pytest.mark.slow


@pytest.fixture
def tansu(tmp_path: Path) -> Iterator[BrokerSettings]:
    folder = tmp_path / "tansu"
    folder.mkdir()
    with Ward() as ward:
        part = Tansu(folder, environment=ward.environment)
        part.start()
        yield BrokerSettings(servers=part.bootstrap)
        part.end()


def topic_of(broker: BrokerSettings, name: str, partitions: int) -> str:
    admin = AdminClient(broker.confluent_config())
    admin.create_topics([NewTopic(name, partitions, 1)])[name].result(30)
    return name


def test_two_members_read_everything_once(tansu: BrokerSettings, tmp_path: Path) -> None:
    topic, store = topic_of(tansu, "flights", 4), Store()
    options = {"store": store, "group": "pair", "session_timeout_s": 6.0, "heartbeat_s": 2.0}
    for partition in range(4):
        produce(tansu, topic, numbered(0, 2000), partition, compression_type="lz4")

    async def run() -> None:
        async with Reader(tansu, topic, tmp_path / "one", name="one", **options) as one:  # type: ignore[arg-type]
            await until(lambda: all(store.next(topic, each) == 2000 for each in range(4)), 40)
            ends = one.source.ends()
            assert {each: end for each, (end, _, _) in ends.items()} == {
                TopicPartition(topic, each): 2000 for each in range(4)
            }
            assert (await one.source.log_range([TopicPartition(topic, 0)])) == {
                TopicPartition(topic, 0): (0, 2000)
            }
            async with Reader(tansu, topic, tmp_path / "two", name="two", **options) as two:  # type: ignore[arg-type]
                await until(lambda: two.assignments and len(two.assignments[-1]) == 2, 60)
                for partition in range(4):
                    produce(tansu, topic, numbered(2000, 4000), partition)
                await until(lambda: all(store.next(topic, each) == 4000 for each in range(4)), 40)
        for partition in range(4):
            assert store.offsets(topic, partition) == list(range(4000))

    asyncio.run(run())


def test_topic_ids_are_told_or_none(tansu: BrokerSettings) -> None:
    topic = topic_of(tansu, "flights", 1)
    found = asyncio.run(TopicIds(tansu).ask([topic, "never-made"]))
    assert found.keys() == {topic}
