"""A time range read again: what differs is said first, then it is in the lake exactly once, whenever it is killed."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ingest.backfill.again import reading
from ingest.backfill.run import Backfill
from ingest.catalog import Catalog
from ingest.inquiry import Inquiry
from ingest.lake import Lake
from ingest.letters.replay import Replay
from ingest.settings import Settings
from tests.ingest.test_operate import tukang
from tests.ingest.test_replay import DyingCatalog, DyingLake, Killed, lake_of
from tests.ingest.test_way import START_MS, event, produce, worker
from tests.stack.kafka import Kafka
from tests.stack.services import Services

pytestmark = pytest.mark.slow

EVENTS = 3_000  # one a second from midnight
START_US = START_MS * 1_000
RANGE = ("--from", "2026-01-01T00:10:00Z", "--to", "2026-01-01T00:40:00Z")  # events 600 to 2399
GONE = 400  # of each partition, by Kafka: events 0 to 799


def changing(number: int) -> bytes:
    """Two of them have one key."""
    return event(number, price=f"{number}.50", key=f"k{1_001 if number == 1_003 else number}")


def killed(kafka: Kafka, services: Services, topic: str, puts: int, dies: str) -> None:
    """A backfill that dies at a put, or before or after its commit."""
    lake, catalog = lake_of(services, DyingLake), DyingCatalog(services.url, lambda: None)
    assert isinstance(lake, DyingLake)
    lake.puts_left, catalog.dies = puts, dies
    with pytest.raises(Killed):
        asyncio.run(_backfilled(kafka, services, topic, lake, catalog))


async def _backfilled(kafka: Kafka, services: Services, topic: str, lake: Lake, catalog: Catalog) -> None:
    environment = Settings(broker=kafka.settings.servers, bucket=services.bucket.name, api=services.url)
    inquiry = Inquiry(services.url)
    tools = Replay(
        inquiry, catalog, lake, environment, lambda: time.time_ns() // 1000, secrets.randbits, "test"
    )
    async with reading(kafka.settings, topic, [0, 1]) as again:
        backfill = Backfill(
            tools, topic, START_US + 600_000_000, START_US + 2_400_000_000, again, {0: 0, 1: 1}
        )
        await backfill.run(dry_run=False)
    await catalog.close()


def test_a_range_comes_back_as_the_topic_is_told_now_and_loaders_follow(
    kafka: Kafka, services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, services.environment[name])
    topic = kafka.topic(partitions=2, retention_ms=-1)
    services.create(topic, event_id=["id"], event_time=["at"], lateness="1s", period="hour")
    produce(kafka, topic, [(n % 2, changing(n), START_MS + n * 1_000) for n in range(EVENTS)])
    large = event(1_200, id="large", n=90_000, price="x" * 5_000)
    produce(kafka, topic, [(1, large, START_MS + 1_200_000)])
    worker(services, topic, FLUSH_ROWS="700")
    services.wait_committed(topic, EVENTS + 1)
    warehouse = tmp_path / "warehouse.duckdb"
    loader = ("load", "--to", f"duckdb:///{warehouse}", "--loader", "test", topic)
    tukang(services, *loader)

    def complete() -> bool:
        return services.get(f"/topics/{topic}/periods")["periods"][0]["state"] == "complete"

    services.wait("the hour is complete", complete)
    tukang(services, "upkeep", "--once")
    backfill = ("topics", "backfill", topic, *RANGE)

    def head() -> int:
        return int(services.get(f"/topics/{topic}")["sequence"])

    before = head()
    assert "1801 rows of 1 files were read again: 0 would change, 0 would be dup" in tukang(
        services, *backfill
    )
    assert head() == before

    # The first records leave Kafka, and the topic is told otherwise.
    for partition in (0, 1):
        kafka.delete_records(topic, GONE, partition)
    told = {"types": {"price": "decimal(9,2)"}, "event_id": ["key"], "max_record_bytes": "4kB"}
    services.http.patch(f"/topics/{topic}", json={"settings": told}).raise_for_status()
    said = tukang(services, *backfill, "--dry-run")
    differs = (
        "1601 rows of 1 files were read again: 1599 would change, 1 would be duplicates, 1 would be dead"
    )
    assert differs in said
    assert "200 rows stay as they are" in said
    assert "  _event_id: 1600 rows\n" in said
    assert head() == before
    for puts, dies in ((0, ""), (1, ""), (2, ""), (100, "before")):
        killed(kafka, services, topic, puts, dies)
        assert head() == before
    produce(kafka, topic, [(n % 2, changing(n), START_MS + n * 1_000) for n in range(EVENTS, EVENTS + 500)])
    said = tukang(services, *backfill)
    assert differs in said
    assert "1599 rows changed, 1 duplicates gone, 1 rows are dead letters" in said
    services.wait_committed(topic, EVENTS + 501 + 1)  # the ledger has the duplicate of the backfill too
    assert "0 would change, 0 would be duplicates, 0 would be dead" in tukang(services, *backfill)
    found = services.rows(topic).sql(
        "SELECT count(*), count(DISTINCT (_lake_partition, _offset)), count(DISTINCT n),"
        " count(*) FILTER (_event_id LIKE 'k%'), sum(price::DECIMAL(9, 2)) FILTER (n = 2001) FROM rows"
    )
    assert found.fetchone() == (EVENTS + 499, EVENTS + 499, EVENTS + 499, 1_599 + 500, Decimal("2001.50"))
    assert tukang(services, "verify", topic, "--deep")
    tukang(services, *loader)
    same(services, topic, warehouse)

    # One that dies after its commit is done.
    services.http.patch(f"/topics/{topic}", json={"settings": {"event_id": ["id"]}}).raise_for_status()
    before = head()
    killed(kafka, services, topic, 100, "after")
    assert head() == before + 1
    assert "0 would change" in tukang(services, *backfill)
    assert tukang(services, "verify", topic, "--deep")
    tukang(services, *loader)
    same(services, topic, warehouse)


def same(services: Services, topic: str, warehouse: Path) -> None:
    """The loader's table has exactly the live rows of the lake."""
    names = "SELECT _lake_partition, _offset, id, n, price::DECIMAL(9, 2), _event_id FROM {} ORDER BY ALL"
    lake = services.rows(topic).sql(names.format("rows")).fetchall()
    with duckdb.connect(str(warehouse), read_only=True) as loaded:
        table: Callable[[str], Any] = loaded.sql
        assert table(names.format(f'"{topic}"')).fetchall() == lake
