"""A change of a topic as rows on this machine: which keys to delete, then which rows to insert, as SQL for DuckDB.

Shared by the warehouses: DuckDB reads the Parquet files for each of them. What a change is stands in `feed.py`; what a
warehouse makes of the rows, in the file of its name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import duckdb

from loaders.change import Change
from loaders.feed import File
from loaders.shape import List, Struct, Type, join, literal, quoted, read_type

SYSTEM = Struct(
    (
        ("_lake_partition", "INTEGER"),
        ("_offset", "BIGINT"),
        ("_event_id", "VARCHAR"),
        ("_event_time", "TIMESTAMP WITH TIME ZONE"),
        ("_time_from", "VARCHAR"),
        ("_timestamp", "TIMESTAMP WITH TIME ZONE"),
        ("_key", "BLOB"),
        ("_headers", List(Struct((("key", "VARCHAR"), ("value", "BLOB"))))),
        ("_late", "BOOLEAN"),
        ("_tombstone", "BOOLEAN"),
        ("_sequence", "BIGINT"),
    )
)
"""The columns that every row has, as a table of a warehouse has them."""

FILES_IN_GROUP = 64
"""So many files' rows are on their way at once."""

GONE, KEPT, CARRIED, FILES = "tukang_gone", "tukang_kept", "tukang_carried", "tukang_files"

DELETE_NAMED = (
    "DELETE FROM {table} AS t USING tukang_gone AS g "
    'WHERE t."_lake_partition" = g.lake_partition AND t."_offset" = g."offset"'
)
"""Both databases understand it: rows that the change deletes."""

DELETE_BEYOND = (
    "DELETE FROM {table} AS t WHERE NOT EXISTS (SELECT 1 FROM tukang_kept AS k "
    'WHERE k.lake_partition = t."_lake_partition" AND t."_offset" < k."next") '
    "OR EXISTS (SELECT 1 FROM tukang_carried AS c "
    'WHERE c.lake_partition = t."_lake_partition" AND c."offset" = t."_offset") OR t."_sequence" > {newest}'
)
"""Likewise: rows that another epoch does not keep."""


@dataclass(frozen=True)
class Group:
    """Files with the same columns."""

    shape: Struct
    paths: tuple[str, ...]


