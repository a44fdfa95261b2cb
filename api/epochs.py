"""Epochs: lives of the catalogue. Where a reader of another life goes on, and with which positions.

Sequences of two epochs are different things above the last one that both share. `open_epoch` begins a new life; a
restore or a rebuild calls it when the catalogue is rolled forward.
"""

import base64
import uuid
from typing import Any

from pyroaring import BitMap
from sqlalchemy import Connection, func, insert, select, tuple_, update

from api.problems import Problem
from api.tables import Record, epochs, folded, lake_partitions, ledger, topics


def open_epoch(connection: Connection, topic_id: int, common_sequence: int, now_us: int) -> str:
    """Begins a new life of the topic that shares everything up to `common_sequence` with the one before. Its name."""
    epoch = uuid.uuid4().hex
    connection.execute(
        insert(epochs).values(
            topic_id=topic_id, epoch=epoch, opened_us=now_us, common_sequence=common_sequence
        )
    )
    connection.execute(update(topics).where(topics.c.id == topic_id).values(epoch=epoch))
    return epoch


def common_sequence(connection: Connection, topic: Record, epoch: str) -> int | None:
    """The last sequence that `epoch` shares with the topic's present one; None: it is no epoch of this topic."""
    lives = connection.execute(
        select(epochs).where(epochs.c.topic_id == topic.id).order_by(epochs.c.id)
    ).all()
    for index, life in enumerate(lives):
        if life.epoch == epoch:
            later = [int(follower.common_sequence) for follower in lives[index + 1 :]]
            return min([int(topic.sequence), *later])
    return None


def positions_at(connection: Connection, topic_id: int, sequence: int) -> list[dict[str, Any]]:
    """The position of each lake partition as of a sequence: what its last append at or below it left."""
    found: dict[int, Record] = {}
    # What is folded lies before everything that is not.
    for table in (folded, ledger):
        newest = (
            select(table.c.lake_partition, func.max(table.c.sequence).label("sequence"))
            .where(table.c.topic_id == topic_id, table.c.sequence <= sequence, table.c.carried.is_not(None))
            .group_by(table.c.lake_partition)
        )
        rows = connection.execute(
            select(table, lake_partitions.c.broker_partition)
            .join(
                lake_partitions,
                (lake_partitions.c.topic_id == table.c.topic_id)
                & (lake_partitions.c.lake_partition == table.c.lake_partition),
            )
            .where(
                table.c.topic_id == topic_id,
                tuple_(table.c.lake_partition, table.c.sequence).in_(newest),
            )
        )
        found.update((row.lake_partition, row) for row in rows)
    return [
        {
            "lake_partition": row.lake_partition,
            "broker_partition": row.broker_partition,
            "next": row.to_offset,
            "carried": base64.b64encode(row.carried or BitMap().serialize()).decode(),
        }
        for _, row in sorted(found.items())
    ]


def check_epoch(connection: Connection, topic: Record, epoch: str | None, cursor: int | None) -> None:
    """Raises Problem (410) unless `epoch` is the topic's present one or none. `cursor`: the reader's sequence."""
    if epoch is None or epoch == topic.epoch:
        return
    common = common_sequence(connection, topic, epoch)
    if common is None or min(common, cursor or 0) < topic.oldest - 1:
        raise snapshot_needed(topic, f"Epoch {epoch} is unknown here.")
    reached = min(common, cursor or 0)
    raise Problem(
        "epoch-moved", 410,
        f"The topic is in epoch {topic.epoch} now, which shares everything up to sequence {common} with {epoch}. "
        f"Delete what lies beyond `positions` (and what is carried there), and go on from sequence {reached}.",
        epoch=topic.epoch, common=common, cursor=reached, positions=positions_at(connection, topic.id, reached),
    )  # fmt: skip


def snapshot_needed(topic: Record, why: str) -> Problem:
    return Problem(
        "snapshot", 410,
        f"{why} Start with an empty table from the live files as of sequence {topic.sequence}, and follow from there.",
        epoch=topic.epoch, oldest=topic.oldest, sequence=topic.sequence,
    )  # fmt: skip
