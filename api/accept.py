"""What an operator accepts: that records were lost at the source, or that a topic begins anew.

A reset closes the lake partitions of the life that ended, for ever, and opens new ones under new numbers, so that an
offset that comes again never names two rows. What the closed ones carried is lost, and counts as a gap.
"""

from flask import Blueprint, Response
from sqlalchemy import Connection, insert, select, update

from api.audit import note
from api.completeness import keep_complete_until
from api.positions import NOTHING_CARRIED
from api.problems import Problem
from api.process import body, here
from api.tables import lake_partitions, topics
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
        closed, opened = reset_topic(connection, topic, start)
        note(
            connection, here().database.clock(connection), "accept_reset", topic=topic,
            before={"closed": closed}, after={"from": start, "opened": opened},
        )  # fmt: skip
        return show(connection, find_topic(connection, topic))


def reset_topic(connection: Connection, topic: str, start: str) -> tuple[list[int], list[int]]:
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
    changes = {"next_lake_partition": first + len(ended)}
    if row.gap_sequence is None and any(each.carried_count for each in ended):
        changes["gap_sequence"] = row.sequence
    connection.execute(update(topics).where(topics.c.id == row.id).values(**changes))
    return [each.lake_partition for each in ended], [first + number for number in range(len(ended))]


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
