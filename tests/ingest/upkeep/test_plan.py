"""What is sealed when: decided from files and periods alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.upkeep.plan import LiveFile, PeriodState, SealRules, State, Work, plan

DAY = 86_400_000_000
RULES = SealRules(
    period_us=DAY, grace_us=60, most_bytes=1000, most_files=30, full_bytes=500, most_fresh=5, small_bytes=50
)


def file(
    number: int,
    *days: int,
    sealed: bool = False,
    merged: bool = False,
    rows: int = 100,
    size: int = 10,
    sequence: int = 1,
) -> LiveFile:
    share = tuple((day * DAY, (day + 1) * DAY, rows // len(days)) for day in days)
    return LiveFile(number, f"s3://b/{number}", sequence, rows, size, "", sealed, merged, share, 1)


def period(day: int, state: State, reopened_us: int | None = None) -> PeriodState:
    return PeriodState(day * DAY, state, reopened_us)


def ids(files: tuple[LiveFile, ...]) -> list[int]:
    return sorted(each.id for each in files)


def planned(files: list[LiveFile], periods: list[PeriodState], now_us: int = 0) -> Work | None:
    return plan(files, periods, RULES, now_us)


def test_a_complete_period_takes_every_fresh_file_with_rows_of_it() -> None:
    work = planned([file(1, 0), file(2, 0, 1), file(3, 1)], [period(0, "complete"), period(1, "open")])
    assert work is not None
    assert (work.periods, ids(work.merge), ids(work.beside)) == ((0,), [1, 2], [])


def test_open_and_sealed_and_empty_periods_are_left_alone() -> None:
    states = [period(0, "open"), period(1, "sealed"), period(2, "complete"), period(3, "reopened", 0)]
    assert planned([file(1, 0), file(2, 1, sealed=True)], states, 10**12) is None


@pytest.mark.parametrize(("waited", "due"), [(119, False), (120, True)])
def test_a_reopened_period_waits_longer_each_time(waited: int, due: bool) -> None:
    files = [file(1, 0, sealed=True, rows=1000), file(2, 0, rows=10)]
    work = planned(files, [period(0, "reopened", 0)], waited)
    assert (work is not None) == due


def test_few_late_rows_stand_beside_the_big_file_and_many_are_merged_with_it() -> None:
    few = planned(
        [file(1, 0, sealed=True, rows=1000), file(2, 0, rows=100)], [period(0, "reopened", 0)], 10**9
    )
    many = planned(
        [file(1, 0, sealed=True, rows=1000), file(2, 0, rows=101)], [period(0, "reopened", 0)], 10**9
    )
    assert few is not None
    assert many is not None
    assert (ids(few.merge), ids(few.beside)) == ([2], [1])
    assert (ids(many.merge), ids(many.beside)) == ([1, 2], [])


def test_a_reopened_period_without_fresh_files_is_sealed_by_comparison_alone() -> None:
    work = planned([file(1, 0, sealed=True)], [period(0, "reopened", 0)], 10**9)
    assert work == Work((0,), (), (file(1, 0, sealed=True),))


def test_work_is_bounded_by_bytes_but_takes_one_period_whole() -> None:
    files = [file(day, day, size=600) for day in range(3)]
    work = planned(files, [period(day, "complete") for day in range(3)])
    assert work is not None
    assert work.periods == (0,)
    huge = planned([file(1, 0, size=5000), file(2, 0, size=5000)], [period(0, "complete")])
    assert huge is not None
    assert ids(huge.merge) == [1, 2]


def test_a_period_of_more_files_than_memory_holds_is_made_fewer_first() -> None:
    files = [file(number, 0, size=10) for number in range(100)]
    merges = 0
    while (work := planned(files, [period(0, "complete")])) and not work.periods:
        merges += 1
        assert 2 < len(work.merge) <= RULES.most_files
        made = file(100 + merges, 0, size=sum(each.bytes for each in work.merge))
        files = [made, *(each for each in files if each not in work.merge)]
    assert work is not None
    assert (merges, work.periods, len(work.merge)) == (3, (0,), 13)
    late = [file(0, 0, sealed=True), *(file(number, 0) for number in range(1, 41))]
    some = planned(late, [period(0, "reopened", 0)], 10**12)
    assert some is not None
    assert (some.periods, ids(some.merge)) == ((), list(range(1, 31))), "what is sealed stays sealed"
    large = [file(number, 0, size=RULES.full_bytes) for number in range(40)]
    work = planned(large, [period(0, "complete")])
    assert work is not None
    assert (work.periods, len(work.merge)) == ((0,), 40), "merging makes these no fewer"


def test_many_fresh_files_of_a_slow_period_are_merged_before_it_is_complete() -> None:
    files = [file(number, 0) for number in range(6)]
    assert planned(files[:5], [period(0, "open")]) is None
    work = planned(files, [period(0, "open")])
    assert work is not None
    assert (work.periods, ids(work.merge)) == ((), [0, 1, 2, 3, 4, 5])


def test_what_was_merged_is_merged_again_only_with_its_like() -> None:
    files = [file(number, 0, merged=number < 3) for number in range(8)]
    assert planned(files, [period(0, "open")]) is None, "three and five"
    work = planned([*files, file(8, 0)], [period(0, "open")])
    assert work is not None
    assert ids(work.merge) == [3, 4, 5, 6, 7, 8]
    work = planned([file(number, 0, merged=True) for number in range(6)], [period(0, "open")])
    assert work is not None
    assert ids(work.merge) == [0, 1, 2, 3, 4, 5]


def test_fresh_files_of_some_size_wait_for_their_period_unless_they_are_too_many() -> None:
    large = [file(number, 0, size=50) for number in range(250)]
    late = [file(1000 + number, 0, size=1) for number in range(6)]
    assert planned(large, [period(0, "open")]) is None
    work = planned(large + late, [period(0, "open")])
    assert work is not None
    assert ids(work.merge) == [each.id for each in late]
    assert planned([*large, file(250, 0, size=50)], [period(0, "open")]) is not None


days = st.lists(st.integers(0, 3), min_size=1, max_size=2, unique=True)
some_files = st.lists(st.tuples(days, st.booleans(), st.integers(1, 500)), max_size=8)
some_states = st.lists(st.sampled_from(["open", "complete", "sealed", "reopened"]), min_size=4, max_size=4)


@given(some_files, some_states)
def test_a_sealed_period_never_has_a_live_file_that_was_not_looked_at(
    drawn: list[tuple[list[int], bool, int]], states: list[State]
) -> None:
    files = [
        file(number, *(chosen[:1] if sealed else chosen), sealed=sealed, size=size, sequence=number + 1)
        for number, (chosen, sealed, size) in enumerate(drawn)
    ]
    work = planned(files, [period(day, state, 0) for day, state in enumerate(states)], 10**12)
    if work is None:
        return
    looked_at = {each.id for each in work.merge + work.beside}
    assert not {each.id for each in work.merge} & {each.id for each in work.beside}
    for start in work.periods:
        own = [each for each in files if each.overlaps(start, start + DAY)]
        assert {each.id for each in own} <= looked_at
        assert all(each.sealed or each in work.merge for each in own)
