"""Periods: hours or days of event time, their live rows, and whether each is open, complete, sealed or reopened."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from flask import Blueprint, Response
from sqlalchemy import BigInteger, Connection, bindparam, case, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from api.completeness import Reach, complete_until_of, period_of, reaches_of
from api.database import several
from api.file_laws import NewFile, broken
from api.pages import page_state, page_token
from api.problems import answer
from api.process import here, query
from api.tables import Record, files, lake_partitions, periods
from api.times import format_time, format_time_or_none, parse_time
from api.topic_state import find_topic, load_rules, settings_of

blueprint = Blueprint("periods", __name__)


def rows_by_period(files: Sequence[Sequence[Sequence[Any]]], period_us: int) -> dict[int, int]:
    """Rows by start of their period, of the `periods` of files; those of a range of periods stand at its first."""
    found: dict[int, int] = {}
    for file in files:
        for start_us, _, rows in file:
            start = start_us // period_us * period_us
            found[start] = found.get(start, 0) + rows
    return found


def change_rows(
    connection: Connection,
    topic_id: int,
    counted: Mapping[int, int],
    reopening: Sequence[NewFile],
    period_us: int,
    sequence: int,
    committed_us: int,
) -> None:
    """Counts rows into (or out of) their periods, and reopens the sealed ones into which files of `reopening` came."""
    statements = STATEMENTS[connection.dialect.name]
    reopened = rows_by_period([file.periods for file in reopening], period_us)
    for statement, starts in (
        (statements[0], [start for start in sorted(counted) if start in reopened]),
        (statements[1], [start for start in sorted(counted) if start not in reopened]),
    ):
        if starts:
            connection.execute(
                statement,
                several([
                    {"topic_id": topic_id, "start_us": start, "rows": counted[start], "b_sequence": sequence,
                     "b_committed_us": committed_us}
                    for start in starts
                ]),
            )  # fmt: skip
    for start_us, end_us in [(p[0], p[1]) for file in reopening for p in file.periods if p[1] is not None]:
        connection.execute(
            update(periods)
            .where(
                periods.c.topic_id == topic_id,
                periods.c.start_us.between(start_us // period_us * period_us, end_us - 1),
                periods.c.sealed_sequence.is_not(None),
                periods.c.reopened_sequence.is_(None),
            )
            .values(reopened_sequence=sequence, reopened_us=committed_us)
        )


def _change(insert_of: Any, *, reopens: bool) -> Any:
    statement = insert_of(periods).values(
        topic_id=bindparam("topic_id"), start_us=bindparam("start_us"), rows=bindparam("rows")
    )
    changes = {"rows": periods.c.rows + statement.excluded.rows}
    if reopens:
        first = periods.c.sealed_sequence.is_not(None) & periods.c.reopened_sequence.is_(None)
        changes["reopened_sequence"] = case(
            (first, bindparam("b_sequence", type_=BigInteger)), else_=periods.c.reopened_sequence
        )
        changes["reopened_us"] = case(
            (first, bindparam("b_committed_us", type_=BigInteger)), else_=periods.c.reopened_us
        )
    return statement.on_conflict_do_update(index_elements=["topic_id", "start_us"], set_=changes)


STATEMENTS = {
    name: (_change(insert_of, reopens=True), _change(insert_of, reopens=False))
    for name, insert_of in (("sqlite", sqlite.insert), ("postgresql", postgresql.insert))
}


def reach_of(connection: Connection, topic: Record) -> tuple[list[Reach], int | None]:
    """How far the topic's open lake partitions have come, and up to when it is complete."""
    rows = connection.execute(
        select(
            lake_partitions.c.broker_partition,
            lake_partitions.c.open,
            lake_partitions.c.watermark_us,
            lake_partitions.c.caught_up_us,
        ).where(lake_partitions.c.topic_id == topic.id)
    ).all()
    reaches = reaches_of(rows)
    return reaches, complete_until_of(topic, reaches, settings_of(topic, load_rules(connection)[0]))


