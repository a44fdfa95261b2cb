"""Erasures: the rule that begins one, whether what Kafka had then is in the lake, and the signed record that ends it.

The rule raises the topic's rule version under the topic's lock: an append made under an older one is refused, its
worker drops all it holds and starts again. From then on every row of before is in a live file, or comes by an append
after the rule; when `covered`, a scan of the live files sees all of it. Values are hashed with the installation's key,
never stored.
"""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response
from pyroaring import BitMap
from sqlalchemy import Connection, insert, select, update

from api.access import caller
from api.audit import note
from api.pages import page_state, page_token
from api.patterns import covers
from api.positions import read_positions
from api.problems import Problem, answer
from api.process import body, here, query
from api.signing import canonical, signed
from api.tables import Record, cursors, installation, loaders, topics
from api.times import format_time, format_time_or_none
from api.topic_state import find_topic, partition_report, reports_of
from api.topics import lock_topic
from api.upkeep_tables import erasures

blueprint = Blueprint("erasures", __name__)


def keyed_hash(connection: Connection, content: Any) -> bytes:
    """HMAC-SHA256 of content as canonical JSON, with the installation's secret."""
    secret = connection.execute(select(installation.c.secret)).scalar_one()
    return hmac.new(bytes(secret), canonical(content), hashlib.sha256).digest()


def _until(connection: Connection, topic: Record, now_us: int) -> list[list[int]]:
    """The end of each open lake partition's log, as far as it is known; what was read of it at least."""
    reported = partition_report(reports_of(connection, [topic.id], now_us)[topic.id])
    found = []
    for row in read_positions(connection, topic.id):
        if not row.open:
            continue
        said = reported.get(row.lake_partition)
        end = said[1][2] if said is not None else None
        found.append([row.lake_partition, max(row.next or 0, end or 0)])
    return found


def uncovered(connection: Connection, topic_id: int, until: list[list[int]]) -> list[int]:
    """Lake partitions that have not written all that Kafka had when the erasure was asked for."""
    stored = {row.lake_partition: row for row in read_positions(connection, topic_id)}
    left = []
    for number, end in until:
        row = stored[number]
        if not row.open:
            continue
        carried = BitMap.deserialize(row.carried)
        lowest = row.next - carried.max() if row.next is not None and carried else None
        if (row.next or 0) < end or (lowest is not None and lowest < end):
            left.append(number)
    return left


def _json(connection: Connection, topic: Record, row: Record) -> dict[str, Any]:
    return {
        "id": row.id,
        "topic": topic.name,
        "epoch": topic.epoch,
        "field": row.field,
        "values": row.number,
        "value_hash": row.value_hash.hex(),
        "rule_version": row.rule_version,
        "sequence": row.sequence,
        "head": topic.sequence,
        "asked_at": format_time(row.asked_us),
        "uncovered": uncovered(connection, topic.id, row.until),
        "finished_at": format_time_or_none(row.finished_us),
        "record": row.record,
        "signature": None if row.signature is None else row.signature.hex(),
        "public_key": None if row.public_key is None else row.public_key.hex(),
    }


@blueprint.post("/v1/topics/<topic>/erasures")
def create_erasure(topic: str) -> Response:
    asked = body()
    database = here().database
    with database.write() as connection:
        row = lock_topic(connection, topic)
        now_us = database.clock(connection)
        hashed = keyed_hash(connection, [asked["field"], sorted(set(asked["values"]))])
        connection.execute(
            update(topics).where(topics.c.id == row.id).values(rule_version=row.rule_version + 1)
        )
        number = connection.execute(
            insert(erasures)
            .values(
                topic_id=row.id,
                field=asked["field"],
                value_hash=hashed,
                number=len(set(asked["values"])),
                rule_version=row.rule_version + 1,
                sequence=row.sequence,
                until=_until(connection, row, now_us),
                asked_us=now_us,
            )
            .returning(erasures.c.id)
        ).scalar_one()
        note(
            connection, now_us, "create_erasure", topic=topic, target=asked["field"],
            after={"values": len(set(asked["values"])), "value_hash": hashed.hex()},
        )  # fmt: skip
        made = connection.execute(select(erasures).where(erasures.c.id == number)).one()
        said = _json(connection, find_topic(connection, topic), made)
    return answer(said, 201)


