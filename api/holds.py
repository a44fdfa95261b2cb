"""Legal holds: while one names a topic, nothing of it expires, whatever its policy says."""

from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Connection, delete, insert, select

from api.audit import note
from api.pages import page_state, page_token
from api.patterns import covers, wrong_patterns
from api.problems import Problem, answer
from api.process import body, here, query
from api.tables import Record
from api.times import format_time
from api.upkeep_tables import holds

blueprint = Blueprint("holds", __name__)


def legally_held(connection: Connection, topic: str) -> bool:
    """Whether some legal hold names the topic."""
    return any(covers(patterns, topic) for patterns in connection.execute(select(holds.c.topics)).scalars())


def _hold_json(row: Record) -> dict[str, Any]:
    return {
        "name": row.name,
        "topics": row.topics,
        "reason": row.reason,
        "created_at": format_time(row.created_us),
    }


@blueprint.get("/v1/holds")
def list_holds() -> Response:
    asked = query()
    limit = asked["limit"]
    state = page_state(asked.get("page"), name=str)
    wanted = select(holds).order_by(holds.c.name).limit(limit + 1)
    if state:
        wanted = wanted.where(holds.c.name > state["name"])
    with here().database.read() as connection:
        rows = connection.execute(wanted).all()
    return answer(
        {
            "holds": [_hold_json(row) for row in rows[:limit]],
            "next_page": page_token(name=rows[limit - 1].name) if len(rows) > limit else None,
        }
    )


@blueprint.put("/v1/holds/<name>")
def put_hold(name: str) -> Response:
    asked = body()
    wrong = wrong_patterns(asked["topics"])
    if wrong:
        raise Problem(
            "request-invalid", 400, f"topics: {wrong[0]}", errors=[f"topics: {text}" for text in wrong]
        )
    database = here().database
    with database.write() as connection:
        now_us = database.clock(connection)
        before = connection.execute(select(holds).where(holds.c.name == name).with_for_update()).one_or_none()
        connection.execute(delete(holds).where(holds.c.name == name))
        connection.execute(
            insert(holds).values(
                name=name,
                topics=sorted(set(asked["topics"])),
                reason=asked["reason"],
                created_us=now_us if before is None else before.created_us,
            )
        )
        made = connection.execute(select(holds).where(holds.c.name == name)).one()
        if before is None or _hold_json(before) != _hold_json(made):
            note(
                connection, now_us, "put_hold", target=name,
                before=None if before is None else _hold_json(before), after=_hold_json(made),
            )  # fmt: skip
    return answer(_hold_json(made))


@blueprint.delete("/v1/holds/<name>")
def delete_hold(name: str) -> Response:
    database = here().database
    with database.write() as connection:
        row = connection.execute(select(holds).where(holds.c.name == name).with_for_update()).one_or_none()
        if row is None:
            raise Problem("not-found", 404, f"There is no hold {name}.")
        connection.execute(delete(holds).where(holds.c.name == name))
        note(connection, database.clock(connection), "delete_hold", target=name, before=_hold_json(row))
    return Response(status=204)
