"""DuckDB as a warehouse: a file with a table for each topic, its columns as they are in the lake.

The file is open only while a change goes in, so that analysts can open it between two. Only one process at a time can
have it open to write, which is also what keeps two loaders apart.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb

from loaders.change import Change, Cursor
from loaders.run import Run, columns_of, delete_beyond, delete_named
from loaders.shape import SIBLING, Struct, Type, convert, fields_as, join, quoted, write_type
from loaders.warehouse import BEGIN_ANEW, WarehouseAway, WarehouseBusy, WarehouseRefused

CURSORS = "_tukang_cursors"


class DuckDB:
    """A `Warehouse` in one file."""

    def __init__(self, file: Path, loader: str) -> None:
        self._file = file
        self._loader = loader
        if not file.parent.is_dir():
            raise WarehouseRefused(
                f"The folder {file.parent.absolute()} does not exist: make it, or name another file (from the root:"
                " duckdb:////FOLDER/FILE, with four slashes)."
            )

    def cursor(self, topic: str) -> Cursor | None:
        """See `Warehouse`."""
        if not self._file.exists():
            return None
        with self._open() as connection:
            return self._cursor(connection, topic)

    def apply(self, topic: str, change: Change, paths: Mapping[int, Path]) -> bool:
        """See `Warehouse`."""
        with self._open() as connection, _transaction(connection):
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {CURSORS} (topic VARCHAR, table_name VARCHAR, loader VARCHAR, "
                "epoch VARCHAR, sequence BIGINT, deletes BIGINT)"
            )
            if self._cursor(connection, topic) != change.before:
                return False
            run = Run(connection, change, paths)
            table = self._table(connection, topic)
            if change.before is not None and not change.empty and not _exists(connection, table):
                # A table made now would hold what comes, and nobody would miss the rest.
                raise WarehouseRefused(f"{self._file} has no table {table} any more. {BEGIN_ANEW}")
            # Columns first: DuckDB commits no transaction that changes a table's rows and then its columns.
            shape = _widen(connection, table, run.shape)
            if change.empty:
                connection.execute(f"DELETE FROM {quoted(table)}")
            if change.kept is not None:
                connection.execute(delete_beyond(table, change))
            if run.deletes:
                connection.execute(delete_named(table))
            for group in run.groups:
                _insert(connection, table, run.rows(group), shape)
            connection.execute(
                f"UPDATE {CURSORS} SET epoch = ?, sequence = ?, deletes = ? WHERE topic = ?",
                [change.cursor.epoch, change.cursor.sequence, change.cursor.deletes, topic],
            )
            run.close()
        return True

    def close(self) -> None:
        """Nothing is open between two calls."""

    def _cursor(self, connection: duckdb.DuckDBPyConnection, topic: str) -> Cursor | None:
        if not _exists(connection, CURSORS):
            return None
        row = connection.execute(
            f"SELECT loader, epoch, sequence, deletes FROM {CURSORS} WHERE topic = ?", [topic]
        ).fetchone()
        if row is None:
            return None
        if row[0] != self._loader:
            raise WarehouseRefused(
                f"{topic} is loaded into {self._file} by the loader {row[0]}, not {self._loader}: two would double "
                f"its rows. Use --loader {row[0]}, or another file."
            )
        return None if row[1] is None else Cursor(*row[1:])

    def _table(self, connection: duckdb.DuckDBPyConnection, topic: str) -> str:
        """The topic's table; at the first time its name is chosen: names that differ in case only are one to DuckDB."""
        row = connection.execute(f"SELECT table_name FROM {CURSORS} WHERE topic = ?", [topic]).fetchone()
        if row is not None:
            return str(row[0])
        if _exists(connection, topic):
            raise WarehouseRefused(
                f"{self._file} has a table {topic} that no loader made, or that differs from the topic in case only: "
                "rename it, or use another file."
            )
        connection.execute(
            f"INSERT INTO {CURSORS} (topic, table_name, loader) VALUES (?, ?, ?)",
            [topic, topic, self._loader],
        )
        return topic

    @contextmanager
    def _open(self) -> Iterator[duckdb.DuckDBPyConnection]:
        try:
            connection = duckdb.connect(str(self._file))
        except duckdb.IOException as error:
            if "lock" in str(error):  # DuckDB has no type or code of its own for it
                raise WarehouseBusy(f"{self._file} is open in another process: {error}") from error
            raise WarehouseRefused(f"{self._file} cannot be opened as a DuckDB database: {error}") from error
        try:
            yield connection
        except duckdb.Error as error:
            if _passing(error):
                raise WarehouseAway(f"{self._file} cannot be written: {error}") from error
            raise WarehouseRefused(
                f"DuckDB refused the load into {self._file}: {_said(error)}. {BEGIN_ANEW}"
            ) from None
        finally:
            connection.close()


