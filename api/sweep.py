"""What the sweep may delete: objects of removed files whose grace has passed. Marked first, deleted after.

Erased and expired files go `read_grace` after the commit that removed them, `deletes` files so long after their commit
was folded; replaced ones when every holding loader has
passed that commit, `replaced_grace` after it at the latest. From the mark on, the feed answers 410 for their commits.
"""

from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Connection, Select, func, select, update

from api.expiry import holding_cursors
from api.pages import page_state, page_token
from api.problems import Problem, answer
from api.process import body, here, query
from api.tables import Record, commits, files
from api.times import format_time, format_time_or_none
from api.topic_state import find_topic, load_rules, settings_of
from api.topics import lock_topic
from api.units import parse_duration

blueprint = Blueprint("sweep", __name__)


def _removed(topic: Record) -> Select[Any]:
    """Removed files with the commit that removed them. `deletes` files leave when their commit is folded."""
    return (
        select(
            files,
            func.coalesce(commits.c.kind, "fold").label("removed_by"),
            func.coalesce(commits.c.committed_us, files.c.newest_commit_us).label("removed_us"),
        )
        .outerjoin(
            commits, (commits.c.topic_id == files.c.topic_id) & (commits.c.sequence == files.c.removed_sequence)
        )
        .where(files.c.topic_id == topic.id, files.c.removed_sequence.is_not(None))
        .order_by(files.c.removed_sequence, files.c.id)
    )  # fmt: skip


def _sweepable_us(connection: Connection, topic: Record, found: list[Record]) -> dict[int, int]:
    """From when on each object may be deleted, by id of the file."""
    settings = settings_of(topic, load_rules(connection)[0])
    read_us, replaced_us = parse_duration(settings["read_grace"]), parse_duration(settings["replaced_grace"])
    holding = holding_cursors(connection, topic)
    times = {}
    for file in found:
        passed = all(cursor >= file.removed_sequence for cursor in holding)
        at_once = file.removed_by in ("erase", "expire", "fold") or passed
        times[file.id] = file.removed_us + (read_us if at_once else max(read_us, replaced_us))
    return times


@blueprint.get("/v1/topics/<topic>/removed")
def removed(topic: str) -> Response:
    asked = query()
    limit = asked["limit"]
    state = page_state(asked.get("page"), sequence=int, id=int)
    with here().database.read() as connection:
        row = find_topic(connection, topic)
        wanted = _removed(row).limit(limit + 1)
        if state:
            wanted = wanted.where(
                (files.c.removed_sequence > state["sequence"])
                | ((files.c.removed_sequence == state["sequence"]) & (files.c.id > state["id"])),
                files.c.removed_sequence >= state["sequence"],
            )
        else:
            wanted = wanted.where(files.c.removed_sequence > asked.get("after", 0))
        found = list(connection.execute(wanted))
        times = _sweepable_us(connection, row, found)
    shown = found[:limit]
    return answer(
        {
            "topic": topic,
            "epoch": row.epoch,
            "removed": [
                {
                    "id": file.id,
                    "url": file.url,
                    "removed_sequence": file.removed_sequence,
                    "removed_by": file.removed_by,
                    "removed_at": format_time(file.removed_us),
                    "sweepable_at": format_time(times[file.id]),
                    "swept_at": format_time_or_none(file.swept_us),
                }
                for file in shown
            ],
            "next_page": page_token(sequence=shown[-1].removed_sequence, id=shown[-1].id)
            if len(found) > limit
            else None,
        }
    )


@blueprint.post("/v1/topics/<topic>/swept")
def swept(topic: str) -> Response:
    asked = body()
    numbers = sorted({int(number) for number in asked["files"]})
    database = here().database
    with database.write() as connection:
        row = lock_topic(connection, topic)
        now_us = database.clock(connection)
        found = list(connection.execute(_removed(row).where(files.c.id.in_(numbers))))
        times = _sweepable_us(connection, row, found)
        if asked.get("lost"):  # readers wait for nothing: nobody can read them
            times = dict.fromkeys(times, now_us)
        early = [number for number in numbers if times.get(number, now_us + 1) > now_us]
        if early:
            raise Problem(
                "not-sweepable",
                409,
                f"{len(early)} files are live, or their grace has not passed.",
                files=early,
            )
        connection.execute(
            update(files).where(files.c.id.in_(numbers), files.c.swept_us.is_(None)).values(swept_us=now_us)
        )
    return answer({"files": [{"id": file.id, "url": file.url} for file in found]})
