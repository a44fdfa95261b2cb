"""The lake's benchmark asks the same questions before and after upkeep, and gets the same answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_short_benchmark_of_the_lake_says_what_upkeep_changed(tmp_path: Path) -> None:
    settings = {
        "BENCH_LAKE_ROWS": "40000", "BENCH_LAKE_COMMITS": "20", "BENCH_LAKE_RUNS": "1", "PYTHONPATH": str(ROOT)
    }  # fmt: skip
    subprocess.run(
        [sys.executable, "-m", "bench.lake"], cwd=tmp_path, env=os.environ | settings, check=True, timeout=120
    )
    results = json.loads((tmp_path / "build" / "bench-lake.json").read_text())
    assert [set(each) for each in results] == [{"query", "before_s", "after_s", "ratio"}] * 3
    figures = json.loads((tmp_path / "build" / "bench-lake-seal.json").read_text())
    assert (figures["rows"], figures["files_before"], figures["files_after"]) == (40_000, 40, 1)
    assert figures["duplicates"] > 0
    # Each of 40 objects was put and looked at; to get them again is cheaper, and what comes of them is few.
    assert figures["workers_requests_usd_per_tb"] > figures["seal_requests_usd_per_tb"] > 0
