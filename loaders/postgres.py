"""PostgreSQL as a warehouse: a table for each topic, structs as columns `a__b`, lists as JSONB or child tables.

DuckDB reads the Parquet files and writes what COPY reads. The cursor's row is locked for the whole transaction, so that
of two loaders the second sees what the first has done. What the columns are is `columns.py`.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from loaders.change import Change, Cursor
from loaders.columns import (
    KEYS,
    MORE,
    Table,
    child_rows,
    column_name,
    element_shape,
    grown,
    lists,
    values,
)
from loaders.run import CARRIED, GONE, KEPT, Run, columns_of, delete_beyond, delete_named
from loaders.shape import Struct, literal, quoted
from loaders.warehouse import BEGIN_ANEW, WarehouseAway, WarehouseRefused

CURSORS = "_tukang_cursors"

_MAKE_CURSORS = f"""
CREATE TABLE IF NOT EXISTS {CURSORS} (
    topic text PRIMARY KEY, loader text NOT NULL, epoch text, sequence bigint, deletes bigint,
    unnest boolean NOT NULL, tables jsonb NOT NULL
)"""
_LOCK_OF_MAKING = 6_021_023  # any number that every loader knows
_TEMPORARY = {
    GONE: 'lake_partition integer, "offset" bigint, sequence bigint',
    KEPT: 'lake_partition integer, "next" bigint',
    CARRIED: 'lake_partition integer, "offset" bigint',
}
_COPIED = "FORMAT csv, HEADER false, NULLSTR '', QUOTE '\"', ESCAPE '\"'"
_ORPHANS = (
    "DELETE FROM {child} AS c WHERE NOT EXISTS (SELECT 1 FROM {table} AS t "
    'WHERE t."_lake_partition" = c."_lake_partition" AND t."_offset" = c."_offset")'
)
_PASSING = (
    "starting up",
    "shutting down",
    "too many",
    "recovery",
    "terminating",
    "remaining connection slots",
)


class PostgreSQL:
    """A `Warehouse` in the first schema of the connection's search path."""

    def __init__(self, url: str, loader: str, *, unnest: bool = False) -> None:
        self._url = url
        self._loader = loader
        self._unnest = unnest
        self._connection: psycopg.Connection[Any] | None = None
        self._made = False

    def cursor(self, topic: str) -> Cursor | None:
        """See `Warehouse`."""
        with self._transaction() as connection:
            row = self._row(connection, topic, "")
            return row[0] if row else None

    def apply(self, topic: str, change: Change, paths: Mapping[int, Path]) -> bool:
        """See `Warehouse`."""
        with self._transaction() as connection:
            connection.execute(
                f"INSERT INTO {CURSORS} (topic, loader, unnest, tables) VALUES (%s, %s, %s, '[]') "
                "ON CONFLICT DO NOTHING",
                [topic, self._loader, self._unnest],
            )
            row = self._row(connection, topic, "FOR UPDATE")
            assert row is not None
            before, tables = row
            if before != change.before:
                return False
            with tempfile.TemporaryDirectory(prefix="tukang-copy-") as folder, duckdb.connect() as staging:
                staging.execute(f"SET temp_directory = {literal(folder)}")
                staging.execute("SET preserve_insertion_order = false")
                _Load(connection, staging, Path(folder), topic, tables, self._unnest).do(change, paths)
            connection.execute(
                f"UPDATE {CURSORS} SET epoch = %s, sequence = %s, deletes = %s WHERE topic = %s",
                [change.cursor.epoch, change.cursor.sequence, change.cursor.deletes, topic],
            )
        return True

    def close(self) -> None:
        """See `Warehouse`."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _row(
        self, connection: psycopg.Connection[Any], topic: str, lock: str
    ) -> tuple[Cursor | None, list[Table]] | None:
        found = connection.execute(
            f"SELECT loader, unnest, epoch, sequence, deletes, tables FROM {CURSORS} WHERE topic = %s {lock}",
            [topic],
        ).fetchone()
        if found is None:
            return None
        loader, unnest, epoch, sequence, deletes, tables = found
        if loader != self._loader:
            raise WarehouseRefused(
                f"{topic} is loaded into this schema by the loader {loader}, not {self._loader}: two would double its "
                f"rows. Use --loader {loader}, or another schema."
            )
        if unnest != self._unnest:
            raise WarehouseRefused(
                f"{topic} was first loaded {'with' if unnest else 'without'} --unnest: load it in the same way, or "
                "drop its tables and its row in _tukang_cursors to begin anew."
            )
        return None if epoch is None else Cursor(epoch, sequence, deletes), [
            Table.from_json(each) for each in tables
        ]

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Connection[Any]]:
        try:
            if self._connection is None or self._connection.closed:
                self._connection = psycopg.connect(self._url, application_name=f"tukang load {self._loader}")
            with self._connection.transaction():
                self._connection.execute("SET LOCAL TimeZone = 'UTC'")
                if not self._made:
                    # Two that make it at once would meet in the system's tables, and one would fail.
                    self._connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK_OF_MAKING])
                    self._connection.execute(_MAKE_CURSORS)
                yield self._connection
            self._made = True
        except psycopg.OperationalError as error:
            self.close()
            said = str(error).strip()
            if "FATAL" in said and not any(each in said for each in _PASSING):
                raise WarehouseRefused(f"PostgreSQL does not let the loader in: {said}") from error
            raise WarehouseAway(f"PostgreSQL: {said}") from error
        except psycopg.Error as error:
            raise WarehouseRefused(f"PostgreSQL refused the load: {_said(error)}. {BEGIN_ANEW}") from None
        except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
            raise WarehouseAway(f"rows cannot be staged in {tempfile.gettempdir()}: {error}") from error


def _said(error: psycopg.Error) -> str:
    """The server's words, in one line, without what may be the content of a row: logs are no place for it."""
    told = [error.diag.message_primary or type(error).__name__]
    if not isinstance(error, psycopg.IntegrityError | psycopg.DataError):
        told += [each for each in (error.diag.message_detail, error.diag.message_hint) if each]
    return ": ".join(" ".join(each.split()) for each in told)