def _find(connection: Connection, topic: Record, number: int) -> Record:
    row = connection.execute(
        select(erasures).where(erasures.c.topic_id == topic.id, erasures.c.id == number)
    ).one_or_none()
    if row is None:
        raise Problem("not-found", 404, f"Topic {topic.name} has no erasure {number}.")
    return row


@blueprint.get("/v1/topics/<topic>/erasures")
def list_erasures(topic: str) -> Response:
    asked = query()
    limit = asked["limit"]
    state = page_state(asked.get("page"), id=int)
    with here().database.read() as connection:
        row = find_topic(connection, topic)
        wanted = select(erasures).where(erasures.c.topic_id == row.id).order_by(erasures.c.id)
        if state:
            wanted = wanted.where(erasures.c.id > state["id"])
        found = connection.execute(wanted.limit(limit + 1)).all()
        shown = [_json(connection, row, each) for each in found[:limit]]
    token = page_token(id=found[limit - 1].id) if len(found) > limit else None
    return answer({"erasures": shown, "next_page": token})


@blueprint.get("/v1/topics/<topic>/erasures/<number>")
def get_erasure(topic: str, number: str) -> Response:
    with here().database.read() as connection:
        row = find_topic(connection, topic)
        return answer(_json(connection, row, _find(connection, row, int(number))))


def _loaders_behind(connection: Connection, topic: Record) -> list[dict[str, Any]]:
    """Loaders that have not passed the head, and those that keep rows beyond expiry."""
    rows = connection.execute(
        select(loaders.c.name, loaders.c.topics, loaders.c.mirror_expiry, cursors.c.sequence)
        .join(cursors, (cursors.c.loader_id == loaders.c.id) & (cursors.c.topic_id == topic.id), isouter=True)
        .order_by(loaders.c.name)
    )
    return [
        {"name": row.name, "sequence": row.sequence, "mirror_expiry": row.mirror_expiry}
        for row in rows
        if covers(row.topics, topic.name) and ((row.sequence or 0) < topic.sequence or not row.mirror_expiry)
    ]


@blueprint.post("/v1/topics/<topic>/erasures/<number>/record")
def finish_erasure(topic: str, number: str) -> Response:
    """Refused until all that Kafka had at the time of asking is in the lake, and was scanned as of now."""
    asked: Mapping[str, Any] = body()
    database = here().database
    with database.write() as connection:
        row = lock_topic(connection, topic)
        found = _find(connection, row, int(number))
        now_us = database.clock(connection)
        if found.finished_us is None:
            left = uncovered(connection, row.id, found.until)
            if left:
                raise Problem(
                    "not-covered", 409,
                    f"Lake partitions {left[:20]} have not written all that Kafka had when the erasure was asked for.",
                    lake_partitions=left,
                )  # fmt: skip
            record = {
                "topic": row.name,
                "epoch": row.epoch,
                "erasure": found.id,
                "field": found.field,
                "values": found.number,
                "value_hash": found.value_hash.hex(),
                "asked_at": format_time(found.asked_us),
                "finished_at": format_time(now_us),
                "scanned": int(asked["scanned"]),
                "commits": [int(sequence) for sequence in asked["commits"]],
                "files": list(asked["files"]),
                "rows": int(asked["rows"]),
                "dead_letters": int(asked["dead_letters"]),
                "loaders": _loaders_behind(connection, row),
                "by": caller().name,
            }
            signature, public_key = signed(connection, record)
            connection.execute(
                update(erasures)
                .where(erasures.c.id == found.id)
                .values(finished_us=now_us, record=record, signature=signature, public_key=public_key)
            )
            note(
                connection, now_us, "finish_erasure", topic=topic, target=found.field,
                after={"rows": record["rows"], "dead_letters": record["dead_letters"]},
            )  # fmt: skip
        said = _json(connection, row, _find(connection, row, int(number)))
    return answer(said)
