"""The short form of the chaos; `make chaos MINUTES=60` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.run import chaos

SEED = 2026
SECONDS = 75.0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_under_random_faults_nothing_is_lost_or_doubled_and_nobody_dies_silently(tmp_path: Path) -> None:
    outcome = chaos(tmp_path, SEED, SECONDS, pause_s=4, rate=2600, new_topics=1)
    print(outcome.summary())  # noqa: T201  # pytest shows it when the test fails
    assert not outcome.wrong, "\n".join(outcome.wrong)
    assert sum(outcome.faults.values()) >= 5
