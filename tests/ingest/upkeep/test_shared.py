"""Several upkeep processes at once: they share the topics, and where they meet in one, no row is lost or doubled."""

from __future__ import annotations

import asyncio
import io
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ingest.catalog import Answer, Catalog
from ingest.parties import catalog_of
from ingest.schema import TopicSchema
from ingest.times import EARLIEST, LATEST
from ingest.upkeep import run
from ingest.upkeep.claims import Claims
from ingest.upkeep.plan import LiveFile, Work
from ingest.upkeep.seal import Sealer
from tests.ingest.rows import table
from tests.ingest.small_lake import NOON_US, SmallLake, small_lake
from tests.stack.store import Bucket

DAY_US = 86_400_000_000


@pytest.fixture
def lake(tmp_path: Path, bucket: Bucket) -> Iterator[SmallLake]:
    with small_lake(tmp_path, None, bucket) as made:
        yield made


def append(lake: SmallLake, partition: int, ids: Sequence[str]) -> LiveFile:
    """One commit of rows with these ids; its file."""
    line = lake.next_line(partition, len(ids))
    offsets = range(line.from_offset, line.to_offset)
    lake.publish([line], table(partition, offsets, [NOON_US + each for each in offsets], list(ids)))
    return LiveFile.from_json(lake.topic, lake.files()[-1], DAY_US)


def ids_in(lake: SmallLake) -> list[str]:
    tables = [pq.read_table(io.BytesIO(lake.read(file))) for file in lake.files()]
    return sorted(name for each in tables for name in each.column("_event_id").to_pylist())


class Meeting(Catalog):
    """The API as somebody sees it who sends a commit only when all others have theirs ready too."""

    gate: asyncio.Barrier | None = None

    async def commit(self, topic: str, commit: Mapping[str, Any]) -> Answer:
        if self.gate is not None:
            await self.gate.wait()
        return await super().commit(topic, commit)


def sealer(lake: SmallLake, catalog: Catalog) -> Sealer:
    return Sealer(
        catalog, lake.lake, lambda: time.time_ns() // 1000, secrets.randbits, "upkeep", memory=256 << 20, threads=1
    )  # fmt: skip


def replaced(lake: SmallLake, *works: Work) -> list[bool]:
    """Carries out works that were all planned from the same live files, and whose commits meet."""

    async def run() -> list[bool]:
        catalog = Meeting(lake.settings.api, lambda: None)
        catalog.gate = asyncio.Barrier(len(works))
        try:
            return await asyncio.gather(
                *(
                    sealer(lake, catalog).replace(
                        lake.topic, lake.epoch, work, TopicSchema(), period_us=DAY_US, file_bytes=1 << 28
                    )
                    for work in works
                )
            )
        finally:
            await catalog.close()

    return asyncio.run(run())


def upkeep(lake: SmallLake, act: Callable[[run.Upkeep, str], Awaitable[int]]) -> int:
    """What upkeep does of its work for the topic, in a process that begins with it; how many commits it made."""

    async def acted() -> int:
        catalog = catalog_of(lake.settings)
        try:
            return await act(run.Upkeep(lake.settings, lake.lake, catalog, run.Pace()), lake.topic)
        finally:
            await catalog.close()

    return asyncio.run(acted())


def test_two_compactions_that_would_drop_each_others_twin_keep_one(lake: SmallLake) -> None:
    first, second = append(lake, 0, ["x", "a"]), append(lake, 1, ["x", "b"])
    done = replaced(lake, Work((), (first,), (second,)), Work((), (second,), (first,)))
    assert sorted(done) == [False, True]
    assert ids_in(lake) == ["a", "b", "x"]


def test_two_compactions_of_the_same_files_are_one(lake: SmallLake) -> None:
    files = (append(lake, 0, ["a", "b"]), append(lake, 0, ["c"]))
    assert sorted(replaced(lake, Work((), files, ()), Work((), files, ()))) == [False, True]
    assert ids_in(lake) == ["a", "b", "c"]
    assert len(lake.files()) == 1


def test_an_append_that_slips_in_is_neither_lost_nor_taken_for_a_twin(lake: SmallLake) -> None:
    """The compaction knows nothing of it: no row may leave for a twin in a file that the commit does not name."""
    first, second = append(lake, 0, ["x", "a"]), append(lake, 0, ["b"])
    work = Work((), (first, second), ())
    append(lake, 1, ["x"])
    assert replaced(lake, work) == [True]
    assert ids_in(lake) == ["a", "b", "x", "x"]
    live = [LiveFile.from_json(lake.topic, file, DAY_US) for file in lake.files()]
    assert replaced(lake, Work((), tuple(live), ())) == [True]
    assert ids_in(lake) == ["a", "b", "x"]


def test_a_topic_is_one_process_s_until_it_gives_it_back_or_dies(lake: SmallLake) -> None:
    async def run() -> list[bool]:
        catalog = catalog_of(lake.settings)
        one, two = Claims(catalog, "one", 1), Claims(catalog, "two", 1)
        seen = []
        async with one.topic("orders") as ours:
            async with two.topic("orders") as theirs, two.topic("returns") as other:
                seen += [ours, theirs, other]
            await asyncio.sleep(1.2)  # longer than the claim: it was renewed
            async with two.topic("orders") as theirs:
                seen.append(theirs)
        async with two.topic("orders") as theirs:
            seen.append(theirs)
        await catalog.claim("upkeep/orders", "killed", 1, "orders")
        async with two.topic("orders") as theirs:
            seen.append(theirs)
        await asyncio.sleep(1.1)
        async with two.topic("orders") as theirs:
            seen.append(theirs)
        await catalog.close()
        return seen

    assert asyncio.run(run()) == [True, False, True, False, True, False, True]


def test_a_damaged_object_is_told_and_its_topic_rests(
    lake: SmallLake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(run, "MOST_FRESH", 2)
    for number in range(3):
        append(lake, 0, [f"{number}"])
    damaged = lake.files()[1]
    good = lake.read(damaged)
    lake.overwrite(damaged, good[:-9] + b"x" + good[-8:])

    assert upkeep(lake, run.Upkeep.seal_all) == 0
    assert f"{damaged['url']}: its bytes are not those that were committed" in caplog.text
    assert f"`tukang verify {lake.topic}` says" in caplog.text
    lake.overwrite(damaged, good)
    assert upkeep(lake, run.Upkeep.seal_all) == 1
    assert ids_in(lake) == ["0", "1", "2"]


def test_events_of_the_first_year_and_of_the_last_are_tended_like_all_others(
    lake: SmallLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What some programs write for "no date"; millions of periods lie between them."""
    monkeypatch.setattr(run, "MOST_FRESH", 2)
    times = [EARLIEST, -DAY_US - 1, -1, LATEST]
    for time_us in times:
        line = lake.next_line(0, 1)
        lake.publish([line], table(0, range(line.from_offset, line.to_offset), [time_us], [f"{time_us}"]))

    assert upkeep(lake, run.Upkeep.tend) > 0
    assert len(lake.files()) < len(times)
    assert ids_in(lake) == sorted(f"{time_us}" for time_us in times)
