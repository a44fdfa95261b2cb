"""The broker: what it has that the ledger has not, and whether it still is the log that the ledger knows.

Asks for offsets and looks at one record behind each position; reads nothing else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from ingest.broker import BrokerAway, BrokerSettings, TopicIds, knock
from ingest.verify.chain import Link
from ingest.verify.finding import Finding

ANSWER_SECONDS = 15.0
_EARLIEST, _LATEST = OffsetSpec.earliest(), OffsetSpec.latest()  # type: ignore[no-untyped-call]

Behind = Literal["record", "end", "out of range", "unknown"]


@dataclass(frozen=True, slots=True)
class Ends:
    """What the broker says of one partition: [start, stable_end) can be read, up to `end` is written."""

    start: int
    stable_end: int
    end: int


@dataclass(frozen=True, slots=True)
class Log:
    """A topic as the broker had it when it was asked."""

    topic_id: str | None
    ends: dict[int, Ends]


class Source:
    """A reader of the broker that belongs to no group and moves nothing."""

    def __init__(self, settings: BrokerSettings) -> None:
        """Raises `BrokerRefused` or `BrokerAway` when the broker does not take us."""
        asyncio.run(knock(settings))
        self._settings = settings
        self._config = {**settings.confluent_config(), "log_level": 0}
        self._admin = AdminClient(self._config)

    def log(self, topic: str) -> Log | None:
        """Start and end of every partition; None: the broker has no such topic. Raises `BrokerAway`."""
        try:
            # All topics: asking for one that is not there would make it, where the broker makes topics.
            found = self._admin.list_topics(timeout=ANSWER_SECONDS).topics.get(topic)
            if found is None:
                return None
            if found.error is not None:
                raise BrokerAway(f"the broker does not tell of topic {topic}: {found.error.str()}")
            numbers = sorted(found.partitions)
            start = self._offsets(topic, numbers, _EARLIEST, IsolationLevel.READ_UNCOMMITTED)
            # In this order: a record that comes in between must not look like an open transaction.
            end = self._offsets(topic, numbers, _LATEST, IsolationLevel.READ_UNCOMMITTED)
            stable = self._offsets(topic, numbers, _LATEST, IsolationLevel.READ_COMMITTED)
        except KafkaException as error:
            raise BrokerAway(f"the broker at {self._settings.servers} does not answer: {error}") from error
        ids = asyncio.run(TopicIds(self._settings).ask([topic]))
        return Log(
            ids.get(topic),
            {
                number: Ends(start[number], stable[number], max(end[number], stable[number]))
                for number in numbers
            },
        )

    def _offsets(
        self, topic: str, numbers: Sequence[int], spec: OffsetSpec, isolation: IsolationLevel
    ) -> dict[int, int]:
        asked = {TopicPartition(topic, number): spec for number in numbers}
        futures = self._admin.list_offsets(asked, isolation_level=isolation, request_timeout=ANSWER_SECONDS)
        return {partition.partition: future.result().offset for partition, future in futures.items()}

    def behind(self, topic: str, positions: Mapping[int, int]) -> dict[int, Behind]:
        """What comes at each position (by partition): a record, the log's end, or nothing because it is out of range.

        For positions beyond the reported end: some brokers report an end that lies before their last record.
        """
        found: dict[int, Behind] = dict.fromkeys(positions, "unknown")
        if not positions:
            return found
        consumer = Consumer(
            {
                **self._config,
                "group.id": "tukang-verify",  # never joined: partitions are assigned by hand, nothing is committed
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "fetch.message.max.bytes": 64 << 10,
                "queued.max.messages.kbytes": 1 << 10,
            }
        )
        try:
            consumer.assign([TopicPartition(topic, number, offset) for number, offset in positions.items()])
            end = time.monotonic() + ANSWER_SECONDS
            while "unknown" in found.values() and time.monotonic() < end:
                message = consumer.poll(0.5)
                if message is None:
                    continue
                number, error = message.partition(), message.error()
                if number not in found or found[number] != "unknown":
                    continue
                if error is None:
                    found[number] = "record"
                elif error.code() == KafkaError._PARTITION_EOF:
                    found[number] = "end"
                elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
                    found[number] = "out of range"
                if found[number] != "unknown":
                    consumer.pause([TopicPartition(topic, number)])
        finally:
            consumer.close()
        return found


def compare(
    topic: str,
    log: Log | None,
    links: Mapping[int, Link],
    partitions: Sequence[Mapping[str, Any]],
    behind: Mapping[int, Behind],
) -> Iterator[Finding]:
    """The log against the ledger. `partitions` are the topic's lake partitions, `behind` is what comes at `next`."""
    if log is None:
        yield Finding(
            "note", "source_gone", topic,
            "the broker has no such topic any more: only the lake and the ledger were compared",
        )  # fmt: skip
        return
    open_ones = {each["broker_partition"]: each["lake_partition"] for each in partitions if each["open"]}
    ids = {link.topic_id for number in open_ones.values() if (link := links.get(number)) and link.topic_id}
    if log.topic_id is not None and ids and log.topic_id not in ids:
        text = (
            "the topic was made again: the ledger knows another life of it. "
            "Decide with `tukang topics accept-reset --from ...`"
        )
        yield Finding("damage", "new_life", topic, text)
        return
    for number, ends in sorted(log.ends.items()):
        lake_partition = open_ones.get(number)
        link = links.get(lake_partition, Link()) if lake_partition is not None else Link()
        yield from _one(topic, number, lake_partition, link, ends, behind.get(number, "unknown"))


def _one(
    topic: str, number: int, lake_partition: int | None, link: Link, ends: Ends, behind: Behind
) -> Iterator[Finding]:
    name: dict[str, Any] = {"lake_partition": lake_partition}
    if link.next is None:
        if ends.stable_end > ends.start:
            text = f"nothing of broker partition {number} has been committed yet"
            yield Finding("behind", "behind", topic, text, offsets=(ends.start, ends.stable_end), **name)
        return
    lowest = int(link.carried[0]) if len(link.carried) else link.next
    if ends.end < link.next and behind == "out of range":
        text = (
            f"the log of broker partition {number} ends at {ends.end}, before the position: it was truncated. "
            "Decide with `tukang topics accept-reset --from ...`"
        )
        yield Finding("damage", "truncated", topic, text, offsets=(ends.end, link.next), **name)
        return
    if ends.start > lowest:
        text = (
            f"broker partition {number} begins at {ends.start}: records were deleted there before they were read, "
            "and the ledger does not say so yet"
        )
        yield Finding("damage", "lost_at_source", topic, text, offsets=(lowest, ends.start), **name)
    if ends.stable_end > link.next or behind == "record":
        end = max(ends.stable_end, link.next + 1)
        text = f"broker partition {number} has up to {end - link.next} records that no commit has yet"
        yield Finding("behind", "behind", topic, text, offsets=(link.next, end), **name)
    elif ends.end < link.next and behind == "unknown":
        text = f"broker partition {number} ends at {ends.end} by its own word, the position is {link.next}"
        yield Finding("unchecked", "source_silent", topic, text, **name)
    if len(link.carried):
        text = f"{len(link.carried)} records were read and are held back until their time has come"
        yield Finding("behind", "held_back", topic, text, offsets=(lowest, link.next), **name)
    if ends.end > ends.stable_end:
        text = f"an open transaction holds back {ends.end - ends.stable_end} offsets of broker partition {number}"
        yield Finding("note", "open_transaction", topic, text, offsets=(ends.stable_end, ends.end), **name)
