"""Opening: assigned partitions get their position from the API, their dedup memory from the lake, and a start.

Nothing is read before it is known where the lake stands. What cannot be opened says why, as the topic's state.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from ingest.catalog import Answer, Catalog
from ingest.dedup import Seen
from ingest.held import Held
from ingest.lake import Lake
from ingest.part import Part
from ingest.position import Position, time_from_text, time_to_text
from ingest.remember import remember, window_start
from ingest.schema import TopicSchema
from ingest.topic import Topic
from ingest.topic_settings import TopicSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """What the broker says of a topic: its id, and where the log of each asked partition begins and ends."""

    topic_id: str | None
    ranges: Mapping[int, tuple[int, int]]
    offset_at: Callable[
        [int, int], Awaitable[int | None]
    ]  # partition, time in ms -> first offset at or after it


async def open_parts(
    topic: Topic,
    answer: Answer,
    settings: TopicSettings,
    found: Found,
    lake: Lake,
    catalog: Catalog,
    now_us: int,
) -> None:
    """Opens each partition of `answer["positions"]` in `topic`, or sets the state that says why not.

    A partition that is held already goes on where it is, if nobody committed to it meanwhile: same epoch and version.
    """
    # What is held goes on only under what it was read under; else all of it is positioned anew, also what was not
    # asked for: the next report would say the new settings, and nobody would tell of the change again.
    if topic.parts and (moved := _moved(topic, answer, settings)):
        topic.drop(moved)
    topic.described(answer, settings)
    positions = [Position.from_json(position) for position in answer["positions"]]
    if stop := _obstacle(topic, answer, positions, found):
        if stop != (topic.state, topic.reason):
            log.error("topic %s is not read (%s): %s; `tukang status` says what to do", topic.name, *stop)
        topic.state, topic.reason = stop
        if topic.parts:
            topic.drop(stop[1])
        return
    topic.state, topic.reason = "running", None
    if topic.schema.version != answer["schema_version"]:
        topic.schema = TopicSchema.from_json(await catalog.schema(topic.name))
    fresh = [position for position in positions if not _goes_on(topic, position)]
    if fresh:
        await _open(topic, answer["sequence"], fresh, found, lake, catalog, now_us)


def _moved(topic: Topic, answer: Answer, settings: TopicSettings) -> str | None:
    """Why nothing that is held of the topic may go on; None: it may."""
    if topic.epoch != answer["epoch"]:
        return "the topic lives in another epoch"
    if topic.rule_version != answer["rule_version"]:
        return "an erasure was asked for"
    return "its settings changed" if topic.settings.version != settings.version else None


def _obstacle(
    topic: Topic, answer: Answer, positions: list[Position], found: Found
) -> tuple[str, str] | None:
    """State and reason for which the topic is not read; None when it can be.

    A log that ended before the position in two looks was cut: it stays truncated when it grows beyond the position
    again, because the records up to there are others than those in the lake. (One look may be a new leader's that has
    not heard yet how far its own log is confirmed.)
    """
    if answer["state"] == "suspended":
        return "suspended", "a commit with dead letters stopped it (error_mode: suspend)"
    if answer["paused"]:
        return "paused", "an operator paused it"
    if topic.settings.wrong is not None:
        return "waiting", f"its settings cannot be followed by this worker: {topic.settings.wrong}"
    for position in positions:
        if position.topic_id and found.topic_id and position.topic_id != found.topic_id:
            return "new_life", (
                f"the topic was made again (its id was {position.topic_id}, now it is {found.topic_id}):"
                " tukang topics accept-reset says where to begin"
            )
        end = found.ranges[position.partition][1]
        if position.next is None:
            continue
        life = position.lake_partition, position.version
        if position.next > end:
            topic.ended_before[life] = [*topic.ended_before.get(life, []), end][:2]
        ends = topic.ended_before.get(life, [])
        if position.next > end or len(ends) == 2:
            return "truncated", (
                f"partition {position.partition} ended at {ends[0]}, but the lake has it up to {position.next}:"
                " tukang topics accept-reset says where to go on"
            )
    return None


def _goes_on(topic: Topic, position: Position) -> bool:
    part = topic.parts.get(position.partition)
    if part is None or (part.committed.lake_partition, part.committed.version) != (
        position.lake_partition,
        position.version,
    ):
        topic.forget([position.partition])
        return False
    part.checked = True
    return True


async def _open(
    topic: Topic,
    sequence: int,
    positions: list[Position],
    found: Found,
    lake: Lake,
    catalog: Catalog,
    now_us: int,
) -> None:
    window_us = topic.settings.dedup_window_us
    seen = {position.lake_partition: Seen(window_us) for position in positions}
    known = [position for position in positions if position.version is not None]
    since_us = {position.lake_partition: window_start(position.watermark_us, window_us) for position in known}
    if known:
        starts = list(since_us.values())
        lowest = None if None in starts else min(start for start in starts if start is not None)
        files = await catalog.files(topic.name, sequence, time_to_text(lowest))
        wanted = {each: seen[each] for each in since_us}
        timed = topic.settings.timed
        await asyncio.to_thread(lambda: remember(lake, files, wanted, since_us, timed=timed))
    for position in positions:
        earliest = found.ranges[position.partition][0]
        start = await _start(position, found)
        # The life that is read from here on is known before the first fetch: else a topic that is made again before
        # its first commit would get the new life's id on rows and offsets of the old one.
        base = position if position.topic_id else replace(position, topic_id=found.topic_id)
        held = Held(base, start, seen[position.lake_partition], now_us)
        if position.next is None and position.start_from is not None:
            held.settle(now_us)
        if held.next < earliest:
            log.error(
                "topic %s: Kafka no longer has offsets %d to %d of partition %d: they are lost (state gap)",
                topic.name,
                held.next,
                earliest,
                position.partition,
            )
            held.lose(held.next, earliest, now_us)
        topic.parts[position.partition] = Part(
            held=held, committed=position, expected=held.next, checked=True
        )


async def _start(position: Position, found: Found) -> int:
    """Where a lake partition begins that was never committed: at the log's start, or where an operator said."""
    first, end = found.ranges[position.partition]
    wanted = position.start_from
    if wanted is None or wanted == "earliest":
        return first
    if wanted == "end":
        return end
    if wanted.isdecimal():
        return min(max(int(wanted), first), end)
    at_us = time_from_text(wanted)
    assert at_us is not None
    offset = await found.offset_at(position.partition, at_us // 1000)
    return end if offset is None else max(offset, first)