class _Load:
    """One change within one transaction."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        staging: duckdb.DuckDBPyConnection,
        folder: Path,
        topic: str,
        tables: list[Table],
        unnest: bool,
    ) -> None:
        self._connection = connection
        self._staging = staging
        self._folder = folder
        self._topic = topic
        self._tables = {each.list: each for each in tables}
        self._unnest = unnest

    def do(self, change: Change, paths: Mapping[int, Path]) -> None:
        """Everything but the cursor."""
        run = Run(self._staging, change, paths)
        self._grow(run.shape)
        self._delete(change, run)
        for group in run.groups:
            self._insert(run.rows(group))

    def _grow(self, shape: Struct) -> None:
        """Creates and widens tables until they hold rows of this shape."""
        children = dict(lists(shape)) if self._unnest else {}
        wanted: dict[tuple[str, ...], Table] = {}
        wanted[()] = grown(self._tables.get((), self._named(())), shape, children)
        for path, list_ in children.items():
            table = self._tables.get(path, self._named(path))
            wanted[path] = grown(table, element_shape(list_))
        for path, table in wanted.items():
            before = self._tables.get(path)
            if before is None:
                self._create(table)
            elif before != table:
                self._widen(before, table)
            self._tables[path] = table
        self._execute(
            f"UPDATE {CURSORS} SET tables = %s WHERE topic = %s",
            [Jsonb([each.to_json() for each in self._tables.values()]), self._topic],
        )

    def _named(self, path: tuple[str, ...]) -> Table:
        """A table that is to be made: its name is the topic's, and the list's behind it."""
        topic = self._tables[()].name if () in self._tables else column_name((self._topic,), ())
        name = column_name((topic, *path), {each.name for each in self._tables.values()}) if path else topic
        return Table(name, path, ())

    def _create(self, table: Table) -> None:
        if self._connection.execute("SELECT to_regclass(%s)", [quoted(table.name)]).fetchone() != (None,):
            raise WarehouseRefused(
                f"There is a table {table.name} that no loader made: rename it, or load into another schema "
                "(?options=-csearch_path%3DNAME at the URL's end)."
            )
        keys = [name for name, _ in KEYS] + (["_index"] if table.list else [])
        columns = [f"{quoted(each.name)} {each.sql_type}" for each in table.columns if each.name]
        columns += [f"{quoted(MORE)} jsonb", f"PRIMARY KEY ({', '.join(map(quoted, keys))})"]
        self._execute(f"CREATE TABLE {quoted(table.name)} ({', '.join(columns)})")

    def _widen(self, before: Table, after: Table) -> None:
        """In one statement, so that every expression sees the columns as they were."""
        old = {each.path: each for each in before.columns}
        news = {each.name for each in after.columns if each.path not in old}
        changes, late = [], []
        for each in after.columns:
            if each.name is None:
                continue
            name, had = quoted(each.name), old.get(each.path)
            if had is None:
                changes.append(f"ADD COLUMN {name} {each.sql_type}")
            elif had.type != each.type and (had.type, each.type) == ("BIGINT", "DOUBLE"):
                sibling = next(
                    other
                    for other in after.columns
                    if other.path == (*each.path[:-1], each.path[-1] + "__text")
                )
                inexact = f"{name}::double precision::numeric <> {name}::numeric"
                if sibling.name is not None:
                    late.append(
                        f"UPDATE {quoted(after.name)} SET {quoted(sibling.name)} = coalesce({quoted(sibling.name)}, "
                        f"{name}::text), {name} = NULL WHERE {inexact}"
                    )
                changes.append(f"ALTER COLUMN {name} TYPE double precision")
            elif had.type != each.type:
                changes.append(f"ALTER COLUMN {name} TYPE {each.sql_type} USING {name}::{each.sql_type}")
        added = [each for each in changes if each.startswith("ADD")]
        retyped = [each for each in changes if not each.startswith("ADD")]
        assert len(added) == len(news - {None})
        for statement in [", ".join(added)] if added else []:
            self._execute(f"ALTER TABLE {quoted(after.name)} {statement}")
        for statement in late:
            self._execute(statement)
        if retyped:
            self._execute(f"ALTER TABLE {quoted(after.name)} {', '.join(retyped)}")

    def _delete(self, change: Change, run: Run) -> None:
        for name, columns in _TEMPORARY.items():
            self._execute(f"CREATE TEMPORARY TABLE {name} ({columns}) ON COMMIT DROP")
            self._copy(name, f"SELECT * FROM {name}", [])
            self._execute(f"ANALYZE {name}")
        for table in self._tables.values():
            if change.empty:
                self._execute(f"DELETE FROM {quoted(table.name)}")
            if change.kept is not None:
                self._execute(
                    _ORPHANS.format(child=quoted(table.name), table=quoted(self._tables[()].name))
                    if table.list
                    else delete_beyond(table.name, change)
                )
            if run.deletes:
                self._execute(delete_named(table.name))

    def _insert(self, rows: str) -> None:
        """Copies the rows of one query into the topic's table, and the elements of its lists into theirs."""
        shape = columns_of(self._staging.sql(rows))
        self._copy_values(self._tables[()], rows, shape)
        for path, list_ in lists(shape) if self._unnest else []:
            elements = child_rows(rows, path, list_)
            self._copy_values(self._tables[path], elements, columns_of(self._staging.sql(elements)))

    def _copy_values(self, table: Table, rows: str, shape: Struct) -> None:
        filled = values(table, shape)
        named = ", ".join(f"{value} AS {quoted(name)}" for name, value in filled)
        self._copy(table.name, f"SELECT {named} FROM ({rows})", [name for name, _ in filled])

    def _copy(self, table: str, query: str, names: list[str]) -> None:
        """Streams a query's rows from DuckDB into a table, by a file on this machine."""
        path = self._folder / "rows.csv"
        relation = self._staging.sql(query)
        texts = [
            name
            for name, type_ in zip(relation.columns, relation.types, strict=True)
            if str(type_) == "VARCHAR"
        ]
        force = (
            f", FORCE_QUOTE ({', '.join(map(quoted, texts))})" if texts else ""
        )  # "" is a text, nothing is null
        self._staging.execute(f"COPY ({query}) TO {literal(str(path))} ({_COPIED}{force})")
        columns = (
            sql.SQL("({})").format(sql.SQL(", ").join(map(sql.Identifier, names))) if names else sql.SQL("")
        )
        into = sql.SQL("COPY {} {} FROM STDIN (FORMAT csv)").format(sql.Identifier(table), columns)
        with path.open("rb") as file, self._connection.cursor() as cursor, cursor.copy(into) as copy:
            while block := file.read(1 << 20):
                copy.write(block)
        path.unlink()

    def _execute(self, statement: str, parameters: list[Any] | None = None) -> None:
        self._connection.execute(statement.encode(), parameters)
