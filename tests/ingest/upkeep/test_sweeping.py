"""The sweep for real, killed while it deletes: no live object is gone, and in the end only live ones are left."""

from __future__ import annotations

import asyncio
import hashlib
import random
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.database import database_clock
from ingest.ids import uuid7
from ingest.upkeep.commands import sweep_now
from ingest.upkeep.erasing import verify_erased
from tests.ingest.small_lake import SmallLake, small_lake
from tests.ingest.upkeep.processes import start
from tests.ingest.upkeep.tomorrow import AHEAD_US, sweep_for_ever, sweep_once
from tests.stack.store import Bucket

KILLS = 5
FOREIGN = [
    "fresh/orders/other.parquet",
    "fresh/orders/sub/x-rows.parquet",
    "somebody/else.txt",
    "fresh/README",
]


class Ahead:
    """The database's clock, and when it jumped."""

    jump_us: int | None = None
    ahead_us = AHEAD_US

    def __call__(self, connection: Any) -> int:
        return database_clock(connection) + (self.ahead_us if self.jump_us is not None else 0)


@pytest.fixture
def clock() -> Ahead:
    return Ahead()


@pytest.fixture
def lake(tmp_path: Path, bucket: Bucket, clock: Ahead) -> Iterator[SmallLake]:
    with small_lake(tmp_path, None, bucket, clock=clock) as made:
        yield made


def orphan(lake: SmallLake) -> str:
    data = secrets.token_bytes(100)
    name = uuid7(time.time_ns() // 1000, secrets.randbits)
    lake.lake.put(f"fresh/orders/{name}-rows.parquet", memoryview(data), hashlib.sha256(data).hexdigest())
    return f"fresh/orders/{name}-rows.parquet"


@pytest.mark.slow
def test_a_sweep_that_is_killed_again_and_again_deletes_nothing_that_is_live(
    lake: SmallLake, clock: Ahead
) -> None:
    answer = lake.http.patch(
        f"/topics/{lake.topic}",
        json={"settings": {"read_grace": "1min", "replaced_grace": "1min"}},
        headers={"If-Match": '"0"'},
    )
    assert answer.is_success, answer.text
    for key in FOREIGN:
        lake.bucket.client().put_object(Bucket=lake.bucket.name, Key=key, Body=b"not ours")
    orphans = [orphan(lake) for _ in range(20)]
    for _ in range(7):
        lake.append((0, 5), (1, 5), dead=1)
        lake.replace(lake.files()[-1], drop=[0])
    before = lake.bucket.keys("sealed/") + lake.bucket.keys("fresh/")
    clock.jump_us = time.time_ns() // 1000 + 1_000
    time.sleep(0.01)
    under_way = [orphan(lake) for _ in range(3)]
    settings = lake.settings.model_dump()
    live_before = {file["url"] for file in lake.files() + lake.files("dead_letters")}

    dry = asyncio.run(sweep_once(lake.settings, lake.topic, clock.jump_us, dry=True))
    assert sorted(dry.orphans) == sorted(lake.lake.url(key) for key in orphans)
    assert set(lake.bucket.keys("fresh/")) >= {*orphans, *under_way}, "a dry run deletes nothing"

    dice = random.Random(3)
    for _ in range(KILLS):
        process = start(sweep_for_ever, settings, lake.topic, clock.jump_us)
        time.sleep(dice.uniform(0.2, 0.7))
        process.kill()
        process.join()
    asyncio.run(sweep_once(lake.settings, lake.topic, clock.jump_us))
    again = asyncio.run(sweep_once(lake.settings, lake.topic, clock.jump_us, dry=True))
    assert (again.removed, again.orphans) == ([], [])

    there = {lake.lake.url(key) for key in lake.bucket.keys("")}
    live = {file["url"] for file in lake.files() + lake.files("dead_letters")}
    assert live == live_before
    assert live <= there, "0 live objects are deleted"
    assert {lake.lake.url(key) for key in [*FOREIGN, *under_way]} <= there
    data = {url for url in there if url.startswith((lake.lake.url("fresh/"), lake.lake.url("sealed/")))}
    assert data == live.union(lake.lake.url(key) for key in [*FOREIGN, *under_way]) & data
    assert len(before) > len(data) + 20


@pytest.mark.slow
def test_a_bucket_that_keeps_versions_is_reported_and_looked_through(lake: SmallLake) -> None:
    lake.append((0, 3))
    file = lake.files()[0]
    assert not any("keeps versions" in line for line in asyncio.run(sweep_now(lake.settings, [], dry=True)))
    lake.bucket.client().put_bucket_versioning(
        Bucket=lake.bucket.name, VersioningConfiguration={"Status": "Enabled"}
    )
    said = asyncio.run(sweep_now(lake.settings, [], dry=True))
    assert "keeps versions" in said[0]
    assert "lifecycle rule" in said[0]
    lake.overwrite(file, lake.read(file))
    lake.delete(file)
    lines, code = verify_erased(lake.settings, lake.topic, "_event_id = 0-1")
    assert code == 1
    assert all(" version " in line for line in lines[:-1])
    assert len(lines) > 1
    assert verify_erased(lake.settings, lake.topic, "_event_id = 0-7")[1] == 0
