"""Dead letters after a fix: listed, taken out, and replayed exactly once, whenever the replay is killed."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ingest.catalog import Answer, Catalog
from ingest.inquiry import Inquiry
from ingest.lake import Lake, Put
from ingest.letters.find import Wanted
from ingest.letters.replay import Outcome, Replay
from ingest.settings import Settings
from tests.ingest.test_operate import tukang
from tests.ingest.test_way import event, produce, worker
from tests.stack.kafka import Kafka
from tests.stack.services import Services

pytestmark = pytest.mark.slow

LARGE = 30  # records that are too large
KILLS = 6  # before each of four puts, before the commit, and after it


class Killed(Exception):
    """Stands in for a process that is gone."""


class DyingLake(Lake):
    """A store whose client dies at its n-th put."""

    puts_left = 0

    def put(self, key: str, data: memoryview, sha256: str) -> Put:
        if self.puts_left == 0:
            raise Killed
        self.puts_left -= 1
        return super().put(key, data, sha256)


class DyingCatalog(Catalog):
    """A client of the API that dies before or after its commit."""

    dies: str = ""

    async def commit(self, topic: str, commit: Mapping[str, Any]) -> Answer:
        if self.dies == "before":
            raise Killed
        answer = await super().commit(topic, commit)
        if self.dies == "after":
            raise Killed
        return answer


def replaying(services: Services, lake: Lake, catalog: Catalog) -> Replay:
    environment = Settings(broker="127.0.0.1:1", bucket=services.bucket.name, api=services.url)
    return Replay(
        Inquiry(services.url),
        catalog,
        lake,
        environment,
        lambda: time.time_ns() // 1000,
        secrets.randbits,
        "test",
    )


def lake_of(services: Services, kind: type[Lake] = Lake) -> Lake:
    return kind(
        services.bucket.name,
        services.environment.get("TUKANG_PREFIX", ""),
        endpoint=services.environment["TUKANG_S3_ENDPOINT"],
    )


def killed(services: Services, topic: str, number: int) -> None:
    """A replay that dies at its `number`-th moment."""
    lake, catalog = lake_of(services, DyingLake), DyingCatalog(services.url, lambda: None)
    assert isinstance(lake, DyingLake)
    lake.puts_left = number if number < 4 else 100
    catalog.dies = {4: "before", 5: "after"}.get(number, "")

    async def run() -> None:
        with pytest.raises(Killed):
            await replaying(services, lake, catalog).run(topic, Wanted())
        await catalog.close()

    asyncio.run(run())


def at_once(services: Services, topic: str) -> list[Outcome]:
    """Two replays beside each other."""
    lake, catalog = lake_of(services), Catalog(services.url, lambda: None)

    async def run() -> list[Outcome]:
        both = [replaying(services, lake, catalog).run(topic, Wanted()) for _ in range(2)]
        outcomes = await asyncio.gather(*both)
        await catalog.close()
        return list(outcomes)

    return asyncio.run(run())


@pytest.mark.usefixtures("keys")
def test_letters_become_rows_exactly_once_and_loaders_follow(
    kafka: Kafka, services: Services, tmp_path: Path
) -> None:
    topic = kafka.topic(partitions=2, retention_ms=-1)
    services.create(
        topic,
        event_id=["id"],
        event_time=["at"],
        lateness="1s",
        max_record_bytes="1kB",
        tombstones="dead_letter",
    )
    text = "x" * 2_000
    large = [(n % 2, event(100 + n, long=text, only={"in": n}), 1_767_225_700_000 + n) for n in range(LARGE)]
    records = [
        *[(n % 2, event(n), 1_767_225_600_000 + n) for n in range(100)],
        *large,
        large[0],  # twice among the letters
        (1, event(1, long=text), 1_767_225_601_000),  # twin of a row, in the same lake partition
        (0, None, 1_767_225_600_500),
        (0, b"{rubbish", 1_767_225_600_600),
        (1, b"\xff\xfe", 1_767_225_600_700),
    ]
    produce(kafka, topic, records)
    part = worker(services, topic)
    services.wait_committed(topic, len(records))
    warehouse = tmp_path / "warehouse.duckdb"
    loader = ("load", "--to", f"duckdb:///{warehouse}", "--loader", "test", topic)
    tukang(services, *loader)

    listed = json.loads(tukang(services, "dead-letters", "list", topic, "--format", "json"))
    assert len(listed) == LARGE + 5
    assert {letter["reason"] for letter in listed} == {"too_large", "no_value", "not_json", "not_utf8"}
    [wrong] = json.loads(
        tukang(services, "dead-letters", "list", topic, "--reason", "not_json", "--format", "json")
    )
    shown = tukang(services, "dead-letters", "show", topic, str(wrong["offset"]), "--lake-partition", "0")
    assert "value: {rubbish" in shown
    folder = tmp_path / "out"
    tukang(
        services, "dead-letters", "export", topic, "--into", str(folder), "--offsets", f"{wrong['offset']}"
    )
    exported = [json.loads(line) for line in (folder / "letters.ndjson").read_text().splitlines()]
    assert "{rubbish" in {line.get("value") for line in exported}
    view = json.loads(
        tukang(services, "sql", f'SELECT count(*) AS n FROM "{topic}__dead_letters"', "--format", "json")
    )
    assert view == [{"n": LARGE + 5}]

    assert "nothing to replay" in tukang(services, "dead-letters", "replay", topic)
    fix = {"max_record_bytes": "1MB", "tombstones": "row", "types": {"only.in": "decimal(6,2)"}}
    services.http.patch(f"/topics/{topic}", json={"settings": fix}).raise_for_status()
    said = tukang(services, "dead-letters", "replay", topic, "--dry-run")
    assert f"would be rows: {LARGE + 1}, duplicates: 2, still dead letters: 2" in said

    def head() -> int:
        return int(services.get(f"/topics/{topic}")["sequence"])

    before = head()
    for number in range(KILLS - 1):
        killed(services, topic, number)
        assert head() == before
    first, second = at_once(services, topic)
    assert sorted([first.rows, second.rows]) == [0, LARGE + 1]
    assert head() == before + 1
    assert "nothing to replay" in tukang(services, "dead-letters", "replay", topic)
    assert head() == before + 1

    [line, other] = services.get(f"/topics/{topic}/ledger", after=before)["lines"]
    assert {line["kind"], other["kind"]} == {"rewrite"}
    assert line["dead_in"] + other["dead_in"] == LARGE + 5
    assert line["duplicates"] + other["duplicates"] == 2
    rows = services.rows(topic).sql(
        "SELECT count(*), count(DISTINCT (_lake_partition, _offset)), count(DISTINCT id),"
        ' sum("only"."in")::INT FROM rows'
    )
    assert rows.fetchone() == (100 + LARGE + 1, 100 + LARGE + 1, 100 + LARGE, sum(range(LARGE)))
    assert tukang(services, "verify", topic, "--deep")
    tukang(services, *loader)
    same(services, topic, warehouse)

    # A fix that comes later, a replay that dies after its commit, and what is produced goes on meanwhile.
    produce(
        kafka,
        topic,
        [(0, event(500, long="y" * 1_200_000), 1_767_225_900_000)],
        **{"message.max.bytes": 2_000_000},
    )
    produce(kafka, topic, [(0, event(600), 1_767_226_000_000)])
    services.wait_committed(topic, len(records) + 2 + 2)  # the ledger has the duplicates of the replay too
    services.http.patch(f"/topics/{topic}", json={"settings": {"max_record_bytes": "2MB"}}).raise_for_status()
    killed(services, topic, KILLS - 1)
    assert "nothing to replay" in tukang(services, "dead-letters", "replay", topic)
    part.end()
    assert tukang(services, "verify", topic, "--deep")
    tukang(services, *loader)
    same(services, topic, warehouse)


def same(services: Services, topic: str, warehouse: Path) -> None:
    """The loader's table has exactly the live rows of the lake."""
    names = 'SELECT _lake_partition, _offset, id, n, "only"."in"::VARCHAR FROM {} ORDER BY ALL'
    lake = services.rows(topic).sql(names.format("rows")).fetchall()
    with duckdb.connect(str(warehouse), read_only=True) as loaded:
        table: Callable[[str], Any] = loaded.sql
        assert table(names.format(f'"{topic}"')).fetchall() == lake
