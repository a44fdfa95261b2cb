"""Duplicates: single rules by example, each as a sentence. The rule as a whole: test_dedup_model.py."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from ingest import dedup
from ingest.dedup import FLOOD, HOUR_US, OnDiffering, Seen, Verdict

NOON = 1_700_000_000_000_000 // HOUR_US * HOUR_US
MINUTE = 60_000_000


def sift(
    seen: Seen,
    ids: Sequence[str | None],
    times: Sequence[int] | int = NOON,
    content: Sequence[int] | int = 7,
    stood_in: Sequence[bool] | bool = False,
    on_differing: OnDiffering = "drop",
) -> Verdict:
    count = len(ids)
    return seen.sift(
        pa.array(ids, pa.string()),
        np.full(count, times, np.int64),
        np.full(count, stood_in, np.bool_),
        np.full(count, content, np.int64),
        on_differing=on_differing,
    )


def load(seen: Seen, ids: Sequence[str | None], times: Sequence[int] | int = NOON) -> None:
    seen.load(pa.array(ids, pa.string()), np.full(len(ids), times, np.int64), np.zeros(len(ids), np.bool_))


def test_the_first_copy_wins_within_a_call_and_between_calls() -> None:
    seen = Seen(HOUR_US)
    verdict = sift(seen, ["a", "b", "a", "c", "b"])
    assert verdict.keep.tolist() == [True, True, False, True, False]
    assert (verdict.duplicates, verdict.differing) == (2, 0)
    assert sift(seen, ["c", "d"]).keep.tolist() == [False, True]


def test_a_row_without_an_id_is_never_a_duplicate() -> None:
    seen = Seen(HOUR_US)
    assert sift(seen, [None, "", None, ""]).keep.tolist() == [True, True, True, False]
    assert len(seen) == 1


def test_ids_are_compared_byte_for_byte_when_all_hashes_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.id_table.hash", lambda _: 42, raising=False)
    seen = Seen(HOUR_US)
    assert sift(seen, ["a", "A", "a ", "a"]).keep.tolist() == [True, True, True, False]
    verdict = sift(seen, ["A", "á", "a ", "a\u0301", "á"])
    assert verdict.keep.tolist() == [False, True, False, True, False]


def test_a_copy_is_a_duplicate_up_to_the_window_and_not_beyond_it() -> None:
    seen = Seen(HOUR_US)
    times = [NOON, NOON + HOUR_US, NOON - HOUR_US, NOON + HOUR_US + 1]
    assert sift(seen, ["a"] * 4, times).keep.tolist() == [True, False, False, True]
    # the copy that was kept is remembered too: the window runs from it
    assert sift(seen, ["a"], NOON + 2 * HOUR_US).keep.tolist() == [False]


def test_a_dropped_copy_does_not_stretch_the_window() -> None:
    seen = Seen(HOUR_US)
    times = [NOON, NOON + 40 * MINUTE, NOON + 80 * MINUTE]
    assert sift(seen, ["a"] * 3, times).keep.tolist() == [True, False, True]


def test_a_row_with_a_stood_in_time_is_near_to_everything() -> None:
    seen = Seen(HOUR_US)
    assert sift(seen, ["a", "b"], NOON, stood_in=[True, False]).keep.all()
    far = NOON + 100 * HOUR_US
    verdict = sift(seen, ["a", "b", "b"], far, stood_in=[False, False, True])
    assert verdict.keep.tolist() == [False, True, False]


def test_equal_id_with_other_bytes_is_a_duplicate_counted_apart() -> None:
    seen = Seen(HOUR_US)
    verdict = sift(seen, ["a", "a", "a"], content=[1, 2, 1])
    assert verdict.keep.tolist() == [True, False, False]
    assert (verdict.duplicates, verdict.differing, verdict.kept_differing) == (2, 1, 0)


def test_differing_copies_are_kept_on_wish_and_each_of_them_only_once() -> None:
    seen = Seen(HOUR_US)
    verdict = sift(seen, ["a"] * 5, content=[1, 2, 1, 2, 3], on_differing="keep")
    assert verdict.keep.tolist() == [True, True, False, False, True]
    assert (verdict.duplicates, verdict.differing, verdict.kept_differing) == (2, 0, 2)


def test_forget_drops_whole_hours_and_nothing_else() -> None:
    seen = Seen(100 * HOUR_US)
    sift(seen, ["a", "b"], [NOON + 59 * MINUTE, NOON + 60 * MINUTE])
    seen.forget(NOON + HOUR_US - 1)
    assert sift(seen, ["a"], NOON).keep.tolist() == [False]
    seen.forget(NOON + HOUR_US)
    assert sift(seen, ["a", "b"], [NOON, NOON]).keep.tolist() == [True, False]


def test_what_is_forgotten_is_forgotten_also_while_it_is_not_cleared_away_yet() -> None:
    seen = Seen(100 * HOUR_US)
    sift(seen, ["a", "b"])
    sift(seen, [f"later {i}" for i in range(10)], NOON + HOUR_US)
    seen.forget(NOON + HOUR_US)
    assert len(seen) == 12
    assert sift(seen, ["a", "b", "a"]).keep.tolist() == [True, True, False]


def test_forget_never_goes_back() -> None:
    seen = Seen(HOUR_US)
    sift(seen, ["a"])
    seen.forget(NOON + 10 * HOUR_US)
    seen.forget(NOON)
    assert sift(seen, ["a"]).keep.tolist() == [True]


def test_a_copy_of_a_loaded_row_is_never_counted_as_differing() -> None:
    seen = Seen(HOUR_US)
    load(seen, ["a", "b"])
    verdict = sift(seen, ["a", "a", "b", "a", "c"], content=[1, 2, 9, 1, 5])
    assert verdict.keep.tolist() == [False, False, False, False, True]
    assert (verdict.duplicates, verdict.differing) == (4, 0)


def test_loaded_memory_judges_like_the_memory_it_stands_for() -> None:
    ids = [f"id-{i % 700}" for i in range(2_000)]
    times = [NOON + i * MINUTE for i in range(2_000)]
    one, other = Seen(5 * HOUR_US), Seen(5 * HOUR_US)
    kept = sift(one, ids, times).keep
    load(other, np.array(ids)[kept].tolist(), np.array(times)[kept].tolist())
    more = [f"id-{i}" for i in range(800)]
    at = [NOON + i * 2 * MINUTE for i in range(800)]
    assert sift(one, more, at).keep.tolist() == sift(other, more, at).keep.tolist()


def test_a_flood_of_one_id_is_kept_from_then_on_with_an_alarm() -> None:
    seen = Seen(HOUR_US)
    first = sift(seen, ["0"] * (FLOOD + 1), content=range(FLOOD + 1))
    assert (int(first.keep.sum()), first.differing, first.flooding) == (1, FLOOD, [])
    second = sift(seen, ["0", "x", "0", "x"], content=[-1, 5, -1, 5])
    assert second.keep.tolist() == [True, True, True, False]
    assert (second.flooding, second.kept_differing, second.duplicates) == (["0"], 2, 1)
    assert len(seen) == 2  # what is kept for a flood takes no memory


def test_a_flood_is_one_of_an_hour() -> None:
    seen = Seen(2 * HOUR_US)
    sift(seen, ["0"] * (FLOOD + 2), content=range(FLOOD + 2))
    next_hour = sift(seen, ["0"] * 3, [NOON + HOUR_US, NOON, NOON + HOUR_US], content=[-1, -2, 0])
    assert next_hour.keep.tolist() == [False, True, False]
    assert (next_hour.duplicates, next_hour.differing) == (2, 1)


def test_equal_copies_are_no_flood() -> None:
    seen = Seen(HOUR_US)
    verdict = sift(seen, ["0"] * (3 * FLOOD))
    assert (verdict.duplicates, verdict.flooding) == (3 * FLOOD - 1, [])


def test_a_flood_is_found_again_after_the_memory_was_rebuilt() -> None:
    seen = Seen(HOUR_US)
    load(seen, ["0"])
    verdict = sift(seen, ["0"] * (FLOOD + 3), content=range(FLOOD + 3))
    assert verdict.keep.tolist() == [False] * (FLOOD + 1) + [True] * 2
    assert (verdict.differing, verdict.flooding) == (0, ["0"])


def test_a_flood_in_the_lake_goes_on_after_the_memory_was_rebuilt() -> None:
    seen = Seen(HOUR_US)
    load(seen, ["0"] * (FLOOD + 9) + ["1", "1"])
    assert len(seen) == FLOOD + 3
    verdict = sift(seen, ["0", "1"])
    assert (verdict.keep.tolist(), verdict.flooding) == ([True, False], ["0"])


@pytest.mark.parametrize("pieces", [1, 2, 7, 1_000])
def test_the_verdict_does_not_depend_on_where_calls_are_cut(
    pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dedup, "FLOOD", 4)
    random = np.random.default_rng(5)
    count = 5_000
    ids = [f"id-{i}" for i in random.integers(0, 60, count)]
    times = NOON + random.integers(0, 10 * HOUR_US, count)
    content = random.integers(0, 40, count)
    whole = sift(Seen(HOUR_US), ids, times, content)
    seen = Seen(HOUR_US)
    keep: list[bool] = []
    for rows in np.array_split(np.arange(count), pieces):
        keep += sift(seen, [ids[i] for i in rows], times[rows], content[rows]).keep.tolist()
    assert keep == whole.keep.tolist()
    assert whole.flooding


def test_the_budget_cuts_the_oldest_hours_and_says_so() -> None:
    budget = 4_000_000
    seen = Seen(168 * HOUR_US, budget_bytes=budget)
    for hour in range(10):
        for part in range(10):
            sift(seen, [f"{hour}-{part}-{i:06}" for i in range(1_000)], NOON + hour * HOUR_US)
            assert seen.nbytes <= budget
    cut = seen.window_from_us
    assert cut is not None
    hours = (cut - NOON) // HOUR_US
    assert 3 <= hours <= 7
    for hour in range(hours, 10):
        again = sift(seen, [f"{hour}-9-{i:06}" for i in range(1_000)], NOON + hour * HOUR_US)
        assert again.duplicates == 1_000
    seen.forget(cut)
    assert seen.window_from_us is None


def test_a_single_hour_beyond_the_budget_keeps_what_came_last() -> None:
    seen = Seen(HOUR_US)
    ids = [f"event-{i:06}" for i in range(20_000)]
    sift(seen, ids)
    seen.shed(seen.nbytes // 2)
    assert seen.window_from_us == NOON + HOUR_US
    verdict = sift(seen, ids[-4_000:])
    assert verdict.duplicates == 4_000


def test_memory_comes_back_when_hours_are_forgotten() -> None:
    seen = Seen(HOUR_US)
    for hour in range(20):
        sift(seen, [f"{hour}-{i:06}" for i in range(5_000)], NOON + hour * HOUR_US)
        seen.forget(NOON + (hour - 1) * HOUR_US)
    assert seen.nbytes < 5 * 5_000 * 110
    seen.forget(NOON + 50 * HOUR_US)
    assert seen.nbytes < 10_000


def test_memory_is_bounded_when_the_same_ids_come_back_in_every_hour() -> None:
    seen = Seen(HOUR_US)
    ids = [f"flight-{i:06}" for i in range(5_000)]
    for hour in range(0, 60, 3):
        assert sift(seen, ids, NOON + hour * HOUR_US).keep.all()
        seen.forget(NOON + (hour - 1) * HOUR_US)
        assert not sift(seen, ids, NOON + hour * HOUR_US).keep.any()
        assert seen.nbytes < 4 * 5_000 * 400


def test_an_id_costs_at_most_64_bytes_beside_its_text() -> None:
    seen = Seen(HOUR_US)
    for count in (1_000, 50_000, 200_000):
        sift(seen, [f"{i:036}" for i in range(len(seen), count)])
        assert seen.nbytes <= count * (64 + 36)


def test_every_form_of_arrow_text_is_taken() -> None:
    seen = Seen(HOUR_US)
    times, flags = np.full(2, NOON), np.zeros(2, np.bool_)
    for ids in (
        pa.array(["a", "b"]),
        pa.array(["a", "b"], pa.large_string()),
        pa.chunked_array([["a"], ["b"]], pa.string()),
        pa.array(["x", "a", "b"]).slice(1),
        pa.array(["a", "b"]).dictionary_encode(),
    ):
        seen.sift(ids, times, flags, times)
    assert len(seen) == 2
    assert sift(seen, []).keep.tolist() == []
