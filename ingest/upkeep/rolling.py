"""Sorted batches become Parquet files of about one size, one period in each, with what a rebuild needs in the footer.

Local files only; one row group is in memory at a time, and a file has none that is small but its last.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ingest.encode import FOOTER_KEY, SEALED_GROUP_ROWS, options

BATCH_ROWS = 8_192  # that are in memory at once, before they are a row group
GROUP_BYTES = 128 << 20  # of a row group in memory, at most: one of wide rows has fewer

SEQUENCE = pa.field("_sequence", pa.int64())


@dataclass(slots=True)
class Merged:
    """A file that was written, with the figures that its commit names. `period_us` None: the rest, of any period."""

    path: Path
    period_us: int | None
    rows: int = 0
    bytes: int = 0
    sha256: str = ""
    lowest_us: int | None = None
    highest_us: int | None = None
    newest_sequence: int = 0
    periods: dict[int, int] = field(default_factory=dict)  # start of the period -> rows


def with_sequence(schema: pa.Schema) -> pa.Schema:
    """The schema of a file that upkeep writes: `_sequence` behind the other system columns."""
    at = sum(1 for name in schema.names if name.startswith("_"))
    return schema.insert(at, SEQUENCE) if "_sequence" not in schema.names else schema


def rolled(
    batches: Iterable[tuple[bool, pa.RecordBatch]],
    stem: Path,
    schema: pa.Schema,
    footer: Mapping[str, Any],
    period_us: int,
    file_bytes: int,
    group_bytes: int,
) -> Iterator[Merged]:
    """Writes batches, each with whether it is of sealed periods: those first, a period after the other, then the rest.

    Files are `STEM-0.parquet`, `STEM-1.parquet` ...; a new one begins with a new period, or at `file_bytes`.
    """
    number = 0
    writing: _File | None = None
    for sealed, batch in batches:
        rows = pa.Table.from_batches([batch])
        for period, part in _by_period(rows, period_us) if sealed else [(None, rows)]:
            if writing is not None and (writing.merged.period_us != period or writing.size >= file_bytes):
                yield writing.close()
                writing = None
            if writing is None:
                writing = _File(
                    stem.with_name(f"{stem.name}-{number}.parquet"), period, schema, footer, group_bytes
                )
                number += 1
            writing.add(part, period_us)
    if writing is not None:
        yield writing.close()


def _by_period(rows: pa.Table, period_us: int) -> Iterator[tuple[int, pa.Table]]:
    starts = np.asarray(rows.column("_event_time").cast(pa.int64()).to_numpy()) // period_us * period_us
    edges = [0, *(np.flatnonzero(np.diff(starts)) + 1).tolist(), len(starts)]
    for start, end in itertools.pairwise(edges):
        if end > start:
            yield int(starts[start]), rows.slice(start, end - start)


class _File:
    """One Parquet file while it is written."""

    def __init__(
        self,
        path: Path,
        period_us: int | None,
        schema: pa.Schema,
        footer: Mapping[str, Any],
        group_bytes: int,
    ) -> None:
        self.merged = Merged(path, period_us)
        self._group_bytes = group_bytes
        self._schema = schema.with_metadata(
            {FOOTER_KEY: json.dumps(dict(footer), separators=(",", ":")).encode()}
        )
        self._sink = path.open("wb")
        self._writer: pq.ParquetWriter | None = None
        self._held: list[pa.Table] = []
        self._held_rows = self._held_bytes = 0

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._sink.tell()

    def add(self, rows: pa.Table, period_us: int) -> None:
        """Appends rows; they are written by whole row groups."""
        rows = rows.select(self._schema.names).cast(self._schema)
        if self._held_rows + rows.num_rows > SEALED_GROUP_ROWS or self._held_bytes > self._group_bytes:
            self._write()
        self._held.append(rows)
        self._held_rows += rows.num_rows
        self._held_bytes += rows.nbytes
        times = rows.column("_event_time").cast(pa.int64())
        bounds = pc.min_max(times).as_py()
        merged = self.merged
        merged.rows += rows.num_rows
        merged.newest_sequence = max(merged.newest_sequence, pc.max(rows.column("_sequence")).as_py())
        merged.lowest_us = bounds["min"] if merged.lowest_us is None else min(merged.lowest_us, bounds["min"])
        merged.highest_us = (
            bounds["max"] if merged.highest_us is None else max(merged.highest_us, bounds["max"])
        )
        starts, counts = np.unique(np.asarray(times.to_numpy()) // period_us * period_us, return_counts=True)
        for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
            merged.periods[start] = merged.periods.get(start, 0) + count

    def _write(self) -> None:
        """What is held becomes one row group."""
        rows, self._held = pa.concat_tables(self._held), []
        self._held_rows = self._held_bytes = 0
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._sink, self._schema, **options(rows, sealed=True))
        self._writer.write_table(rows, row_group_size=rows.num_rows)

    def close(self) -> Merged:
        """Ends the file and fills in its size and checksum."""
        if self._held_rows:
            self._write()
        assert self._writer is not None
        self._writer.close()
        self._sink.close()
        with self.merged.path.open("rb") as file:
            self.merged.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        self.merged.bytes = self.merged.path.stat().st_size
        return self.merged