def check_complete(connection: Connection, topic: Record, starts: Sequence[int], period_us: int) -> None:
    """Raises LawBroken unless all periods (starts) are periods of the topic, and complete."""
    _, complete_us = reach_of(connection, topic)
    for start in starts:
        if start % period_us:
            broken(
                "periods",
                None,
                format_time(start // period_us * period_us),
                format_time(start),
                "no period's start",
            )
        if complete_us is None or start + period_us > complete_us:
            broken(
                "periods", None, format_time_or_none(complete_us), format_time(start),
                "a period is sealed when it is complete, not before",
            )  # fmt: skip


def seal(
    connection: Connection,
    topic_id: int,
    starts: Sequence[int],
    beside: Collection[int],
    period_us: int,
    sequence: int,
    committed_us: int,
) -> None:
    """Marks periods sealed whose live rows all lie in sealed files of this commit or beside it; others reopened.

    Refusing would never end under a trickle of late rows.
    """
    low, high = min(starts), max(starts) + period_us
    strangers = [
        file.periods
        for file in connection.execute(
            select(files.c.id, files.c.sealed, files.c.added_sequence, files.c.periods).where(
                files.c.topic_id == topic_id,
                files.c.removed_sequence.is_(None),
                files.c.what == "rows",
                files.c.lowest_us < high,
                files.c.highest_us >= low,
            )
        )
        if not (file.sealed and (file.id in beside or file.added_sequence == sequence))
    ]
    insert_of = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    for start in starts:
        open_still = any(
            begin < start + period_us and (end if end is not None else begin + 1) > start
            for found in strangers
            for begin, end, _ in found
        )
        changes = (
            {"reopened_sequence": func.coalesce(periods.c.reopened_sequence, sequence),
             "reopened_us": func.coalesce(periods.c.reopened_us, committed_us)}
            if open_still
            else {"sealed_sequence": sequence, "reopened_sequence": None, "reopened_us": None}
        )  # fmt: skip
        fresh = {name: value for name, value in changes.items() if not open_still} or {
            "reopened_sequence": sequence,
            "reopened_us": committed_us,
        }
        connection.execute(
            insert_of(periods)
            .values(topic_id=topic_id, start_us=start, rows=0, **fresh)
            .on_conflict_do_update(index_elements=["topic_id", "start_us"], set_=changes)
        )


def _state(row: Record | None, end_us: int, complete_us: int | None) -> str:
    if row is not None and row.reopened_sequence is not None:
        return "reopened"
    if row is not None and row.sealed_sequence is not None:
        return "sealed"
    return "complete" if complete_us is not None and end_us <= complete_us else "open"


@blueprint.get("/v1/topics/<topic>/periods")
def periods_of(topic: str) -> Response:
    asked = query()
    limit = asked["limit"]
    state = page_state(asked.get("page"), start=int, end=int)
    with here().database.read() as connection:
        row = find_topic(connection, topic)
        settings = settings_of(row, load_rules(connection)[0])
        period_us = period_of(row, settings)
        reaches, complete_us = reach_of(connection, row)
        first, last = connection.execute(
            select(func.min(periods.c.start_us), func.max(periods.c.start_us)).where(
                periods.c.topic_id == row.id
            )
        ).one()
        if state:
            start, end = state["start"] - OFFSET_US, state["end"] - OFFSET_US
        else:
            start = parse_time(asked["from"]) if "from" in asked else first
            end = parse_time(asked["to"]) if "to" in asked else last + period_us if last is not None else None
        found: list[dict[str, Any]] = []
        next_page = None
        if start is not None and end is not None and start < end:
            start = start // period_us * period_us
            few = "only" in asked
            page_end = end if few else min(end, start + limit * period_us)
            rows = {
                entry.start_us: entry
                for entry in connection.execute(
                    select(periods)
                    .where(
                        periods.c.topic_id == row.id,
                        periods.c.start_us >= start,
                        periods.c.start_us < page_end,
                    )
                    .order_by(periods.c.start_us)
                    .limit(limit + 1)
                )
            }
            starts = list(rows) if few else range(start, page_end, period_us)
            found = [_shown(rows.get(each), each, period_us, complete_us) for each in starts[:limit]]
            behind = starts[limit] if len(starts) > limit else page_end
            if behind < end:
                next_page = page_token(start=behind + OFFSET_US, end=end + OFFSET_US)
    marks = [reach.watermark_us for reach in reaches]
    watermark = min((mark for mark in marks if mark is not None), default=None) if None not in marks else None
    return answer(
        {
            "topic": topic,
            "epoch": row.epoch,
            "head": row.sequence,
            "complete_until": format_time_or_none(complete_us),
            "watermark": format_time_or_none(watermark),
            "periods": found,
            "next_page": next_page,
        }
    )


# Page tokens carry no negative numbers; times before 1970 are negative.
OFFSET_US = 2**62


def _shown(row: Record | None, start: int, period_us: int, complete_us: int | None) -> dict[str, Any]:
    return {
        "start": format_time(start),
        "end": format_time(start + period_us),
        "state": _state(row, start + period_us, complete_us),
        "rows": row.rows if row is not None else 0,
        "sealed_sequence": row.sealed_sequence if row is not None else None,
        "reopened_at": format_time_or_none(row.reopened_us) if row is not None else None,
    }
