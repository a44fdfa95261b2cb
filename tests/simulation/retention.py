"""What a worker can keep ahead of: no carried record may go that was readable, undisturbed, for the whole retention.

Each fault says for how long it disturbs; a record counts from the end of the last one, or from when it could be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiokafka.structs import TopicPartition
from pyroaring import BitMap

if TYPE_CHECKING:
    from tests.simulation.broker import Topic
    from tests.simulation.process import Process
    from tests.simulation.world import World

BEHIND_S = 0.5  # a worker whose clock is further behind takes records for younger than they are


class Retention:
    def __init__(self, world: World) -> None:
        self.world = world
        self.disturbed_until = 0.0

    def disturb(self, lasting_s: float = 0.0) -> None:
        """Something is broken now, and for `lasting_s` from now."""
        self.disturbed_until = max(self.disturbed_until, self.world.scheduler.now + lasting_s)

    def check(self, topic: Topic, partition: int, upto: int) -> None:
        """Called before the records before `upto` are deleted for their age."""
        world = self.world
        since = world.scheduler.now - (world.plan.retention_ms or 0) / 1000
        if self.disturbed_until > since or topic.name in world.paused_topics:
            return
        if any(self._excused(each, topic, partition) for each in world.processes):
            return
        for row in world.stored_positions():
            if (row["topic"], row["broker_partition"]) != (topic.name, partition) or row["next"] is None:
                continue
            if row["broker_topic_id"] != topic.id:
                continue
            records = topic.logs[partition].records
            carried = [row["next"] - distance for distance in BitMap.deserialize(row["carried"])]
            known = [(offset, records[offset].readable_at) for offset in carried if offset in records]
            doomed = [offset for offset, at in known if offset < upto and at is not None and at <= since]
            if doomed:
                world.wrong.append(
                    f"{topic.name}-{partition}: carried records {doomed} were deleted at the broker, and nobody"
                    f" published them although nothing was broken since {self.disturbed_until:.1f} s"
                )

    def _excused(self, process: Process, topic: Topic, partition: int) -> bool:
        """Whether the process has the partition, and cannot keep ahead: the topic is stopped, as it must be after a
        truncation or a new life, or its clock is wrong."""
        worker = process.worker
        if worker is None or TopicPartition(topic.name, partition) not in worker.source.positions.assigned:
            return False
        if process.clock.behind_s > BEHIND_S:
            return True
        happened = topic.life > 1 or topic.lost_tail or topic.name in self.world.resets
        known = worker.topics.get(topic.name)
        return bool(happened) and known is not None and known.state in ("new_life", "truncated")
