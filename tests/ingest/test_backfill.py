"""A time range read again beside a running worker: what differs is said first, then it is in the lake exactly once,
whenever it is killed; and what a lost object had comes back."""

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
from click.testing import CliRunner

from ingest.backfill.again import Source, reading
from ingest.backfill.command import backfill
from ingest.backfill.run import Backfill, BackfillRefused
from ingest.catalog import Catalog
from ingest.inquiry import Inquiry
from ingest.lake import Lake
from ingest.letters.replay import Replay
from ingest.settings import Settings
from ingest.upkeep.run import serve
from tests.ingest.test_replay import DyingCatalog, DyingLake, Killed, lake_of
from tests.ingest.test_way import START_MS, event, produce, worker
from tests.stack.kafka import Kafka
from tests.stack.services import Services
from tukang import main

pytestmark = pytest.mark.slow

EVENTS = 600  # one a second from midnight
RANGE = ("2026-01-01T00:02:00Z", "2026-01-01T00:08:00Z")  # events 120 to 479
START_US, END_US = START_MS * 1_000 + 120_000_000, START_MS * 1_000 + 480_000_000
GONE = 80  # of each partition, by Kafka: events 0 to 159
MORE = 200  # that come later


def changing(number: int) -> tuple[int, bytes, int]:
    """Two of them have one key."""
    value = event(number, price=f"{number}.50", key=f"k{201 if number == 203 else number}")
    return number % 2, value, START_MS + number * 1_000


def tukang(services: Services, *arguments: str) -> str:
    """A command, without the seconds that a process of its own takes to begin."""
    with pytest.MonkeyPatch.context() as patched:
        for name, value in services.environment.items():
            if name.startswith("TUKANG_"):
                patched.setenv(name, value)
        done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


class Filling:
    """The command without a process, and one that dies."""

    def __init__(self, kafka: Kafka, services: Services, topic: str) -> None:
        self._kafka, self._services, self._topic = kafka, services, topic
        self.settings = Settings(
            broker=kafka.settings.servers,
            bucket=services.bucket.name,
            s3_endpoint=services.environment["TUKANG_S3_ENDPOINT"],
            api=services.url,
            name="by-hand",
        )

    def said(self, start: str = RANGE[0], end: str = RANGE[1], *, dry_run: bool = False) -> str:
        lines: list[str] = []
        asyncio.run(backfill(self.settings, self._topic, start, end, dry_run=dry_run, say=lines.append))
        return "\n".join(lines)

    def killed(self, puts: int, dies: str) -> None:
        """Dies at a put, or before or after its commit."""
        lake, catalog = lake_of(self._services, DyingLake), DyingCatalog(self._services.url, lambda: None)
        assert isinstance(lake, DyingLake)
        lake.puts_left, catalog.dies = puts, dies
        with pytest.raises(Killed):
            asyncio.run(self._run(lake, catalog))

    async def _run(self, lake: Lake, catalog: Catalog) -> None:
        async def same() -> bool:
            return True

        tools = Replay(
            Inquiry(self._services.url), catalog, lake, self.settings, lambda: time.time_ns() // 1000,
            secrets.randbits, "test",
        )  # fmt: skip
        async with reading(self._kafka.settings, self._topic, [0, 1]) as again:
            source = Source(again, {0: 0, 1: 1}, same)
            await Backfill(tools, self._topic, START_US, END_US, source).run(dry_run=False)


