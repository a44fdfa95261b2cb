"""Expire: files whose retention is over leave the live set. The API says which, and says it again inside the commit."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ingest.ids import uuid7
from ingest.lake import Lake
from ingest.lake_object import opened
from ingest.scratch import scratch
from ingest.upkeep.deletes import DELETES_SCHEMA, put_deletes

MOST_REMOVED = 2_000  # files of one commit: each is looked into, and the API looks at each again
FETCHED_AT_ONCE = 8


def covers(patterns: Sequence[str], topic: str) -> bool:
    """Whether a loader that asked for these topics and patterns (that begin with ^) takes the topic."""
    return any(re.fullmatch(each, topic) if each.startswith("^") else each == topic for each in patterns)


def portions(files: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """What one commit takes."""
    for begin in range(0, len(files), MOST_REMOVED):
        yield files[begin : begin + MOST_REMOVED]


@dataclass(frozen=True, slots=True)
class Expirer:
    """Makes expire commits."""

    lake: Lake
    now_us: Callable[[], int]
    randbits: Callable[[int], int]
    name: str

    def commit_of(
        self, topic: str, epoch: str, files: Sequence[Mapping[str, Any]], *, mirrored: bool
    ) -> dict[str, Any]:
        """The body of a commit that removes these files. `mirrored`: some loader wants to know every row that goes."""
        commit_id = uuid7(self.now_us(), self.randbits)
        columns = list(DELETES_SCHEMA.names) if mirrored else ["_lake_partition"]
        with ThreadPoolExecutor(FETCHED_AT_ONCE) as pool:
            tables = list(pool.map(lambda file: self._read(file, columns), files))
        rows, dead, named = Counter[int](), Counter[int](), []
        for file, table in zip(files, tables, strict=True):
            counted = rows if file["what"] == "rows" else dead
            for pair in pc.value_counts(table.column("_lake_partition")).to_pylist():
                counted[pair["values"]] += pair["counts"]
            if mirrored and file["what"] == "rows":
                named.append(table.cast(DELETES_SCHEMA))
        entries = []
        if named:
            footer = {"topic": topic, "epoch": epoch, "commit": commit_id, "kind": "expire"}
            entries.append(self._put_deletes(topic, pa.concat_tables(named), footer))
        return {
            "id": commit_id,
            "kind": "expire",
            "epoch": epoch,
            "worker": self.name,
            "lines": [
                {
                    "lake_partition": number,
                    "rows_in": rows[number],
                    "dead_in": dead[number],
                    "expired": rows[number] + dead[number],
                }
                for number in sorted(rows.keys() | dead.keys())
            ],
            "files": entries,
            "remove": [file["id"] for file in files],
        }

    def _read(self, file: Mapping[str, Any], columns: list[str]) -> pa.Table:
        if file["what"] != "rows":
            columns = ["_lake_partition"]
        return pq.read_table(opened(self.lake, file["url"], file["bytes"]), columns=columns)

    def _put_deletes(self, topic: str, named: pa.Table, footer: Mapping[str, Any]) -> dict[str, Any]:
        with scratch() as folder:
            batches = named.to_batches()
            return put_deletes(self.lake, folder, topic, batches, footer, self.now_us, self.randbits)
