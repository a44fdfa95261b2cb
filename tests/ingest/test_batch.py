"""Cuts: what goes, what waits, what is late, and that the ledger adds up, whatever the order of events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest import batch
from ingest.batch import Cut, FlushRules
from ingest.dedup import Seen
from ingest.held import Held
from ingest.position import Position, carried_from_text, carried_to_text
from ingest.schema import TopicSchema
from tests.ingest.rows import contents, no_dead_letters, table

RULES = FlushRules(rows=10**9, bytes=10**12, age_us=60_000_000, lateness_us=10)
NEVER_IDLE: dict[int, bool] = {}


def held(position: Position | None = None, start: int = 0) -> Held:
    return Held(position or Position(0, 0), start, Seen(3_600_000_000), now_us=0)


def add(one: Held, offsets: Sequence[int], times: Sequence[int], next_offset: int | None = None) -> None:
    mask = one.wanted(np.array(offsets, np.int64))
    pairs = [pair for i, pair in enumerate(zip(offsets, times, strict=True)) if mask is None or bool(mask[i])]
    wanted, their_times = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    one.add(
        table(one.base.lake_partition, wanted, their_times),
        no_dead_letters(),
        contents(len(wanted)),
        np.zeros(len(wanted), np.bool_),
        np.array(wanted, np.int64),
        next_offset if next_offset is not None else (offsets[-1] + 1 if offsets else one.next),
        now_us=0,
        keep_differing=False,
    )


def cut(
    *helds: Held, early: bool = False, most_rows: int = 10**9, idle: dict[int, bool] = NEVER_IDLE
) -> Cut | None:
    return batch.cut(
        "t", helds, TopicSchema(), RULES, idle, "c", most_rows=most_rows, early=[0] if early else []
    )


def offsets_of(cut: Cut) -> tuple[list[int], list[int]]:
    rows, late, _ = cut.tables()
    return rows.column("_offset").to_pylist(), late.column("_offset").to_pylist()


def test_rows_newer_than_the_watermark_are_carried() -> None:
    one = held()
    add(one, [0, 1, 2], [100, 120, 105])
    done = cut(one)
    assert done is not None
    assert offsets_of(done) == ([0, 2], [])
    assert done.lines[0].carried_out == 1
    assert done.lines[0].position.watermark_us == 110
    assert done.lines[0].position.carried.tolist() == [1]


def test_late_event_is_published_and_flagged() -> None:
    one = held()
    add(one, [0, 1], [100, 200])
    cut(one)
    add(one, [2], [150])
    done = cut(one)
    assert done is not None
    rows, late, _ = done.tables()
    assert late.column("_offset").to_pylist() == [2]
    assert late.column("_late").to_pylist() == [True]
    assert rows.num_rows == 0
    assert done.lines[0].late == 1


def test_rows_are_sorted_by_time_then_lake_partition_then_offset() -> None:
    first, second = held(), held(Position(1, 1))
    add(first, [0, 1, 2], [50, 50, 40])
    add(second, [0, 1], [50, 30])
    for one in (first, second):
        add(one, [3 + one.base.lake_partition * -1], [1000])
    done = cut(second, first)
    assert done is not None
    rows, _, _ = done.tables()
    order = list(
        zip(
            rows.column("_event_time").cast("int64").to_pylist(),
            rows.column("_lake_partition").to_pylist(),
            rows.column("_offset").to_pylist(),
            strict=True,
        )
    )
    assert order == sorted(order)
    assert len(order) == 5


def test_idle_partition_waits_for_nothing() -> None:
    one = held()
    add(one, [0, 1], [100, 200])
    done = cut(one, idle={0: True})
    assert done is not None
    assert offsets_of(done)[0] == [0, 1]
    assert done.lines[0].position.watermark_us == 200


def test_partial_cut_lowers_the_stored_watermark_below_what_it_leaves_behind() -> None:
    one = held()
    add(one, [0, 1, 2, 3, 4], [10, 20, 30, 40, 100])
    done = cut(one, most_rows=2)
    assert done is not None
    assert offsets_of(done)[0] == [0, 1]
    assert done.lines[0].position.watermark_us == 29
    done = cut(one)
    assert done is not None
    assert offsets_of(done) == ([2, 3], [])


def test_early_publication_flags_what_comes_before_its_newest_row() -> None:
    one = held()
    add(one, [0, 1], [100, 200])
    done = cut(one, early=True)
    assert done is not None
    line = done.lines[0]
    assert (line.early, line.position.watermark_us, line.position.published_to_us) == (1, 190, 200)
    add(one, [2, 3], [195, 300])
    done = cut(one)
    assert done is not None
    assert offsets_of(done) == ([], [2])


def test_carried_records_are_read_again_and_the_ones_that_vanished_are_lost() -> None:
    position = Position(
        0, 0, next=10, carried=np.array([3, 5, 7]), watermark_us=50, highest_us=60, version="v"
    )
    one = held(position)
    assert one.next == 3
    add(one, [3, 4, 5, 6], [55, 1, 56, 1])
    assert cut(one) is None, "a partition that still reads its carried records takes no part"
    add(one, [8, 10], [1, 100])
    done = cut(one)
    assert done is not None
    line = done.lines[0]
    assert offsets_of(done) == ([3, 5], [])
    assert (line.consumed, line.carried_in, line.written, line.carried_out, line.lost) == (1, 3, 2, 1, 1)
    assert line.lost_ranges == [(7, 8)]


def test_offsets_deleted_before_they_were_read_are_lost() -> None:
    one = held(Position(0, 0, next=10, carried=np.array([4, 8]), watermark_us=50, highest_us=60, version="v"))
    one.lose(4, 20, now_us=0)
    done = cut(one)
    assert done is not None
    line = done.lines[0]
    assert (line.from_offset, line.to_offset, line.consumed, line.lost) == (10, 20, 10, 12)
    assert line.lost_ranges == [(4, 5), (8, 9), (10, 20)]


def test_carried_set_keeps_its_offsets_through_text() -> None:
    offsets = np.array([1, 5, 6, 7, 70_000, 9_000_000_000])
    assert (
        carried_from_text(carried_to_text(offsets, 9_000_000_001), 9_000_000_001).tolist()[-1]
        == 9_000_000_000
    )
    small = np.array([1, 5, 6, 7, 70_000])
    assert carried_from_text(carried_to_text(small, 70_001), 70_001).tolist() == small.tolist()


@dataclass
class Model:
    """A lake partition as the world sees it: a log of times, a stored position, and what was published."""

    log: list[int] = field(default_factory=list)
    position: Position = field(default_factory=lambda: Position(0, 0))
    on_time: list[int] = field(default_factory=list)
    late: list[int] = field(default_factory=list)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.lists(st.integers(0, 200), min_size=1, max_size=8)),
        st.tuples(st.just("read"), st.integers(1, 6)),
        st.tuples(st.just("cut"), st.sampled_from(["plain", "early", "idle", "two"])),
        st.tuples(st.just("restart"), st.none()),
    ),
    max_size=40,
)


@given(steps)
@settings(max_examples=300, deadline=None)
def test_every_record_is_published_once_in_order_and_rightly_flagged(steps: list[tuple[str, object]]) -> None:
    model = Model()
    one = held(model.position)
    for step, argument in [*steps, ("read", 10**6), ("cut", "early")]:
        if step == "write":
            model.log += argument  # type: ignore[operator]
        elif step == "read":
            start, end = one.next, min(one.next + argument, len(model.log))  # type: ignore[operator]
            if end > start:
                add(one, range(start, end), model.log[start:end], end)
        elif step == "restart":
            one = held(model.position)
        else:
            done = cut(
                one,
                early=argument == "early",
                idle={0: argument == "idle"},
                most_rows=2 if argument == "two" else 10**9,
            )
            if done is not None:
                publish(model, done)
    assert sorted(model.on_time + model.late) == list(range(len(model.log)))


def publish(model: Model, done: Cut) -> None:
    """Checks a cut against the position before it, then stores it."""
    before, after = model.position, done.lines[0].position
    on_time, late = offsets_of(done)
    line = max((t for t in (before.watermark_us, before.published_to_us) if t is not None), default=-1)
    assert all(model.log[offset] < line for offset in late)
    times = [model.log[offset] for offset in on_time]
    assert times == sorted(times)
    assert all(time >= line for time in times)
    if before.watermark_us is not None:
        assert after.watermark_us is not None
        assert after.watermark_us >= before.watermark_us
    if after.watermark_us is not None:
        assert all(model.log[offset] > after.watermark_us for offset in after.carried)
    assert not set(on_time + late) & set(model.on_time + model.late)
    model.on_time += on_time
    model.late += late
    model.position = after


@pytest.mark.parametrize(
    ("rows", "age_us", "reason"), [(2, 10**9, "rows"), (10**6, 5, "age"), (10**6, 10**9, None)]
)
def test_a_topic_is_due_by_rows_or_age(rows: int, age_us: int, reason: str | None) -> None:
    one = held()
    add(one, [0, 1, 2], [100, 101, 200])
    rules = FlushRules(rows=rows, bytes=10**12, age_us=age_us, lateness_us=10)
    assert batch.due([one], rules, {0: False}, now_us=10) == reason
