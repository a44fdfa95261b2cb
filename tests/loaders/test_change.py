"""What a loader does, in memory: after any history and any stop the table is the lake's live rows."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest

from loaders.change import Cursor, of_run
from loaders.feed import FeedError
from tests.loaders.model import KINDS, Lake, ModelFeed, Table

DEPTH = 6


def histories(depth: int, kinds: tuple[str, ...] = KINDS) -> Iterator[Lake]:
    """Every order of kinds of this length, each after a first append."""
    start = Lake().commit("append", 1)

    def grow(lake: Lake, left: int) -> Iterator[Lake]:
        if not left:
            yield lake
            return
        for kind in kinds:
            yield from grow(lake.commit(kind, lake.head.sequence * 3 + left), left - 1)

    yield from grow(start, depth)


def loaded(lake: Lake, sequence: int) -> Table:
    """The table of a loader that mirrors expiry and has loaded up to a sequence: the live rows as of it."""
    deletes = max(
        (
            each.sequence
            for each in lake.commits[:sequence]
            if any(file.what == "deletes" for file in each.add)
        ),
        default=0,
    )
    return Table(lake.states[sequence].rows(), Cursor(lake.epoch, sequence, deletes))


@pytest.mark.slow
def test_from_any_stop_in_any_order_of_kinds_the_rest_makes_the_table_the_live_rows() -> None:
    """All orders of five kinds, six deep, and all places to stop at: by induction, all ways of stopping."""
    checked = 0
    for depth in range(1, DEPTH + 1):
        for lake in histories(depth):
            for stop in range(lake.head.sequence):
                table = loaded(lake, stop)
                table.follow(ModelFeed(lake))
                assert table.rows == lake.head.rows(), [each.kind for each in lake.commits]
                assert table.cursor == loaded(lake, lake.head.sequence).cursor
                checked += 1
    assert checked >= sum(5**depth * (depth + 1) for depth in range(1, DEPTH + 1))


def test_a_loader_that_is_behind_for_long_catches_up_in_one_change() -> None:
    for depth in range(1, DEPTH):
        for lake in histories(depth):
            swept = lake.sweep()
            for stop in range(lake.head.sequence):
                table = loaded(lake, stop)
                table.follow(ModelFeed(swept))
                assert table.rows == lake.head.rows(), (stop, [each.kind for each in lake.commits])


def test_after_another_epoch_the_table_is_that_life_alone() -> None:
    """Orders of kinds before the fork, in the lost life and in the one that goes on; every stop in the lost one."""
    for depth in range(1, 4):
        for lake in histories(depth):
            for common in range(lake.head.sequence + 1):
                for kinds in [(), ("append",), ("rewrite", "append"), ("erase", "expire")]:
                    now = lake.restore(common)
                    for kind in kinds:
                        now = now.commit(kind, 2)
                    for stop in range(lake.head.sequence + 1):
                        table = loaded(lake, stop)
                        table.follow(ModelFeed(now))
                        told = (common, stop, [each.kind for each in lake.commits], kinds)
                        assert table.rows == now.head.rows(), told


def test_a_third_life_that_branches_off_earlier_does_not_trust_what_the_second_repaired() -> None:
    for lake in histories(3):
        second = lake.restore(3).commit("append", 1)
        third = second.restore(1).commit("rewrite", 1).commit("append", 2)
        for stop in range(lake.head.sequence + 1):
            table = loaded(lake, stop)
            table.follow(ModelFeed(second))
            assert table.rows == second.head.rows()
            table.follow(ModelFeed(third))
            assert table.rows == third.head.rows()


def test_a_snapshot_before_the_fork_that_holds_what_was_deleted_is_repaired() -> None:
    for lake in histories(3):
        table = Table()
        table.follow(ModelFeed(lake))
        for common in range(lake.head.sequence):
            other = lake.restore(common).commit("append", 1)
            again = Table(dict(table.rows), table.cursor)
            again.follow(ModelFeed(other))
            assert again.rows == other.head.rows()


def test_folded_history_and_an_unknown_epoch_start_with_an_empty_table() -> None:
    lake = Lake()
    for kind in (*KINDS, "append"):
        lake = lake.commit(kind, 1)
    stale = loaded(lake, 2)
    stale.rows[(9, 9)] = next(iter(stale.rows.values()))  # what no position would take away
    stale.follow(ModelFeed(lake.fold().commit("append", 2)))
    assert stale.rows == lake.commit("append", 2).head.rows()
    stranger = Table(dict(stale.rows), Cursor("never heard of", 3, 0))
    stranger.follow(ModelFeed(lake))
    assert stranger.rows == lake.head.rows()


@pytest.mark.parametrize(("start", "first"), [("snapshot", "live"), ("earliest", "live"), ("now", "none")])
def test_a_new_loader_starts_where_it_was_told(start: str, first: str) -> None:
    lake = Lake()
    for kind in KINDS:
        lake = lake.commit(kind, 1)
    table = Table()
    table.follow(ModelFeed(lake, start=start))
    assert table.rows == (lake.head.rows() if first == "live" else {})
    assert table.cursor is not None
    assert table.cursor.sequence == lake.head.sequence


def test_a_loader_that_keeps_what_expires_has_every_live_row_once_and_beside_them_only_expired_ones() -> None:
    for kinds in product(KINDS, repeat=5):
        lake = Lake(mirror=True).commit("append", 1)
        for place, kind in enumerate(kinds):
            lake = lake.commit(kind, place)
        for stop in range(lake.head.sequence):
            table = Table()
            table.follow(
                ModelFeed(
                    replace(lake, commits=lake.commits[:stop], states=lake.states[: stop + 1]),
                    mirror_expiry=False,
                )
            )
            table.follow(ModelFeed(lake, mirror_expiry=False))
            live = lake.head.rows()
            assert live.items() <= table.rows.items()
            assert set(table.rows) - set(live) <= set(lake.head.expired)


def test_a_loader_stops_at_a_kind_that_it_does_not_know_after_what_stands_before_it() -> None:
    lake = Lake().commit("append", 1).commit("append", 2)
    strange = (*lake.commits, replace(lake.commits[-1], sequence=3, kind="transmute"))
    before = Cursor(lake.epoch, 0)
    change = of_run(strange, before, mirror_expiry=True)
    assert change is not None
    assert change.cursor.sequence == 2
    with pytest.raises(FeedError, match="transmute"):
        of_run(strange[2:], change.cursor, mirror_expiry=True)


def test_a_gap_in_the_feed_is_a_defect_and_nothing_is_loaded() -> None:
    lake = Lake().commit("append", 1).commit("append", 2)
    with pytest.raises(FeedError, match="gap"):
        of_run(lake.commits[1:], Cursor(lake.epoch, 0), mirror_expiry=True)
