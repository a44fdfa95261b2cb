"""Memory wins over order and window: what to do as a worker comes near its ceiling. Pure.

First what is ready is published, then fetching pauses, then held-back rows are published early (counted).
"""

from __future__ import annotations

from dataclasses import dataclass

PUBLISH_AT = 0.50
HOLD_AT = 0.70
RELEASE_AT = 0.60


@dataclass(frozen=True, slots=True)
class Relief:
    """What to do now."""

    publish: bool  # publish what is ready, although it is not due
    hold: bool  # stop fetching
    early: bool  # publish rows that still wait for order


def relief(used: int, ceiling: int, *, holding: bool, busy: bool) -> Relief:
    """`used` and `ceiling` in bytes; `holding`: fetching is paused now; `busy`: something is decoded or published.

    Rows are published early only when fetching is paused and nothing that is under way can give memory back.
    """
    hold = used >= ceiling * (RELEASE_AT if holding else HOLD_AT)
    return Relief(publish=used >= ceiling * PUBLISH_AT, hold=hold, early=hold and holding and not busy)
