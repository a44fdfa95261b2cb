"""The benchmark's events are what it says they are, and it loads them completely with every contender."""

import json
import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from bench import bad_days, data
from bench.contenders import Contender, program
from bench.run import Run, result

ROOT = Path(__file__).parents[2]


def test_events_are_of_290_bytes_with_different_ids_and_the_same_each_time() -> None:
    first, again = (next(data.events("bench", 20_000))["value"].to_pylist() for _ in range(2))
    assert first == again
    assert 285 <= sum(map(len, first)) / len(first) <= 295
    events = [orjson.loads(each) for each in first]
    assert len({each["id"] for each in events}) == 20_000
    assert len(events[0]) + len(events[0]["device"]) == 16
    times = [each["time"] for each in events]
    assert times != sorted(times)


def test_the_last_table_of_events_is_cut_to_the_count() -> None:
    assert [table.num_rows for table in data.events("bench", 250_000)] == [100_000, 100_000, 50_000]


def test_a_result_is_made_of_medians() -> None:
    contender = Contender("by-hand", program("by_hand"))
    runs = [Run(1_000_000, seconds, 4.0, 500_000_000, 2) for seconds in (4.0, 5.0, 20.0)]
    assert result(contender, runs, event_bytes=290, stock=10_000) == {
        "contender": "by-hand",
        "events_per_s": 200_000,
        "mb_per_s": 58.0,
        "cpu_s_per_million": 4.0,
        "peak_rss_mb": 500,
        "files": 2,
        "ratio_to_stock_faust": 20.0,
    }


def test_bad_days_are_measured_with_every_record_accounted_for() -> None:
    results = bad_days.measure(2_000, 1)
    assert [each["events"] for each in results] == list(bad_days.KINDS)
    assert all(int(str(each["events_per_s"])) > 0 for each in results)
    assert results[0]["ratio_to_good"] == 1.0


@pytest.mark.slow
def test_a_short_benchmark_runs_every_contender(tmp_path: Path) -> None:
    settings = {"BENCH_EVENTS": "50000", "BENCH_RUNS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "bench.run"], cwd=tmp_path, env=os.environ | settings, check=True)
    results = json.loads((tmp_path / "build" / "bench.json").read_text())
    assert [each["contender"] for each in results] == ["stock-faust", "by-hand", "tukang"]
    for each in results:
        assert each["events_per_s"] > 0
        assert each["ratio_to_stock_faust"] > 0
        assert each["files"] >= 1
