"""Partitions to workers: all of them, evenly, and with few moves."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from math import ceil
from random import Random

import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from ingest.assignor import PATTERN_LIMIT, SLACK, KnownTopicsOnly, RendezvousAssignor, spread

topics = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=4), st.integers(1, 12), min_size=1, max_size=12
)
names = st.lists(st.text("uvwxyz", min_size=1, max_size=4), min_size=1, max_size=8, unique=True)


def everything(_: str) -> bool:
    return True


def holders(shares: dict[str, list[TopicPartition]]) -> dict[TopicPartition, str]:
    return {each: worker for worker, held in shares.items() for each in held}


@given(topics, names)
def test_every_partition_has_one_reader_and_no_reader_too_many(
    counts: dict[str, int], workers: list[str]
) -> None:
    shares = spread(counts, dict.fromkeys(workers, everything))
    total = sum(counts.values())
    assert sum(map(len, shares.values())) == total
    assert holders(shares).keys() == {
        TopicPartition(topic, each) for topic in counts for each in range(counts[topic])
    }
    assert max(map(len, shares.values())) <= ceil(total / len(workers) * SLACK)


@given(st.integers(1, 40), names)
def test_one_topic_is_spread_evenly(count: int, workers: list[str]) -> None:
    shares = spread({"busy": count}, dict.fromkeys(workers, everything))
    assert max(map(len, shares.values())) <= ceil(count / len(workers))


@given(topics, names, st.randoms())
def test_the_order_in_which_things_are_told_does_not_matter(
    counts: dict[str, int], workers: list[str], random: Random
) -> None:
    shuffled_topics, shuffled_workers = list(counts), list(workers)
    random.shuffle(shuffled_topics)
    random.shuffle(shuffled_workers)
    assert holders(spread(counts, dict.fromkeys(workers, everything))) == holders(
        spread({each: counts[each] for each in shuffled_topics}, dict.fromkeys(shuffled_workers, everything))
    )


@given(topics, names)
def test_topics_go_only_to_workers_that_read_them(counts: dict[str, int], workers: list[str]) -> None:
    reads = {worker: (lambda topic, at=at: (len(topic) + at) % 2 == 0) for at, worker in enumerate(workers)}
    shares = spread(counts, reads)
    for worker, held in shares.items():
        assert all(reads[worker](each.topic) for each in held)
    wanted = {topic for topic in counts if any(reads[worker](topic) for worker in workers)}
    assert holders(shares).keys() == {
        TopicPartition(topic, each) for topic in wanted for each in range(counts[topic])
    }


def test_few_partitions_move_when_a_topic_or_a_worker_comes() -> None:
    counts = {f"topic-{each}": 4 for each in range(1000)}
    workers = [f"worker-{each}" for each in range(10)]
    before = holders(spread(counts, dict.fromkeys(workers, everything)))

    another_topic = holders(spread(counts | {"new": 4}, dict.fromkeys(workers, everything)))
    assert sum(before[each] != another_topic[each] for each in before) < 4000 * 0.02

    another_worker = holders(spread(counts, dict.fromkeys([*workers, "new"], everything)))
    assert sum(before[each] != another_worker[each] for each in before) < 4000 * 0.25

    one_less = holders(spread(counts, dict.fromkeys(workers[1:], everything)))
    assert sum(before[each] != one_less[each] for each in before if before[each] != workers[0]) < 4000 * 0.1


@dataclass
class Cluster:
    """Metadata as the client keeps it."""

    counts: dict[str, int]

    def topics(self) -> set[str]:
        return set(self.counts)

    def partitions_for_topic(self, topic: str) -> set[int]:
        return set(range(self.counts[topic]))


def assigned(
    assignor: RendezvousAssignor, counts: dict[str, int], *members: RendezvousAssignor
) -> dict[str, set[str]]:
    told = {f"id-{at}": each.metadata(["some"]) for at, each in enumerate(members)}
    shares = assignor.assign(Cluster(counts), told)
    return {
        member: {f"{each.topic}-{each.partition}" for each in shares[member].partitions()}
        for member in shares
    }


def test_members_send_their_names_and_patterns_but_no_topics() -> None:
    metadata = RendezvousAssignor("one", "^a$").metadata([f"topic-{each}" for each in range(4000)])
    assert metadata.subscription == []
    assert json.loads(metadata.user_data) == {"worker": "one", "pattern": "^a$"}
    assert len(metadata.encode()) < 100


def test_the_leader_assigns_by_each_members_own_pattern() -> None:
    one, two = RendezvousAssignor("one", "^a.*$"), RendezvousAssignor("two", "^b.*$")
    assert assigned(one, {"ab": 1, "ba": 2, "c": 1}, one, two) == {"id-0": {"ab-0"}, "id-1": {"ba-0", "ba-1"}}
    assert one.partition_counts == {"ab": 1}


def test_a_pattern_too_long_to_send_is_taken_for_the_leaders() -> None:
    pattern = "^(" + "|".join(f"topic-{each}" for each in range(1000)) + ")$"
    assert len(pattern) > PATTERN_LIMIT
    one, two = RendezvousAssignor("one", pattern), RendezvousAssignor("two", pattern)
    shares = assigned(one, {"topic-7": 2, "other": 1}, one, two)
    assert shares["id-0"] | shares["id-1"] == {"topic-7-0", "topic-7-1"}


def test_two_workers_of_one_name_share_and_are_told(caplog: pytest.LogCaptureFixture) -> None:
    one = RendezvousAssignor("same", "^a$")
    shares = assigned(one, {"a": 4}, one, RendezvousAssignor("same", "^a$"))
    assert sorted(map(len, shares.values())) == [2, 2]
    assert "2 workers of the group are called 'same'" in caplog.text


def test_a_member_that_speaks_something_else_is_named() -> None:
    one = RendezvousAssignor("one", "^a$")
    with pytest.raises(ValueError, match="speaks no tukang-rendezvous: b'junk'"):
        one.assign(Cluster({"a": 1}), {"id": ConsumerProtocolMemberMetadata(0, ["a"], b"junk")})


def test_an_assignment_of_unknown_topics_is_survived_and_known_ones_wait_paused() -> None:
    async def run() -> KnownTopicsOnly:
        subscription = KnownTopicsOnly()
        subscription.subscribe_pattern(re.compile("^a.*"))
        subscription.subscribe_from_pattern({"a"})
        subscription.assign_from_subscribed([TopicPartition("a", 0), TopicPartition("ab", 0)])
        return subscription

    subscription = asyncio.run(run())
    assert subscription.strangers == {TopicPartition("ab", 0)}
    assert subscription.assigned_partitions() == {TopicPartition("a", 0)}
    state = subscription.subscription.assignment.state_value(TopicPartition("a", 0))
    assert (state.paused, state.position) == (True, 0)
