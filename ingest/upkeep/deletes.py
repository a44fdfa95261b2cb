"""`deletes` files: which rows left for good, for loaders to take away. They hold no other data of the events."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ingest.columns import TIME
from ingest.encode import FOOTER_KEY
from ingest.lake import Lake
from ingest.lake_object import put_new
from ingest.position import time_to_text

DELETES_SCHEMA = pa.schema([("_lake_partition", pa.int32()), ("_offset", pa.int64()), ("_event_time", TIME)])


def put_deletes(
    lake: Lake,
    folder: Path,
    topic: str,
    named: Iterable[pa.RecordBatch],
    footer: Mapping[str, Any],
    now_us: Callable[[], int],
    randbits: Callable[[int], int],
) -> dict[str, Any]:
    """Uploads the names of rows that leave for good, at least one; the file as a commit names it. `named` has
    DELETES_SCHEMA."""
    path = folder / "deletes.parquet"
    schema_version = footer.get("schema_version", 0)
    said = json.dumps({"schema_version": 0, **footer, "what": "deletes"}, separators=(",", ":")).encode()
    rows, lowest, highest = 0, list[int](), list[int]()
    with pq.ParquetWriter(
        path, DELETES_SCHEMA.with_metadata({FOOTER_KEY: said}), compression="zstd"
    ) as writer:
        for batch in named:
            writer.write_batch(batch)
            rows += batch.num_rows
            times = pc.min_max(batch.column("_event_time").cast(pa.int64())).as_py()
            lowest.append(times["min"])
            highest.append(times["max"])
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    with pa.memory_map(str(path)) as mapped:
        data = memoryview(mapped.read_buffer())
        put = put_new(lake, lambda name: f"deletes/{topic}/{name}.parquet", data, sha256, now_us, randbits)
    return {
        "url": put.url,
        "modified_at": put.modified_at,
        "what": "deletes",
        "late": False,
        "rows": rows,
        "bytes": path.stat().st_size,
        "sha256": sha256,
        "schema_version": schema_version,
        "periods": [],
        "lowest": time_to_text(min(lowest)),
        "highest": time_to_text(max(highest)),
    }
