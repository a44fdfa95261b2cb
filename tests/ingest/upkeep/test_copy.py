"""The copy of the catalogue in the lake, and what the objects tell that came after it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.app import create_app
from api.process import EXTENSION
from api.rebuild import rebuild
from api.settings import load
from ingest.parties import catalog_of
from ingest.upkeep import catalogue
from ingest.upkeep.catalogue import COMMITS, FEW, Copy, copies_of, mergeable
from ingest.upkeep.commands import by_hand
from ingest.upkeep.rebuilding import NothingKept, kept_in_lake
from ingest.upkeep.run import Pace, Upkeep, serve
from tests.ingest.small_lake import SmallLake, small_lake
from tests.stack.store import Bucket


@pytest.fixture
def lake(tmp_path: Path, bucket: Bucket) -> Iterator[SmallLake]:
    with small_lake(tmp_path, None, bucket) as made:
        yield made


def keep(lake: SmallLake, times: int = 1, *, merge: bool = False) -> int:
    """What upkeep does every few minutes, by a process that has just started; or hourly, in place of it."""

    async def run() -> int:
        catalog = catalog_of(lake.settings)
        try:
            copy = Copy(lake.lake, catalog)
            if merge:
                return await copy.merge(lake.topic, lake.epoch)
            return [await copy.keep(lake.topic) for _ in range(times)][-1]
        finally:
            await catalog.close()

    return asyncio.run(run())


def test_appends_that_the_copy_does_not_have_are_told_by_their_objects(
    lake: SmallLake, tmp_path: Path
) -> None:
    with pytest.raises(NothingKept, match="TUKANG_BUCKET"):
        list(kept_in_lake(lake.settings))
    lake.append((0, 10), (1, 5), dead=1)
    assert keep(lake, times=2) == 1
    lake.append((0, 7), late=2, carry=1)
    lake.replace(*lake.files())
    assert keep(lake) == 3
    assert copies_of(lake.lake, lake.topic, lake.epoch, 3) == {lake.epoch: 3}
    beyond = [lake.append((0, 4), dead=1)["id"], lake.append((0, 3), (1, 3))["id"]]
    lost = lake.append((1, 2), dead=1)
    lake.delete(
        next(file for file in lost["add"] if file["what"] == "dead_letters")
    )  # half of it: not to be believed
    live = {(file["url"], file["rows"]) for file in lake.files() + lake.files("dead_letters")}

    (kept,) = kept_in_lake(lake.settings)
    assert [each["sequence"] for each in kept["commits"]] == [1, 2, 3]
    assert [each["id"] for each in kept["appends"]] == beyond
    database = f"sqlite:///{tmp_path / 'again.db'}"
    (said,) = rebuild(load(database=database), [kept])
    assert "2 appends entered again" in said
    app = create_app(load(database=database, auth="none"))
    answer = app.test_client().get(f"/v1/topics/{lake.topic}/files?limit=1000").get_json()
    app.extensions[EXTENSION].heads.stop()
    app.extensions[EXTENSION].database.dispose()
    gone = {(file["url"], file["rows"]) for file in lost["add"]}
    assert {
        (file["url"], file["rows"]) for file in answer["files"] if file["what"] != "deletes"
    } == live - gone


def test_the_copy_goes_on_while_a_seal_takes_long(lake: SmallLake, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        begun = asyncio.Event()

        async def seal(self: Upkeep, name: str) -> bool:
            begun.set()
            return await asyncio.Event().wait()

        monkeypatch.setattr(Upkeep, "seal", seal)
        serving = asyncio.ensure_future(serve(lake.settings, pace=Pace(round_s=0.05, copy_s=0.1)))
        try:
            await asyncio.wait({serving, asyncio.ensure_future(begun.wait())}, return_when="FIRST_COMPLETED")
            head = (await asyncio.to_thread(lake.append, (0, 5)))["sequence"]
            while copies_of(lake.lake, lake.topic, lake.epoch, head) != {lake.epoch: head}:
                assert not serving.done()
                await asyncio.sleep(0.05)
        finally:
            if not serving.done():
                signal.raise_signal(signal.SIGTERM)  # as it is ended anywhere, whatever it is at
            await serving

    lake.append((0, 10))
    asyncio.run(run())


def test_a_file_that_is_gone_keeps_nobody_from_the_rest(
    lake: SmallLake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        lake.append((0, 3))
    lake.delete(lake.files()[1])
    monkeypatch.setattr("ingest.upkeep.run.MOST_FRESH", 1)

    async def run() -> None:
        async with by_hand(lake.settings) as upkeep:
            for _ in range(2):
                assert await upkeep.round() == 0

    asyncio.run(run())
    assert copies_of(lake.lake, lake.topic, lake.epoch, 3) == {lake.epoch: 3}
    assert caplog.text.count("`tukang topics backfill` brings back") == 1, "it is not tried again at once"


def test_many_small_copies_become_one_that_says_the_same(
    lake: SmallLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        lake.append((0, 3))
        keep(lake)
    (before,) = kept_in_lake(lake.settings)
    assert keep(lake, merge=True) == 0, "so few stay as they are"
    monkeypatch.setattr(catalogue, "FEW", 2)
    stayed = lake.bucket.keys(f"catalog/{lake.topic}/{lake.epoch}/")[0]
    content = lake.bucket.read(stayed)
    assert keep(lake, merge=True) == 4
    keys = lake.bucket.keys(f"catalog/{lake.topic}/{lake.epoch}/")
    assert [key.rpartition("/")[2] for key in keys] == [f"{1:018d}-{4:018d}.json.gz", "state.json.gz"]
    # One that a killed process had not deleted yet.
    lake.bucket.client().put_object(Bucket=lake.bucket.name, Key=stayed, Body=content)
    (after,) = kept_in_lake(lake.settings)
    assert after["commits"] == before["commits"]
    assert keep(lake) == 4
    assert copies_of(lake.lake, lake.topic, lake.epoch, 4) == {lake.epoch: 4}
    assert copies_of(lake.lake, lake.topic, lake.epoch, 2) == {lake.epoch: 4}, "it goes beyond the head"


def test_only_runs_that_follow_each_other_are_merged() -> None:
    def chunks(*spans: tuple[int, int]) -> list[tuple[int, int, str]]:
        return [(first, last, f"{first}-{last}") for first, last in spans]

    small = [(number, number) for number in range(1, 2 * COMMITS + 1)]
    runs = list(mergeable(chunks(*small)))
    assert [(run[0][0], run[-1][1]) for run in runs] == [(1, COMMITS), (COMMITS + 1, 2 * COMMITS)]
    assert list(mergeable(chunks((1, COMMITS), (COMMITS + 1, 2 * COMMITS)))) == [], "never twice"
    assert list(mergeable(chunks(*small[:FEW]))) == []
    with_gap = [*small[:FEW], *small[FEW + 1 : 2 * FEW + 2]]
    assert [(run[0][0], run[-1][1]) for run in mergeable(chunks(*with_gap))] == [(FEW + 2, 2 * FEW + 2)]
