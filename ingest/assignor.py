"""Partitions to workers, without state: which worker of a group reads which partition.

A rendezvous hash of worker name and partition, with a bound on each worker's load, so that a change of members or
topics moves few partitions and nobody has to remember the last assignment. Members send no list of topics: with
thousands of topics the group's record would outgrow what the broker can store. The leader takes the topics from its own
metadata, by each member's pattern. Nothing here talks to the broker.
"""

from __future__ import annotations

import json
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from math import ceil
from typing import Any

from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.structs import TopicPartition

log = logging.getLogger(__name__)

SLACK = 1.1
"""A worker may hold a tenth more than its even share: without it each new topic would move partitions of others."""

PATTERN_LIMIT = 2_000
"""A longer pattern is not sent: its members are taken to read what the leader reads."""


class RendezvousAssignor(AbstractPartitionAssignor):  # type: ignore[misc]  # aiokafka has no types
    """aiokafka's seam for assignment. The name stands for the algorithm: change both together, with all workers of the
    group stopped once."""

    name = "tukang-rendezvous"

    def __init__(self, worker: str, pattern: str) -> None:
        self.worker = worker
        self.pattern = pattern
        self.partition_counts: dict[str, int] | None = None
        """What the leader assigned: topic -> number of partitions. None: this member did not lead."""

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """What this member tells the leader: its name and pattern, and no topics."""
        pattern = self.pattern if len(self.pattern) <= PATTERN_LIMIT else None
        return ConsumerProtocolMemberMetadata(
            0, [], json.dumps({"worker": self.worker, "pattern": pattern}).encode()
        )

    def assign(
        self, cluster: Any, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Run by the leader. Raises ValueError when a member speaks something else."""
        told = {member: _told(metadata.user_data) for member, metadata in members.items()}
        names = _unique({member: worker for member, (worker, _) in told.items()})
        readable = {
            member: re.compile(pattern or self.pattern).match for member, (_, pattern) in told.items()
        }
        counts = {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in cluster.topics()}
        shares = spread(counts, {names[member]: readable[member] for member in members})
        self.partition_counts = self.matched(cluster)
        return {
            member: ConsumerProtocolMemberAssignment(0, _by_topic(shares[names[member]]), b"")
            for member in members
        }

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Nothing to remember."""

    def matched(self, cluster: Any) -> dict[str, int]:
        """Topics that this member reads, with their numbers of partitions, as the metadata has them now."""
        match = re.compile(self.pattern).match
        return {
            each: len(cluster.partitions_for_topic(each) or ()) for each in cluster.topics() if match(each)
        }


def spread(
    counts: Mapping[str, int], workers: Mapping[str, Callable[[str], Any]]
) -> dict[str, list[TopicPartition]]:
    """Worker name -> its partitions; every partition that some worker reads goes to exactly one of those.

    `counts`: topic -> number of partitions; `workers`: name -> whether it reads a topic. No worker holds more than its
    share of a topic while others have room, nor (of topics that all read) more than SLACK times its even share.
    """
    shares: dict[str, list[TopicPartition]] = {worker: [] for worker in workers}
    total = sum(counts.values())
    room = ceil(total / max(1, len(workers)) * SLACK)
    for topic in sorted(counts, key=lambda each: _weight(each)):
        readers = [worker for worker, reads in workers.items() if reads(topic)]
        if not readers:
            continue
        fair = ceil(counts[topic] / len(readers))
        held: dict[str, int] = defaultdict(int)
        for partition in range(counts[topic]):
            ranked = sorted(readers, key=lambda each: _weight(each, topic, partition))
            spacious = [worker for worker in ranked if len(shares[worker]) < room] or [
                min(ranked, key=lambda each: len(shares[each]))
            ]
            chosen = next((worker for worker in spacious if held[worker] < fair), spacious[0])
            held[chosen] += 1
            shares[chosen].append(TopicPartition(topic, partition))
    return shares


class KnownTopicsOnly(SubscriptionState):  # type: ignore[misc]  # aiokafka has no types
    """aiokafka's subscription, made safe for assignments by pattern.

    The leader may know a topic that this member has not seen yet; aiokafka then fails an assertion and the member's
    coordination ends for good. Here such partitions are left out and `strangers` says which, so that the source can
    ask for another round. And every partition gets a position and a pause in the very moment it is assigned: one
    without a position would be looked up in the broker at once, even though paused.
    """

    strangers: frozenset[TopicPartition] = frozenset()

    def assign_from_subscribed(self, assignment: Iterable[TopicPartition]) -> None:
        wanted = set(assignment)
        known = {each for each in wanted if each.topic in self.topics}
        self.strangers = frozenset(wanted - known)
        super().assign_from_subscribed(known)
        for each in known:
            self.seek(each, 0)
            self.pause(each)


def _weight(*parts: object) -> int:
    """A number that all workers compute alike: the lowest wins."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest(), "big")


def _told(user_data: bytes) -> tuple[str, str | None]:
    try:
        said = json.loads(user_data)
        return str(said["worker"]), said["pattern"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"a member of the group speaks no {RendezvousAssignor.name}: {user_data!r}"
        ) from error


def _unique(names: dict[str, str]) -> dict[str, str]:
    """Member id -> a name that no other member has; two workers of one name are told apart by their ids."""
    often: dict[str, int] = defaultdict(int)
    for name in names.values():
        often[name] += 1
    for name in sorted(name for name, times in often.items() if times > 1):
        log.warning("%d workers of the group are called %r: give each its own TUKANG_NAME", often[name], name)
    return {member: name if often[name] == 1 else f"{name} {member}" for member, name in names.items()}


def _by_topic(partitions: Iterable[TopicPartition]) -> list[Any]:
    topics: dict[str, list[int]] = defaultdict(list)
    for each in partitions:
        topics[each.topic].append(each.partition)
    return [(topic, sorted(numbers)) for topic, numbers in sorted(topics.items())]
