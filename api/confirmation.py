"""Changes of retention that need a second word: cut by more than half, or below what a holding loader has not read."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from api.expiry import due, holding_cursors
from api.files import live_files
from api.problems import Problem
from api.retention import policies_of, shortened_by_half
from api.tables import Record, topics

LOOKED_AT_ONCE = 1_000


def require_confirmation(
    connection: Connection, topic: Record, before: Mapping[str, Any], after: Mapping[str, Any], now_us: int
) -> None:
    """Raises Problem (409) when the change of a topic's settings needs `confirm`. `before`, `after`: resolved."""
    names = ("retention", "dead_letter_retention", "max_retention", "min_retention", "hold_limit")
    if all(before[name] == after[name] for name in names):
        return
    reasons = [f"{name} becomes less than half of what it was" for name in shortened_by_half(before, after)]
    unread = _unread(connection, topic, before, after, now_us)
    if unread:
        reasons.append(f"{unread} live files would expire at once that a holding loader has not read")
    if reasons:
        raise Problem(
            "confirm-needed", 409, f"{topic.name}: {'; '.join(reasons)}. Send the change again with `confirm`.",
            topic=topic.name, reasons=reasons,
        )  # fmt: skip


def _unread(
    connection: Connection, topic: Record, before: Mapping[str, Any], after: Mapping[str, Any], now_us: int
) -> int:
    """How many live files the change lets go although a holding loader has not read them."""
    holding = holding_cursors(connection, topic)
    if not holding:
        return 0
    old, new = policies_of(before), policies_of(after)
    found, above_id = 0, 0
    while files := live_files(connection, topic.id, topic.sequence, above_id=above_id, limit=LOOKED_AT_ONCE):
        for file in files:
            unread = any(cursor < file.newest_sequence for cursor in holding)
            # What the policy alone would let go: the hold itself is what is about to be outrun.
            if unread and due(file, new, (), now_us) and not due(file, old, (), now_us):
                found += 1
        above_id = files[-1].id
    return found


def topics_of(connection: Connection) -> list[Record]:
    """All topics, for a change that concerns many."""
    return list(connection.execute(select(topics).order_by(topics.c.name)))
