"""Up to when a topic is complete. The rules are pure; two functions read the tables for them.

A period is complete when every open lake partition has passed its end: by its watermark, or by a look at the log's end
later than the end plus lateness plus grace; and when the broker was asked for its partitions after the end, and all of
them are open lake partitions. `complete_until` is the end of the last such period; what was once true stays true.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select, update

from api.tables import Record, lake_partitions, topics
from api.topic_settings import PERIODS_US
from api.units import parse_duration


@dataclass(frozen=True, slots=True)
class Reach:
    """How far one open lake partition has come."""

    broker_partition: int
    watermark_us: int | None
    caught_up_us: int | None


def passed_until(reach: Reach, wait_us: int) -> int | None:
    """The latest time of which it is sure that this partition has passed it; `wait_us` is lateness plus grace."""
    times = []
    if reach.watermark_us is not None:
        times.append(reach.watermark_us)
    if reach.caught_up_us is not None:
        # Later than, not at: one microsecond less.
        times.append(reach.caught_up_us - wait_us - 1)
    return max(times, default=None)


def complete_until(
    reaches: Sequence[Reach],
    *,
    period_us: int,
    wait_us: int,
    broker_partitions: Collection[int] | None,
    broker_partitions_us: int | None,
) -> int | None:
    """End of the last complete period, in microseconds since 1970; None: no period is."""
    if not reaches or broker_partitions is None or broker_partitions_us is None:
        return None
    if not set(broker_partitions) <= {reach.broker_partition for reach in reaches}:
        return None
    passed = [passed_until(reach, wait_us) for reach in reaches]
    if any(time is None for time in passed):
        return None
    lowest = min([broker_partitions_us - 1, *(time for time in passed if time is not None)])
    return lowest // period_us * period_us


def wait_of(settings: dict[str, Any]) -> int:
    return parse_duration(settings["lateness"]) + parse_duration(settings["grace"])


def period_of(topic: Record, settings: dict[str, Any]) -> int:
    """Length of the topic's periods in microseconds: fixed by its first rows, else by its settings."""
    return topic.period_us or PERIODS_US[settings["period"]]


def reaches_of(rows: Iterable[Record]) -> list[Reach]:
    return [Reach(row.broker_partition, row.watermark_us, row.caught_up_us) for row in rows if row.open]


def complete_until_of(topic: Record, reaches: Sequence[Reach], settings: dict[str, Any]) -> int | None:
    """The topic's `complete_until` now: what was reached before, or more."""
    now = complete_until(
        reaches,
        period_us=period_of(topic, settings),
        wait_us=wait_of(settings),
        broker_partitions=topic.broker_partitions,
        broker_partitions_us=topic.broker_partitions_us,
    )
    return max((time for time in (now, topic.complete_until_us) if time is not None), default=None)


def keep_complete_until(connection: Connection, topic: Record, settings: dict[str, Any]) -> None:
    """Stores what is complete now; before a change after which the tables would no longer show it."""
    rows = connection.execute(
        select(
            lake_partitions.c.broker_partition,
            lake_partitions.c.open,
            lake_partitions.c.watermark_us,
            lake_partitions.c.caught_up_us,
        ).where(lake_partitions.c.topic_id == topic.id)
    )
    reached = complete_until_of(topic, reaches_of(rows), settings)
    if reached != topic.complete_until_us:
        connection.execute(update(topics).where(topics.c.id == topic.id).values(complete_until_us=reached))
