"""The feed of a loader: what it has not acknowledged yet, over all its topics, fair between them, one poll for all.

Topics come longest waiting first, 20 commits of each at most, 1,000 files in all. A topic whose cursor cannot simply go
on stands there with the problem that its own feed would answer.
"""

from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Connection, select

from api.access import caller
from api.cursors import WAITING_SINCE, give_cursors
from api.epochs import check_epoch, snapshot_needed
from api.feed import FILES_IN_ANSWER, batches_json, read_commits
from api.loaders import find_loader
from api.presigned import answer_files_of, require_presigned
from api.problems import Problem
from api.process import here, query
from api.tables import Record, cursors, topics

blueprint = Blueprint("loader_feed", __name__)

COMMITS_OF_TOPIC = 20
# An answer of more topics than this would be longer than the poll it saves.
TOPICS_IN_ANSWER = 200


def _behind(connection: Connection, loader_id: int) -> list[Record]:
    """Topics with something to load: by how long it waits, those that need a snapshot first."""
    rows = connection.execute(
        select(
            *topics.c,
            cursors.c.epoch.label("cursor_epoch"),
            cursors.c.sequence.label("cursor"),
            WAITING_SINCE.label("since_us"),
        )
        .join(cursors, cursors.c.topic_id == topics.c.id)
        .where(
            cursors.c.loader_id == loader_id,
            (cursors.c.sequence < topics.c.sequence)
            | cursors.c.sequence.is_(None)
            | (cursors.c.epoch != topics.c.epoch),
        )
    ).all()
    seen = [row for row in rows if caller().sees(row.name)]
    return sorted(seen, key=lambda row: (row.since_us or 0, row.name))


def _page(
    name: str, asked: dict[str, Any]
) -> tuple[dict[str, Any], dict[int, int], list[tuple[Record, list[dict[str, Any]]]]]:
    """The answer, the heads of the loader's topics as it was made (id -> sequence), and its files by topic."""
    database = here().database
    with database.read() as connection:
        loader = find_loader(connection, name)
        newest = connection.execute(select(topics.c.id).order_by(topics.c.id.desc()).limit(1)).scalar()
    if (newest or 0) > loader.seen_topic_id:
        with database.write() as connection:
            loader = find_loader(connection, name, lock=True)
            give_cursors(
                connection, loader, loader.topics, loader.start, database.clock(connection), anew=False
            )
    with database.read() as connection:
        heads = {
            row.id: row.sequence
            for row in connection.execute(
                select(topics.c.id, topics.c.sequence)
                .join(cursors, cursors.c.topic_id == topics.c.id)
                .where(cursors.c.loader_id == loader.id)
            )
        }
        shown: list[dict[str, Any]] = []
        found: list[tuple[Record, list[dict[str, Any]]]] = []
        left = FILES_IN_ANSWER
        more = False
        behind = _behind(connection, loader.id)
        for topic in behind[:TOPICS_IN_ANSWER]:
            if left <= 0:
                more = True
                break
            entry, files = _entry(connection, topic, left, asked)
            if entry is None:
                more = True
                break
            left -= files
            more = more or bool(entry.get("more"))
            shown.append(entry)
            found.append((topic, [file for commit in entry["commits"] for file in commit["add"]]))
    return {"topics": shown, "more": more or len(behind) > TOPICS_IN_ANSWER}, heads, found


def _entry(
    connection: Connection, topic: Record, left: int, asked: dict[str, Any]
) -> tuple[dict[str, Any] | None, int]:
    """One topic of the answer and its number of files; None: its next commit does not fit any more."""
    entry: dict[str, Any] = {
        "topic": topic.name,
        "epoch": topic.epoch,
        "oldest": topic.oldest,
        "head": topic.sequence,
        "after": topic.cursor,
    }
    try:
        if topic.cursor is None:
            raise snapshot_needed(topic, "This loader has loaded nothing of the topic yet.")
        check_epoch(connection, topic, topic.cursor_epoch, topic.cursor)
        if topic.cursor < topic.oldest - 1:
            raise snapshot_needed(topic, f"The feed begins with sequence {topic.oldest}.")
        taken, more = read_commits(connection, topic, topic.cursor, COMMITS_OF_TOPIC)
    except Problem as problem:
        return entry | {"more": False, "commits": [], "problem": problem.body()}, 0
    fitting: list[Record] = []
    files = 0
    for row in taken:
        if files + row.files_added > left and (fitting or left < FILES_IN_ANSWER):
            break
        files += row.files_added
        fitting.append(row)
    if not fitting:
        return None, 0
    entry |= {
        "more": more or len(fitting) < len(taken),
        "commits": batches_json(connection, topic, fitting, asked.get("what")),
    }
    return entry, files


@blueprint.get("/v1/loaders/<name>/batches")
def loader_batches(name: str) -> Response:
    asked = query()
    require_presigned()
    page, heads, found = _page(name, asked)
    if not page["topics"] and asked["wait"]:
        here().heads.wait(heads, asked["wait"])
        page, heads, found = _page(name, asked)
    return answer_files_of(page, found)
