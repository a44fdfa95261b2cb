"""`deletes` files: which rows left for good, for loaders to take away. They hold no other data of the events."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
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
    named: pa.Table,
    footer: Mapping[str, Any],
    now_us: Callable[[], int],
    randbits: Callable[[int], int],
) -> dict[str, Any]:
    """Uploads the names of rows that leave for good; the file as a commit names it. `named` has DELETES_SCHEMA."""
    path = folder / "deletes.parquet"
    schema_version = footer.get("schema_version", 0)
    said = json.dumps({"schema_version": 0, **footer, "what": "deletes"}, separators=(",", ":")).encode()
    pq.write_table(named.replace_schema_metadata({FOOTER_KEY: said}), path, compression="zstd")
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    put = put_new(
        lake, lambda name: f"deletes/{topic}/{name}.parquet", memoryview(data), sha256, now_us, randbits
    )
    times = pc.min_max(named.column("_event_time").cast(pa.int64())).as_py()
    return {
        "url": put.url,
        "modified_at": put.modified_at,
        "what": "deletes",
        "late": False,
        "rows": named.num_rows,
        "bytes": len(data),
        "sha256": sha256,
        "schema_version": schema_version,
        "periods": [],
        "lowest": time_to_text(times["min"]),
        "highest": time_to_text(times["max"]),
    }
