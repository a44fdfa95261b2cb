"""Folding: commits older than `history` become one line of the ledger per lake partition and day, UTC.

The laws hold over a folded line as over the lines in it. The chain: it starts where the first append in it started and
leaves the position that the last one left. The sum: counts add up, since each line's `carried_in` is the one before's
`carried_out`. What is gone is the way between, so the feed begins after it (`oldest`).

Nothing is folded that somebody still needs: a day that is not over, a commit whose removed objects are not swept, one
that a holding loader has not read (up to `hold_limit`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Connection, and_, delete, func, insert, select, tuple_, update

from api.database import Clock
from api.expiry import holding_cursors
from api.months import drop_month, ensure_months
from api.problems import answer
from api.process import here
from api.tables import LEDGER_COUNTS, Record, commit_ids, commits, files, folded, ledger, topics
from api.times import DAY_US
from api.topic_state import load_rules, settings_of
from api.topics import lock_topic
from api.units import parse_duration

blueprint = Blueprint("folding", __name__)

# Days of one request, each a transaction of its own: commits of the topic wait for one of them at most.
DAYS_IN_REQUEST = 10
# Of the first line in a folded one, and of the last.
FIRST = ("from_version", "from_offset", "carried_in")
LAST = (
    "to_offset",
    "carried_out",
    "carried",
    "highest_us",
    "watermark_us",
    "published_to_us",
    "broker_topic_id",
)
SUMMED = [name for name in LEDGER_COUNTS if name not in ("carried_in", "carried_out")]


def fold_day(connection: Connection, topic: Record, settings: Mapping[str, Any], now_us: int) -> int:
    """Folds the topic's oldest day if it is due; how many commits that took. The caller holds the topic's lock."""
    first = connection.execute(
        select(commits.c.committed_us).where(
            commits.c.topic_id == topic.id, commits.c.sequence == topic.oldest
        )
    ).scalar()
    if first is None:
        return 0
    begin_us = first // DAY_US * DAY_US
    end_us = begin_us + DAY_US
    history_us, hold_us = parse_duration(settings["history"]), parse_duration(settings["hold_limit"])
    if end_us > now_us - history_us:
        return 0
    day = (
        commits.c.topic_id == topic.id,
        commits.c.sequence >= topic.oldest,
        commits.c.committed_us >= begin_us,
        commits.c.committed_us < end_us,
    )
    last: int = connection.execute(select(func.max(commits.c.sequence)).where(*day)).scalar_one()
    if end_us > now_us - history_us - hold_us and any(
        cursor < last for cursor in holding_cursors(connection, topic)
    ):
        return 0
    if _unswept(connection, topic.id, last):
        return 0
    _enter(connection, topic.id, topic.oldest, last, begin_us, end_us)
    connection.execute(delete(commit_ids).where(commit_ids.c.id.in_(select(commits.c.id).where(*day))))
    connection.execute(delete(ledger).where(*_of_day(topic.id, topic.oldest, last, begin_us, end_us)))
    connection.execute(delete(commits).where(*day))
    _forget_files(connection, topic.id, last, now_us)
    connection.execute(update(topics).where(topics.c.id == topic.id).values(oldest=last + 1))
    return last - int(topic.oldest) + 1


def _unswept(connection: Connection, topic_id: int, last: int) -> bool:
    """Whether an object that a commit up to `last` removed may still be there: the sweep asks for that commit."""
    found = connection.execute(
        select(files.c.id)
        .where(
            files.c.topic_id == topic_id,
            files.c.removed_sequence <= last,
            files.c.swept_us.is_(None),
            files.c.what != "deletes",
        )
        .limit(1)
    ).scalar()
    return found is not None


def _of_day(topic_id: int, oldest: int, last: int, begin_us: int, end_us: int) -> tuple[Any, ...]:
    """The day's lines; by time too, so that PostgreSQL looks into one month only."""
    return (
        ledger.c.topic_id == topic_id,
        ledger.c.sequence.between(oldest, last),
        ledger.c.committed_us >= begin_us,
        ledger.c.committed_us < end_us,
    )


