"""Workers and their reports: what each reads, how far it is, in which state; and what it must know by return.

A report is no commit. It moves one thing that lasts: `caught_up_us` of a lake partition, the send time of a report that
showed the stored position at the log's end with nothing carried.
"""

from typing import Any
from uuid import UUID

from flask import Blueprint, Response
from sqlalchemy import Connection, case, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from api.access import caller, require_topics
from api.database import Database
from api.pages import page_state, page_token
from api.problems import answer
from api.process import body, here, query
from api.tables import Record, lake_partitions, topics, worker_topics, workers
from api.times import format_time, parse_time, parse_time_or_none
from api.topic_state import STALE_US, changes_of, load_rules

blueprint = Blueprint("workers", __name__)


def _store_worker(connection: Connection, name: str, report: dict[str, Any], now_us: int) -> int:
    insert_of = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    values = {
        "version": report["version"],
        "group": report.get("group"),
        "sent_us": parse_time(report["sent_at"]),
        "received_us": now_us,
        "memory_bytes": report.get("memory_bytes"),
        "memory_limit": report.get("memory_limit"),
        "rule_version": int(report.get("rule_version", 0)),
    }
    found: int = connection.execute(
        insert_of(workers)
        .values(name=name, **values)
        .on_conflict_do_update(index_elements=["name"], set_=values)
        .returning(workers.c.id)
    ).scalar_one()
    return found


def _store_topics(
    connection: Connection, worker_id: int, reported: list[tuple[Record, dict[str, Any]]], now_us: int
) -> None:
    insert_of = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    if reported:
        statement = insert_of(worker_topics)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["worker_id", "topic_id"],
                set_={
                    "since_us": _since(statement),
                    **{
                        name: statement.excluded[name]
                        for name in ("state", "reason", "detail", "received_us", "partitions")
                    },
                },
            ),
            [
                {
                    "worker_id": worker_id,
                    "topic_id": topic.id,
                    "state": entry["state"],
                    "reason": entry.get("reason"),
                    "detail": entry.get("detail"),
                    "since_us": now_us,
                    "received_us": now_us,
                    "partitions": [
                        [p["lake_partition"], p["next"], p["end"], p["stable_end"], p["carried"], p["at_end"]]
                        for p in entry["partitions"]
                    ],
                }
                for topic, entry in sorted(reported, key=lambda pair: pair[0].id)
            ],
        )
    # What this report does not name, the worker has no more.
    connection.execute(
        delete(worker_topics).where(
            worker_topics.c.worker_id == worker_id,
            worker_topics.c.topic_id.not_in([topic.id for topic, _ in reported]),
        )
    )


def _since(statement: Any) -> Any:
    return case(
        (worker_topics.c.state == statement.excluded.state, worker_topics.c.since_us),
        else_=statement.excluded.since_us,
    )


def _store_caught_up(
    connection: Connection, reported: list[tuple[Record, dict[str, Any]]], sent_us: int
) -> None:
    """Moves `caught_up_us` where epoch and version are the stored ones.

    The comparison stands in the update, so that a commit at the same moment makes it miss, never lie. Rows are touched
    in the order of topic and lake partition, as commits do.
    """
    for topic, entry in sorted(reported, key=lambda pair: pair[0].id):
        if entry["epoch"] != topic.epoch:
            continue
        for partition in sorted(entry["partitions"], key=lambda partition: partition["lake_partition"]):
            if not partition["at_end"] or partition["carried"] or partition["version"] is None:
                continue
            connection.execute(
                update(lake_partitions)
                .where(
                    lake_partitions.c.topic_id == topic.id,
                    lake_partitions.c.lake_partition == partition["lake_partition"],
                    lake_partitions.c.version == UUID(partition["version"]),
                    lake_partitions.c.carried_count == 0,
                    lake_partitions.c.open,
                    (lake_partitions.c.caught_up_us < sent_us) | lake_partitions.c.caught_up_us.is_(None),
                )
                .values(caught_up_us=sent_us)
            )


def _store_broker_partitions(
    connection: Connection, topic: Record, entry: dict[str, Any], now_us: int
) -> None:
    asked_us = parse_time_or_none(entry.get("broker_partitions_at"))
    if entry.get("broker_partitions") is None or asked_us is None or entry["epoch"] != topic.epoch:
        return
    asked_us = min(asked_us, now_us)
    connection.execute(
        update(topics)
        .where(
            topics.c.id == topic.id,
            (topics.c.broker_partitions_us < asked_us) | topics.c.broker_partitions_us.is_(None),
        )
        .values(broker_partitions=sorted(set(entry["broker_partitions"])), broker_partitions_us=asked_us)
    )