class Run:
    """One change in a DuckDB connection: what it deletes as temporary tables, what it inserts as queries."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, change: Change, paths: Mapping[int, Path]
    ) -> None:
        """`paths`: where each file of the change lies on this machine."""
        self._connection = connection
        self._change = change
        connection.execute("SET TimeZone = 'UTC'")
        for name, columns in (
            (FILES, "path VARCHAR, sequence BIGINT"),
            (GONE, 'lake_partition INTEGER, "offset" BIGINT, sequence BIGINT'),
            (KEPT, 'lake_partition INTEGER, "next" BIGINT'),
            (CARRIED, 'lake_partition INTEGER, "offset" BIGINT'),
        ):
            connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} ({columns})")
        self._enter_files(change.rows + change.deletes, paths)
        self.deletes = self._enter_gone([str(paths[file.id]) for file in change.deletes])
        for kept in change.kept or ():
            connection.execute(f"INSERT INTO {KEPT} VALUES (?, ?)", [kept.lake_partition, kept.next])
            if kept.carried:
                offsets = sorted(kept.carried)
                connection.execute(
                    f"INSERT INTO {CARRIED} SELECT ?, unnest(?)", [kept.lake_partition, offsets]
                )
        self.groups = self._grouped([str(paths[file.id]) for file in change.rows])

    @property
    def shape(self) -> Struct:
        """The columns of all rows that are inserted, the system's first."""
        return reduce(_joined, (group.shape for group in self.groups), SYSTEM)

    def rows(self, group: Group) -> str:
        """A query for the rows to insert from a group of files, with `_sequence` whether the files have it or not."""
        own = "_sequence" in dict(group.shape.fields)
        sequence = 'coalesce(r."_sequence", f.sequence)' if own else "f.sequence"
        left_out = '"_file", "_sequence"' if own else '"_file"'
        where = ["true"]
        if self.deletes:
            where.append(
                f'NOT EXISTS (SELECT 1 FROM {GONE} AS g WHERE g.lake_partition = r."_lake_partition" '
                'AND g."offset" = r."_offset" AND g.sequence > f.sequence)'
            )
        if self._change.above is not None and own:
            where.append(f'(r."_sequence" IS NULL OR r."_sequence" > {int(self._change.above)})')
        return (
            f'SELECT r.* EXCLUDE ({left_out}), CAST({sequence} AS BIGINT) AS "_sequence" '
            f'FROM {_parquet(group.paths)} AS r JOIN {FILES} AS f ON f.path = r."_file" '
            f"WHERE {' AND '.join(where)}"
        )

    def close(self) -> None:
        """Drops the temporary tables."""
        for name in (GONE, KEPT, CARRIED, FILES):
            self._connection.execute(f"DROP TABLE IF EXISTS {name}")

    def _enter_files(self, files: tuple[File, ...], paths: Mapping[int, Path]) -> None:
        if files:
            self._connection.execute(
                f"INSERT INTO {FILES} SELECT DISTINCT unnest(?), unnest(?)",
                [[str(paths[file.id]) for file in files], [file.sequence for file in files]],
            )

    def _enter_gone(self, paths: list[str]) -> int:
        """Returns how many rows are named, each with the last commit that deletes it."""
        for start in range(0, len(paths), 500):  # files of other kinds than `deletes` may have other columns
            columns = 'r."_lake_partition" AS lake_partition, r."_offset" AS "offset", f.sequence AS sequence'
            self._connection.execute(
                f"INSERT INTO {GONE} SELECT {columns} FROM {_parquet(paths[start : start + 500])} AS r "
                f'JOIN {FILES} AS f ON f.path = r."_file"'
            )
        self._connection.execute(
            f'CREATE OR REPLACE TEMP TABLE {GONE} AS SELECT lake_partition, "offset", max(sequence) AS sequence '
            f"FROM {GONE} GROUP BY ALL"
        )
        found: Any = self._connection.execute(f"SELECT count(*) FROM {GONE}").fetchone()
        return int(found[0])

    def _grouped(self, paths: list[str]) -> list[Group]:
        found: dict[Struct, list[str]] = {}
        for path in paths:
            relation = self._connection.sql(f'SELECT * EXCLUDE ("_file") FROM {_parquet([path])}')
            fields = zip(relation.columns, map(read_type, relation.types), strict=True)
            found.setdefault(Struct(tuple(fields)), []).append(path)
        return [
            Group(shape, tuple(same[start : start + FILES_IN_GROUP]))
            for shape, same in found.items()
            for start in range(0, len(same), FILES_IN_GROUP)
        ]


def _joined(a: Struct, b: Struct) -> Struct:
    both = join(a, b)
    assert isinstance(both, Struct)
    return both


def _parquet(paths: tuple[str, ...] | list[str]) -> str:
    """The files as a table, with the path of each row's file; no column is read from a folder's name."""
    listed = ", ".join(map(literal, paths))
    return f"read_parquet([{listed}], filename = '_file', hive_partitioning = false)"


def columns_of(relation: duckdb.DuckDBPyRelation) -> Struct:
    """The columns of a table or query."""
    types: list[Type] = [read_type(each) for each in relation.types]
    return Struct(tuple(zip(relation.columns, types, strict=True)))


def delete_named(table: str) -> str:
    return DELETE_NAMED.format(table=quoted(table))


def delete_beyond(table: str, change: Change) -> str:
    newest = 2**63 - 1 if change.newest is None else change.newest
    return DELETE_BEYOND.format(table=quoted(table), newest=int(newest))
