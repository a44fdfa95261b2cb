"""The ledger's laws, and positions as text."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.ledger import LawBroken, Line, prove
from ingest.position import Position, carried_from_text, carried_to_text, time_from_text, time_to_text

SOUND = Line(
    lake_partition=0,
    from_version=None,
    from_offset=0,
    to_offset=10,
    position=Position(0, 0, next=10, carried=np.array([7, 8])),
    consumed=9,
    carried_in=1,
    written=5,
    duplicates=2,
    differing=1,
    dead_letters=1,
    carried_out=2,
    late=1,
)


def test_a_sound_line_breaks_no_law() -> None:
    prove("t", [SOUND])


@pytest.mark.parametrize(
    "change",
    [
        {"written": 6},
        {"consumed": 8},
        {"carried_in": 2},
        {"duplicates": 1},
        {"dead_letters": 0},
        {"lost": 1},
        {"carried_out": 1, "written": 6},
        {"to_offset": 11},
        {"from_offset": 2},
        {"differing": 3},
        {"late": 6},
        {"early": 6},
    ],
)
def test_each_wrong_figure_is_found(change: dict[str, int]) -> None:
    with pytest.raises(LawBroken, match="ledger of t"):
        prove("t", [replace(SOUND, **change)])


@given(st.sets(st.integers(1, 2**31), max_size=50), st.integers(2**31 + 1, 2**52))
def test_carried_offsets_keep_through_text(distances: set[int], next_offset: int) -> None:
    offsets = sorted(next_offset - distance for distance in distances)
    assert carried_from_text(carried_to_text(offsets, next_offset), next_offset).tolist() == offsets


@given(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999))
def test_times_keep_through_text(time_us: int) -> None:
    text = time_to_text(time_us)
    assert text is not None
    assert len(text) == 27
    assert time_from_text(text) == time_us
