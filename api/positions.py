"""Positions: where reading of each lake partition stands, and the call that workers begin with.

A topic or partition that nobody has named yet is made here. Positions move only in `commits.py`.
"""

import base64
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from flask import Blueprint, Response
from pyroaring import BitMap
from sqlalchemy import Connection, bindparam, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from api.access import require_topics
from api.completeness import keep_complete_until
from api.database import Database
from api.laws import Position
from api.problems import answer
from api.process import body, here
from api.tables import Record, epochs, lake_partitions, topics
from api.times import format_time_or_none
from api.topic_state import changes_of, load_rules, settings_of

blueprint = Blueprint("positions", __name__)

NOTHING_CARRIED = BitMap().serialize()
# New topics of one transaction: a worker that comes to thousands must not keep all other writers for seconds.
MADE_AT_ONCE = 200
ALL_POSITIONS = (
    select(lake_partitions)
    .where(lake_partitions.c.topic_id == bindparam("topic_id"))
    .order_by(lake_partitions.c.lake_partition)
)
SOME_POSITIONS = ALL_POSITIONS.where(
    lake_partitions.c.lake_partition.in_(bindparam("numbers", expanding=True))
)


def position_json(position: Mapping[Any, Any]) -> dict[str, Any]:
    """The columns of a row of `lake_partitions` as the contract's Position."""
    return {
        "lake_partition": position["lake_partition"],
        "broker_partition": position["broker_partition"],
        "topic_id": position["broker_topic_id"],
        "open": position["open"],
        "next": position["next"],
        "carried": base64.b64encode(position["carried"]).decode(),
        "carried_count": position["carried_count"],
        "highest": format_time_or_none(position["highest_us"]),
        "watermark": format_time_or_none(position["watermark_us"]),
        "published_to": format_time_or_none(position["published_to_us"]),
        "version": str(position["version"]) if position["version"] is not None else None,
        "start_from": position.get("start_from"),
    }


def stored_position(row: Record) -> Position:
    """A row of `lake_partitions` as the laws see it."""
    return Position(
        next=row.next,
        carried=BitMap.deserialize(row.carried),
        highest_us=row.highest_us,
        watermark_us=row.watermark_us,
        published_to_us=row.published_to_us,
        version=row.version,
        topic_id=row.broker_topic_id,
    )


def read_positions(
    connection: Connection, topic_id: int, numbers: Collection[int] | None = None
) -> Sequence[Record]:
    """Lake partitions of a topic by number, all or those given."""
    if numbers is None:
        return connection.execute(ALL_POSITIONS, {"topic_id": topic_id}).all()
    return connection.execute(SOME_POSITIONS, {"topic_id": topic_id, "numbers": list(numbers)}).all()


def make_topic(connection: Connection, name: str, settings: dict[str, Any], now_us: int) -> bool:
    """Makes the topic with its first epoch unless it exists; says whether it did."""
    insert_of = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    epoch = uuid.uuid4().hex
    made = connection.execute(
        insert_of(topics)
        .values(
            name=name,
            epoch=epoch,
            sequence=0,
            oldest=1,
            created_us=now_us,
            schema_version=0,
            rule_version=0,
            settings_version=0,
            settings=settings,
            next_lake_partition=0,
            rows_total=0,
            live_files=0,
            live_rows=0,
            live_bytes=0,
            live_dead_letters=0,
        )
        .on_conflict_do_nothing(index_elements=["name"])
        .returning(topics.c.id)
    ).scalar()
    if made is None:
        return False
    connection.execute(insert(epochs).values(topic_id=made, epoch=epoch, opened_us=now_us, common_sequence=0))
    return True


