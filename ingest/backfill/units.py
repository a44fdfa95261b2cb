"""Which files a backfill takes together, and what is counted of them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ingest.position import time_from_text

File = Mapping[str, Any]

UNIT_ROWS = 262_144  # small files up to here are read, compared and written together
MOST_FILES = 800  # that one commit adds or removes, about: below the API's limit


def units(files: Sequence[File]) -> Iterator[list[File]]:
    """Files by their lowest time; small ones together."""
    unit: list[File] = []
    for file in sorted(files, key=lambda each: (each["lowest"], each["id"])):
        if unit and (sum(f["rows"] for f in unit) + file["rows"] > UNIT_ROWS or len(unit) == MOST_FILES):
            yield unit
            unit = []
        unit.append(file)
    if unit:
        yield unit


def overlaps(file: File, lowest_us: int, highest_us: int) -> bool:
    lowest, highest = time_from_text(file["lowest"]), time_from_text(file["highest"])
    return (lowest is None or lowest <= highest_us) and (highest is None or highest >= lowest_us)


def retyped_columns(there: pa.Schema, now: pa.Schema) -> set[str]:
    """Columns whose type is another now. Integers that became doubles are read as such anyway."""
    return {
        field.name
        for field in there
        if field.name in now.names
        and field.type != now.field(field.name).type
        and not (pa.types.is_int64(field.type) and pa.types.is_float64(now.field(field.name).type))
    }


def by_partition(table: pa.Table) -> Counter[int]:
    pairs = pc.value_counts(table.column("_lake_partition")).to_pylist()
    return Counter({pair["values"]: pair["counts"] for pair in pairs})
