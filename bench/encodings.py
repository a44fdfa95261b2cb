"""`make bench-encodings`: the sealed file's encodings and bloom filter beside others: bytes, writing, reading, one id.

BENCH_ENCODING_ROWS (1000000) scales it. Seconds of CPU on one core; each figure is the best of three.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from bench.lake_data import COLUMNS, events
from ingest.encode import SEALED_GROUP_ROWS, options
from ingest.schema import TopicSchema

ROUNDS = 3


def day(rows: int) -> pa.Table:
    """Events as a sealed file has them: in order of time."""
    columns = [
        {"name": name, "column": name, "type": type_, "reason": None, "first": None}
        for name, type_ in COLUMNS
    ]
    schema = TopicSchema.from_json({"version": 1, "columns": columns, "decisions": []}).arrow()
    [parts] = events(rows, 1, schema)
    return pa.concat_tables([on_time for _, on_time, _ in parts]).sort_by("_event_time").combine_chunks()


def ways(table: pa.Table) -> dict[str, dict[str, Any]]:
    """What the writer is told, by name; the first is what upkeep does."""
    sealed = options(table, sealed=True)
    chosen = sealed | {"bloom_filter_options": None}
    delta = dict(chosen["column_encoding"] or {})
    without = [name for name in chosen["use_dictionary"] or [] if name != "customer"]
    return {
        "as sealed files are": sealed,
        "without the bloom filter": chosen,
        "a dictionary for every column": {"compression": "zstd", "compression_level": 1},
        "plain": {"compression": "zstd", "compression_level": 1, "use_dictionary": False},
        "ids by differences": chosen | {"column_encoding": delta | {"_event_id": "DELTA_BYTE_ARRAY"}},
        "text by lengths": chosen | {"column_encoding": delta | {"note": "DELTA_LENGTH_BYTE_ARRAY"}},
        "doubles by byte": chosen
        | {
            "use_dictionary": [name for name in without if name != "amount"],
            "column_encoding": delta | {"amount": "BYTE_STREAM_SPLIT"},
        },
        "zstd 3": chosen | {"compression_level": 3},
        "snappy": {name: value for name, value in chosen.items() if name != "compression_level"}
        | {"compression": "snappy"},
    }


def best(act: Callable[[], object]) -> float:
    """Seconds of CPU of the best of some rounds: what else the machine does counts little."""
    took = []
    for _ in range(ROUNDS):
        began = time.process_time()
        act()
        took.append(time.process_time() - began)
    return min(took)


def main() -> None:
    pa.set_cpu_count(1)
    table = day(int(os.environ.get("BENCH_ENCODING_ROWS", "1000000")))
    there = table.column("_event_id")[table.num_rows // 2].as_py()
    shown = Table(
        "one file", "MB", "write s", "read s", "an id ms", "no such id ms", title=f"{table.num_rows} rows"
    )
    with tempfile.TemporaryDirectory(prefix="tukang-bench-") as folder, duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        for name, told in ways(table).items():
            path = Path(folder) / "file.parquet"

            def write(path: Path = path, told: dict[str, Any] = told) -> None:
                pq.write_table(
                    table, path, row_group_size=SEALED_GROUP_ROWS, **{"write_page_index": True} | told
                )

            def find(identity: str, path: Path = path) -> None:
                connection.execute(f"SELECT * FROM '{path}' WHERE _event_id = '{identity}'").fetchall()

            figures = [
                best(write),
                best(lambda path=path: pq.read_table(path, use_threads=False)),
                best(lambda find=find: find(there)) * 1_000,
                best(lambda find=find: find(there + "0")) * 1_000,
            ]
            shown.add_row(name, f"{path.stat().st_size / 1e6:.1f}", *(f"{each:.2f}" for each in figures))
    Console(width=110).print(shown)


if __name__ == "__main__":
    main()
