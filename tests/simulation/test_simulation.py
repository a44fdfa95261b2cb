"""Seeds by the hundred: whatever happens to workers, network, store, broker and clocks, the lake is right.

Each range runs in a process of its own, because the order in sets of texts is part of a history (`__main__.py`). One
seed alone: `pytest tests/simulation --seed 4711`, or with its whole history `python -m tests.simulation 4711`.
"""

from __future__ import annotations

import pytest

from tests.simulation.conftest import simulate


def test_nothing_is_wrong_in_ten_seeds(seed: int | None) -> None:
    done = simulate("0:10" if seed is None else str(seed))
    assert done.returncode == 0, done.stdout[-10_000:]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("first", range(10, 2000, 199))
def test_nothing_is_wrong_in_two_thousand_seeds(first: int, seed: int | None) -> None:
    if seed is not None:
        pytest.skip("one seed alone was asked for")
    done = simulate(f"{first}:{first + 199}")
    assert done.returncode == 0, done.stdout[-10_000:]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_same_seed_gives_the_same_history() -> None:
    assert simulate("26").stdout == simulate("26").stdout
