"""The feed of a topic: its commits after a sequence, in order, without a gap, each whole.

Commits become visible in the order of their sequence, because it is taken under the topic's lock; so what a page shows
is all there is up to its last commit. A page costs the same at any age of the topic: each read is a range of an index.
"""

from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Connection, bindparam, func, select

from api.epochs import check_epoch, snapshot_needed
from api.files import file_json, policies_now
from api.presigned import answer_files, require_presigned
from api.problems import Problem
from api.process import here, query
from api.tables import Record, commits, files
from api.times import format_time
from api.topic_state import find_topic

blueprint = Blueprint("feed", __name__)

FILES_IN_ANSWER = 1_000
COMMITS_ABOVE = (
    select(commits)
    .where(commits.c.topic_id == bindparam("topic_id"), commits.c.sequence > bindparam("after"))
    .order_by(commits.c.sequence)
    .limit(bindparam("limit"))
)
FIRST_SWEPT = select(func.min(files.c.added_sequence)).where(
    files.c.topic_id == bindparam("topic_id"),
    files.c.added_sequence.between(bindparam("low"), bindparam("high")),
    files.c.swept_us.is_not(None),
)


def read_commits(
    connection: Connection, topic: Record, after: int, limit: int, *, swept: bool = False
) -> tuple[list[Record], bool]:
    """Commits above `after` by sequence: at most `limit` and 1,000 files, but one at least. And: are there more?

    Raises Problem (410) where an object of the next commit may be gone; before a later one the answer ends. With
    `swept` it does neither, for who reads the history and fetches nothing.
    """
    rows = connection.execute(COMMITS_ABOVE, {"topic_id": topic.id, "after": after, "limit": limit + 1}).all()
    taken: list[Record] = []
    added = 0
    for row in rows[:limit]:
        added += row.files_added
        if taken and added > FILES_IN_ANSWER:
            break
        taken.append(row)
    if swept or not taken:
        return taken, len(taken) < len(rows)
    first_swept = connection.execute(
        FIRST_SWEPT, {"topic_id": topic.id, "low": taken[0].sequence, "high": taken[-1].sequence}
    ).scalar()
    if first_swept is not None:
        taken = [row for row in taken if row.sequence < first_swept]
        if not taken:
            raise behind(topic, after)
    return taken, len(taken) < len(rows)


def behind(topic: Record, after: int) -> Problem:
    """What a reader is told whose next commits' objects are gone: the live files have what became of them."""
    return Problem(
        "behind", 410,
        f"Objects of the commits after {after} are gone. Ask for `files?at={topic.sequence}&after={after}`: in one "
        "transaction delete the rows that the `deletes` files name, insert the rows whose `_sequence` is above "
        f"{after}, and move the cursor to {topic.sequence}.",
        epoch=topic.epoch, sequence=topic.sequence,
    )  # fmt: skip


def batches_json(
    connection: Connection, topic: Record, taken: list[Record], what: str | None
) -> list[dict[str, Any]]:
    """Commits as the contract's Batch, with the files they added and the ids they removed."""
    if not taken:
        return []
    low, high = taken[0].sequence, taken[-1].sequence
    added: dict[int, list[dict[str, Any]]] = {row.sequence: [] for row in taken}
    removed: dict[int, list[int]] = {row.sequence: [] for row in taken}
    if any(row.files_added for row in taken):
        policies = policies_now(connection, topic)
        wanted = select(files).where(files.c.topic_id == topic.id, files.c.added_sequence.between(low, high))
        if what is not None:
            wanted = wanted.where(files.c.what.in_([what, "deletes"]))
        for file in connection.execute(wanted.order_by(files.c.added_sequence, files.c.id)):
            added.setdefault(file.added_sequence, []).append(file_json(file, policies))
    if any(row.files_removed for row in taken):
        for file in connection.execute(
            select(files.c.id, files.c.removed_sequence)
            .where(files.c.topic_id == topic.id, files.c.removed_sequence.between(low, high))
            .order_by(files.c.removed_sequence, files.c.id)
        ):
            removed.setdefault(file.removed_sequence, []).append(file.id)
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


def _page(topic: str, asked: dict[str, Any]) -> tuple[dict[str, Any], Record]:
    after = asked.get("after", 0)
    with here().database.read() as connection:
        row = find_topic(connection, topic)
        check_epoch(connection, row, asked.get("epoch"), after)
        if after > row.sequence:
            raise Problem(
                "cursor-ahead", 422, f"after is {after}, the topic's head {row.sequence}.", head=row.sequence
            )
        if after < row.oldest - 1:
            raise snapshot_needed(row, f"The feed begins with sequence {row.oldest}.")
        taken, more = read_commits(connection, row, after, asked["limit"], swept="swept" in asked)
        shown = batches_json(connection, row, taken, asked.get("what"))
    page = {
        "topic": topic,
        "epoch": row.epoch,
        "oldest": row.oldest,
        "head": row.sequence,
        "more": more,
        "commits": shown,
    }
    return page, row


@blueprint.get("/v1/topics/<topic>/batches")
def batches(topic: str) -> Response:
    asked = query()
    require_presigned()
    page, row = _page(topic, asked)
    if not page["commits"] and asked["wait"]:
        # No connection is held meanwhile.
        here().heads.wait({row.id: row.sequence}, asked["wait"])
        page, row = _page(topic, asked)
    return answer_files(page, row, [file for commit in page["commits"] for file in commit["add"]])
