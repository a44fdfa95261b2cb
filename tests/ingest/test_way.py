"""The whole way, for real: Kafka records in, Parquet and commits out, read back by DuckDB."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, Producer

from deploy.part import Ward
from tests.stack.kafka import Kafka
from tests.stack.services import Services
from tests.stack.store import Bucket

pytestmark = pytest.mark.slow

START_MS = 1_767_225_600_000  # 2026-01-01


def produce(
    kafka: Kafka, topic: str, records: Iterable[tuple[int, bytes | None, int]], **config: object
) -> None:
    """Records as (partition, value, timestamp in ms)."""
    producer = Producer({**kafka.settings.confluent_config(), "linger.ms": 5, **config})
    for partition, value, timestamp in records:
        while True:
            try:
                producer.produce(topic, value, key=b"k", partition=partition, timestamp=timestamp)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0


def event(number: int, **more: object) -> bytes:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(START_MS / 1000 + number))
    return json.dumps(
        {"id": f"e{number}", "at": at, "n": number, "who": {"name": f"w{number % 7}"}, **more}
    ).encode()


def events(start: int, end: int, partitions: int = 2) -> list[tuple[int, bytes | None, int]]:
    return [(number % partitions, event(number), START_MS + number * 1000) for number in range(start, end)]


@pytest.fixture
def topic(kafka: Kafka, services: Services) -> str:
    name = kafka.topic(
        partitions=2, retention_ms=-1
    )  # the events are older than what a broker keeps by default
    services.create(name, event_id=["id"], event_time=["at"], lateness="1s")
    return name


def worker(services: Services, topic: str, name: str = "worker-1", **settings: str):  # type: ignore[no-untyped-def]
    return services.worker(name, TOPICS=topic, GROUP=f"group-{topic}", **settings)


def count(services: Services, topic: str) -> tuple[int, int]:
    row = services.rows(topic).sql("SELECT count(*), count(DISTINCT n) FROM rows").fetchone()
    assert row is not None
    return row[0], row[1]


def test_records_become_typed_rows_duplicates_go_and_rubbish_is_kept(
    kafka: Kafka, services: Services, topic: str
) -> None:
    rubbish = [b'{"id": "x"', b"[1]", b"\xff\xfe", b"7"]
    produce(kafka, topic, events(0, 1000))
    produce(kafka, topic, events(900, 1000))
    produce(kafka, topic, [(0, value, START_MS) for value in rubbish])
    produce(kafka, topic, [(0, None, START_MS + 999_000)])
    worker(services, topic)
    services.wait_committed(topic, 1105)
    rows = services.rows(topic)
    assert rows.sql("SELECT count(*), sum(n), count(who.name) FROM rows").fetchone() == (1001, 499500, 1000)
    assert rows.sql("SELECT count(*) FROM rows WHERE _tombstone").fetchone() == (1,)
    dead = services.rows(topic, "dead_letters")
    assert sorted(value for (value,) in dead.sql("SELECT _value FROM rows").fetchall()) == sorted(rubbish)
    ledger = services.get(f"/topics/{topic}/ledger")["lines"]
    assert sum(line["duplicates"] for line in ledger) == 100
    for file in services.files(topic):
        data = services.bucket.read(file["url"].removeprefix(f"s3://{services.bucket.name}/"))
        assert len(data) == file["bytes"]


def test_killed_workers_lose_and_double_nothing(kafka: Kafka, services: Services, topic: str) -> None:
    total = 60_000
    for number in range(4):
        part = worker(services, topic, FLUSH_ROWS="5000")
        produce(kafka, topic, events(number * total // 4, (number + 1) * total // 4))
        time.sleep(1.5)
        assert part.process is not None
        part.process.kill()
        part.process.wait()
    worker(services, topic, FLUSH_ROWS="5000")
    services.wait_committed(topic, total)
    assert count(services, topic) == (total, total)


def test_sigterm_publishes_what_is_ready_and_leaves(kafka: Kafka, services: Services, topic: str) -> None:
    part = worker(services, topic, FLUSH_AGE="1h")
    produce(kafka, topic, events(0, 500))
    services.wait("the first records", lambda: "schema version" in part.log.read_text())
    time.sleep(3)
    assert services.get(f"/topics/{topic}/ledger")["lines"] == []
    assert part.process is not None
    part.process.send_signal(signal.SIGTERM)
    assert part.process.wait(30) == 0, part.tail()
    lines = services.get(f"/topics/{topic}/ledger")["lines"]
    assert sum(line["consumed"] for line in lines) == 500


def test_workers_that_come_and_go_share_the_topic(kafka: Kafka, services: Services, topic: str) -> None:
    worker(services, topic, "worker-1", FLUSH_ROWS="2000")
    produce(kafka, topic, events(0, 10_000))
    second = worker(services, topic, "worker-2", FLUSH_ROWS="2000")
    produce(kafka, topic, events(10_000, 20_000))
    services.wait("the second worker", lambda: "connected to the broker" in second.log.read_text())
    time.sleep(4)
    produce(kafka, topic, events(20_000, 30_000))
    assert second.process is not None
    second.process.send_signal(signal.SIGTERM)
    assert second.process.wait(60) == 0, second.tail()
    services.wait_committed(topic, 30_000)
    assert count(services, topic) == (30_000, 30_000)
    workers = {row["worker"] for row in services.get(f"/topics/{topic}/ledger")["lines"] if "worker" in row}
    assert not workers or workers <= {"worker-1", "worker-2"}


def test_wrong_credentials_end_in_one_clear_line(kafka: Kafka, services: Services, topic: str) -> None:
    services.environment["AWS_SECRET_ACCESS_KEY"] = "wrong"
    part = worker(services, topic)
    assert part.process is not None
    assert part.process.wait(60) == 2
    last = part.log.read_text().splitlines()[-1]
    assert "credentials" in last


def test_a_named_topic_that_is_not_there_is_said_and_taken_when_it_comes(
    kafka: Kafka, services: Services
) -> None:
    name = "comes-later"
    services.create(name, lateness="1s")
    part = worker(services, name)
    services.wait(
        "a line in the log", lambda: f"topic {name} of TUKANG_TOPICS is not at the broker" in part.tail(100)
    )
    kafka.topic(name, retention_ms=-1)
    produce(kafka, name, events(0, 10, partitions=1))
    services.wait_committed(name, 10)


def test_kafka_is_told_how_far_the_lake_is(kafka: Kafka, services: Services, topic: str) -> None:
    worker(services, topic)
    produce(kafka, topic, events(0, 1000))
    services.wait_committed(topic, 1000)
    group = ConsumerGroupTopicPartitions(f"group-{topic}")

    admin = kafka.admin()

    def acknowledged() -> bool:
        [told] = admin.list_consumer_group_offsets([group]).values()
        return {each.partition: each.offset for each in told.result(30).topic_partitions} == {0: 500, 1: 500}

    services.wait("committed offsets in Kafka", acknowledged)


def test_a_worker_reads_a_broker_that_wants_scram_over_tls(
    secure_kafka: Kafka, bucket: Bucket, tmp_path: Path
) -> None:
    with Ward() as ward:
        services = Services(tmp_path, secure_kafka, bucket, ward)
        secure = secure_kafka.secure
        services.environment |= {
            "TUKANG_BROKER": secure.servers,
            "TUKANG_BROKER_PROTOCOL": "SASL_SSL",
            "TUKANG_BROKER_SASL_MECHANISM": "SCRAM-SHA-512",
            "TUKANG_BROKER_USERNAME": str(secure.username),
            "TUKANG_BROKER_PASSWORD_FILE": str(secure.password_file),
            "TUKANG_BROKER_CA": str(secure.ca),
        }
        try:
            services.api()
            topic = secure_kafka.topic(partitions=2, retention_ms=-1)
            services.create(topic, lateness="1s")
            worker(services, topic)
            produce(secure_kafka, topic, events(0, 100))
            services.wait_committed(topic, 100)
            wrong = tmp_path / "wrong"
            wrong.write_text("nonsense")
            services.environment["TUKANG_BROKER_PASSWORD_FILE"] = str(wrong)
            part = worker(services, topic, "worker-2")
            assert part.process is not None
            assert part.process.wait(90) == 2
            assert "TUKANG_BROKER_PASSWORD_FILE" in part.log.read_text().splitlines()[-1]
        finally:
            services.stop()
