"""Decoded tables made by hand, for tests of what comes after decoding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ingest import dead_letters
from ingest.schema import TopicSchema


def table(
    lake_partition: int,
    offsets: Sequence[int],
    times_us: Sequence[int],
    ids: Sequence[str | None] | None = None,
) -> pa.Table:
    """Rows of the empty schema: system columns only."""
    count = len(offsets)
    columns = {
        "_lake_partition": [lake_partition] * count,
        "_offset": list(offsets),
        "_event_id": list(ids) if ids is not None else [None] * count,
        "_event_time": list(times_us),
        "_time_from": ["event"] * count,
        "_late": [False] * count,
        "_tombstone": [False] * count,
    }
    schema = TopicSchema().arrow()
    return pa.table(
        [
            pa.array(columns[field.name], field.type)
            if field.name in columns
            else pa.nulls(count, field.type)
            for field in schema
        ],
        schema=schema,
    )


def no_dead_letters() -> pa.Table:
    return dead_letters.SCHEMA.empty_table()


def contents(count: int) -> np.ndarray:
    return np.zeros(count, np.int64)
