"""What a worker does by the clock: look what is due, report, watch the logs' starts, keep memory within its share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from ingest.allocator import trim
from ingest.broker import BrokerAway
from ingest.catalog import CatalogUnavailable
from ingest.log_limits import Limits
from ingest.memory import relief
from ingest.report import report

if TYPE_CHECKING:
    from ingest.topic import Topic
    from ingest.worker import Worker

log = logging.getLogger(__name__)

BEAT_S = 0.1
REPORT_S = 10.0
WATCH_LOGS_S = 20.0
DEDUP_SHARE = 0.35  # of the memory


def all_beats(
    worker: Worker, now_us: Callable[[], int], limits_of: Callable[[str], Awaitable[Limits]]
) -> list[Coroutine[Any, Any, None]]:
    """The endless tasks of a worker."""
    return [publish_due(worker, now_us), send_reports(worker, now_us), watch_logs(worker, now_us, limits_of)]


async def publish_due(worker: Worker, now_us: Callable[[], int]) -> None:
    """Ten times a second: which topics are due, and what memory wants."""
    while True:
        take_ends(worker)
        obey_memory(worker)
        now = now_us()
        for topic in worker.topics.values():
            if topic.due(now):
                worker.publish(topic)
        await shed(worker)
        await asyncio.sleep(BEAT_S)


def take_ends(worker: Worker) -> None:
    """Tells each partition where its log ends, as the broker last confirmed it."""
    for tp, (end, stable_end, confirmed_at_us) in worker.source.ends().items():
        if part := worker.part(tp.topic, tp.partition):
            part.end = (
                end if end == stable_end else -1
            )  # a hanging transaction hides records: the end is not known
            part.confirmed_at_us = confirmed_at_us


def obey_memory(worker: Worker) -> None:
    """Publishes, pauses fetching, publishes early: in this order as the ceiling comes near."""
    wants = relief(
        worker.used_bytes(),
        worker.settings.memory,
        holding=worker.holding,
        busy=any(topic.working for topic in worker.topics.values()),
    )
    if wants.hold != worker.holding:
        log.warning("memory: %s fetching", "pausing" if wants.hold else "resuming")
        worker.holding = wants.hold
        worker.source.hold(wants.hold)
        if wants.hold:
            trim()
    if (wants.publish or wants.early) and worker.topics:
        largest = max(worker.topics.values(), key=lambda topic: topic.bytes)
        if largest.publishing is None and (wants.early or largest.ready_rows()):
            worker.publish(largest, largest.lake_partitions() if wants.early else ())


async def shed(worker: Worker) -> None:
    """Keeps the dedup memory within its share of the memory, the same part of each partition's."""
    share = worker.settings.memory * DEDUP_SHARE
    parts = [(topic, part) for topic in worker.topics.values() for part in topic.parts.values()]
    total = sum(part.held.seen.nbytes for _, part in parts)
    if total > share:
        for topic, part in parts:
            await topic.shed(part, int(part.held.seen.nbytes * share * 0.8 / total))


async def send_reports(worker: Worker, now_us: Callable[[], int]) -> None:
    """Every ten seconds; the answer carries what changed in the topics' settings."""
    missing: set[str] = set()
    while True:
        missing = say_missing(worker, missing)
        trim()
        try:
            answer = await worker.catalog.report(worker.settings.name, report(worker, now_us()))
        except CatalogUnavailable as error:
            log.warning("no report: %s", error)
        else:
            for changed in answer["topics"]:
                worker.change(changed)
        await asyncio.sleep(REPORT_S)


def say_missing(worker: Worker, said: set[str]) -> set[str]:
    """Says once of each topic that is named in the settings that the broker does not have it; returns those."""
    if worker.source.tap is None:
        return said
    missing = {name for name in worker.settings.names if worker.source.partitions_of(name) is None}
    for name in sorted(missing - said):
        log.warning(
            "topic %s of TUKANG_TOPICS is not at the broker, or may not be read: it is taken when it is there",
            name,
        )
    return missing


async def watch_logs(
    worker: Worker, now_us: Callable[[], int], limits_of: Callable[[str], Awaitable[Limits]]
) -> None:
    """Has held-back rows go early where Kafka is about to forget them: with the topic's next batch, which is due."""
    while True:
        await asyncio.sleep(WATCH_LOGS_S)
        for topic in list(worker.topics.values()):
            if await _endangered(worker, topic, now_us, limits_of):
                log.warning("topic %s: held-back rows go early, Kafka is about to forget them", topic.name)


async def _endangered(
    worker: Worker, topic: Topic, now_us: Callable[[], int], limits_of: Callable[[str], Awaitable[Limits]]
) -> bool:
    parts = {p: part for p, part in topic.parts.items() if part.held.rows and part.checked}
    if not parts:
        return False
    try:
        ranges = await worker.source.log_range(frozenset(TopicPartition(topic.name, p) for p in parts))
    except (BrokerAway, KafkaError) as error:
        log.warning("topic %s: it is not known where its log starts: %s", topic.name, error)
        return False
    limits, now_ms = await limits_of(topic.name), now_us() // 1000
    endangered = False
    for tp, log_ends in ranges.items():
        endangered |= parts[tp.partition].watch(log_ends, limits, now_ms)
    return endangered
