"""Periods: hours or days of event time, their live rows, and whether each is open, complete, sealed or reopened."""

from collections.abc import Sequence
from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Connection, func, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from api.completeness import complete_until_of, period_of, reaches_of
from api.laws import NewFile
from api.pages import page_state, page_token
from api.problems import answer
from api.process import here, query
from api.tables import Record, lake_partitions, periods
from api.times import format_time, format_time_or_none, parse_time
from api.topic_state import find_topic, load_rules, settings_of

blueprint = Blueprint("periods", __name__)


def rows_by_period(files: Sequence[NewFile], period_us: int) -> dict[int, int]:
    """Rows of files by start of their period; those of a range of periods stand at its first."""
    found: dict[int, int] = {}
    for file in files:
        for start_us, _, rows in file.periods:
            start = start_us // period_us * period_us
            found[start] = found.get(start, 0) + rows
    return found


def add_rows(
    connection: Connection,
    topic_id: int,
    files: Sequence[NewFile],
    period_us: int,
    sequence: int,
    committed_us: int,
) -> None:
    """Counts the rows of new files into their periods, and reopens those that were sealed."""
    insert_of = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    counted = rows_by_period(files, period_us)
    if not counted:
        return
    statement = insert_of(periods).values(
        [{"topic_id": topic_id, "start_us": start, "rows": counted[start]} for start in sorted(counted)]
    )
    sealed = periods.c.sealed_sequence.is_not(None)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["topic_id", "start_us"], set_={"rows": periods.c.rows + statement.excluded.rows}
        )
    )
    ranges = [
        periods.c.start_us.between(start_us // period_us * period_us, (end_us or start_us + 1) - 1)
        for file in files
        for start_us, end_us, _ in file.periods
    ]
    for begin in range(0, len(ranges), 100):
        condition = or_(*ranges[begin : begin + 100])
        connection.execute(
            periods.update()
            .where(periods.c.topic_id == topic_id, sealed, periods.c.reopened_sequence.is_(None), condition)
            .values(reopened_sequence=sequence, reopened_us=committed_us)
        )


def _state(row: Record | None, end_us: int, complete_us: int | None) -> str:
    if row is not None and row.sealed_sequence is not None:
        return "sealed" if row.reopened_sequence is None else "reopened"
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
        partitions = connection.execute(
            select(
                lake_partitions.c.broker_partition,
                lake_partitions.c.open,
                lake_partitions.c.watermark_us,
                lake_partitions.c.caught_up_us,
            ).where(lake_partitions.c.topic_id == row.id)
        ).all()
        reaches = reaches_of(partitions)
        complete_us = complete_until_of(row, reaches, settings)
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
            page_end = min(end, start + limit * period_us)
            rows = {
                entry.start_us: entry
                for entry in connection.execute(
                    select(periods).where(
                        periods.c.topic_id == row.id,
                        periods.c.start_us >= start,
                        periods.c.start_us < page_end,
                    )
                )
            }
            while start < page_end:
                found.append(_shown(rows.get(start), start, period_us, complete_us))
                start += period_us
            if start < end:
                next_page = page_token(start=start + OFFSET_US, end=end + OFFSET_US)
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
    }