def _passing(error: duckdb.Error) -> bool:
    """Whether a full disk or memory is the cause, also where the commit found it, or DuckDB itself ended by it."""
    if isinstance(error, duckdb.TransactionException):
        return "constraint" not in str(error)
    return isinstance(error, duckdb.IOException | duckdb.OutOfMemoryException | duckdb.FatalException)


def _said(error: duckdb.Error) -> str:
    """DuckDB's words, in one line, without what may be the content of a row: logs are no place for it."""
    said = " ".join(str(error).split())
    if isinstance(error, duckdb.ConversionException):
        column = re.search(r"source column (\w+)", said)
        return f"a value does not fit its column{f' {column[1]}' if column else ''}"
    return re.sub(r'Duplicate key "[^"]*"', "A duplicate key", said)


def _widen(connection: duckdb.DuckDBPyConnection, table: str, rows: Struct) -> Struct:
    """Makes the table fit for rows of this shape. Returns the shape that it has then."""
    if not _exists(connection, table):
        columns = ", ".join(f"{quoted(name)} {write_type(type_)}" for name, type_ in rows.fields)
        connection.execute(f"CREATE TABLE {quoted(table)} ({columns})")
        return rows
    have = columns_of(connection.table(quoted(table)))
    shape = join(have, rows)
    assert isinstance(shape, Struct)
    known, wanted = dict(have.fields), dict(shape.fields)
    for name, type_ in shape.fields:
        if name not in known:
            connection.execute(f"ALTER TABLE {quoted(table)} ADD COLUMN {quoted(name)} {write_type(type_)}")
    full = Struct(tuple((name, known.get(name, type_)) for name, type_ in shape.fields))
    values = dict(fields_as(quoted, full, shape))
    changed = [name for name in known if known[name] != wanted[name]]
    # Siblings first: they take what their column cannot hold after its own change.
    for name in [
        name + SIBLING for name in changed if name + SIBLING in wanted and name + SIBLING not in changed
    ]:
        _retype(connection, table, name, wanted[name], values[name])
    for name in changed:
        # By a macro, because ALTER takes the names inside a lambda for columns.
        made = convert("v", known[name], wanted[name]) if values[name].count("lambda") else None
        if made is not None:
            connection.execute(f"CREATE OR REPLACE TEMP MACRO tukang_widen(v) AS {made}")
        _retype(
            connection, table, name, wanted[name], f"tukang_widen({quoted(name)})" if made else values[name]
        )
    return shape


def _retype(connection: duckdb.DuckDBPyConnection, table: str, name: str, type_: Type, value: str) -> None:
    connection.execute(
        f"ALTER TABLE {quoted(table)} ALTER COLUMN {quoted(name)} TYPE {write_type(type_)} USING {value}"
    )


def _insert(connection: duckdb.DuckDBPyConnection, table: str, rows: str, shape: Struct) -> None:
    have = columns_of(connection.sql(rows))
    fields = fields_as(quoted, have, shape)
    names = ", ".join(quoted(name) for name, _ in fields)
    values = ", ".join(value for _, value in fields)
    connection.execute(f"INSERT INTO {quoted(table)} ({names}) SELECT {values} FROM ({rows})")


def _exists(connection: duckdb.DuckDBPyConnection, table: str) -> bool:
    found = connection.execute(
        "SELECT 1 FROM information_schema.tables WHERE lower(table_name) = lower(?) AND table_schema = 'main'",
        [table],
    ).fetchone()
    return found is not None


@contextmanager
def _transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    connection.execute("BEGIN")
    try:
        yield
    except BaseException:
        connection.interrupt()  # after a signal it may still be at work, and closing would wait for it
        with suppress(duckdb.Error):  # it may have ended with what failed, and the connection ends now
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
