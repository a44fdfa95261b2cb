"""What must not slow down with a topic's age: the plans of the feed, the live set and the ledger are ranges of indexes.

Plans, not clocks: a plan that scans is wrong on every machine, a time is wrong on a busy one.
"""

from __future__ import annotations

import re

import pytest
from sqlalchemy import Connection, Executable, select, text
from sqlalchemy.sql import ClauseElement

from api.files import live_branches
from api.tables import commits, files, ledger
from tests.api.conftest import World

FEED = (
    select(commits)
    .where(commits.c.topic_id == 1, commits.c.sequence > 17)
    .order_by(commits.c.sequence)
    .limit(101)
)
ADDED = select(files).where(files.c.topic_id == 1, files.c.added_sequence.between(17, 117))
REMOVED = select(files.c.id).where(files.c.topic_id == 1, files.c.removed_sequence.between(17, 117))
LIVE, GONE_SINCE = live_branches(1, 17)
LINES = select(ledger).where(ledger.c.topic_id == 1, ledger.c.sequence > 17).order_by(
    ledger.c.sequence, ledger.c.lake_partition
).limit(101)  # fmt: skip
OF_PARTITION = select(ledger.c.sequence).where(
    ledger.c.topic_id == 1, ledger.c.lake_partition == 3, ledger.c.sequence <= 17
)

READS: dict[str, Executable] = {
    "a page of the feed": FEED,
    "files that a page adds": ADDED,
    "files that a page removes": REMOVED,
    "files that live": LIVE.where(files.c.id > 5).order_by(files.c.id).limit(101),
    "files removed since": GONE_SINCE.where(files.c.id > 5),
    "lines of the ledger": LINES,
    "lines of one lake partition": OF_PARTITION,
}


def plan(connection: Connection, statement: Executable) -> str:
    """The database's plan of a statement, as text."""
    assert isinstance(statement, ClauseElement)
    said = str(statement.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True}))
    if connection.dialect.name == "sqlite":
        return "\n".join(row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {said}"))
    # A scan of a small table is cheap, and those of a test are small: what counts is what the planner can choose.
    for cheap in ("enable_seqscan", "enable_bitmapscan", "enable_sort"):
        connection.execute(text(f"SET LOCAL {cheap} = off"))
    return "\n".join(row[0] for row in connection.execute(text(f"EXPLAIN {said}")))


@pytest.mark.parametrize("what", READS)
def test_reads_that_are_done_all_day_are_ranges_of_an_index(world: World, what: str) -> None:
    maker = world.maker()
    for _ in range(3):
        maker.commit()
    with world.database.read() as connection:
        found = plan(connection, READS[what])
    if world.database.sqlite:
        assert re.search(r"SEARCH \w+ USING .*INDEX \w+ \(topic_id=\?", found), found
        assert "SCAN" not in found
    else:
        assert re.search(r"Index (Only )?Cond: \(\(?topic_id = ", found), found
        assert "Seq Scan" not in found
    if what in ("a page of the feed", "lines of the ledger"):
        assert "USE TEMP B-TREE" not in found
        assert not re.search(r"->\s+Sort\s", found), found
