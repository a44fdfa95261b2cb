"""Loaders: named readers of the feed, registered with the topics they load, so that lag is seen and retention can wait.

Their cursors are in `cursors.py`, the feed over all of a loader's topics in `loader_feed.py`.
"""

from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Connection, delete, func, insert, select, update

from api.access import caller, require_topics
from api.audit import note
from api.cursors import cursor_json, give_cursors, move_cursors, read_cursors
from api.pages import page_state, page_token
from api.patterns import wrong_patterns
from api.problems import Problem, answer
from api.process import body, here, query
from api.tables import Record, cursors, loaders, topics
from api.times import format_time, format_time_or_none

blueprint = Blueprint("loaders", __name__)


def find_loader(connection: Connection, name: str, *, lock: bool = False) -> Record:
    """The loader's row; raises Problem when there is none."""
    wanted = select(loaders).where(loaders.c.name == name)
    row = connection.execute(wanted.with_for_update() if lock else wanted).one_or_none()
    if row is None:
        raise Problem("not-found", 404, f"There is no loader {name}, or it is not for this caller.")
    return row


def _asked_for(loader: Record) -> list[str]:
    """What it registered, without the names of topics that are not for this caller."""
    return [each for each in loader.topics if each.startswith("^") or caller().sees(each)]


def _show(connection: Connection, loader: Record, now_us: int) -> dict[str, Any]:
    asked = query()
    limit = asked.get("limit", MOST_CURSORS)
    state = page_state(asked.get("page"), topic=str)
    rows = read_cursors(connection, loader.id, state["topic"] if state else "", limit + 1)
    leased = loader.lease_expires_us is not None and loader.lease_expires_us > now_us
    return {
        "name": loader.name,
        "topics": _asked_for(loader),
        "from": loader.start,
        "hold": loader.hold,
        "mirror_expiry": loader.mirror_expiry,
        "registered_at": format_time(loader.registered_us),
        "lease": {"holder": loader.lease_holder, "expires_at": format_time(loader.lease_expires_us)}
        if leased
        else None,
        "cursors": [cursor_json(row, now_us) for row in rows[:limit]],
        "next_page": page_token(topic=rows[limit - 1].name) if len(rows) > limit else None,
    }


# A loader of every topic that an installation is built for still gets them all in one answer.
MOST_CURSORS = 5_000


@blueprint.put("/v1/loaders/<name>")
def register_loader(name: str) -> Response:
    asked = body()
    wrong = wrong_patterns(asked["topics"])
    if wrong:
        raise Problem(
            "request-invalid", 400, f"topics: {wrong[0]}", errors=[f"topics: {text}" for text in wrong]
        )
    require_topics(name for name in asked["topics"] if not name.startswith("^"))
    database = here().database
    values = {
        "topics": sorted(set(asked["topics"])),
        "start": asked.get("from", "snapshot"),
        "hold": asked.get("hold", False),
        "mirror_expiry": asked.get("mirror_expiry", False),
    }
    with database.write() as connection:
        now_us = database.clock(connection)
        row = connection.execute(
            select(loaders).where(loaders.c.name == name).with_for_update()
        ).one_or_none()
        if row is None:
            connection.execute(
                insert(loaders).values(name=name, seen_topic_id=0, registered_us=now_us, **values)
            )
        else:
            connection.execute(update(loaders).where(loaders.c.id == row.id).values(**values))
        loader = find_loader(connection, name)
        give_cursors(connection, loader, values["topics"], values["start"], now_us, anew=True)
        before = {key: None if row is None else row._mapping[key] for key in values}
        changed = [key for key in values if before[key] != values[key]]
        if changed:  # a loader that starts again says the same again
            note(
                connection, now_us, "register_loader", target=name,
                before=None if row is None else {key: before[key] for key in changed},
                after={key: values[key] for key in changed},
            )  # fmt: skip
        return answer(_show(connection, loader, now_us), 201 if row is None else 200)


@blueprint.get("/v1/loaders/<name>")
def get_loader(name: str) -> Response:
    database = here().database
    with database.read() as connection:
        return answer(_show(connection, find_loader(connection, name), database.clock(connection)))


