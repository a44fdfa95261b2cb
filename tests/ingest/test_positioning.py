"""The reconciler's bookkeeping, without a broker."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import pairwise

from aiokafka.structs import TopicPartition

from ingest.positioning import LONGEST_WAIT_BEATS, Partitions, Positions, Reconciler

A, B = TopicPartition("topic", 0), TopicPartition("topic", 1)


class Desk:
    """An owner with answers made before."""

    def __init__(self, answers: Mapping[TopicPartition, int]) -> None:
        self.answers = answers
        self.meanwhile = lambda: None
        self.asked: list[Partitions] = []

    async def starts(self, partitions: Partitions) -> Mapping[TopicPartition, int]:
        self.asked.append(partitions)
        await asyncio.sleep(0)
        self.meanwhile()
        return {each: start for each, start in self.answers.items() if each in partitions}

    def positioned(self, partition: TopicPartition, positioning: int, start: int) -> None: ...

    async def revoked(self, partitions: Partitions) -> None: ...

    def assigned(self, partitions: Partitions) -> None: ...


class Setting:
    """Positions with a reconciler whose seek only notes the reading."""

    def __init__(self, answers: Mapping[TopicPartition, int]) -> None:
        self.positions = Positions()
        self.desk = Desk(answers)
        self.reconciler = Reconciler(self.desk, self.positions, self.place)

    def place(self, partition: TopicPartition, start: int) -> bool:
        self.positions.reading[partition] = self.positions.place(start)
        return True

    def reconcile(self) -> None:
        asyncio.run(self.reconciler.reconcile())


def test_what_is_assigned_and_not_read_is_placed() -> None:
    setting = Setting({A: 5, B: 7})
    setting.positions.reassign([A, B])
    setting.reconcile()
    assert {each: reading.position for each, reading in setting.positions.reading.items()} == {A: 5, B: 7}
    assert len({reading.positioning for reading in setting.positions.reading.values()}) == 2
    setting.reconcile()
    assert len(setting.desk.asked) == 1


def test_an_answer_to_an_assignment_that_is_over_is_not_used() -> None:
    setting = Setting({A: 5})
    setting.positions.reassign([A])
    setting.desk.meanwhile = lambda: setting.positions.reassign([A])
    setting.reconcile()
    assert not setting.positions.reading


def test_an_answer_asked_for_before_something_changed_is_not_used() -> None:
    setting = Setting({A: 5, B: 7})
    setting.positions.reassign([A, B])
    setting.desk.meanwhile = lambda: setting.reconciler.wake([A])
    setting.reconcile()
    assert setting.positions.reading.keys() == {B}


def test_what_is_left_out_is_asked_for_after_growing_waits_but_at_once_when_told() -> None:
    setting = Setting({})
    setting.positions.reassign([A])
    asked_at = []
    for beat in range(20):
        before = len(setting.desk.asked)
        setting.reconcile()
        if len(setting.desk.asked) > before:
            asked_at.append(beat)
        setting.positions.beat()
    waits = [later - earlier for earlier, later in pairwise(asked_at)]
    assert waits == sorted(waits)
    assert waits[0] == 1
    assert waits[-1] == LONGEST_WAIT_BEATS

    setting.reconciler.wake([A])
    setting.reconcile()
    assert len(setting.desk.asked) == len(asked_at) + 1


def test_a_paused_partition_is_not_asked_for() -> None:
    setting = Setting({A: 5})
    setting.positions.reassign([A])
    setting.reconcile()
    setting.positions.paused[A] = setting.positions.reading.pop(A)
    assert setting.positions.due() == frozenset()
    assert setting.positions.unplaced() == 0
    setting.positions.drop(A)
    assert setting.positions.due() == {A}