def _enter(connection: Connection, topic_id: int, oldest: int, last: int, begin_us: int, end_us: int) -> None:
    """One line for each lake partition of the day."""
    day = _of_day(topic_id, oldest, last, begin_us, end_us)
    appends = ledger.c.carried.is_not(None)
    sums = connection.execute(
        select(
            ledger.c.lake_partition,
            func.count().label("lines"),
            func.min(ledger.c.sequence).label("first_sequence"),
            func.max(ledger.c.sequence).label("sequence"),
            func.min(ledger.c.sequence).filter(appends).label("first_append"),
            func.max(ledger.c.sequence).filter(appends).label("last_append"),
            *(func.sum(ledger.c[name]).label(name) for name in SUMMED),
        )
        .where(*day)
        .group_by(ledger.c.lake_partition)
    ).all()
    if not sums:
        return
    ends = {
        (row.lake_partition, sequence)
        for row in sums
        for sequence in (row.first_append, row.last_append, row.sequence)
        if sequence is not None
    }
    lines = {
        (line.lake_partition, line.sequence): line
        for line in connection.execute(
            select(ledger, commits.c.id)
            .join(
                commits,
                and_(
                    commits.c.topic_id == ledger.c.topic_id,
                    commits.c.sequence == ledger.c.sequence,
                    commits.c.committed_us == ledger.c.committed_us,
                ),
            )
            .where(*day, tuple_(ledger.c.lake_partition, ledger.c.sequence).in_(ends))
        )
    }
    lost: dict[int, list[list[int]]] = {}
    ranges = select(ledger.c.lake_partition, ledger.c.lost_ranges).where(*day, ledger.c.lost > 0)
    for row in connection.execute(ranges.order_by(ledger.c.sequence)):
        lost.setdefault(row.lake_partition, []).extend(row.lost_ranges or [])
    connection.execute(
        insert(folded), [_line(topic_id, row, lines, lost.get(row.lake_partition)) for row in sums]
    )


def _line(
    topic_id: int,
    row: Record,
    lines: Mapping[tuple[int, int], Record],
    lost: Sequence[Sequence[int]] | None,
) -> dict[str, Any]:
    first = lines.get((row.lake_partition, row.first_append))
    last = lines.get((row.lake_partition, row.last_append))
    newest = lines[row.lake_partition, row.sequence]
    nothing = {"carried_in": 0, "carried_out": 0}
    return {
        "topic_id": topic_id,
        "lake_partition": row.lake_partition,
        "first_sequence": row.first_sequence,
        "sequence": row.sequence,
        "lines": row.lines,
        "id": (last or newest).id,
        "committed_us": newest.committed_us,
        **{name: int(row._mapping[name]) for name in SUMMED},
        **{name: first._mapping[name] if first else nothing.get(name) for name in FIRST},
        **{name: last._mapping[name] if last else nothing.get(name) for name in LAST},
        "lost_ranges": [list(pair) for pair in lost] if lost else None,
    }


def _forget_files(connection: Connection, topic_id: int, last: int, now_us: int) -> None:
    """Rows of swept objects go. `deletes` files stay as long as the history: now the sweep may take theirs.

    Nobody can be told of them any more; their `newest_commit_us`, which nothing else reads, keeps when that began.
    """
    connection.execute(
        delete(files).where(
            files.c.topic_id == topic_id, files.c.removed_sequence <= last, files.c.swept_us.is_not(None)
        )
    )
    connection.execute(
        update(files)
        .where(
            files.c.topic_id == topic_id,
            files.c.added_sequence <= last,
            files.c.what == "deletes",
            files.c.removed_sequence.is_(None),
        )
        .values(removed_sequence=files.c.added_sequence, newest_commit_us=now_us)
    )


def fold(connection: Connection, clock: Clock, name: str) -> tuple[Record, int]:
    """One day of the topic, if one is due. The topic as it was before, and how many commits were folded."""
    topic = lock_topic(connection, name)
    settings = settings_of(topic, load_rules(connection)[0])
    return topic, fold_day(connection, topic, settings, clock(connection))


@blueprint.post("/v1/topics/<topic>/folds")
def folds(topic: str) -> Response:
    database = here().database
    with database.write() as connection:
        ensure_months(connection, database.clock(connection))
    done = 0
    for _ in range(DAYS_IN_REQUEST):
        with database.write() as connection:
            row, count = fold(connection, database.clock, topic)
        done += count
        if not count:
            break
    drop_month(database)
    return answer(
        {
            "topic": topic,
            "epoch": row.epoch,
            "oldest": row.oldest + count,
            "commits": done,
            "more": bool(count),
        }
    )
