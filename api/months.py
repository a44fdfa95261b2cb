"""The months of the partitioned tables on PostgreSQL: made ahead of time. SQLite has none.

What falls outside every month lands in a default partition, so that a commit never waits for this, and moves when its
month is made.
"""

from datetime import UTC, datetime

from sqlalchemy import Connection, text

from api.times import EPOCH, MICROSECOND

PARTITIONED = ("commits", "ledger")
# A process that runs for less than this many months without a look never uses the default partition.
MONTHS_AHEAD = 3


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
        existing = set(
            connection.execute(
                text(
                    "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = CAST(:t AS regclass)"
                ),
                {"t": table},
            ).scalars()
        )
        for later in range(MONTHS_AHEAD + 1):
            name, start = _month(now_us, later)
            _, end = _month(now_us, later + 1)
            if f"{table}_{name}" not in existing:
                _make_month(connection, table, f"{table}_{name}", start, end)


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
