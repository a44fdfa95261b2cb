"""The ledger as it can be read: per commit and lake partition, what was read and what became of it."""

import base64
from typing import Any

from flask import Blueprint, Response
from sqlalchemy import select, tuple_

from api.pages import page_state, page_token
from api.problems import answer
from api.process import here, query
from api.tables import Record, commits, ledger
from api.times import format_time, format_time_or_none
from api.topic_state import find_topic

blueprint = Blueprint("ledger", __name__)

COUNTS = (
    "consumed",
    "carried_in",
    "written",
    "duplicates",
    "differing",
    "dead_letters",
    "lost",
    "carried_out",
    "late",
    "early",
    "tombstones",
    "rows_in",
    "rows_out",
    "dead_in",
    "dead_out",
    "restored",
    "erased",
    "expired",
)


def line_json(row: Record) -> dict[str, Any]:
    """A line, joined with `kind` and `id` of its commit, as the contract's LedgerLine."""
    position = None
    if row.carried is not None:
        position = {
            "next": row.to_offset,
            "carried": base64.b64encode(row.carried).decode(),
            "highest": format_time_or_none(row.highest_us),
            "watermark": format_time_or_none(row.watermark_us),
            "published_to": format_time_or_none(row.published_to_us),
            "topic_id": row.broker_topic_id,
        }
    return {
        "sequence": row.sequence,
        "kind": row.kind,
        "id": str(row.id),
        "committed_at": format_time(row.committed_us),
        "lake_partition": row.lake_partition,
        "from_version": str(row.from_version) if row.from_version is not None else None,
        "from_offset": row.from_offset,
        "to_offset": row.to_offset,
        **{name: row._mapping[name] for name in COUNTS},
        "lost_ranges": row.lost_ranges or [],
        "position": position,
    }


@blueprint.get("/v1/topics/<topic>/ledger")
def ledger_of(topic: str) -> Response:
    asked = query()
    limit = asked["limit"]
    state = page_state(asked.get("page"), to=int, sequence=int, lake_partition=int)
    with here().database.read() as connection:
        row = find_topic(connection, topic)
        to = state["to"] if state else min(asked.get("to", row.sequence), row.sequence)
        wanted = (
            select(ledger, commits.c.kind, commits.c.id)
            .join(
                commits,
                (commits.c.topic_id == ledger.c.topic_id)
                & (commits.c.sequence == ledger.c.sequence)
                & (commits.c.committed_us == ledger.c.committed_us),
            )
            .where(ledger.c.topic_id == row.id, ledger.c.sequence <= to)
        )
        if "lake_partition" in asked:
            wanted = wanted.where(ledger.c.lake_partition == asked["lake_partition"])
        if state:
            wanted = wanted.where(
                tuple_(ledger.c.sequence, ledger.c.lake_partition)
                > tuple_(state["sequence"], state["lake_partition"])
            )
        else:
            wanted = wanted.where(ledger.c.sequence > asked.get("after", 0))
        lines = connection.execute(
            wanted.order_by(ledger.c.sequence, ledger.c.lake_partition).limit(limit + 1)
        ).all()
    shown = lines[:limit]
    more = len(lines) > limit
    return answer(
        {
            "topic": topic,
            "epoch": row.epoch,
            "head": row.sequence,
            "lines": [line_json(line) for line in shown],
            "next_page": page_token(
                to=to, sequence=shown[-1].sequence, lake_partition=shown[-1].lake_partition
            )
            if more
            else None,
        }
    )
