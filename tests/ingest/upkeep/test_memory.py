"""Sealing in a small memory: a period ten times as large is merged, and the process takes no more than it was given."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.ingest.rows import table

pytestmark = pytest.mark.slow

MIB = 1 << 20
MEMORY = 64 * MIB
FILES, ROWS, WIDTH = 16, 40_000, 1_000
HOUR_US = 3_600_000_000

MERGES = """
import json, resource, sys
from pathlib import Path
import pyarrow.parquet as pq
from ingest.upkeep.merge import Merge, Source

folder, memory, period_us = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
sources = [Source(path, 1, sealed=False) for path in sorted(folder.glob("source-*"))]
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
merge = Merge(folder, sources, pq.read_schema(sources[0].path), memory=memory, threads=2)
twins = merge.find_duplicates().total()
files = list(merge.write("out", {}, period_us=period_us, sealed_periods=[0], file_bytes=1 << 30))
merge.close()
times = pq.read_table(files[0].path, columns=["_event_time"]).column(0)
told = {"rows": sum(file.rows for file in files), "twins": twins, "files": len(files), "peak": peak() - before}
told["groups"] = pq.read_metadata(files[0].path).num_row_groups
told["sorted"] = times.equals(times.sort())
print(json.dumps(told))
"""


def sources(folder: Path) -> int:
    """Files that each span the whole period, the second with some ids of the first; their bytes in memory."""
    size = 0
    for number in range(FILES):
        offsets = range(number * ROWS, (number + 1) * ROWS)
        times = [offset % ROWS * (HOUR_US // ROWS) for offset in offsets]
        ids = [
            f"id-{offset - ROWS if number == 1 and offset % 10 == 0 else offset:012}" for offset in offsets
        ]
        rows = table(0, offsets, times, ids)
        rows = rows.append_column(
            "wide", pa.array(["x" * WIDTH], pa.string()).take(pa.nulls(ROWS, pa.int8()).fill_null(0))
        )
        pq.write_table(rows, folder / f"source-{number:02}.parquet", row_group_size=ROWS // 4)
        size += rows.nbytes
    return size


def test_a_period_of_ten_times_the_memory_is_sealed_within_it(tmp_path: Path) -> None:
    size = sources(tmp_path)
    assert size > 10 * MEMORY
    done = subprocess.run(
        [sys.executable, "-c", MERGES, str(tmp_path), str(MEMORY), str(HOUR_US)],
        capture_output=True, text=True, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["sorted"]
    assert (told["twins"], told["rows"], told["files"]) == (ROWS // 10, FILES * ROWS - ROWS // 10, 1)
    assert told["groups"] > 5, "wide rows have row groups of fewer"
    # What pyarrow holds (two row groups) and what DuckDB does not count comes to it.
    assert told["peak"] < MEMORY + 2 * 64 * MIB < size / 3
