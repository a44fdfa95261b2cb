"""Sealing for real: what workers left becomes a few sorted files, beside them, with nothing lost or added."""

from __future__ import annotations

import subprocess
import sys

import pytest

from deploy.part import clean_environment
from tests.ingest.test_way import START_MS, event, events, produce, worker
from tests.stack.kafka import Kafka
from tests.stack.services import Services

pytestmark = pytest.mark.slow


def upkeep(services: Services) -> str:
    """Runs `tukang upkeep --once` and returns its log."""
    done = subprocess.run(
        [sys.executable, "-m", "tukang", "upkeep", "--once"],
        env=clean_environment({**services.environment, "TUKANG_NAME": "upkeep-1"}),
        cwd=services.folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def states(services: Services, topic: str) -> list[str]:
    return [period["state"] for period in services.get(f"/topics/{topic}/periods", limit=1000)["periods"]]


def content(services: Services, topic: str) -> list[tuple[object, ...]]:
    return (
        services.rows(topic)
        .sql("SELECT _lake_partition, _offset, id, n, who FROM rows ORDER BY ALL")
        .fetchall()
    )


@pytest.fixture
def topic(kafka: Kafka, services: Services) -> str:
    name = kafka.topic(partitions=2, retention_ms=-1)
    services.create(name, event_id=["id"], event_time=["at"], lateness="1s", period="hour", grace="1s")
    return name


def test_complete_periods_become_few_files_with_the_same_rows_less_twins(
    kafka: Kafka, services: Services, topic: str
) -> None:
    worker(services, topic, FLUSH_ROWS="500")
    total = 9_000  # two and a half hours, an event a second
    for start in range(0, total, 3_000):
        produce(kafka, topic, events(start, start + 3_000))
        services.wait_committed(topic, start + 3_000)
    # The same event in another partition: no window of a worker sees both.
    produce(kafka, topic, [(1, event(100), START_MS + total * 1000)])
    services.wait_committed(topic, total + 1)
    services.wait("complete periods", lambda: states(services, topic) == ["complete"] * 3)
    before = content(services, topic)
    assert len(services.files(topic)) > 3

    upkeep(services)
    assert states(services, topic) == ["sealed"] * 3
    files = services.files(topic)
    assert sorted(file["url"].split("/")[-2] for file in files) == [
        f"event_hour=2026-01-01-0{hour}" for hour in range(3)
    ]
    twins = [row for row in before if row[2] == "e100"]
    assert len(twins) == 2
    assert content(services, topic) == [row for row in before if row != max(twins, key=lambda row: row[0])]
    line = services.get(f"/topics/{topic}/ledger", limit=1000)["lines"][-1]
    assert line["kind"] == "replace"
    rows = services.rows(topic)
    assert rows.sql("SELECT count(*) FROM rows WHERE _sequence IS NULL").fetchone() == (0,)
    assert upkeep(services).count("sealed") == 0, "nothing is due twice"


def test_a_late_row_reopens_its_period_and_is_sealed_beside_the_big_file(
    kafka: Kafka, services: Services, topic: str
) -> None:
    worker(services, topic)
    produce(kafka, topic, events(0, 4_000))
    services.wait_committed(topic, 4_000)
    services.wait("complete periods", lambda: states(services, topic) == ["complete"] * 2)
    upkeep(services)
    big = {file["url"] for file in services.files(topic)}
    produce(kafka, topic, [(0, event(10, late=True).replace(b'"e10"', b'"other"'), START_MS + 4_001_000)])
    produce(kafka, topic, [(1, event(11), START_MS + 4_002_000)])
    services.wait_committed(topic, 4_002)
    assert states(services, topic) == ["reopened", "sealed"]
    services.wait(
        "sealed again",
        lambda: "1 periods sealed" in upkeep(services) or states(services, topic)[0] == "sealed",
    )
    assert states(services, topic) == ["sealed", "sealed"]
    files = {file["url"] for file in services.files(topic)}
    assert big < files
    assert len(files) == len(big) + 1
    assert len(content(services, topic)) == 4_001
