"""Publish: one cut becomes objects in the lake and one commit (steps encode, put, commit).

The cut is decided; nothing here decides what goes. A put that fails is tried again under a new name, a commit that got
no answer is asked again under its own id, so neither can double a row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ingest.batch import Cut
from ingest.catalog import Answer, Catalog, CommitConflict
from ingest.encode import Encoded, What, encode
from ingest.lake import Lake
from ingest.lake_object import put_new


@dataclass(frozen=True, slots=True)
class Press:
    """What publishing needs: where to, and the threads, clock and randomness to do it with."""

    lake: Lake
    catalog: Catalog
    encoders: Executor
    uploads: Executor
    now_us: Callable[[], int]
    randbits: Callable[[int], int]
    worker: str

    async def encode(self, cut: Cut, epoch: str, rule_version: int, period_us: int) -> list[Encoded]:
        """The cut as Parquet: at most one file of rows on time, one of late rows, one of dead letters."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.encoders, _encode, cut, epoch, rule_version, period_us)

    async def put(self, topic: str, files: list[Encoded]) -> list[dict[str, Any]]:
        """Uploads all files at once, for as long as it takes, and returns them as a commit names them."""
        loop = asyncio.get_running_loop()
        return list(
            await asyncio.gather(
                *(loop.run_in_executor(self.uploads, self._put_one, topic, file) for file in files)
            )
        )

    def _put_one(self, topic: str, file: Encoded) -> dict[str, Any]:
        return put_fresh(self.lake, topic, file, self.now_us, self.randbits)

    async def commit(
        self, cut: Cut, epoch: str, rule_version: int, files: list[Encoded], entries: list[dict[str, Any]]
    ) -> Answer:
        """Asks for the commit until it is answered. Raises `CommitConflict`, `CommitRefused`.

        Objects that waited too long for their commit are put again: nothing is wrong with them but their age.
        """
        while True:
            try:
                return await self.catalog.commit(
                    cut.topic,
                    {
                        "id": cut.commit_id,
                        "kind": "append",
                        "epoch": epoch,
                        "worker": self.worker,
                        "rule_version": rule_version,
                        "schema_version": cut.schema.version,
                        "lines": [line.to_json() for line in cut.lines],
                        "files": entries,
                    },
                )
            except CommitConflict as conflict:
                if conflict.problem != "object-too-old":
                    raise
                entries = await self.put(cut.topic, files)


def put_fresh(
    lake: Lake,
    topic: str,
    file: Encoded,
    now_us: Callable[[], int],
    randbits: Callable[[int], int],
) -> dict[str, Any]:
    """Uploads one file, for as long as it takes, and returns it as a commit names it."""

    def key(name: str) -> str:
        return object_key(topic, name, file.what, file.late)

    put = put_new(lake, key, file.data, file.sha256, now_us, randbits)
    return file.entry(put.url, put.modified_at)


def object_key(topic: str, name: str, what: What, late: bool) -> str:
    """The key of a fresh object below the prefix: its address says what is in it."""
    if what != "rows":
        return f"{what}/{topic}/{name}.parquet"
    return f"fresh/{topic}/{name}-{'late' if late else 'rows'}.parquet"


def _encode(cut: Cut, epoch: str, rule_version: int, period_us: int) -> list[Encoded]:
    rows, late, dead = cut.tables()
    footer = {
        "topic": cut.topic,
        "epoch": epoch,
        "commit": cut.commit_id,
        "kind": "append",
        "rule_version": rule_version,
        "schema_version": cut.schema.version,
        "lines": [line.to_json() for line in cut.lines],
    }
    wanted: list[tuple[pa.Table | None, What, bool]] = [
        (rows, "rows", False),
        (late, "rows", True),
        (dead, "dead_letters", False),
    ]
    return [
        encode(
            table,
            {**footer, "what": what},
            what=what,
            late=is_late,
            schema_version=cut.schema.version,
            period_us=period_us,
        )
        for table, what, is_late in wanted
        if table is not None and table.num_rows
    ]
