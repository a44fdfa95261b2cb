"""The catalogue as upkeep copies it to the lake, and asks it about objects: what a lost database is made again from.

Rows go out as they stand, column by column; `rebuild.py` takes them back. Nobody else needs to understand them.
"""

import base64
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from flask import Blueprint, Response
from sqlalchemy import Connection, LargeBinary, Table, Uuid, select

from api.feed import read_commits
from api.files import url_hash, used_urls
from api.problems import Problem, answer
from api.process import body, here, query
from api.tables import (
    Record,
    commits,
    cursors,
    defaults,
    epochs,
    files,
    folded,
    lake_partitions,
    ledger,
    loaders,
    periods,
    schemas,
    topics,
)
from api.topic_state import find_topic
from api.upkeep_tables import erasures, holds

blueprint = Blueprint("catalogue", __name__)

# What of a table means nothing in another database.
OWN = {"topic_id", "loader_id", "epoch_id"}


def plain(table: Table, row: Record) -> dict[str, Any]:
    """A row as JSON; null columns are left out."""
    return {
        str(column.name): _text(row._mapping[column.name])
        for column in table.c
        if column.name not in OWN and row._mapping[column.name] is not None
    }


def values(table: Table, row: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `plain`. Columns of a later release are left out."""
    found: dict[str, Any] = {}
    for column in table.c:
        if column.name in OWN:
            continue
        value = row.get(column.name)
        if value is not None and isinstance(column.type, LargeBinary):
            value = base64.b64decode(value)
        elif value is not None and isinstance(column.type, Uuid):
            value = UUID(value)
        found[str(column.name)] = value
    return found


def _text(value: Any) -> Any:
    if isinstance(value, bytes | memoryview):
        return base64.b64encode(bytes(value)).decode()
    return str(value) if isinstance(value, UUID) else value


def _plain_all(table: Table, rows: Iterable[Record]) -> list[dict[str, Any]]:
    return [plain(table, row) for row in rows]


def _state(connection: Connection, topic: Record) -> dict[str, Any]:
    """What stands beside the commits: schemas, positions, periods, and what of the installation concerns the topic."""

    def all_of(table: Table, order: Any) -> list[dict[str, Any]]:
        chosen = select(table).where(table.c.topic_id == topic.id).order_by(order)
        return _plain_all(table, connection.execute(chosen))

    return {
        "topic": plain(topics, topic),
        "epochs": all_of(epochs, epochs.c.id),
        "lake_partitions": all_of(lake_partitions, lake_partitions.c.lake_partition),
        "periods": all_of(periods, periods.c.start_us),
        "schemas": all_of(schemas, schemas.c.version),
        "defaults": _plain_all(defaults, connection.execute(select(defaults))),
        "folded": all_of(folded, folded.c.sequence),
        # Of commits that are folded; those of the others stand with them.
        "files": _plain_all(
            files,
            connection.execute(
                select(files)
                .where(files.c.topic_id == topic.id, files.c.added_sequence < topic.oldest)
                .order_by(files.c.id)
            ),
        ),
        "erasures": all_of(erasures, erasures.c.id),
        "holds": _plain_all(holds, connection.execute(select(holds))),
        "loaders": _plain_all(loaders, connection.execute(select(loaders))),
        "cursors": [
            {**plain(cursors, row), "loader": row.loader}
            for row in connection.execute(
                select(cursors, loaders.c.name.label("loader"))
                .join(loaders, loaders.c.id == cursors.c.loader_id)
                .where(cursors.c.topic_id == topic.id)
            )
        ],
    }


def _commits(connection: Connection, topic: Record, taken: list[Record]) -> list[dict[str, Any]]:
    if not taken:
        return []
    low, high = taken[0].sequence, taken[-1].sequence
    found: dict[int, dict[str, Any]] = {
        row.sequence: {
            "sequence": row.sequence,
            "commit": plain(commits, row),
            "lines": [],
            "files": [],
            "removed": [],
        }
        for row in taken
    }
    chosen = select(ledger).where(ledger.c.topic_id == topic.id, ledger.c.sequence.between(low, high))
    for row in connection.execute(chosen.order_by(ledger.c.sequence, ledger.c.lake_partition)):
        found[row.sequence]["lines"].append(plain(ledger, row))
    added = select(files).where(files.c.topic_id == topic.id, files.c.added_sequence.between(low, high))
    for row in connection.execute(added.order_by(files.c.id)):
        entry = plain(files, row)
        entry.pop("removed_sequence", None)  # a later commit says so
        entry.pop("swept_us", None)
        found[row.added_sequence]["files"].append(entry)
    gone = select(files.c.id, files.c.removed_sequence).where(
        files.c.topic_id == topic.id, files.c.removed_sequence.between(low, high)
    )
    for row in connection.execute(gone.order_by(files.c.id)):
        found[row.removed_sequence]["removed"].append(row.id)
    return list(found.values())


@blueprint.get("/v1/topics/<topic>/catalog")
def catalog(topic: str) -> Response:
    asked = query()
    with here().database.read() as connection:
        row = find_topic(connection, topic)
        after = asked.get("after", 0)
        if after > row.sequence:
            raise Problem(
                "cursor-ahead", 422, f"after is {after}, the topic's head {row.sequence}.", head=row.sequence
            )
        after = max(after, row.oldest - 1)
        taken, more = read_commits(connection, row, after, asked["limit"], swept=True)
        said = {
            "topic": topic,
            "epoch": row.epoch,
            "head": row.sequence,
            "more": more,
            "commits": _commits(connection, row, taken),
            "state": _state(connection, row) if "state" in asked else None,
        }
    return answer(said)


@blueprint.post("/v1/topics/<topic>/named")
def named(topic: str) -> Response:
    with here().database.read() as connection:
        find_topic(connection, topic)
        found = used_urls(connection, body()["urls"])
        gone = connection.execute(
            select(files.c.url).where(
                files.c.url_hash.in_([url_hash(url) for url in found]), files.c.swept_us.is_not(None)
            )
        ).scalars()
        return answer({"named": sorted(found), "swept": sorted(gone)})
