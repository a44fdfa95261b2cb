"""Sealing for real: what workers left becomes a few sorted files, beside them, with nothing lost or added."""

from __future__ import annotations

import pytest

from tests.ingest.test_way import START_MS, event, events, produce, worker
from tests.ingest.upkeep.processes import upkeep_once
from tests.stack.kafka import Kafka
from tests.stack.services import Services

pytestmark = pytest.mark.slow


def upkeep(services: Services) -> str:
    """Runs `tukang upkeep --once` and returns its log."""
    return upkeep_once(
        {**services.environment, "TUKANG_NAME": "upkeep-1"}, str(services.folder / "upkeep.log")
    )


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


def test_complete_periods_become_few_files_and_a_late_row_one_beside_them(
    kafka: Kafka, services: Services, topic: str
) -> None:
    worker(services, topic, FLUSH_ROWS="500", FLUSH_AGE="300ms")
    total = 9_000  # two and a half hours, an event a second
    for start in (0, total // 2):
        produce(kafka, topic, events(start, start + total // 2))
        services.wait_committed(topic, start + total // 2)
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
    sealed = [row for row in before if row != max(twins, key=lambda row: row[0])]
    assert content(services, topic) == sealed
    line = services.get(f"/topics/{topic}/ledger", limit=1000)["lines"][-1]
    assert line["kind"] == "replace"
    rows = services.rows(topic)
    assert rows.sql("SELECT count(*) FROM rows WHERE _sequence IS NULL").fetchone() == (0,)
    assert upkeep(services).count("sealed") == 0, "nothing is due twice"

    # Late: a new row of the first hour, and one that is there already, from the other partition.
    big = {file["url"] for file in files}
    late = event(10, late=True).replace(b'"e10"', b'"other"')
    produce(kafka, topic, [(0, late, START_MS + total * 1000), (1, event(12), START_MS + total * 1000)])
    services.wait_committed(topic, total + 3)
    assert states(services, topic) == ["reopened", "sealed", "sealed"]
    services.wait("sealed again", lambda: "1 periods sealed" in upkeep(services))
    assert states(services, topic) == ["sealed"] * 3
    files = services.files(topic)
    assert big < {file["url"] for file in files}
    assert len(files) == len(big) + 1
    assert len(content(services, topic)) == len(sealed) + 1
