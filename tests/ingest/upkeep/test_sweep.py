"""What the sweep lets go, whatever the clocks say: never what is live, under way, or not ours."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.ids import uuid7
from ingest.lake import Found, Upload
from ingest.position import time_to_text
from ingest.upkeep.sweep import (
    MOST_APART_US,
    CatalogueStrange,
    Clocks,
    ClocksApart,
    check_catalogue,
    left_uploads,
    orphans,
    ours,
    sweepable,
)

HOUR = 3_600_000_000
SAFE = 24 * HOUR
PREFIX = "s3://bucket/lake/"
START = 1_767_225_600_000_000


def name(number: int = 0) -> str:
    return uuid7(START + number, lambda bits: number % 2**bits)


@dataclass(frozen=True)
class Story:
    """An object: when it was put and when its commit is asked for (never: None), in true time."""

    put: int
    commit: int | None
    store_then: int  # how wrong the store's clock was when it was put


times = st.integers(0, 72 * HOUR)
skews = st.integers(-3 * HOUR, 3 * HOUR) | st.integers(-60_000_000, 60_000_000)
stories = st.builds(
    lambda put, wait, skew: Story(put, None if wait is None else put + wait, skew),
    times,
    st.none() | st.integers(0, 30 * HOUR),
    skews,
)


@given(st.lists(stories, min_size=1, max_size=12), times, skews, skews, skews)
def test_no_object_goes_whose_commit_was_or_will_be_taken(
    drawn: list[Story], now: int, store: int, database: int, own: int
) -> None:
    """The API takes a commit while the object is younger than half the safe age, by the database's clock."""

    def taken(story: Story) -> bool:
        return (
            story.commit is not None and story.commit + database - (story.put + story.store_then) <= SAFE // 2
        )

    by_url = {f"{PREFIX}fresh/orders/{name(number)}-rows.parquet": each for number, each in enumerate(drawn)}
    listing = [
        Found(url, 1, START + each.put + each.store_then) for url, each in by_url.items() if each.put <= now
    ]
    clocks = Clocks(START + now + store, START + now + database, START + now + own)
    try:
        clocks.check()
    except ClocksApart:
        assert max(store, database, own) - min(store, database, own) > MOST_APART_US
        return
    for found in orphans(listing, PREFIX, "orders", clocks, SAFE):
        story = by_url[found.url]
        named_already = taken(story) and story.commit is not None and story.commit <= now
        assert named_already or not taken(story), "a commit that names it will be taken after it is gone"


@given(st.integers(0, 48 * HOUR))
def test_what_nobody_names_goes_when_it_is_old_enough(age: int) -> None:
    clocks = Clocks(START, START, START)
    listing = [Found(f"{PREFIX}dead_letters/orders/{name()}.parquet", 1, START - age)]
    assert bool(list(orphans(listing, PREFIX, "orders", clocks, SAFE))) == (age > SAFE)
    begun = [Upload(listing[0].url, "1", START - age)]
    assert bool(list(left_uploads(begun, PREFIX, "orders", clocks, SAFE))) == (age > SAFE)


OURS = [
    f"fresh/orders/{name()}-rows.parquet",
    f"fresh/orders/{name()}-late.parquet",
    f"sealed/orders/event_date=2026-01-01/{name()}.parquet",
    f"sealed/orders/event_hour=2026-01-01-05/{name()}.parquet",
    f"dead_letters/orders/{name()}.parquet",
    f"deletes/orders/{name()}.parquet",
]


@pytest.mark.parametrize("key", OURS)
def test_the_names_that_are_ours(key: str) -> None:
    assert ours(PREFIX, "orders", PREFIX + key)
    assert not ours(PREFIX, "returns", PREFIX + key)
    assert not ours("s3://bucket/", "orders", PREFIX + key)
    assert not ours("s3://other/lake/", "orders", PREFIX + key)


@given(
    st.sampled_from([*OURS, "live/orders.json", "catalog/orders/e/state.json.gz"])
    | st.text("abc/.-_=0123456789", max_size=60),
    st.sampled_from(["", "x", "/", "../", ".bak", "2026"]),
    st.booleans(),
)
def test_nothing_else_is_ours(key: str, more: str, before: bool) -> None:
    url = PREFIX + (more + key if before else key + more)
    if url.removeprefix(PREFIX) not in OURS:
        assert not ours(PREFIX, "orders", url)


def test_a_name_that_is_no_uuid_of_ours_is_left_alone() -> None:
    assert not ours(PREFIX, "orders", f"{PREFIX}fresh/orders/{uuid.uuid4()}-rows.parquet")
    assert not ours(PREFIX, "orders", f"{PREFIX}fresh/orders/part-0000.parquet")


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(-HOUR, HOUR)), max_size=8),
    st.integers(0, 9),
    st.integers(-30_000_000, 30_000_000),
)
def test_a_removed_object_waits_for_its_grace_and_for_the_copy(
    files: list[tuple[int, int]], copied: int, skew: int
) -> None:
    removed = [
        {
            "id": number,
            "url": PREFIX + OURS[0],
            "removed_sequence": sequence,
            "sweepable_at": time_to_text(START + at),
        }
        for number, (sequence, at) in enumerate(files)
    ]
    gone = sweepable(removed, PREFIX, "orders", copied, Clocks(START - skew, START, START))
    assert [file["id"] for file in gone] == [
        number for number, (sequence, at) in enumerate(files) if sequence <= copied and at <= 0
    ]


def test_a_database_that_is_not_the_lakes_sweeps_nothing() -> None:
    check_catalogue("orders", {"a": 7, "b": 9}, {"a", "b"}, "b", 9)
    check_catalogue("orders", {}, {"new"}, "new", 0)
    with pytest.raises(CatalogueStrange, match="does not know"):
        check_catalogue("orders", {"a": 7}, {"new"}, "new", 3)
    with pytest.raises(CatalogueStrange, match="without a new epoch"):
        check_catalogue("orders", {"a": 7}, {"a"}, "a", 3)
