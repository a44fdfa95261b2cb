"""The ledger as it can be read: per commit and lake partition, what was read and what became of it.

Commits older than `history` are folded (`folding.py`): one line per lake partition and day, before all others.
"""

import base64
from typing import Any

from flask import Blueprint, Response
from sqlalchemy import select, tuple_

from api.pages import page_state, page_token
from api.problems import answer
from api.process import here, query
from api.tables import LEDGER_COUNTS, Record, commits, folded, ledger
from api.times import format_time, format_time_or_none
from api.topic_state import find_topic

blueprint = Blueprint("ledger", __name__)

MOST_PARTITION = 2**31 - 1


def line_json(row: Record) -> dict[str, Any]:
    """A line, joined with `kind` and `id` of its commit (or a folded one), as the contract's LedgerLine."""
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
    of_many = row._mapping.get("lines") is not None
    return {
        "sequence": row.sequence,
        "kind": "fold" if of_many else row.kind,
        **({"first_sequence": row.first_sequence, "folded": row.lines} if of_many else {}),
        "id": str(row.id),
        "committed_at": format_time(row.committed_us),
        "lake_partition": row.lake_partition,
        "from_version": str(row.from_version) if row.from_version is not None else None,
        "from_offset": row.from_offset,
        "to_offset": row.to_offset,
        **{name: row._mapping[name] for name in LEDGER_COUNTS},
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
        place = (
            (state["sequence"], state["lake_partition"]) if state else (asked.get("after", 0), MOST_PARTITION)
        )
        of_commits = (
            select(ledger, commits.c.kind, commits.c.id)
            .join(
                commits,
                (commits.c.topic_id == ledger.c.topic_id)
                & (commits.c.sequence == ledger.c.sequence)
                & (commits.c.committed_us == ledger.c.committed_us),
            )
        )  # fmt: skip
        lines: list[Record] = []
        for wanted, table in ((select(folded), folded), (of_commits, ledger)):
            # The first condition is a range of the index, which PostgreSQL does not see in the second one.
            found = wanted.where(
                table.c.topic_id == row.id,
                table.c.sequence.between(place[0], to),
                tuple_(table.c.sequence, table.c.lake_partition) > tuple_(*place),
            )
            if "lake_partition" in asked:
                found = found.where(table.c.lake_partition == asked["lake_partition"])
            if table is ledger or place[0] < row.oldest:
                found = found.order_by(table.c.sequence, table.c.lake_partition).limit(limit + 1 - len(lines))
                lines += connection.execute(found)
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
