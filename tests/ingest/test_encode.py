"""Parquet files: statistics, a footer that a rebuild can read, and the figures that their commit names."""

from __future__ import annotations

import hashlib
import itertools
import json

import pyarrow as pa
import pyarrow.parquet as pq

from ingest.encode import MAX_PERIODS, PERIOD_US, encode, periods

DAY = PERIOD_US["day"]


def times(values: list[int]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, pa.timestamp("us", "UTC"))])


def rows(values: list[int]) -> pa.Table:
    return pa.table(
        {"_event_time": times(values), "_offset": list(range(len(values))), "name": ["x"] * len(values)}
    )


def test_file_says_in_its_footer_what_it_is_part_of() -> None:
    encoded = encode(rows([1, 2]), {"commit": "c1"}, what="rows", late=False, schema_version=3, period_us=DAY)
    stored = pq.read_metadata(pa.BufferReader(encoded.data))
    assert json.loads(stored.metadata[b"tukang"]) == {"commit": "c1"}
    assert stored.row_group(0).column(0).compression == "ZSTD"
    assert stored.row_group(0).column(0).statistics.has_min_max


def test_figures_of_a_file_are_those_of_its_bytes() -> None:
    encoded = encode(rows([DAY, 0, 5]), {}, what="rows", late=True, schema_version=3, period_us=DAY)
    entry = encoded.entry("s3://b/k", "2026-01-01T00:00:00Z")
    assert entry["sha256"] == hashlib.sha256(encoded.data).hexdigest()
    assert (entry["rows"], entry["bytes"], entry["late"]) == (3, len(encoded.data), True)
    assert (entry["lowest"], entry["highest"]) == (
        "1970-01-01T00:00:00.000000Z",
        "1970-01-02T00:00:00.000000Z",
    )
    assert [period["rows"] for period in entry["periods"]] == [2, 1]


def test_many_periods_become_ranges_that_hold_all_rows() -> None:
    listed = periods(times([day * DAY for day in range(1000)]), DAY)
    assert len(listed) == MAX_PERIODS
    assert sum(period["rows"] for period in listed) == 1000
    assert all(before["end"] == after["start"] for before, after in itertools.pairwise(listed))


def test_periods_before_1970_begin_before_their_rows() -> None:
    assert periods(times([-1]), DAY) == [{"start": "1969-12-31T00:00:00.000000Z", "rows": 1}]
