"""Erase: every live file with hits becomes one without them, by `erase` commits that name each row that went.

Scanned are all live files, rows and dead letters, until none is left that was not looked at, and all that Kafka had
when the erasure was asked for is among them.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ingest.encode import encode
from ingest.ids import uuid7
from ingest.lake import Lake, LakeMissing, patiently
from ingest.lake_object import got, opened, put_new
from ingest.position import time_from_text
from ingest.publish import object_key
from ingest.scratch import scratch
from ingest.upkeep.deletes import DELETES_SCHEMA, put_deletes
from ingest.upkeep.matching import Wanted, columns_to_read, hits, may_hold
from ingest.upkeep.rolling import SEQUENCE
from ingest.upkeep.seal import sealed_key

MOST_FILES = 400  # of one commit: with what they become and the deletes it stays below the API's limit
SCANNED_AT_ONCE = 4

File = Mapping[str, Any]


@dataclass(slots=True)
class Hits:
    """What a scan found in one file."""

    file: File
    rows: int


@dataclass(slots=True)
class Erased:
    """What one commit did."""

    commit: dict[str, Any]
    rows: int = 0
    dead_letters: int = 0
    files: list[str] = field(default_factory=list)


def portions(found: Sequence[Hits]) -> Iterator[Sequence[Hits]]:
    """What one commit takes."""
    for begin in range(0, len(found), MOST_FILES):
        yield found[begin : begin + MOST_FILES]


@dataclass(frozen=True, slots=True)
class Eraser:
    """Scans files and makes erase commits."""

    lake: Lake
    now_us: Callable[[], int]
    randbits: Callable[[int], int]
    name: str

    def scan(self, files: Sequence[File], wanted: Wanted) -> list[Hits]:
        """The files that hold a value. Only columns that may hold it are read; statistics skip the rest."""
        with ThreadPoolExecutor(SCANNED_AT_ONCE) as pool:
            counts = pool.map(lambda file: self._count(file, wanted), files)
            return [Hits(file, rows) for file, rows in zip(files, counts, strict=True) if rows]

    def _count(self, file: File, wanted: Wanted) -> int:
        with pq.ParquetFile(opened(self.lake, file["url"], file["bytes"])) as parquet:
            schema = parquet.schema_arrow
            if not may_hold(parquet.metadata, schema, wanted):
                return 0
            columns = columns_to_read(schema, wanted)
            groups = range(parquet.num_row_groups)
            return sum(hits(parquet.read_row_group(n, columns=columns), wanted).true_count for n in groups)

    def commit_of(
        self,
        topic: str,
        epoch: str,
        found: Sequence[Hits],
        wanted: Wanted,
        *,
        period_us: int,
        schema_version: int,
    ) -> Erased:
        """Puts what the files become, and gives the body of the commit."""
        commit_id = uuid7(self.now_us(), self.randbits)
        footer = {
            "topic": topic,
            "epoch": epoch,
            "commit": commit_id,
            "kind": "erase",
            "schema_version": schema_version,
        }
        counts = {name: Counter[int]() for name in ("rows_in", "rows_out", "dead_in", "dead_out")}
        entries, named = [], []
        erased = Erased({})
        for each in found:
            file, what = each.file, each.file["what"]
            table = self._read(file)
            gone = hits(table, wanted)
            left = table.filter(pc.invert(gone))
            came, went = ("rows_in", "rows_out") if what == "rows" else ("dead_in", "dead_out")
            counts[came] += _by_partition(table)
            counts[went] += _by_partition(left)
            erased.files.append(file["url"])
            if what == "rows":
                named.append(table.filter(gone).select(DELETES_SCHEMA.names).cast(DELETES_SCHEMA))
                erased.rows += gone.true_count
            else:
                erased.dead_letters += gone.true_count
            if left.num_rows:
                entries.append(self._put(topic, file, left, footer, period_us))
        if erased.rows:
            with scratch() as folder:
                batches = pa.concat_tables(named).to_batches()
                entries.append(
                    put_deletes(self.lake, folder, topic, batches, footer, self.now_us, self.randbits)
                )
        partitions = sorted({number for counted in counts.values() for number in counted})
        erased.commit = {
            "id": commit_id,
            "kind": "erase",
            "epoch": epoch,
            "worker": self.name,
            "schema_version": schema_version,
            "lines": [
                {"lake_partition": number}
                | {name: counted[number] for name, counted in counts.items()}
                | {
                    "erased": counts["rows_in"][number] - counts["rows_out"][number]
                    + counts["dead_in"][number] - counts["dead_out"][number]
                }
                for number in partitions
            ],
            "files": entries,
            "remove": [each.file["id"] for each in found],
        }  # fmt: skip
        return erased

    def _read(self, file: File) -> pa.Table:
        table = pq.read_table(io.BytesIO(got(self.lake, file["url"])))
        if file["what"] == "rows" and "_sequence" not in table.schema.names:
            at = sum(1 for name in table.schema.names if name.startswith("_"))
            table = table.add_column(
                at, SEQUENCE, pa.array([file["sequence"]] * table.num_rows, SEQUENCE.type)
            )
        return table

    def _put(
        self, topic: str, file: File, left: pa.Table, footer: Mapping[str, Any], period_us: int
    ) -> dict[str, Any]:
        what = file["what"]
        sealed = f"sealed/{topic}/" in file["url"]
        made = encode(
            left, {**footer, "what": what}, what=what, late=file["late"],
            schema_version=file["schema_version"], period_us=period_us, sealed=sealed,
        )  # fmt: skip
        start = time_from_text(file["periods"][0]["start"]) if sealed else None

        def key(name: str) -> str:
            return (
                sealed_key(topic, name, start, period_us)
                if sealed
                else object_key(topic, name, what, made.late)
            )

        put = put_new(self.lake, key, made.data, made.sha256, self.now_us, self.randbits)
        entry = made.entry(put.url, put.modified_at)
        if what == "rows":
            entry["newest_sequence"] = pc.max(left.column("_sequence")).as_py()
        return entry


def holding(lake: Lake, topic: str, wanted: Wanted) -> Iterator[tuple[str, str | None]]:
    """Every object of a topic that the store still has, and every version it lists, that holds a value: the proof."""
    for folder in ("fresh", "sealed", "dead_letters"):
        for found in lake.objects(f"{folder}/{topic}/"):
            if _holds(lake, found.url, None, wanted):
                yield found.url, None
        if lake.versioned():
            for url, version in lake.versions(f"{folder}/{topic}/"):
                if _holds(lake, url, version, wanted):
                    yield url, version


def _holds(lake: Lake, url: str, version: str | None, wanted: Wanted) -> bool:
    if not url.endswith(".parquet"):
        return False
    try:
        for attempt in patiently():
            with attempt:
                data = lake.get_version(url, version)
        with pq.ParquetFile(io.BytesIO(data)) as parquet:
            columns = columns_to_read(parquet.schema_arrow, wanted)
            groups = (parquet.read_row_group(each, columns=columns) for each in range(parquet.num_row_groups))
            return any(hits(group, wanted).true_count for group in groups)
    except (LakeMissing, pa.ArrowInvalid):
        return False


def _by_partition(table: pa.Table) -> Counter[int]:
    pairs = pc.value_counts(table.column("_lake_partition")).to_pylist()
    return Counter({pair["values"]: pair["counts"] for pair in pairs})
