"""Encode: rows that are ready become the bytes of one Parquet file, with all that a rebuild needs in its footer.

Pure over Arrow: no I/O, no clock. Putting the bytes somewhere is `ingest.lake`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ingest.position import time_to_text

What = Literal["rows", "dead_letters", "deletes"]

FOOTER_KEY = b"tukang"
MAX_PERIODS = 100  # a file entry with more lists ranges of them
ROW_GROUP_ROWS = 131_072
# A reader asks the store for each column of each group, and waits for the answer.
SEALED_GROUP_ROWS = 1_048_576
COMPRESSION_LEVEL = 1  # of zstd: level 3 costs half as much again for 3 % fewer bytes

PERIOD_US = {"hour": 3_600_000_000, "day": 86_400_000_000}

SAMPLE_ROWS = 4_096
SEALED_SAMPLE_ROWS = 65_536  # once for a file that is large and stays
REPEATS = 0.5  # of the values: a column with fewer different ones gets a dictionary
UNIQUE = 0.98  # of a sample: more are different in all rows, too


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
    sealed: bool = False,
) -> Encoded:
    """`table` as Parquet (zstd, row groups of 131,072 rows, statistics and page index; `sealed`: larger groups, and a
    bloom filter).

    `footer` is stored as JSON under the key `tukang`. Periods and lowest and highest time are of `_event_time`, of dead
    letters the lowest and highest are of `_timestamp` and there are no periods.
    """
    named = table.replace_schema_metadata({FOOTER_KEY: json.dumps(footer, separators=(",", ":")).encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(
        named,
        sink,
        row_group_size=SEALED_GROUP_ROWS if sealed else ROW_GROUP_ROWS,
        **options(table, sealed=sealed),
    )
    data = memoryview(sink.getvalue())
    times = table.column("_timestamp" if what == "dead_letters" else "_event_time")
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


def options(rows: pa.Table, *, sealed: bool) -> dict[str, Any]:
    """What pyarrow's writer is told of a file that begins with these rows."""
    return {
        "compression": "zstd",
        "compression_level": COMPRESSION_LEVEL,
        "write_statistics": True,
        "write_page_index": True,
        "bloom_filter_options": bloom_filter(rows) if sealed else None,
        **encodings(rows, SEALED_SAMPLE_ROWS if sealed else SAMPLE_ROWS),
    }


def bloom_filter(rows: pa.Table) -> dict[str, dict[str, int]] | None:
    """Of a sealed file's ids, in row groups no larger than these rows: as large as they need it."""
    if "_event_id" not in rows.schema.names or rows.column("_event_id").null_count == rows.num_rows:
        return None
    return {"_event_id": {"ndv": max(1, min(rows.num_rows, SEALED_GROUP_ROWS))}}


def encodings(table: pa.Table, sample_rows: int) -> dict[str, Any]:
    """How each leaf column is written, by its Parquet path: a dictionary where values repeat, differences for integers
    and times that do not, plain for the rest.

    A dictionary of ids is built only to be thrown away (a tenth of the time); differences are the smallest for offsets
    and times in order, and no dearer.
    """
    # From all over the rows: the first ones of a sorted file are like no others.
    sample = table.take(np.arange(0, table.num_rows, max(1, table.num_rows // sample_rows)))
    dictionary: list[str] = []
    delta: dict[str, str] = {}
    for field in table.schema:
        for path, leaf in _leaves_of(sample, field):
            different = _different(leaf)
            if pa.types.is_int64(leaf.type) or pa.types.is_timestamp(leaf.type):
                if different > REPEATS:
                    delta[path] = "DELTA_BINARY_PACKED"
                    continue
            elif REPEATS < different < UNIQUE:  # what repeats seldom in a sample may repeat often
                different = _different(dict(_leaves_of(table, field))[path])
            if different <= REPEATS:
                dictionary.append(path)
    return {"use_dictionary": dictionary or False, "column_encoding": delta or None}


def _leaves_of(table: pa.Table, field: pa.Field) -> Iterator[tuple[str, pa.Array]]:
    """The leaf columns of a column, by the paths that Parquet gives them."""
    yield from _leaves(field.name, field.type, table.column(field.name).combine_chunks())


def _leaves(path: str, kind: pa.DataType, values: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    """The leaf columns below a field."""
    if pa.types.is_struct(kind):
        for number, child in enumerate(kind):
            yield from _leaves(f"{path}.{child.name}", child.type, values.field(number))
    elif pa.types.is_list(kind):
        yield from _leaves(f"{path}.list.element", kind.value_type, values.flatten())
    else:
        yield path, values


def _different(values: pa.Array) -> float:
    """The share of different values; 1 where no dictionary is wanted."""
    if len(values) == 0 or pa.types.is_null(values.type) or pa.types.is_boolean(values.type):
        return 1.0
    return len(pc.unique(values)) / len(values)
