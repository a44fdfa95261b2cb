"""The laws of an append as properties: what keeps them is taken, any single step away from them is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from api.file_laws import LawBroken, NewFile
from api.laws import Line, Position, check_append, check_line
from api.times import DAY_US

TIMES = st.integers(-(10**15), 10**15)
SMALL = st.integers(0, 200)


@st.composite
def lawful(draw: st.DrawFn) -> tuple[Position, Line]:
    """A stored position and a line that keeps every law on top of it."""
    start = draw(st.integers(0, 300))
    before = draw(st.sets(st.integers(0, start - 1), max_size=20)) if start else set()
    fresh = draw(st.booleans()) and not before
    consumed = draw(SMALL)
    end = start + consumed + draw(st.integers(0, 50))  # offsets have gaps
    kept = draw(st.sets(st.sampled_from(sorted(before)), max_size=len(before))) if before else set()
    read = sorted(range(start, start + consumed))
    added = draw(st.sets(st.sampled_from(read), max_size=min(len(read), 20))) if read else set()
    carried = kept | added
    gone = consumed + len(before) - len(carried)
    written = draw(st.integers(0, gone))
    duplicates = draw(st.integers(0, gone - written))
    dead = gone - written - duplicates
    low, high = sorted((draw(TIMES), draw(TIMES)))
    stored = Position(
        next=None if fresh else start,
        carried=BitMap(start - offset for offset in before),
        highest_us=None if fresh else low,
        watermark_us=None if fresh else low,
        published_to_us=None,
    )
    line = Line(
        lake_partition=0,
        from_version=None,
        from_offset=start,
        to_offset=end,
        consumed=consumed,
        carried_in=len(before),
        written=written,
        duplicates=duplicates,
        differing=draw(st.integers(0, duplicates)),
        dead_letters=dead,
        lost=0,
        carried_out=len(carried),
        late=draw(st.integers(0, written)),
        position=Position(
            next=end,
            carried=BitMap(end - offset for offset in carried),
            highest_us=high,
            watermark_us=high,
            published_to_us=None,
        ),
    )
    return stored, line


@given(lawful())
def test_what_keeps_the_laws_is_taken(case: tuple[Position, Line]) -> None:
    stored, line = case
    check_line(line, stored)


@given(
    lawful(),
    st.sampled_from(
        ["consumed", "carried_in", "written", "duplicates", "dead_letters", "lost", "carried_out"]
    ),
    st.integers(1, 5),
)
def test_any_count_that_is_off_is_refused(case: tuple[Position, Line], name: str, off: int) -> None:
    stored, line = case
    with pytest.raises(LawBroken):
        check_line(replace(line, **{name: getattr(line, name) + off}), stored)


@given(lawful(), st.integers(1, 1000))
def test_a_carried_offset_that_was_neither_carried_nor_read_is_refused(
    case: tuple[Position, Line], which: int
) -> None:
    stored, line = case
    end = line.to_offset
    carried = line.position.carried
    allowed = {line.from_offset - distance for distance in stored.carried} | set(range(line.from_offset, end))
    offset = end - which
    if offset in allowed:
        return
    more = BitMap(carried)
    more.add(which)
    written = replace(line, carried_out=len(more), consumed=line.consumed + 1)
    with pytest.raises(LawBroken):
        check_line(replace(written, position=replace(line.position, carried=more)), stored)


@given(lawful(), st.sampled_from(["highest_us", "watermark_us"]), st.integers(1, 10**15))
def test_times_never_go_back(case: tuple[Position, Line], name: str, back: int) -> None:
    stored, line = case
    if getattr(stored, name) is None:
        return
    for lower in (getattr(stored, name) - back, None):
        with pytest.raises(LawBroken) as broken:
            check_line(replace(line, position=replace(line.position, **{name: lower})), stored)
        assert broken.value.law == name.removesuffix("_us")


@given(lawful(), st.integers(-50, 50).filter(bool))
def test_a_line_that_starts_elsewhere_is_refused(case: tuple[Position, Line], off: int) -> None:
    stored, line = case
    if stored.next is None:
        return
    with pytest.raises(LawBroken):
        check_line(replace(line, from_offset=line.from_offset + off), stored)


def test_a_carried_set_of_a_million_neighbours_is_small_and_allowed() -> None:
    carried = BitMap(range(1, 1_000_001))
    line = Line(
        lake_partition=0, from_version=None, from_offset=0, to_offset=1_000_000, consumed=1_000_000, carried_in=0,
        written=0, duplicates=0, differing=0, dead_letters=0, lost=0, carried_out=1_000_000,
        carried_bytes=carried.serialize(),
        position=Position(1_000_000, carried, None, None, None),
    )  # fmt: skip
    check_line(line, Position(None, BitMap(), None, None, None))
    with pytest.raises(LawBroken) as broken:
        check_line(
            replace(line, carried_bytes=b"x" * (2**20 + 1)), Position(None, BitMap(), None, None, None)
        )
    assert broken.value.law == "carried_bytes"


def test_distances_survive_offsets_far_beyond_32_bits() -> None:
    far = 2**62
    stored = Position(far, BitMap([5]), 0, 0, None)
    line = Line(
        lake_partition=0, from_version=None, from_offset=far, to_offset=far + 2**33, consumed=1, carried_in=1,
        written=1, duplicates=0, differing=0, dead_letters=0, lost=0, carried_out=1,
        position=Position(far + 2**33, BitMap([7]), 0, 0, None),
    )  # fmt: skip
    check_line(line, stored)


@given(st.lists(st.tuples(SMALL, SMALL), min_size=1, max_size=5))
def test_rows_of_files_are_what_the_lines_say(counts: list[tuple[int, int]]) -> None:
    lines = []
    stored = {}
    for number, (written, dead) in enumerate(counts):
        consumed = written + dead
        lines.append(
            Line(
                number, None, 0, consumed, consumed, 0, written, 0, 0, dead, 0, 0,
                Position(consumed, BitMap(), None, None, None),
            )
        )  # fmt: skip
        stored[number] = Position(None, BitMap(), None, None, None)
    rows, dead = sum(written for written, _ in counts), sum(dead for _, dead in counts)

    def files(rows: int, dead: int) -> list[NewFile]:
        made = [
            NewFile(f"s3://b/fresh/t/{n}", "rows", late, 1, n, "00", 0, [(0, None, n)], 0, 0, 0)
            for late, n in ((False, rows - rows // 3), (True, rows // 3))
            if n
        ]
        dead_file = NewFile(
            "s3://b/dead_letters/t/d", "dead_letters", False, 1, dead, "00", 0, [], None, None, 0
        )
        return made + ([dead_file] if dead else [])

    check_append(lines, stored, files(rows, dead), topic="t", schema_version=0, period_us=DAY_US)
    for wrong in (files(rows + 3, dead), files(rows, dead + 1)):
        with pytest.raises(LawBroken):
            check_append(lines, stored, wrong, topic="t", schema_version=0, period_us=DAY_US)
