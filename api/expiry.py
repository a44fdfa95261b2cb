"""Expiry of a topic's live files: what is due now, computed from policy, cursors and the clock inside the transaction.

`GET .../expired` is the dry run of an expire commit; `check_expired` is what refuses one that comes too early.
"""

from collections.abc import Iterator, Mapping, Sequence

from flask import Blueprint, Response
from sqlalchemy import Connection, func, select

from api.files import file_json, live_files, policies_now
from api.pages import page_state, page_token
from api.patterns import covers
from api.problems import Problem, answer
from api.process import here, query
from api.retention import Policy, expires_us, held_until_us
from api.tables import Record, cursors, loaders
from api.times import parse_time
from api.topic_state import find_topic

blueprint = Blueprint("expiry", __name__)

LOOKED_AT_ONCE = 1_000


def holding_cursors(connection: Connection, topic: Record) -> list[int]:
    """Sequences of the loaders that hold the topic's retention; 0: one has loaded nothing yet."""
    found = list(
        connection.execute(
            select(func.coalesce(cursors.c.sequence, 0))
            .join(loaders, loaders.c.id == cursors.c.loader_id)
            .where(cursors.c.topic_id == topic.id, loaders.c.hold)
        ).scalars()
    )
    # One that has not looked since the topic was made has no cursor of it yet.
    unaware = connection.execute(
        select(loaders.c.topics).where(loaders.c.hold, loaders.c.seen_topic_id < topic.id)
    ).scalars()
    return found + [0 for patterns in unaware if covers(patterns, topic.name)]


def due(file: Record, policies: Mapping[str, Policy], holding: Sequence[int], now_us: int) -> bool:
    """Whether a live file may leave now."""
    policy = policies.get(file.what)
    expires = expires_us(policy, file.highest_us, file.newest_commit_us)
    if policy is None or expires is None or expires > now_us:
        return False
    held = held_until_us(policy, file.highest_us, file.newest_commit_us, file.newest_sequence, holding)
    return held is None or held <= now_us


def check_expired(connection: Connection, topic: Record, remove: Sequence[Record], now_us: int) -> None:
    """Raises Problem (409) unless every file may leave now."""
    policies = policies_now(connection, topic)
    holding = holding_cursors(connection, topic)
    early = [file.id for file in remove if not due(file, policies, holding, now_us)]
    if early:
        raise Problem(
            "not-expired", 409, f"{len(early)} files may not expire yet, by policy or for a loader that holds them.",
            files=early,
        )  # fmt: skip


def _due_files(connection: Connection, topic: Record, above_id: int, now_us: int) -> Iterator[Record]:
    policies = policies_now(connection, topic)
    holding = holding_cursors(connection, topic)
    while found := live_files(connection, topic.id, topic.sequence, above_id=above_id, limit=LOOKED_AT_ONCE):
        yield from (file for file in found if due(file, policies, holding, now_us))
        above_id = found[-1].id


@blueprint.get("/v1/topics/<topic>/expired")
def expired(topic: str) -> Response:
    asked = query()
    state = page_state(asked.get("page"), id=int)
    database = here().database
    with database.read() as connection:
        row = find_topic(connection, topic)
        now_us = parse_time(asked["as_of"]) if "as_of" in asked else database.clock(connection)
        policies = policies_now(connection, row)
        found: list[Record] = []
        for file in _due_files(connection, row, state["id"] if state else 0, now_us):
            found.append(file)
            if len(found) > asked["limit"]:
                break
    shown = found[: asked["limit"]]
    return answer(
        {
            "topic": topic,
            "epoch": row.epoch,
            "sequence": row.sequence,
            "files": [file_json(file, policies) for file in shown],
            "next_page": page_token(id=shown[-1].id) if len(found) > asked["limit"] else None,
        }
    )
