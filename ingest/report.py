"""The report that a worker sends every ten seconds: where its partitions stand, and in which state its topics are."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING, Any

from ingest import patience
from ingest.position import time_to_text

if TYPE_CHECKING:
    from ingest.part import Part
    from ingest.topic import Topic
    from ingest.worker import Worker


VERSION = importlib.metadata.version("tukang")  # asked once: it takes two milliseconds
LONGEST_DETAIL = 2000  # characters, by the contract: a report must not be refused for its words


def report(worker: Worker, sent_at_us: int) -> dict[str, Any]:
    """The body of `PUT /v1/workers/{name}`; it describes what is committed, not what is held."""
    topics = list(worker.topics.values())
    waits = _waits(worker.source.waiting_for)
    return {
        "version": VERSION,
        "group": worker.settings.group,
        "sent_at": time_to_text(sent_at_us),
        "memory_bytes": worker.used_bytes(),
        "memory_limit": int(worker.settings.memory),
        "rule_version": max((topic.rule_version for topic in topics), default=0),
        "topics": [
            _topic(topic, worker.source.partitions_of(topic.name), waits) for topic in topics if topic.epoch
        ],
    }


def _waits(for_broker: str | None) -> str | None:
    """Who is away, and why, in words; None: nobody."""
    found = dict(patience.waiting)
    if for_broker is not None:
        found["the broker"] = for_broker
    return "; ".join(f"{whom}: {why}" for whom, why in sorted(found.items())) or None


def _topic(topic: Topic, at_broker: tuple[list[int], int] | None, waits: str | None) -> dict[str, Any]:
    partitions, asked_at_us = at_broker or (None, None)
    state, detail = topic.state, topic.reason or topic.alarm()
    if waits is not None and state in ("starting", "running"):
        state, detail = "waiting", waits
    return {
        "topic": topic.name,
        "epoch": topic.epoch,
        "state": state,
        "reason": state,
        "detail": detail[:LONGEST_DETAIL] if detail else None,
        "settings_version": topic.settings.version,
        "broker_partitions": partitions,
        "broker_partitions_at": time_to_text(asked_at_us),
        "partitions": [_part(part) for _, part in sorted(topic.parts.items()) if part.checked],
    }


def _part(part: Part) -> dict[str, Any]:
    position = part.committed
    known = position.next is not None and part.end >= 0
    return {
        "lake_partition": position.lake_partition,
        "version": position.version,
        "next": position.next,
        "end": part.end if part.end >= 0 else None,
        "stable_end": part.end if part.end >= 0 else None,
        "watermark": time_to_text(position.watermark_us),
        "carried": len(position.carried),
        "at_end": known and position.next is not None and position.next >= part.end,
    }
