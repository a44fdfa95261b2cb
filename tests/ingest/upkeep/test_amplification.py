"""A trickle of late rows does not rewrite what is sealed: upkeep's planner plays some days of it."""

from __future__ import annotations

import pytest

from bench.amplification import MINUTE, played

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("small", "every_us", "most_times", "most_fresh"),
    [
        (1 << 30, MINUTE, 3.0, 220),
        (500, MINUTE, 2.1, 1_600),
        (1 << 30, MINUTE // 6, 3.0, 300),
    ],
)
def test_a_row_is_written_less_than_three_times_although_one_in_a_hundred_is_late(
    small: int, every_us: int, most_times: float, most_fresh: int
) -> None:
    """Where all fresh files are small, also when they come every ten seconds, and where only those of late rows are."""
    found = played(small, every_us)
    assert sum(file.rows for file in found.lake.files.values()) == found.lake.appended
    assert found.lake.sealed >= {0, 1, 2}
    assert found.times < most_times
    assert found.most_fresh <= most_fresh