def _open_partitions(connection: Connection, topic: Record, missing: Sequence[int]) -> None:
    """Gives each broker partition a lake partition: the broker's number while it was never used, else the next."""
    keep_complete_until(connection, topic, settings_of(topic, load_rules(connection)[0]))
    used = set(
        connection.execute(
            select(lake_partitions.c.lake_partition).where(lake_partitions.c.topic_id == topic.id)
        ).scalars()
    )
    beyond = topic.next_lake_partition
    rows = []
    for broker_partition in sorted(missing):
        number = broker_partition if broker_partition not in used else max(beyond, max(used) + 1)
        used.add(number)
        beyond = max(beyond, number + 1)
        rows.append(
            {
                "topic_id": topic.id,
                "lake_partition": number,
                "broker_partition": broker_partition,
                "open": True,
                "carried": NOTHING_CARRIED,
                "carried_count": 0,
            }
        )
    connection.execute(insert(lake_partitions), rows)
    connection.execute(update(topics).where(topics.c.id == topic.id).values(next_lake_partition=beyond))


def _ensure(connection: Connection, asked: dict[str, list[int]], now_us: int) -> None:
    """Makes what is missing. Topics are locked in the order of their names: two workers never wait crosswise."""
    for name in sorted(asked):
        make_topic(connection, name, {}, now_us)
        topic = connection.execute(select(topics).where(topics.c.name == name).with_for_update()).one()
        there = connection.execute(
            select(lake_partitions.c.broker_partition).where(
                lake_partitions.c.topic_id == topic.id,
                lake_partitions.c.open,
                lake_partitions.c.broker_partition.in_(asked[name]),
            )
        ).scalars()
        missing = set(asked[name]) - set(there)
        if missing:
            _open_partitions(connection, topic, sorted(missing))


def _incomplete(connection: Connection, asked: dict[str, list[int]]) -> dict[str, list[int]]:
    """The topics asked for that do not exist yet, or not with all partitions; usually none, then nothing is locked."""
    known = {
        row.name: row.id
        for row in connection.execute(
            select(topics.c.name, topics.c.id).where(topics.c.name.in_(list(asked)))
        )
    }
    there: dict[int, set[int]] = {topic_id: set() for topic_id in known.values()}
    for row in connection.execute(
        select(lake_partitions.c.topic_id, lake_partitions.c.broker_partition).where(
            lake_partitions.c.topic_id.in_(list(there)), lake_partitions.c.open
        )
    ):
        there[row.topic_id].add(row.broker_partition)
    return {
        name: partitions
        for name, partitions in asked.items()
        if name not in known or not set(partitions) <= there[known[name]]
    }


def answer_positions(database: Database, entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What a worker must know of the topics it names, with their open positions; what is missing is made."""
    asked: dict[str, list[int]] = {}
    for entry in entries:
        asked.setdefault(entry["topic"], []).extend(int(number) for number in entry["partitions"])
    with database.read() as connection:
        incomplete = _incomplete(connection, asked)
    names = sorted(incomplete)
    for first in range(0, len(names), MADE_AT_ONCE):
        with database.write() as connection:
            portion = {name: incomplete[name] for name in names[first : first + MADE_AT_ONCE]}
            _ensure(connection, portion, database.clock(connection))
    answers = []
    with database.read() as connection:
        rules = load_rules(connection)
        found = {
            row.name: row for row in connection.execute(select(topics).where(topics.c.name.in_(list(asked))))
        }
        changes = {change["topic"]: change for change in changes_of(connection, list(found.values()), rules)}
        for name, partitions in asked.items():
            topic = found[name]
            rows = connection.execute(
                select(lake_partitions)
                .where(
                    lake_partitions.c.topic_id == topic.id,
                    lake_partitions.c.open,
                    lake_partitions.c.broker_partition.in_(partitions),
                )
                .order_by(lake_partitions.c.lake_partition)
            )
            answers.append(
                {
                    **changes[name],
                    "sequence": topic.sequence,
                    "positions": [position_json(row._mapping) for row in rows],
                }
            )
    return answers


@blueprint.post("/v1/positions")
def positions() -> Response:
    require_topics(entry["topic"] for entry in body()["topics"])
    return answer({"topics": answer_positions(here().database, body()["topics"])})