@pytest.mark.usefixtures("keys")
def test_a_range_comes_back_as_the_topic_is_told_now_and_loaders_follow(
    kafka: Kafka, services: Services, tmp_path: Path
) -> None:
    topic = kafka.topic(partitions=2, retention_ms=-1)
    services.create(
        topic, event_id=["id"], event_time=["at"], lateness="1s", period="hour", grace="0s", flush_age="300ms"
    )
    worker(services, topic)
    large = (1, event(240, id="large", n=90_000, price="x" * 5_000), START_MS + 240_000)
    produce(kafka, topic, [*map(changing, range(EVENTS)), large])
    services.wait_committed(topic, EVENTS + 1)
    warehouse = tmp_path / "warehouse.duckdb"
    loader = ("load", "--to", f"duckdb:///{warehouse}", "--loader", "test", topic)
    tukang(services, *loader)

    def complete() -> bool:
        return services.get(f"/topics/{topic}/periods")["periods"][0]["state"] == "complete"

    def head() -> int:
        return int(services.get(f"/topics/{topic}")["sequence"])

    services.wait("the hour is complete", complete)
    filling = Filling(kafka, services, topic)
    asyncio.run(serve(filling.settings, once=True))
    before = head()
    assert "361 rows of 1 files were read again: 0 would change, 0 would be dup" in filling.said()
    assert head() == before

    # The first records leave Kafka, and the topic is told otherwise.
    for partition in (0, 1):
        kafka.delete_records(topic, GONE, partition)
    told = {"types": {"price": "decimal(9,2)"}, "event_id": ["key"], "max_record_bytes": "4kB"}
    services.http.patch(f"/topics/{topic}", json={"settings": told}).raise_for_status()
    differs = "321 rows of 1 files were read again: 319 would change, 1 would be duplicates, 1 would be dead"
    said = tukang(services, "topics", "backfill", topic, "--from", RANGE[0], "--to", RANGE[1], "--dry-run")
    assert differs in said
    assert "40 rows stay as they are" in said
    assert "  _event_id: 320 rows\n" in said
    assert "  price: 320 rows\n" in said, "of another type"
    enough, filling.settings = filling.settings, filling.settings.model_copy(update={"memory": 10_000})
    with pytest.raises(BackfillRefused, match=r"319 rows get another id.*shorter ranges"):
        filling.said()
    assert head() == before
    filling.settings = enough
    for puts, dies in ((0, ""), (2, ""), (100, "before")):
        filling.killed(puts, dies)
        assert head() == before
    # The worker goes on meanwhile. Some come twice: they are no rows, and never will be.
    produce(kafka, topic, map(changing, range(EVENTS, EVENTS + MORE)))
    produce(kafka, topic, map(changing, range(EVENTS, EVENTS + 50)))
    said = filling.said()
    assert differs in said
    assert "319 rows changed, 1 duplicates gone, 1 rows are dead letters" in said
    total = EVENTS + 1 + MORE + 50
    services.wait_committed(topic, total + 1)  # the ledger has the duplicate of the backfill too
    assert "0 would change, 0 would be duplicates, 0 would be dead" in filling.said()
    rows = EVENTS + MORE - 1
    found = services.rows(topic).sql(
        "SELECT count(*), count(DISTINCT (_lake_partition, _offset)), count(DISTINCT n),"
        " count(*) FILTER (_event_id LIKE 'k%' AND n < 600), sum(price::DECIMAL(9, 2)) FILTER (n < 160), "
        " sum(price::DECIMAL(9, 2)) FILTER (n = 401) FROM rows"
    )
    prices = (sum(Decimal(n) + Decimal("0.5") for n in range(160)), Decimal("401.50"))
    assert found.fetchone() == (rows, rows, rows, 319, *prices)

    # One that dies after its commit is done.
    services.http.patch(f"/topics/{topic}", json={"settings": {"event_id": ["id"]}}).raise_for_status()
    before = head()
    filling.killed(100, "after")
    assert head() == before + 1
    assert "0 would change" in filling.said()

    # Live objects are gone from the store. What Kafka still has of them comes back, once.
    def remove(lowest_ms: int) -> int:
        late = [file for file in services.files(topic) if file["lowest"] >= iso(lowest_ms)]
        for file in late:
            key = file["url"].removeprefix(f"s3://{services.bucket.name}/")
            services.bucket.client().delete_object(Bucket=services.bucket.name, Key=key)
        return sum(file["rows"] for file in late)

    assert remove(START_MS + EVENTS * 1_000) == MORE
    with pytest.raises(BackfillRefused, match=r"--from .* --to 2026-01-01T00:13:19.000001Z"):
        filling.said()
    missing = (RANGE[0], "2026-01-01T01:00:00Z")
    assert f"{MORE} rows and dead letters of" in filling.said(*missing, dry_run=True)
    assert f"{MORE} came back" in filling.said(*missing)
    assert tukang(services, "verify", topic, "--deep").splitlines()[-1] == "complete"
    tukang(services, *loader)
    same(services, topic, warehouse, rows)
    remove(0)
    with pytest.raises(BackfillRefused, match="put the objects back"):
        filling.said("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z")


def iso(time_ms: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time_ms / 1_000))


def same(services: Services, topic: str, warehouse: Path, count: int) -> None:
    """The loader's table has exactly the live rows of the lake."""
    names = "SELECT _lake_partition, _offset, id, n, price::DECIMAL(9, 2), _event_id FROM {} ORDER BY ALL"
    lake = services.rows(topic).sql(names.format("rows")).fetchall()
    assert len(lake) == count
    with duckdb.connect(str(warehouse), read_only=True) as loaded:
        table: Callable[[str], Any] = loaded.sql
        assert table(names.format(f'"{topic}"')).fetchall() == lake
