"""The simulation bites: each rule of the protocol that is switched off is found within 2,000 seeds.

Seeds that are known to show it come first. When none of them does any more, all 2,000 are tried.
"""

from __future__ import annotations

import pytest

from tests.simulation.conftest import simulate
from tests.simulation.mutants import MUTANTS

KNOWN = {
    "no-comparison": "3",
    "contents-compared": "390",
    "id-not-first": "0",
    "no-carried-set": "1",
    "memory-kept-at-conflict": "9",
    "watermark-not-lowered": "6",
    "start-not-checked": "101",
    "log-start-not-watched": "31",
    "names-used-again": "34",
}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mutant", sorted(MUTANTS))
def test_a_rule_that_is_switched_off_is_found(mutant: str) -> None:
    done = simulate(f"{KNOWN[mutant]},0:2000", "--mutant", mutant)
    assert done.returncode == 1, done.stdout[-3000:]
    assert f"--mutant {mutant}" in done.stdout, done.stderr[-3000:]
