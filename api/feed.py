"""The feed of a topic: its commits after a sequence, in order, without a gap, each whole.

Commits become visible in the order of their sequence, because it is taken under the topic's lock; so what a page shows
is all there is up to its last commit. A page costs the same at any age of the topic: each read is a range of an index.
"""

from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Connection, select

from api.files import file_json
from api.problems import Problem, answer
from api.process import here, query
from api.tables import Record, commits, files
from api.times import format_time
from api.topic_state import find_topic

blueprint = Blueprint("feed", __name__)

FILES_IN_ANSWER = 1_000


def read_commits(connection: Connection, topic_id: int, after: int, limit: int) -> tuple[list[Record], bool]:
    """Commits above `after` by sequence: at most `limit` and 1,000 files, but one at least. And: are there more?"""
    rows = connection.execute(
        select(commits)
        .where(commits.c.topic_id == topic_id, commits.c.sequence > after)
        .order_by(commits.c.sequence)
        .limit(limit + 1)
    ).all()
    taken: list[Record] = []
    added = 0
    for row in rows[:limit]:
        added += row.files_added
        if taken and added > FILES_IN_ANSWER:
            break
        taken.append(row)
    return taken, len(taken) < len(rows)


def batches_json(
    connection: Connection, topic_id: int, taken: list[Record], what: str | None
) -> list[dict[str, Any]]:
    """Commits as the contract's Batch, with the files they added and the ids they removed."""
    if not taken:
        return []
    low, high = taken[0].sequence, taken[-1].sequence
    added: dict[int, list[dict[str, Any]]] = {row.sequence: [] for row in taken}
    removed: dict[int, list[int]] = {row.sequence: [] for row in taken}
    if any(row.files_added for row in taken):
        wanted = select(files).where(files.c.topic_id == topic_id, files.c.added_sequence.between(low, high))
        if what is not None:
            wanted = wanted.where(files.c.what.in_([what, "deletes"]))
        for file in connection.execute(wanted.order_by(files.c.added_sequence, files.c.id)):
            added[file.added_sequence].append(file_json(file))
    if any(row.files_removed for row in taken):
        for file in connection.execute(
            select(files.c.id, files.c.removed_sequence)
            .where(files.c.topic_id == topic_id, files.c.removed_sequence.between(low, high))
            .order_by(files.c.removed_sequence, files.c.id)
        ):
            removed[file.removed_sequence].append(file.id)
    return [
        {
            "sequence": row.sequence,
            "kind": row.kind,
            "id": str(row.id),
            "committed_at": format_time(row.committed_us),
            "add": added[row.sequence],
            "remove": removed[row.sequence],
        }
        for row in taken
    ]


def _page(topic: str, asked: dict[str, Any]) -> tuple[dict[str, Any], int]:
    after = asked.get("after", 0)
    with here().database.read() as connection:
        row = find_topic(connection, topic)
        if asked.get("epoch", row.epoch) != row.epoch:
            raise Problem("epoch-moved", 410, f"The topic is in epoch {row.epoch} now.", epoch=row.epoch)
        if after > row.sequence:
            raise Problem(
                "cursor-ahead", 422, f"after is {after}, the topic's head {row.sequence}.", head=row.sequence
            )
        if after < row.oldest - 1:
            raise Problem(
                "snapshot", 410,
                f"The feed begins with sequence {row.oldest}: start with an empty table from `files`.",
                epoch=row.epoch, oldest=row.oldest,
            )  # fmt: skip
        taken, more = read_commits(connection, row.id, after, asked["limit"])
        shown = batches_json(connection, row.id, taken, asked.get("what"))
    page = {
        "topic": topic,
        "epoch": row.epoch,
        "oldest": row.oldest,
        "head": row.sequence,
        "more": more,
        "commits": shown,
    }
    return page, row.id


@blueprint.get("/v1/topics/<topic>/batches")
def batches(topic: str) -> Response:
    asked = query()
    page, topic_id = _page(topic, asked)
    if not page["commits"] and asked["wait"]:
        # No connection is held meanwhile.
        here().heads.wait({topic_id: page["head"]}, asked["wait"])
        page, _ = _page(topic, asked)
    return answer(page)
