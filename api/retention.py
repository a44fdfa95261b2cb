"""Retention: when a file's rows may leave the lake. Pure; the time is an argument, and nothing is stored.

A policy counts from the newest event time of a file (dead letters: record timestamp) or from the commit of its newest
row. Nothing expires earlier than `min_retention` after that commit: a row that was a year late is not born expired.
`max_retention` cuts every policy and beats a loader's hold; a legal hold beats expiry.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.topic_settings import FOR_EVER, RETENTION
from api.units import parse_duration


@dataclass(frozen=True, slots=True)
class Policy:
    """How long files of one kind live, in microseconds. `keep_us` None: for ever; `most_us` None: no upper limit."""

    keep_us: int | None
    from_commit: bool
    least_us: int
    most_us: int | None
    hold_us: int


def _policy(text: str, settings: Mapping[str, Any]) -> Policy:
    match = RETENTION.fullmatch(text)
    keep_us, from_commit = None, False
    if text != FOR_EVER and match is not None:
        keep_us, from_commit = parse_duration(match["time"]), match["base"] == "commit"
    most = settings["max_retention"]
    return Policy(
        keep_us=keep_us,
        from_commit=from_commit,
        least_us=parse_duration(settings["min_retention"]),
        most_us=None if most is None else parse_duration(most),
        hold_us=parse_duration(settings["hold_limit"]),
    )


def policies_of(settings: Mapping[str, Any]) -> dict[str, Policy]:
    """The policies of a topic by kind of file. `deletes` files have none: they stay as long as the history."""
    return {
        "rows": _policy(settings["retention"], settings),
        "dead_letters": _policy(settings["dead_letter_retention"], settings),
    }


def _ends(policy: Policy, highest_us: int | None, committed_us: int) -> tuple[int | None, int | None]:
    """When the policy ends a file's life, and when `max_retention` does."""
    base_us = committed_us if policy.from_commit or highest_us is None else highest_us
    kept = None if policy.keep_us is None else base_us + policy.keep_us
    most = None if policy.most_us is None else base_us + policy.most_us
    return kept, most


def expires_us(policy: Policy | None, highest_us: int | None, committed_us: int) -> int | None:
    """When a file expires; None: never. `committed_us`: commit time of its newest original row."""
    if policy is None:
        return None
    ends = [end for end in _ends(policy, highest_us, committed_us) if end is not None]
    return max(min(ends), committed_us + policy.least_us) if ends else None


def held_until_us(
    policy: Policy, highest_us: int | None, committed_us: int, newest_sequence: int, cursors: Sequence[int]
) -> int | None:
    """Until when loaders hold an expired file back; None: none of them does.

    `cursors`: the sequences of holding loaders, 0 for one that has loaded nothing. One holds while it has not read the
    file's newest content, up to the limit, and never beyond `max_retention`.
    """
    expires = expires_us(policy, highest_us, committed_us)
    if expires is None or all(cursor >= newest_sequence for cursor in cursors):
        return None
    most = _ends(policy, highest_us, committed_us)[1]
    until = expires + policy.hold_us
    return until if most is None else max(min(until, most), committed_us + policy.least_us)


def shortened_by_half(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Settings of retention that became less than half of what they were."""
    found = []
    for name in ("retention", "dead_letter_retention", "max_retention"):
        old, new = _length(before[name]), _length(after[name])
        if new is not None and (old is None or new * 2 < old):
            found.append(name)
    return found


def _length(text: str | None) -> int | None:
    """Microseconds of a policy; None: for ever."""
    if text is None or text == FOR_EVER:
        return None
    match = RETENTION.fullmatch(text)
    return None if match is None else parse_duration(match["time"])
