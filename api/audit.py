"""What operators changed: who, what, before, after; written with the change itself. Never a secret, never a URL."""

from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Connection, insert, select

from api.access import caller
from api.pages import page_state, page_token
from api.problems import answer
from api.process import here, query
from api.tables import audit
from api.times import format_time, parse_time

blueprint = Blueprint("audit", __name__)


def note(
    connection: Connection,
    now_us: int,
    action: str,
    *,
    topic: str | None = None,
    target: str | None = None,
    before: Any = None,
    after: Any = None,
    who: str | None = None,
) -> None:
    """Writes one line. `action`: the operationId of the contract."""
    connection.execute(
        insert(audit).values(
            at_us=now_us,
            who=who or caller().name,
            action=action,
            topic=topic,
            target=target,
            before=before,
            after=after,
        )
    )


@blueprint.get("/v1/audit")
def list_audit() -> Response:
    asked = query()
    limit = asked["limit"]
    state = page_state(asked.get("page"), id=int)
    wanted = select(audit).order_by(audit.c.id.desc()).limit(limit + 1)
    if state:
        wanted = wanted.where(audit.c.id < state["id"])
    for name in ("topic", "who", "action"):
        if name in asked:
            wanted = wanted.where(audit.c[name] == asked[name])
    if "from" in asked:
        wanted = wanted.where(audit.c.at_us >= parse_time(asked["from"]))
    if "to" in asked:
        wanted = wanted.where(audit.c.at_us < parse_time(asked["to"]))
    with here().database.read() as connection:
        rows = connection.execute(wanted).all()
    shown = rows[:limit]
    return answer(
        {
            "audit": [
                {
                    "at": format_time(row.at_us),
                    "who": row.who,
                    "action": row.action,
                    "topic": row.topic,
                    "target": row.target,
                    "before": row.before,
                    "after": row.after,
                }
                for row in shown
            ],
            "next_page": page_token(id=shown[-1].id) if len(rows) > limit else None,
        }
    )
