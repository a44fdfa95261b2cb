"""The one way to the database: an engine for SQLite or PostgreSQL, transactions that read or write, and its clock.

Write transactions exclude each other where they touch the same topic: on PostgreSQL by `SELECT ... FOR UPDATE` of the
topic's row under READ COMMITTED, on SQLite by BEGIN IMMEDIATE. Knows no table.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DataError, IntegrityError, OperationalError
from sqlalchemy.pool import QueuePool, StaticPool

Clock = Callable[[Connection], int]

NOW = text("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")

# A connection may wait this long for SQLite's write lock, which one commit holds for milliseconds.
SQLITE_BUSY_MS = 30_000


def database_clock(connection: Connection) -> int:
    """The database's time in microseconds since 1970 UTC; SQLite has none but its machine's."""
    if connection.dialect.name == "sqlite":
        return time.time_ns() // 1_000
    now: int = connection.execute(NOW).scalar_one()
    return now


def said_by(error: Exception) -> str:
    """The database's own words, in one line, without the statement."""
    return " ".join(str(getattr(error, "orig", None) or error).split())


def make_engine(url: str, connections: int = 16) -> Engine:
    """An engine that opens real transactions on both databases. `sqlite://` is one database in memory."""
    if not url.startswith("sqlite"):
        engine = create_engine(url, pool_size=connections, max_overflow=0, pool_timeout=10, pool_recycle=1800)
        event.listen(engine, "connect", _durable)
        return engine
    in_memory = url in ("sqlite://", "sqlite:///:memory:")
    pool: dict[str, Any] = (
        {"poolclass": StaticPool}
        if in_memory
        else {"poolclass": QueuePool, "pool_size": connections, "max_overflow": 0, "pool_timeout": 10}
    )
    engine = create_engine(url, connect_args={"check_same_thread": False}, **pool)

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        # The driver's own transactions begin at the first write: two equal requests would both pass their checks.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={SQLITE_BUSY_MS}")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("tukang_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _durable(connection: Any, _record: Any) -> None:
    """An acknowledged commit must survive a crash of the server, whatever the role's or database's default is."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT set_config('synchronous_commit', 'on', false) "
            "WHERE current_setting('synchronous_commit') IN ('off', 'local')"
        )
    connection.commit()


def several(values: list[dict[str, Any]]) -> Any:
    """Parameters of a statement for several rows; a single row as itself, which takes the driver's short way."""
    return values[0] if len(values) == 1 else values


@contextmanager
def together(connection: Connection) -> Iterator[None]:
    """Statements inside are sent at once and answered at once, on PostgreSQL; they must not need each other's answers.

    Raises SQLAlchemy's errors, at the latest at the end.
    """
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        yield
        return
    try:
        with driver.pipeline():
            yield
    except psycopg.IntegrityError as error:
        raise IntegrityError(None, None, error) from error
    except psycopg.DataError as error:
        raise DataError(None, None, error) from error
    except psycopg.Error as error:
        raise OperationalError(None, None, error) from error


class Database:
    """Transactions over one engine. `clock` is the database's time, an argument so that tests can move it."""

    def __init__(self, engine: Engine, clock: Clock = database_clock) -> None:
        self.engine = engine
        self.clock = clock
        self.sqlite = engine.dialect.name == "sqlite"
        # SQLite waits for its lock by sleeping ever longer; threads of one process queue here instead, in order.
        self._writing = threading.Lock()
        self._in_memory = isinstance(engine.pool, StaticPool)
        self._reader = engine if self.sqlite else engine.execution_options(isolation_level="REPEATABLE READ")
        self._asker = engine if self.sqlite else engine.execution_options(isolation_level="AUTOCOMMIT")
        self._writer = engine.execution_options(tukang_writes=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One snapshot: every statement inside sees the same state."""
        if self._in_memory:
            # All threads share the one connection there is.
            with self._writing, self._reader.connect() as connection, connection.begin():
                yield connection
            return
        with self._reader.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def ask(self) -> Iterator[Connection]:
        """For one statement that reads: it is a snapshot of itself, and costs one round trip instead of three."""
        if self.sqlite:
            with self.read() as connection:
                yield connection
            return
        with self._asker.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction that may write; any exception rolls it back whole."""
        if not self.sqlite:
            with self._writer.connect() as connection, connection.begin():
                yield connection
            return
        with self._writing, self._writer.connect() as connection, connection.begin():
            yield connection

    def dispose(self) -> None:
        self.engine.dispose()
