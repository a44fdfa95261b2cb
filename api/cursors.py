"""Cursors of loaders: the last sequence of each topic that a loader has, moved by compare-and-set, forwards only.

Lag is the difference of two totals, so it costs the same whatever lies between.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, insert, select, update

from api.access import caller
from api.epochs import check_epoch
from api.patterns import covers
from api.problems import Problem
from api.tables import Record, commits, cursors, loaders, topics
from api.times import format_time_or_none


def point(connection: Connection, topic: Record, sequence: int | None) -> dict[str, int]:
    """What a cursor at a sequence keeps of the commit there: its time, and the rows of the topic up to it."""
    if sequence == topic.sequence:
        return {"committed_us": topic.head_us or 0, "rows_total": topic.rows_total}
    row = None
    if sequence:
        row = connection.execute(
            select(commits.c.committed_us, commits.c.rows_total).where(
                commits.c.topic_id == topic.id, commits.c.sequence == sequence
            )
        ).one_or_none()
    # At 0, or where the history is folded: everything since counts as lag.
    return {"committed_us": 0, "rows_total": 0} if row is None else dict(row._mapping)


def give_cursors(
    connection: Connection, loader: Record, patterns: Sequence[str], start: str, now_us: int, *, anew: bool
) -> None:
    """Gives the loader a cursor for each topic that it names and has none for.

    Topics made since the last look begin at their first commit; `anew` (a registration, other patterns) looks at all of
    them, and begins those that had commits before as `start` says.
    """
    wanted = select(topics).order_by(topics.c.id)
    if not anew:
        wanted = wanted.where(topics.c.id > loader.seen_topic_id)
    found = connection.execute(wanted).all()
    if not found:
        return
    there = set(
        connection.execute(select(cursors.c.topic_id).where(cursors.c.loader_id == loader.id)).scalars()
    )
    new = []
    for topic in found:
        if topic.id in there or not covers(patterns, topic.name):
            continue
        sequence: int | None
        if topic.created_us > loader.registered_us or start == "earliest":
            sequence = 0 if topic.oldest == 1 else None
        else:
            sequence = topic.sequence if start == "now" else None
        new.append(
            {
                "loader_id": loader.id,
                "topic_id": topic.id,
                "epoch": topic.epoch,
                "sequence": sequence,
                "moved_us": now_us,
                **point(connection, topic, sequence),
            }
        )
    if new:
        connection.execute(insert(cursors), new)
    connection.execute(
        update(loaders)
        .where(loaders.c.id == loader.id)
        .values(seen_topic_id=max(topic.id for topic in found))
    )


def move_cursors(
    connection: Connection, loader: Record, moves: Mapping[str, Mapping[str, Any]], now_us: int
) -> dict[str, Any]:
    """Moves all cursors named, or none. Topic -> where it stands now. Raises Problem."""
    rows = {
        row.name: row
        for row in connection.execute(
            select(
                *topics.c,
                cursors.c.epoch.label("cursor_epoch"),
                cursors.c.sequence.label("cursor"),
                cursors.c.loader_id,
            )
            .join(cursors, (cursors.c.topic_id == topics.c.id) & (cursors.c.loader_id == loader.id))
            .where(topics.c.name.in_(list(moves)))
            .with_for_update(of=cursors)
        )
    }
    missing = sorted(name for name in moves if name not in rows or not caller().sees(name))
    if missing:
        raise Problem("not-found", 404, f"Loader {loader.name} has no cursor of {', '.join(missing[:20])}.")
    moved: dict[str, Any] = {}
    for name, move in moves.items():
        check_epoch(connection, rows[name], move["epoch"], move["to"])
    different = {
        name: {"epoch": row.cursor_epoch, "sequence": row.cursor}
        for name, row in rows.items()
        for move in [moves[name]]
        if not move.get("reset", False)
        and (
            row.cursor_epoch != move["epoch"] or row.cursor != move["from"] or move["to"] < (row.cursor or 0)
        )
    }
    if different:
        raise Problem(
            "cursor-moved", 409,
            f"The cursors of {', '.join(sorted(different)[:20])} do not stand where the move begins (or it goes back): "
            "`cursors` says where they stand. To set one expressly, send `reset`.",
            cursors=different,
        )  # fmt: skip
    for name, move in moves.items():
        topic = rows[name]
        sequence = int(move["to"])
        if sequence > topic.sequence:
            raise Problem(
                "cursor-ahead", 422, f"The head of {name} is {topic.sequence}, not {sequence}.", head=topic.sequence
            )  # fmt: skip
        connection.execute(
            update(cursors)
            .where(cursors.c.loader_id == loader.id, cursors.c.topic_id == topic.id)
            .values(
                epoch=topic.epoch, sequence=sequence, moved_us=now_us, **point(connection, topic, sequence)
            )
        )
        moved[name] = {"epoch": topic.epoch, "sequence": sequence}
    return moved


# Commit time of the first commit that a cursor has not loaded: one look into an index, and into the months since the
# cursor's commit only.
WAITING_SINCE = (
    select(commits.c.committed_us)
    .where(
        commits.c.topic_id == cursors.c.topic_id,
        commits.c.sequence > cursors.c.sequence,
        commits.c.committed_us >= cursors.c.committed_us,
    )
    .order_by(commits.c.sequence)
    .limit(1)
    .correlate(cursors)
    .scalar_subquery()
)


def cursor_json(row: Record, now_us: int) -> dict[str, Any]:
    """A cursor joined with its topic (`name`, `head`, `total`, `since_us`) as the contract's Cursor."""
    behind = row.head - row.sequence if row.sequence is not None else None
    since_us = row.since_us if behind else None
    return {
        "topic": row.name,
        "epoch": row.epoch,
        "sequence": row.sequence,
        "head": row.head,
        "lag_commits": behind,
        "lag_rows": row.total - row.rows_total if row.sequence is not None else None,
        "lag_seconds": None if since_us is None else max(now_us - since_us, 0) / 1_000_000,
        "waiting_since": format_time_or_none(since_us),
        "moved_at": format_time_or_none(row.moved_us),
    }


def read_cursors(connection: Connection, loader_id: int, above: str, limit: int) -> Sequence[Record]:
    """Cursors of a loader by name of topic, from above a name; those that the caller may see."""
    rows = connection.execute(
        select(
            cursors,
            topics.c.name,
            topics.c.sequence.label("head"),
            topics.c.rows_total.label("total"),
            WAITING_SINCE.label("since_us"),
        )
        .join(topics, topics.c.id == cursors.c.topic_id)
        .where(cursors.c.loader_id == loader_id, topics.c.name > above)
        .order_by(topics.c.name)
        .limit(limit if caller().topics is None else None)
    ).all()
    return [row for row in rows if caller().sees(row.name)][:limit]
