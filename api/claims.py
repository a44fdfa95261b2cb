"""Claims: one process at a time for a piece of upkeep, until it expires.

They only save work: two that do the same piece meet in the commit, where the second one's files are not live any more.
"""

from flask import Blueprint, Response
from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite

from api.access import require_topics
from api.problems import Problem, answer
from api.process import body, here
from api.times import format_time
from api.upkeep_tables import claims

blueprint = Blueprint("claims", __name__)


@blueprint.post("/v1/claims")
def claim() -> Response:
    asked = body()
    if asked.get("topic") is not None:
        require_topics([asked["topic"]])
    database = here().database
    insert_of = sqlite.insert if database.sqlite else postgresql.insert
    with database.write() as connection:
        now_us = database.clock(connection)
        expires_us = now_us + int(asked["seconds"]) * 1_000_000
        values = {"topic": asked.get("topic"), "holder": asked["holder"], "expires_us": expires_us}
        # The comparison stands in the statement: of two that claim at once one writes, the other sees its row.
        taken = connection.execute(
            insert_of(claims)
            .values(piece=asked["piece"], **values)
            .on_conflict_do_update(
                index_elements=["piece"],
                set_=values,
                where=(claims.c.expires_us <= now_us) | (claims.c.holder == asked["holder"]),
            )
            .returning(claims.c.piece)
        ).scalar()
        if taken is None:
            held = connection.execute(select(claims).where(claims.c.piece == asked["piece"])).one()
            raise Problem(
                "claimed", 409, f"{held.holder} has claimed {asked['piece']}.",
                holder=held.holder, expires_at=format_time(held.expires_us),
            )  # fmt: skip
        connection.execute(delete(claims).where(claims.c.expires_us <= now_us))
    return answer({"piece": asked["piece"], "holder": asked["holder"], "expires_at": format_time(expires_us)})
