"""Merge: many files become few, sorted, each row once, without duplicates; memory is bounded whatever their size.

DuckDB does the work that may not fit in memory (finding equal ids, sorting) and spills it to disk; pyarrow writes the
Parquet, since it alone keeps types, footers and encodings exactly as workers write them. A merge of sorted files by
hand would bound the sorting too, but not the search for equal ids, which may stand at both ends of a period.

What DuckDB can spill has an end too: the more runs a sort has, the more memory merging them takes. So ids are looked
at in portions by their hash, and rows are sorted a span of time after the other, each of what memory holds.

Nothing here talks to the API or the store: local files in, local files out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.position import time_to_text
from ingest.times import LATEST
from ingest.upkeep.deletes import DELETES_SCHEMA
from ingest.upkeep.rolling import BATCH_ROWS, GROUP_BYTES, Merged, rolled, with_sequence

LEAST_BYTES = 64 << 20  # below that DuckDB reads no wide file
THREAD_BYTES = 64 << 20  # of memory, for each thread
FOOTER_BYTES = 48 << 10  # that DuckDB holds of a file, and does not count
SPILLED = 8  # times the memory: what is left to DuckDB's spill when it groups ids
ID_BYTES = 128  # of an id while they are grouped
COPY_BYTES = 512  # of a row with an id that others have, while they are ranked
SORTED_SHARE = 3  # one part of the memory is the rows that are sorted, the others are what sorting takes
GROUP_SHARE = 4  # a row group takes at most this part as much again, beside DuckDB
CELL_BYTES = 16  # that DuckDB wants for a value beside what Arrow does
SPANS = 1440  # of a period: rows are counted by these, to divide them


@dataclass(frozen=True, slots=True)
class Source:
    """One file to merge. Rows without `_sequence` are of the commit `sequence`."""

    path: Path
    sequence: int
    sealed: bool
    drops: bool = True  # False: only compared with (`beside`); its rows stay where they are


@dataclass(frozen=True, slots=True)
class _Span:
    """Rows that are sorted together: of these files, in [start, end) of time, in microseconds."""

    sealed: bool  # whether of the periods that are sealed, or of the rest
    start: int
    end: int
    paths: Collection[str]


class Merge:
    """One merge in a folder of its own. `memory` in bytes is DuckDB's and of the footers; pyarrow adds a row group or
    two.
    """

    def __init__(
        self, folder: Path, sources: Sequence[Source], schema: pa.Schema, *, memory: int, threads: int
    ) -> None:
        """`schema`: of a full row as it is now, `_sequence` left out."""
        self.folder = folder
        self.sources = list(sources)
        self.schema = with_sequence(schema)
        self.memory = max(LEAST_BYTES, memory - len(self.sources) * FOOTER_BYTES)
        self._duckdb = duckdb.connect(
            config={
                "memory_limit": f"{self.memory // (1 << 20)}MiB",
                "temp_directory": str(folder / "spill"),
                "threads": max(1, min(threads, self.memory // THREAD_BYTES)),
                "preserve_insertion_order": False,
            }
        )
        self._duckdb.execute("SET TimeZone = 'UTC'")
        # Each query asks for the footers of all files, which are thousands; their data the system keeps already.
        self._duckdb.execute("SET parquet_metadata_cache = true; SET enable_external_file_cache = false")
        self._duckdb.register("known", self._known())
        self._duckdb.execute(f"CREATE VIEW source AS FROM {_files(str(each.path) for each in self.sources)}")
        leaving = [str(each.path) for each in self.sources if each.drops]
        rows = _files(leaving) if leaving else "source WHERE false"
        self._duckdb.execute(f"CREATE VIEW leaving AS FROM {rows}")

    def _known(self) -> pa.Table:
        """What is known of each file, by names that no column of an event has (`names.column_name`)."""
        return pa.table(
            {
                "_file": [str(source.path) for source in self.sources],
                "_file_sequence": pa.array([source.sequence for source in self.sources], pa.int64()),
                "_file_sealed": [source.sealed for source in self.sources],
                "_file_drops": [source.drops for source in self.sources],
            }
        )

    def find_duplicates(self) -> Counter[int]:
        """Finds the rows to leave out: of each id the sealed copy stays, else the first by (event time, lake partition,
        offset). Only rows of sources with `drops` leave. How many, by lake partition.
        """
        # By hashes of ids, which take a quarter of the memory and two thirds of the time: who shares one by chance is
        # told apart when copies are ranked, by the id itself.
        self._duckdb.execute("CREATE TABLE twins (id_hash UBIGINT, copies BIGINT)")
        self._duckdb.execute(
            "CREATE TABLE dropped (_lake_partition INTEGER, _offset BIGINT, _event_time TIMESTAMPTZ)"
        )
        [(ids,)] = self._duckdb.execute("SELECT count(*) FROM source").fetchall()
        for portion in _portions(ids, ID_BYTES, self.memory * SPILLED):
            self._duckdb.execute(
                f"""INSERT INTO twins SELECT hash(_event_id) AS id_hash, count(*) FROM source
                    WHERE _event_id IS NOT NULL AND {portion} GROUP BY ALL HAVING count(*) > 1"""
            )
        [(copies,)] = self._duckdb.execute("SELECT coalesce(sum(copies), 0)::BIGINT FROM twins").fetchall()
        for portion in _portions(copies, COPY_BYTES, self.memory) if copies else ():
            self._duckdb.execute(
                f"""INSERT INTO dropped SELECT _lake_partition, _offset, _event_time FROM (
                        SELECT _lake_partition, _offset, _event_time, _file_drops, row_number() OVER (
                            PARTITION BY _event_id
                            ORDER BY _file_drops, _file_sealed DESC, _event_time, _lake_partition, _offset
                        ) AS place
                        FROM (SELECT _lake_partition, _offset, _event_id, _event_time, _file, hash(_event_id) AS id_hash
                              FROM source WHERE _event_id IS NOT NULL AND {portion})
                        SEMI JOIN twins USING (id_hash) JOIN known USING (_file)
                    ) WHERE place > 1 AND _file_drops"""
            )
        self._duckdb.execute("DROP TABLE twins")
        return self._by_partition("dropped")

    def duplicates(self) -> Iterator[pa.RecordBatch]:
        """What `find_duplicates` found, in order, as `deletes` files name it."""
        for batch in self._duckdb.execute("FROM dropped ORDER BY ALL").to_arrow_reader(BATCH_ROWS):
            yield from pa.Table.from_batches([batch]).cast(DELETES_SCHEMA).to_batches()

    def rows_in(self) -> Counter[int]:
        """Rows by lake partition of the sources that leave."""
        return self._by_partition("leaving")

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
        batches = self._sorted(period_us, sealed_periods, order_by)
        group_bytes = min(GROUP_BYTES, self.memory // GROUP_SHARE)
        yield from rolled(
            batches, self.folder / name, self.schema, footer, period_us, file_bytes, group_bytes
        )

    def _sorted(
        self, period_us: int, sealed_periods: Sequence[int], order_by: Sequence[str]
    ) -> Iterator[tuple[bool, pa.RecordBatch]]:
        """The rows that stay, each batch with whether its periods are sealed: those come first, one after the other."""
        period = _floored(period_us)
        times = ["_event_time", "_lake_partition", "_offset"]
        order = ", ".join([period, *map(_quoted, order_by), *times] if order_by else times)
        starts = ", ".join(map(str, sealed_periods)) or "NULL"
        # By other columns a period is sorted whole: where their values lie no statistics say.
        counted_by = period_us if order_by else period_us // SPANS
        for span in self._spans(period_us, set(sealed_periods), counted_by):
            inside = f"_event_time >= {_time(span.start)} AND _event_time < {_time(span.end)}"
            wanted = f"{period} IN ({starts})"
            if not span.sealed:
                wanted = f"NOT coalesce({wanted}, false)"
            found = self._duckdb.execute(
                f"""SELECT * EXCLUDE (_file, _file_sequence)
                           REPLACE (coalesce(_sequence, _file_sequence) AS _sequence)
                    FROM (SELECT NULL::BIGINT AS _sequence WHERE false
                          UNION ALL BY NAME FROM {_files(sorted(span.paths))} WHERE {inside} AND {wanted})
                    JOIN (SELECT _file, _file_sequence FROM known) USING (_file)
                    ANTI JOIN (FROM dropped WHERE {inside}) USING (_lake_partition, _offset)
                    ORDER BY {order}"""
            )
            for batch in found.to_arrow_reader(BATCH_ROWS):
                yield span.sealed, batch

    def _spans(self, period_us: int, sealed: Collection[int], counted_by: int) -> Iterator[_Span]:
        """Divides the rows into what memory holds while it is sorted."""
        counts = self._duckdb.execute(
            f"""SELECT {_floored(counted_by)} AS start, _file, count(*)
                FROM leaving GROUP BY ALL ORDER BY ALL"""
        ).fetchall()
        if not counts:
            return
        most = max(1, self.memory // SORTED_SHARE // self._row_bytes())
        for is_sealed in (True, False):
            rows, start, paths = 0, 0, set[str]()
            for bucket, found in groupby(counts, itemgetter(0)):
                if (bucket // period_us * period_us in sealed) is not is_sealed:
                    continue
                files = list(found)
                more = sum(count for _, _, count in files)
                if rows and rows + more > most:
                    yield _Span(is_sealed, start, bucket, paths)
                    rows, paths = 0, set()
                start = start if rows else bucket
                end = bucket + counted_by
                rows += more
                paths |= {path for _, path, _ in files}
            if rows:
                yield _Span(is_sealed, start, end, paths)

    def _row_bytes(self) -> int:
        """About how much memory a row takes, by the first rows of the largest file."""
        largest = max(
            (source.path for source in self.sources if source.drops), key=lambda path: path.stat().st_size
        )
        with pq.ParquetFile(largest) as file:
            batch = next(file.iter_batches(BATCH_ROWS), None)
        if batch is None:
            return 1
        row_bytes: int = batch.nbytes // batch.num_rows + CELL_BYTES * batch.num_columns
        return row_bytes

    def _by_partition(self, rows: str) -> Counter[int]:
        found = self._duckdb.execute(f"SELECT _lake_partition, count(*) FROM {rows} GROUP BY ALL").fetchall()
        return Counter(dict(found))

    def close(self) -> None:
        """Lets go of DuckDB's memory and files."""
        self._duckdb.close()


def most_files(memory: int) -> int:
    """Of a merge in so much memory: their footers take half of it at most."""
    return max(LEAST_BYTES, memory) // 2 // FOOTER_BYTES


def _files(paths: Iterable[str]) -> str:
    """The rows of some files, each with the path of its file as `_file`."""
    listed = "[" + ", ".join("'" + path.replace("'", "''") + "'" for path in paths) + "]"
    return f"read_parquet({listed}, union_by_name = true, filename = '_file', hive_partitioning = false)"


def _portions(ids: int, each: int, limit: int) -> list[str]:
    """Conditions that divide so many ids by their hash, so that those of one, of `each` bytes, are within the limit."""
    count = max(1, -(-ids * each // limit))
    return [f"hash(_event_id) % {count} = {number}" for number in range(count)] if count > 1 else ["true"]


def _floored(us: int) -> str:
    """The start of the `us` in which an event's time is; DuckDB's own division has the times before 1970 wrong."""
    return f"(epoch_us(_event_time) - (epoch_us(_event_time) % {us} + {us}) % {us})"


def _time(us: int) -> str:
    return f"TIMESTAMPTZ '{time_to_text(us) if us <= LATEST else 'infinity'}'"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
