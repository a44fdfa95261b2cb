"""Seal: fresh files become few sealed files per period, by `replace` commits. Safe beside workers, loaders and others.

Whoever was faster wins: a file that is not live any more is a 409, and the work is planned anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ingest.catalog import Catalog, CommitConflict
from ingest.conform import conform
from ingest.encode import PERIOD_US
from ingest.ids import uuid7
from ingest.lake import Lake, patiently
from ingest.lake_object import put_new
from ingest.position import time_to_text
from ingest.schema import TopicSchema
from ingest.scratch import scratch
from ingest.upkeep.deletes import put_deletes
from ingest.upkeep.merge import Merge, Source
from ingest.upkeep.plan import LiveFile, Work
from ingest.upkeep.rolling import Merged

log = logging.getLogger(__name__)

FETCHED_AT_ONCE = 8  # many small objects: fetching is mostly waiting


@dataclass(frozen=True, slots=True)
class Sealer:
    """What sealing needs. `memory` in bytes bounds the merge, whatever the size of a period."""

    catalog: Catalog
    lake: Lake
    now_us: Callable[[], int]
    randbits: Callable[[int], int]
    name: str
    memory: int
    threads: int

    async def replace(
        self,
        topic: str,
        epoch: str,
        work: Work,
        schema: TopicSchema,
        *,
        period_us: int,
        file_bytes: int,
        order_by: Sequence[str] = (),
    ) -> bool:
        """Carries out one planned replace. False: something was not live any more, plan again."""
        commit_id = uuid7(self.now_us(), self.randbits)
        with scratch() as folder:
            commit = await asyncio.to_thread(
                self._prepare,
                folder,
                commit_id,
                topic,
                epoch,
                work,
                schema,
                period_us,
                file_bytes,
                order_by,
            )
        try:
            answer = await self.catalog.commit(topic, commit)
        except CommitConflict as conflict:
            log.info("topic %s: nothing was sealed: %s", topic, conflict)
            return False
        log.info(
            "topic %s: sequence %d, %d files became %d, %d periods sealed",
            topic,
            answer["sequence"],
            len(work.merge),
            sum(1 for file in commit["files"] if file["what"] == "rows"),
            len(work.periods),
        )
        return True

    def _prepare(
        self,
        folder: Path,
        commit_id: str,
        topic: str,
        epoch: str,
        work: Work,
        schema: TopicSchema,
        period_us: int,
        file_bytes: int,
        order_by: Sequence[str],
    ) -> dict[str, Any]:
        """Downloads, merges and uploads; the body of the commit."""
        footer = {
            "topic": topic,
            "epoch": epoch,
            "commit": commit_id,
            "kind": "replace",
            "what": "rows",
            "schema_version": schema.version,
        }
        chosen = [*((file, True) for file in work.merge), *((file, False) for file in work.beside)]
        with ThreadPoolExecutor(FETCHED_AT_ONCE) as pool:
            paths = pool.map(lambda each: self._fetch(folder, each[0], schema), chosen)
            sources = [
                Source(path, file.sequence, file.sealed, drops)
                for (file, drops), path in zip(chosen, paths, strict=True)
            ]
        merge = Merge(folder, sources, schema.arrow(), memory=self.memory, threads=self.threads)
        try:
            twins = merge.find_duplicates()
            rows_in = merge.rows_in()
            entries = [
                self._put_rows(topic, merged, schema.version, period_us)
                for merged in merge.write(
                    "merged",
                    footer,
                    period_us=period_us,
                    sealed_periods=work.periods,
                    file_bytes=file_bytes,
                    order_by=order_by,
                )
            ]
            if twins:
                named = merge.duplicates()
                entries.append(
                    put_deletes(self.lake, folder, topic, named, footer, self.now_us, self.randbits)
                )
        finally:
            merge.close()
        return {
            "id": commit_id,
            "kind": "replace",
            "epoch": epoch,
            "worker": self.name,
            "schema_version": schema.version,
            "lines": [
                {
                    "lake_partition": lake_partition,
                    "rows_in": rows,
                    "rows_out": rows - twins[lake_partition],
                    "duplicates": twins[lake_partition],
                }
                for lake_partition, rows in sorted(rows_in.items())
            ],
            "files": entries,
            "remove": [file.id for file in work.merge],
            "beside": [file.id for file in work.beside],
            "periods": [time_to_text(start) for start in work.periods],
        }

    def _fetch(self, folder: Path, file: LiveFile, schema: TopicSchema) -> Path:
        path = folder / f"source-{file.id}.parquet"
        for attempt in patiently():
            with attempt:
                self.lake.fetch(file.url, path, file.bytes, file.sha256)
        return path if file.schema_version == schema.version else conformed(path, schema)

    def _put_rows(self, topic: str, merged: Merged, schema_version: int, period_us: int) -> dict[str, Any]:
        """Uploads one merged file and lets go of it."""
        entry = {
            "what": "rows",
            "late": False,
            "rows": merged.rows,
            "schema_version": schema_version,
            "newest_sequence": merged.newest_sequence,
            "periods": [
                {"start": time_to_text(start), "rows": rows} for start, rows in sorted(merged.periods.items())
            ],
            "lowest": time_to_text(merged.lowest_us),
            "highest": time_to_text(merged.highest_us),
        }
        put = self._put(
            lambda name: sealed_key(topic, name, merged.period_us, period_us), merged.path, merged.sha256
        )
        merged.path.unlink()
        return entry | put | {"bytes": merged.bytes, "sha256": merged.sha256}

    def _put(self, key: Callable[[str], str], path: Path, sha256: str) -> dict[str, Any]:
        with pa.memory_map(str(path)) as mapped:
            data = memoryview(mapped.read_buffer())
            put = put_new(self.lake, key, data, sha256, self.now_us, self.randbits)
        return {"url": put.url, "modified_at": put.modified_at}


def sealed_key(topic: str, name: str, period_start_us: int | None, period_us: int) -> str:
    """The key of a merged file below the prefix; the rest of periods that are not sealed stays among the fresh ones."""
    if period_start_us is None:
        return f"fresh/{topic}/{name}-rows.parquet"
    start = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=period_start_us)
    part = start.strftime(
        "event_date=%Y-%m-%d" if period_us == PERIOD_US["day"] else "event_hour=%Y-%m-%d-%H"
    )
    return f"sealed/{topic}/{part}/{name}.parquet"


def conformed(path: Path, schema: TopicSchema) -> Path:
    """The file itself when its columns have the types of `schema`; else a copy of it that has, row group by row group.

    DuckDB would round a 64-bit integer that became a double; here what does not fit goes to the sibling.
    """
    with pq.ParquetFile(path) as file:
        wanted = {field.name: field.type for field in schema.arrow()}
        if all(wanted.get(field.name, field.type) == field.type for field in file.schema_arrow):
            return path
        copy = path.with_suffix(".conformed.parquet")
        writer: pq.ParquetWriter | None = None
        for number in range(file.num_row_groups):
            table = conform(file.read_row_group(number), schema)
            writer = writer or pq.ParquetWriter(copy, table.schema)
            writer.write_table(table)
        if writer is None:
            return path
        writer.close()
    path.unlink()
    return copy