def _closed(connection: Connection, reported: list[tuple[Record, dict[str, Any]]]) -> set[str]:
    """Topics of which the worker reads a lake partition that a reset closed; without a commit to be refused it would
    not find out."""
    names = {topic.id: topic.name for topic, _ in reported}
    closed = select(lake_partitions.c.topic_id, lake_partitions.c.lake_partition).where(
        lake_partitions.c.topic_id.in_(list(names)), ~lake_partitions.c.open
    )
    ended = {(names[row.topic_id], row.lake_partition) for row in connection.execute(closed)}
    return {
        topic.name
        for topic, entry in reported
        if any((topic.name, partition["lake_partition"]) in ended for partition in entry["partitions"])
    }


def _differs(topic: dict[str, Any], entry: dict[str, Any], rule_version: int) -> bool:
    return bool(
        topic["settings_version"] != entry["settings_version"]
        or topic["rule_version"] != rule_version
        or topic["epoch"] != entry["epoch"]
        or topic["paused"] != (entry["state"] in ("paused", "suspended"))
    )


def take_report(database: Database, name: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Keeps a worker's report; the answer says what changed in its topics since."""
    entries = {entry["topic"]: entry for entry in asked["topics"]}
    with database.write() as connection:
        now_us = database.clock(connection)
        sent_us = min(parse_time(asked["sent_at"]), now_us)
        found = connection.execute(select(topics).where(topics.c.name.in_(list(entries)))).all()
        reported = [(topic, entries[topic.name]) for topic in sorted(found, key=lambda topic: topic.id)]
        worker_id = _store_worker(connection, name, asked, now_us)
        _store_topics(connection, worker_id, reported, now_us)
        for topic, entry in reported:
            _store_broker_partitions(connection, topic, entry, now_us)
        _store_caught_up(connection, reported, sent_us)
        rules, closed = load_rules(connection), _closed(connection, reported)
        changes = [
            change
            for change in changes_of(connection, [topic for topic, _ in reported], rules)
            if change["topic"] in closed
            or _differs(change, entries[change["topic"]], int(asked.get("rule_version", 0)))
        ]
    return {"now": format_time(now_us), "topics": changes}


@blueprint.put("/v1/workers/<name>")
def report(name: str) -> Response:
    require_topics(entry["topic"] for entry in body()["topics"])
    return answer(take_report(here().database, name, body()))


@blueprint.get("/v1/workers")
def list_workers() -> Response:
    asked = query()
    limit = asked["limit"]
    state = page_state(asked.get("page"), name=str)
    database = here().database
    with database.read() as connection:
        now_us = database.clock(connection)
        wanted = select(workers).order_by(workers.c.name).limit(limit + 1)
        if state:
            wanted = wanted.where(workers.c.name > state["name"])
        rows = connection.execute(wanted).all()
        shown = rows[:limit]
        read: dict[int, list[dict[str, Any]]] = {row.id: [] for row in shown}
        for row in connection.execute(
            select(worker_topics, topics.c.name)
            .join(topics, topics.c.id == worker_topics.c.topic_id)
            .where(worker_topics.c.worker_id.in_(list(read)))
            .order_by(topics.c.name)
        ):
            if not caller().sees(row.name):
                continue
            read[row.worker_id].append(
                {
                    "topic": row.name,
                    "state": row.state if row.received_us >= now_us - STALE_US else "unknown",
                    "lake_partitions": [entry[0] for entry in row.partitions],
                }
            )
    return answer(
        {
            "workers": [
                {
                    "name": row.name,
                    "version": row.version,
                    "group": row.group,
                    "state": "reporting" if row.received_us >= now_us - STALE_US else "unknown",
                    "reported_at": format_time(row.received_us),
                    "memory_bytes": row.memory_bytes,
                    "memory_limit": row.memory_limit,
                    "rule_version": row.rule_version,
                    "topics": read[row.id],
                }
                for row in shown
            ],
            "next_page": page_token(name=shown[-1].name) if len(rows) > limit else None,
        }
    )