@blueprint.delete("/v1/loaders/<name>")
def delete_loader(name: str) -> Response:
    database = here().database
    with database.write() as connection:
        loader = find_loader(connection, name, lock=True)
        note(
            connection, database.clock(connection), "delete_loader", target=name,
            before={
                "topics": loader.topics, "hold": loader.hold, "mirror_expiry": loader.mirror_expiry,
                "registered_at": format_time(loader.registered_us),
            },
        )  # fmt: skip
        connection.execute(delete(cursors).where(cursors.c.loader_id == loader.id))
        connection.execute(delete(loaders).where(loaders.c.id == loader.id))
    return Response(status=204)


@blueprint.get("/v1/loaders")
def list_loaders() -> Response:
    asked = query()
    limit = asked["limit"]
    state = page_state(asked.get("page"), name=str)
    database = here().database
    behind = (
        select(
            cursors.c.loader_id,
            func.count().label("topics"),
            func.count().filter(cursors.c.sequence.is_(None)).label("unstarted"),
            func.count().filter(cursors.c.sequence < topics.c.sequence).label("behind"),
            func.coalesce(func.sum(topics.c.sequence - cursors.c.sequence), 0).label("commits"),
            func.coalesce(func.sum(topics.c.rows_total - cursors.c.rows_total), 0).label("rows"),
            func.min(cursors.c.moved_us).filter(cursors.c.sequence < topics.c.sequence).label("moved_us"),
        )
        .join(topics, topics.c.id == cursors.c.topic_id)
        .group_by(cursors.c.loader_id)
        .subquery()
    )
    with database.read() as connection:
        wanted = (
            select(loaders, behind)
            .outerjoin(behind, behind.c.loader_id == loaders.c.id)
            .order_by(loaders.c.name)
            .limit(limit + 1)
        )
        if state:
            wanted = wanted.where(loaders.c.name > state["name"])
        rows = connection.execute(wanted).all()
    return answer(
        {
            "loaders": [
                {
                    "name": row.name,
                    "topics": _asked_for(row),
                    "hold": row.hold,
                    "mirror_expiry": row.mirror_expiry,
                    "registered_at": format_time(row.registered_us),
                    "cursors": row._mapping[behind.c.topics] or 0,
                    "unstarted": row.unstarted or 0,
                    "behind": row.behind or 0,
                    "lag_commits": int(row.commits or 0),
                    "lag_rows": int(row.rows or 0),
                    "moved_at": format_time_or_none(row.moved_us),
                }
                for row in rows[:limit]
            ],
            "next_page": page_token(name=rows[limit - 1].name) if len(rows) > limit else None,
        }
    )


def _leased_by_another(loader: Record, holder: str | None, now_us: int) -> bool:
    held = loader.lease_holder is not None and (loader.lease_expires_us or 0) > now_us
    return held and loader.lease_holder != holder


def _lease_held(loader: Record) -> Problem:
    return Problem(
        "lease-held", 409,
        f"{loader.lease_holder} holds the lease of loader {loader.name}.",
        holder=loader.lease_holder, expires_at=format_time(loader.lease_expires_us),
    )  # fmt: skip


@blueprint.post("/v1/loaders/<name>/lease")
def lease(name: str) -> Response:
    asked = body()
    database = here().database
    with database.write() as connection:
        now_us = database.clock(connection)
        loader = find_loader(connection, name, lock=True)
        if _leased_by_another(loader, asked["holder"], now_us):
            raise _lease_held(loader)
        expires_us = now_us + int(asked["seconds"]) * 1_000_000
        connection.execute(
            update(loaders)
            .where(loaders.c.id == loader.id)
            .values(lease_holder=asked["holder"], lease_expires_us=expires_us)
        )
    return answer({"holder": asked["holder"], "expires_at": format_time(expires_us)})


@blueprint.put("/v1/loaders/<name>/cursors")
def put_cursors(name: str) -> Response:
    asked = body()
    database = here().database
    with database.write() as connection:
        now_us = database.clock(connection)
        loader = find_loader(connection, name, lock=True)
        if _leased_by_another(loader, asked.get("holder"), now_us):
            raise _lease_held(loader)
        give_cursors(connection, loader, loader.topics, loader.start, now_us, anew=False)
        return answer({"cursors": move_cursors(connection, loader, asked["cursors"], now_us)})
