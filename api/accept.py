"""What an operator accepts: that records were lost at the source, or that a topic begins anew.

A reset closes the lake partitions of the life that ended, for ever, and opens new ones under new numbers, so that an
offset that comes again never names two rows. What the closed ones carried is lost: a commit of its own says so in the
ledger, and the topic has a gap.
"""

import time
import uuid
from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Connection, insert, select, update

from api.audit import note
from api.commits import enter
from api.completeness import keep_complete_until
from api.database import Clock
from api.positions import NOTHING_CARRIED, position_json, stored_position
from api.problems import Problem
from api.process import body, here
from api.requests import read_commit
from api.tables import Record, lake_partitions, topics
from api.times import parse_time
from api.topic_state import find_topic, load_rules, settings_of
from api.topics import lock_topic, show

blueprint = Blueprint("accept", __name__)


@blueprint.post("/v1/topics/<topic>/accept-gap")
def accept_gap(topic: str) -> Response:
    with here().database.write() as connection:
        row = lock_topic(connection, topic)
        if row.gap_sequence is not None:
            connection.execute(update(topics).where(topics.c.id == row.id).values(gap_sequence=None))
            note(
                connection, here().database.clock(connection), "accept_gap", topic=topic,
                before={"gap_sequence": row.gap_sequence},
            )  # fmt: skip
        return show(connection, find_topic(connection, topic))


@blueprint.post("/v1/topics/<topic>/accept-reset")
def accept_reset(topic: str) -> Response:
    start = _start(body()["from"])
    with here().database.write() as connection:
        closed, opened = reset_topic(connection, here().database.clock, topic, start)
        note(
            connection, here().database.clock(connection), "accept_reset", topic=topic,
            before={"closed": closed}, after={"from": start, "opened": opened},
        )  # fmt: skip
        after = find_topic(connection, topic)
        shown = show(connection, after)
    here().heads.moved(after.id, after.sequence)
    return shown


def reset_topic(connection: Connection, clock: Clock, topic: str, start: str) -> tuple[list[int], list[int]]:
    """Closes the open lake partitions and opens new ones that begin at `start`; the numbers of both."""
    row = lock_topic(connection, topic)
    keep_complete_until(connection, row, settings_of(row, load_rules(connection)[0]))
    ended = connection.execute(
        select(lake_partitions)
        .where(lake_partitions.c.topic_id == row.id, lake_partitions.c.open)
        .order_by(lake_partitions.c.broker_partition)
    ).all()
    if not ended:
        raise Problem("nothing-to-reset", 409, f"No partition of topic {topic} was ever read.")
    if lines := [_lost(each) for each in ended if each.carried_count]:
        _enter_lost(connection, clock, row, lines)
    connection.execute(
        update(lake_partitions)
        .where(lake_partitions.c.topic_id == row.id, lake_partitions.c.open)
        .values(open=False)
    )
    first = max(row.next_lake_partition, max(each.lake_partition for each in ended) + 1)
    connection.execute(
        insert(lake_partitions),
        [
            {
                "topic_id": row.id,
                "lake_partition": first + number,
                "broker_partition": each.broker_partition,
                "open": True,
                "carried": NOTHING_CARRIED,
                "carried_count": 0,
                "start_from": start,
            }
            for number, each in enumerate(ended)
        ],
    )
    connection.execute(
        update(topics).where(topics.c.id == row.id).values(next_lake_partition=first + len(ended))
    )
    return [each.lake_partition for each in ended], [first + number for number in range(len(ended))]


def _lost(closed: Record) -> dict[str, Any]:
    """The ledger line that ends a lake partition: what it carried is lost, and it carries nothing."""
    position = position_json(closed._mapping)
    ranges: list[list[int]] = []
    for offset in sorted(closed.next - distance for distance in stored_position(closed).carried):
        if ranges and ranges[-1][1] == offset:
            ranges[-1][1] = offset + 1
        else:
            ranges.append([offset, offset + 1])
    kept = ("next", "highest", "watermark", "published_to", "topic_id")
    return {
        "lake_partition": closed.lake_partition,
        "from_version": position["version"],
        "from_offset": closed.next,
        "to_offset": closed.next,
        **dict.fromkeys(("consumed", "written", "duplicates", "differing", "dead_letters", "carried_out"), 0),
        **dict.fromkeys(("late", "early", "tombstones"), 0),
        "carried_in": closed.carried_count,
        "lost": closed.carried_count,
        "lost_ranges": ranges,
        "position": {**{name: position[name] for name in kept}, "carried": ""},
    }


def _enter_lost(connection: Connection, clock: Clock, topic: Record, lines: list[dict[str, Any]]) -> None:
    content = {
        "id": str(_commit_id()),
        "kind": "append",
        "epoch": topic.epoch,
        "worker": "accept-reset",
        "rule_version": topic.rule_version,
        "schema_version": topic.schema_version,
        "lines": lines,
        "files": [],
    }
    enter(connection, clock, topic.name, read_commit(topic.name, content))


def _commit_id() -> uuid.UUID:
    """A new id that sorts by time (RFC 9562, version 7), as workers make them."""
    number = int.from_bytes(uuid.uuid4().bytes) & ~(0xFFFF_FFFF_FFFF_F << 76) | 7 << 76
    return uuid.UUID(int=number | (time.time_ns() // 1_000_000) << 80)


def _start(text: str) -> str:
    """`earliest`, `end`, an offset, or a time, which is checked."""
    if text not in ("earliest", "end") and not text.isdecimal():
        try:
            parse_time(text)
        except ValueError as error:
            raise Problem(
                "request-invalid", 400, f"from: {text!r} is neither earliest, nor end, an offset or a time."
            ) from error
    return text
