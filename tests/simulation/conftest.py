"""How the tests run the simulation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=None, help="run this seed of the simulation alone")


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int | None:
    found: int | None = request.config.getoption("--seed", None)
    return found


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m tests.simulation ...`"""
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
