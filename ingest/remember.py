"""Dedup memory from the lake: after a start, the ids that stand in the live files of the window.

Reads three columns of the files that the API names as of the sequence of the positions; a file written meanwhile does
not matter, because an append that does not start at those positions is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ingest.dedup import Seen
from ingest.held import stands_in
from ingest.lake import Lake
from ingest.lake_object import opened

_COLUMNS = ["_lake_partition", "_event_id", "_event_time", "_time_from"]
_HOUR_US = 3_600_000_000


def window_start(watermark_us: int | None, window_us: int) -> int | None:
    """From which event time on ids are remembered: the whole hour that holds watermark less window; None: all."""
    if watermark_us is None:
        return None
    return (watermark_us - window_us) // _HOUR_US * _HOUR_US


def remember(
    lake: Lake,
    files: Iterable[Mapping[str, Any]],
    seen: Mapping[int, Seen],
    since_us: Mapping[int, int | None],
    *,
    timed: bool,
) -> None:
    """Loads the ids of each lake partition in `seen` from the files (as the API lists them). Blocks: call in a thread.

    Rows with a stood-in time are loaded whatever their time, others from `since_us` on. In a topic that is not `timed`
    no time stands in for another: what is remembered must be what was remembered before the start.
    """
    wanted = pa.array(sorted(seen), pa.int32())
    for file in files:
        table = _read(lake, str(file["url"]), int(file["bytes"]))
        table = table.filter(pc.is_in(table.column("_lake_partition"), value_set=wanted))
        table = table.filter(pc.is_valid(table.column("_event_id")))
        partitions = table.column("_lake_partition").to_numpy()
        times = np.asarray(table.column("_event_time").cast(pa.int64()).to_numpy(), dtype=np.int64)
        stood_in = stands_in(table) if timed else np.zeros(table.num_rows, np.bool_)
        for lake_partition, memory in seen.items():
            mask = partitions == lake_partition
            start_us = since_us[lake_partition]
            if start_us is not None:
                mask &= stood_in | (times >= start_us)
            if mask.any():
                memory.load(table.column("_event_id").filter(pa.array(mask)), times[mask], stood_in[mask])


def _read(lake: Lake, url: str, size: int) -> pa.Table:
    return pq.read_table(opened(lake, url, size), columns=_COLUMNS, pre_buffer=True)
