"""The months of the partitioned tables on PostgreSQL: made ahead of time, gone when folding has emptied them. SQLite
has none.

What falls outside every month lands in a default partition, so that a commit never waits for this, and moves when its
month is made.
"""

import logging
from datetime import UTC, datetime

from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from api.database import Database
from api.times import EPOCH, MICROSECOND

log = logging.getLogger(__name__)

PARTITIONED = ("commits", "ledger")
# A process that runs for less than this many months without a look never uses the default partition.
MONTHS_AHEAD = 3
LOCK_WAIT = "200ms"  # commits queue behind whoever waits for a whole table: another request tries again


def _month(time_us: int, later: int) -> tuple[str, int]:
    """Name and start of the month `later` months after the one of `time_us`."""
    now = EPOCH + time_us * MICROSECOND
    count = now.year * 12 + now.month - 1 + later
    start = datetime(count // 12, count % 12 + 1, 1, tzinfo=UTC)
    return f"{start:%Y_%m}", (start - EPOCH) // MICROSECOND


def ensure_months(connection: Connection, now_us: int) -> None:
    """Makes the partitions of this month and the next ones where they are missing; idempotent."""
    if connection.dialect.name != "postgresql":
        return
    for table in PARTITIONED:
        existing = _existing(connection, table)
        for later in range(MONTHS_AHEAD + 1):
            name, start = _month(now_us, later)
            _, end = _month(now_us, later + 1)
            if f"{table}_{name}" not in existing:
                _make_month(connection, table, f"{table}_{name}", start, end)


def drop_month(database: Database) -> str | None:
    """Drops the oldest month that is empty and has been over for a month: its table's name, or None."""
    with database.read() as connection:
        if connection.dialect.name != "postgresql":
            return None
        last = _month(database.clock(connection), -1)[0]
        over = [
            (table, month)
            for table in PARTITIONED
            for month in sorted(_existing(connection, table))
            if month.removeprefix(f"{table}_") < last
        ]
        empty = next((pair for pair in over if _is_empty(connection, pair[1])), None)
    if empty is None:
        return None
    table, month = empty
    try:
        with database.write() as connection:
            connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_WAIT}'"))
            connection.execute(text(f"LOCK TABLE {table}, {month} IN ACCESS EXCLUSIVE MODE"))
            if not _is_empty(connection, month):
                return None
            connection.execute(text(f"DROP TABLE {month}"))
    except OperationalError as busy:
        log.info("%s is empty and stays for now: %s", month, busy.orig)
        return None
    return month


def _existing(connection: Connection, table: str) -> set[str]:
    """The tables of its months."""
    found = connection.execute(
        text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = CAST(:t AS regclass)"),
        {"t": table},
    )
    return set(found.scalars()) - {f"{table}_default"}


def _is_empty(connection: Connection, month: str) -> bool:
    return not connection.execute(text(f"SELECT EXISTS (SELECT FROM {month})")).scalar_one()


def _make_month(connection: Connection, table: str, month: str, start: int, end: int) -> None:
    """Makes one month. What fell into the default partition meanwhile would be in its way, and moves into it."""
    connection.execute(text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
    connection.execute(
        text(
            f"CREATE TEMP TABLE strays ON COMMIT DROP AS SELECT * FROM {table}_default "
            "WHERE committed_us >= :start AND committed_us < :end"
        ),
        {"start": start, "end": end},
    )
    moved = connection.execute(
        text(f"DELETE FROM {table}_default WHERE committed_us >= :start AND committed_us < :end"),
        {"start": start, "end": end},
    ).rowcount
    connection.execute(
        text(f"CREATE TABLE {month} PARTITION OF {table} FOR VALUES FROM ({start}) TO ({end})")
    )
    if moved:
        connection.execute(text(f"INSERT INTO {month} SELECT * FROM strays"))
    connection.execute(text("DROP TABLE strays"))
