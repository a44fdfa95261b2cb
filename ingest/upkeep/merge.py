"""Merge: many files become few, sorted, each row once, without duplicates; memory is bounded whatever their size.

DuckDB does the work that may not fit in memory (finding equal ids, sorting) and spills it to disk; pyarrow writes the
Parquet, since it alone keeps types, footers and encodings exactly as workers write them. A merge of sorted files by
hand would bound the sorting too, but not the search for equal ids, which may stand at both ends of a period.

Nothing here talks to the API or the store: local files in, local files out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from ingest.encode import ROW_GROUP_ROWS
from ingest.upkeep.rolling import Merged, rolled, with_sequence


@dataclass(frozen=True, slots=True)
class Source:
    """One file to merge. Rows without `_sequence` are of the commit `sequence`."""

    path: Path
    sequence: int
    sealed: bool
    drops: bool = True  # False: only compared with (`beside`); its rows stay where they are


@dataclass(frozen=True, slots=True)
class Dropped:
    """A duplicate that the merge left out: which row, of how many copies by lake partition."""

    lake_partition: int
    offset: int
    event_time_us: int


class Merge:
    """One merge in a folder of its own. `memory` in bytes is DuckDB's; pyarrow adds a row group or two."""

    def __init__(
        self, folder: Path, sources: Sequence[Source], schema: pa.Schema, *, memory: int, threads: int
    ) -> None:
        """`schema`: of a full row as it is now, `_sequence` left out."""
        self.folder = folder
        self.sources = list(sources)
        self.schema = with_sequence(schema)
        self._duckdb = duckdb.connect(
            config={
                "memory_limit": f"{memory // (1 << 20)}MiB",
                "temp_directory": str(folder / "spill"),
                "threads": threads,
                "preserve_insertion_order": False,
            }
        )
        self._duckdb.register("known", self._known())
        paths = [str(source.path) for source in self.sources]
        self._duckdb.execute(
            """CREATE VIEW source AS SELECT * REPLACE (coalesce(_sequence, known.sequence) AS _sequence), sealed, drops
               FROM (SELECT NULL::BIGINT AS _sequence WHERE false UNION ALL BY NAME
                     SELECT * FROM read_parquet($paths, union_by_name = true, filename = true)) AS rows
               JOIN known USING (filename)""".replace("$paths", _sql_list(paths))
        )

    def _known(self) -> pa.Table:
        return pa.table(
            {
                "filename": [str(source.path) for source in self.sources],
                "sequence": pa.array([source.sequence for source in self.sources], pa.int64()),
                "sealed": [source.sealed for source in self.sources],
                "drops": [source.drops for source in self.sources],
            }
        )

    def duplicates(self) -> list[Dropped]:
        """Finds the rows to leave out: of each id the sealed copy stays, else the first by (event time, lake partition,
        offset). Only rows of sources with `drops` leave.
        """
        self._duckdb.execute(
            """CREATE OR REPLACE TABLE dropped AS
               WITH twins AS (
                   SELECT _event_id FROM source WHERE _event_id IS NOT NULL GROUP BY ALL HAVING count(*) > 1
               ), ranked AS (
                   SELECT _lake_partition, _offset, _event_time, drops, row_number() OVER (
                       PARTITION BY _event_id
                       ORDER BY drops, sealed DESC, _event_time, _lake_partition, _offset
                   ) AS place
                   FROM source SEMI JOIN twins USING (_event_id)
               )
               SELECT _lake_partition, _offset, epoch_us(_event_time) AS event_time_us
               FROM ranked WHERE place > 1 AND drops"""
        )
        rows = self._duckdb.execute("FROM dropped ORDER BY ALL").fetchall()
        return [Dropped(*row) for row in rows]

    def rows_in(self) -> dict[int, int]:
        """Rows by lake partition of the sources that leave."""
        rows = self._duckdb.execute(
            "SELECT _lake_partition, count(*) FROM source WHERE drops GROUP BY ALL"
        ).fetchall()
        return dict(rows)

    def write(
        self,
        name: str,
        footer: Mapping[str, Any],
        *,
        period_us: int,
        sealed_periods: Sequence[int],
        file_bytes: int,
        order_by: Sequence[str] = (),
    ) -> Iterator[Merged]:
        """Writes the rows that stay: of each sealed period (start in microseconds) files of about `file_bytes`, and one
        file of the rest. `order_by`: columns to sort by instead of the event time.
        """
        starts = ", ".join(str(start) for start in sealed_periods) or "NULL"
        order = ", ".join([*map(_quoted, order_by), "_event_time", "_lake_partition", "_offset"])
        reader = self._duckdb.execute(
            f"""SELECT CASE WHEN period IN ({starts}) THEN period END AS period, COLUMNS(rows.* EXCLUDE (period))
                FROM (SELECT * EXCLUDE (filename, sealed, drops),
                             epoch_us(_event_time) // {period_us} * {period_us} AS period
                      FROM source WHERE drops) AS rows
                ANTI JOIN dropped USING (_lake_partition, _offset)
                ORDER BY period NULLS LAST, {order}"""
        ).to_arrow_reader(ROW_GROUP_ROWS)
        yield from rolled(reader, self.folder / name, self.schema, footer, period_us, file_bytes)

    def close(self) -> None:
        """Lets go of DuckDB's memory and files."""
        self._duckdb.close()


def _sql_list(texts: Sequence[str]) -> str:
    return "[" + ", ".join("'" + text.replace("'", "''") + "'" for text in texts) + "]"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
