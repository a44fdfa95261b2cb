"""Expiry as upkeep does it, `live/TOPIC.json` after it, and the snippets of docs/lake.md that read it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.fs
import pytest

from ingest.parties import catalog_of
from ingest.upkeep.run import Pace, Upkeep
from loaders.sql import _extension
from tests.ingest.small_lake import SmallLake, small_lake
from tests.ingest.upkeep.test_sweeping import Ahead
from tests.stack.store import Bucket

PAGE = (Path(__file__).parents[3] / "docs" / "lake.md").read_text()


@pytest.fixture
def clock() -> Ahead:
    return Ahead()


@pytest.fixture
def lake(tmp_path: Path, bucket: Bucket, clock: Ahead) -> Iterator[SmallLake]:
    with small_lake(tmp_path, None, bucket, clock=clock) as made:
        yield made


def expire(lake: SmallLake, *, dry: bool = False) -> list[dict[str, Any]]:
    async def run() -> list[dict[str, Any]]:
        catalog = catalog_of(lake.settings)
        try:
            upkeep = Upkeep(lake.settings, lake.lake, catalog, Pace())
            gone = await upkeep.expire(lake.topic, dry=dry)
            await upkeep.write_live(lake.topic)
            return gone
        finally:
            await catalog.close()

    return asyncio.run(run())


def snippet(name: str, lake: SmallLake) -> str:
    found = re.search(rf"```python\n# {name}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1].replace("BUCKET", lake.bucket.name).replace("TOPIC", lake.topic)


@pytest.mark.parametrize("mirrored", [False, True])
def test_files_whose_retention_is_over_leave_and_each_row_is_accounted_for(
    lake: SmallLake, clock: Ahead, mirrored: bool
) -> None:
    lake.append((0, 20), (1, 10), dead=2)
    lake.http.put("/loaders/dwh", json={"topics": ["^ord.+"], "mirror_expiry": mirrored}).raise_for_status()
    assert expire(lake) == [], "kept for ever"
    answer = lake.http.patch(
        f"/topics/{lake.topic}",
        json={
            "settings": {"retention": "1h", "dead_letter_retention": "1h", "min_retention": "1h"},
            "confirm": True,
        },
        headers={"If-Match": '"0"'},
    )
    assert answer.is_success, answer.text
    assert expire(lake) == [], "younger than min_retention"
    clock.jump_us, clock.ahead_us = 0, 2 * 3_600_000_000
    assert len(expire(lake, dry=True)) == 2
    assert len(lake.files()) == 1
    assert len(expire(lake)) == 2
    commit = lake.commits()[-1]
    assert (commit["kind"], lake.files(), lake.files("dead_letters")) == ("expire", [], [])
    assert [(file["what"], file["rows"]) for file in commit["add"]] == ([("deletes", 26)] if mirrored else [])


def test_the_snippets_of_the_page_read_what_is_live(lake: SmallLake) -> None:
    lake.append((0, 20), (1, 10), dead=2)
    lake.append((0, 7))
    expire(lake)
    store = duckdb.connect()
    store.execute(f"LOAD '{_extension()}'")
    store.execute(
        f"CREATE SECRET (TYPE s3, KEY_ID '{lake.bucket.access_key}', SECRET '{lake.bucket.secret_key}', "
        f"ENDPOINT '{lake.bucket.endpoint.removeprefix('http://')}', URL_STYLE 'path', USE_SSL false)"
    )
    names: dict[str, Any] = {"store": store}
    exec(snippet("duckdb", lake), names)
    assert sum(events for _, events in names["hours"]) == 33
    names = {
        "s3": pyarrow.fs.S3FileSystem(
            access_key=lake.bucket.access_key,
            secret_key=lake.bucket.secret_key,
            endpoint_override=lake.bucket.endpoint,
        )
    }
    exec(snippet("pandas", lake), names)
    assert len(names["frame"]) == 33
    assert len(names["live"]["dead_letters"]) == 1
