"""Encode: rows that are ready become the bytes of one Parquet file, with all that a rebuild needs in its footer.

Pure over Arrow: no I/O, no clock. Putting the bytes somewhere is `ingest.lake`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ingest.position import time_to_text

What = Literal["rows", "dead_letters"]

FOOTER_KEY = b"tukang"
MAX_PERIODS = 100  # a file entry with more lists ranges of them
ROW_GROUP_ROWS = 131_072
COMPRESSION_LEVEL = 1  # of zstd: level 3 costs half as much again for 3 % fewer bytes

PERIOD_US = {"hour": 3_600_000_000, "day": 86_400_000_000}

# Columns whose values repeat. A dictionary of ids or offsets would only be built to be thrown away.
_REPEATING = ("_time_from", "_late", "_tombstone", "_lake_partition", "_reason")


@dataclass(frozen=True, slots=True)
class Encoded:
    """One Parquet file in memory, and the figures that its commit names."""

    data: memoryview
    what: What
    late: bool
    rows: int
    sha256: str
    schema_version: int
    periods: list[dict[str, Any]]
    lowest_us: int | None
    highest_us: int | None

    def entry(self, url: str, modified_at: str) -> dict[str, Any]:
        """The file as a commit names it."""
        return {
            "url": url,
            "what": self.what,
            "late": self.late,
            "bytes": len(self.data),
            "rows": self.rows,
            "sha256": self.sha256,
            "schema_version": self.schema_version,
            "periods": self.periods,
            "lowest": time_to_text(self.lowest_us),
            "highest": time_to_text(self.highest_us),
            "modified_at": modified_at,
        }


def encode(
    table: pa.Table,
    footer: Mapping[str, Any],
    *,
    what: What,
    late: bool,
    schema_version: int,
    period_us: int,
) -> Encoded:
    """`table` as Parquet (zstd, row groups of 131,072 rows, statistics and page index).

    `footer` is stored as JSON under the key `tukang`. Periods and lowest and highest time are of `_event_time`, of dead
    letters the lowest and highest are of `_timestamp` and there are no periods.
    """
    named = table.replace_schema_metadata({FOOTER_KEY: json.dumps(footer, separators=(",", ":")).encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(
        named,
        sink,
        row_group_size=ROW_GROUP_ROWS,
        compression="zstd",
        compression_level=COMPRESSION_LEVEL,
        use_dictionary=_dictionary_columns(table),
        write_statistics=True,
        write_page_index=True,
    )
    data = memoryview(sink.getvalue())
    times = table.column("_event_time" if what == "rows" else "_timestamp")
    bounds = pc.min_max(times.cast(pa.int64())).as_py() if table.num_rows else {"min": None, "max": None}
    return Encoded(
        data=data,
        what=what,
        late=late,
        rows=table.num_rows,
        sha256=hashlib.sha256(data).hexdigest(),
        schema_version=schema_version,
        periods=periods(times, period_us) if what == "rows" else [],
        lowest_us=bounds["min"],
        highest_us=bounds["max"],
    )


def periods(times: pa.ChunkedArray, period_us: int) -> list[dict[str, Any]]:
    """The periods that have rows: `[{start, rows}]`, ascending; beyond 100 as ranges `[{start, end, rows}]`."""
    floors = np.asarray(times.cast(pa.int64()).to_numpy(), dtype=np.int64) // period_us
    starts, rows = np.unique(floors, return_counts=True)
    if len(starts) <= MAX_PERIODS:
        return [
            {"start": time_to_text(int(start) * period_us), "rows": int(count)}
            for start, count in zip(starts, rows, strict=True)
        ]
    return [
        {
            "start": time_to_text(int(group[0]) * period_us),
            "end": time_to_text((int(group[-1]) + 1) * period_us),
            "rows": int(counts.sum()),
        }
        for group, counts in zip(
            np.array_split(starts, MAX_PERIODS), np.array_split(rows, MAX_PERIODS), strict=True
        )
    ]


def _dictionary_columns(table: pa.Table) -> list[str]:
    """System columns that repeat, and the event's strings; Parquet falls back by itself where a dictionary grows."""
    names = [name for name in table.schema.names if name in _REPEATING]
    names.extend(
        field.name
        for field in table.schema
        if not field.name.startswith("_") and pa.types.is_string(field.type)
    )
    return names
