"""Files: entering them, showing them, and the live set as of a sequence.

A file is live from the commit that added it to the one that removed it; both sequences stand in its row, so the live
set as of any sequence is two ranges of indexes: what lives now, and what was removed since.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Connection, Select, and_, bindparam, insert, select, update

from api.database import several
from api.epochs import check_epoch, snapshot_needed
from api.file_laws import NewFile
from api.holds import legally_held
from api.pages import page_state, page_token
from api.presigned import answer_files, require_presigned
from api.problems import Problem
from api.process import here, query
from api.retention import Policy, expires_us, policies_of
from api.tables import Record, commits, files
from api.times import format_time, format_time_or_none, parse_time
from api.topic_state import find_topic, load_rules, settings_of

blueprint = Blueprint("files", __name__)


# SQLite takes 32,766 parameters in a statement, PostgreSQL 65,535.
IDS_IN_STATEMENT = 10_000
ENTER_FILES = insert(files).inline()  # nobody asks for the ids
FIND_URLS = select(files.c.url_hash).where(files.c.url_hash.in_(bindparam("hashes", expanding=True)))
FIND_LIVE = select(files).where(
    files.c.topic_id == bindparam("topic_id"),
    files.c.id.in_(bindparam("ids", expanding=True)),
    files.c.removed_sequence.is_(None),
)


def url_hash(url: str) -> bytes:
    return hashlib.sha256(url.encode()).digest()[:16]


def used_urls(connection: Connection, urls: Collection[str]) -> set[str]:
    """Those of the urls that some commit, of any topic, has named before."""
    by_hash = {url_hash(url): url for url in urls}
    if not by_hash:
        return set()
    found = connection.execute(FIND_URLS, {"hashes": list(by_hash)}).scalars()
    return {by_hash[bytes(hashed)] for hashed in found}


def live_among(connection: Connection, topic_id: int, numbers: Sequence[int]) -> dict[int, Record]:
    """Those of the files that are live in the topic now, by id."""
    found: dict[int, Record] = {}
    for begin in range(0, len(numbers), IDS_IN_STATEMENT):
        some = list(numbers[begin : begin + IDS_IN_STATEMENT])
        found.update(
            (row.id, row) for row in connection.execute(FIND_LIVE, {"topic_id": topic_id, "ids": some})
        )
    return found


def remove_files(connection: Connection, numbers: Sequence[int], sequence: int) -> None:
    """Takes files out of the live set with the commit of this sequence."""
    for begin in range(0, len(numbers), IDS_IN_STATEMENT):
        some = list(numbers[begin : begin + IDS_IN_STATEMENT])
        connection.execute(update(files).where(files.c.id.in_(some)).values(removed_sequence=sequence))


def enter_files(
    connection: Connection,
    topic_id: int,
    sequence: int,
    kind: str,
    new: Sequence[NewFile],
    remove: Sequence[Record],
    committed_us: int,
) -> None:
    """Adds the files of a commit to the live set. `remove`: the rows of `files` that they come from."""
    connection.execute(
        ENTER_FILES,
        several(
            [
                {
                    "topic_id": topic_id,
                    "added_sequence": sequence,
                    "kind": kind,
                    "what": file.what,
                    "late": file.late,
                    "sealed": file.sealed,
                    "url": file.url,
                    "url_hash": url_hash(file.url),
                    "bytes": file.size,
                    "rows": file.rows,
                    "sha256": bytes.fromhex(file.sha256),
                    "schema_version": file.schema_version,
                    "periods": [list(period) for period in file.periods],
                    "lowest_us": file.lowest_us,
                    "highest_us": file.highest_us,
                    **_age(connection, topic_id, sequence, kind, file, remove, committed_us),
                }
                for file in new
            ]
        ),
    )


def _age(
    connection: Connection,
    topic_id: int,
    sequence: int,
    kind: str,
    file: NewFile,
    remove: Sequence[Record],
    committed_us: int,
) -> dict[str, int]:
    """Sequence of the newest content of a file, and commit time of its newest original row.

    A file that comes from others keeps their time, so that retention neither restarts nor fires early; the rows of a
    rewrite are new content of old rows.
    """
    own = {"newest_sequence": sequence, "newest_commit_us": committed_us}
    if kind == "append" or file.what == "deletes" or not remove:
        return own
    oldest_bound = max(row.newest_commit_us for row in remove)
    if kind == "rewrite":
        return own | {"newest_commit_us": oldest_bound}
    newest = file.newest_sequence or max(row.newest_sequence for row in remove)
    exact = connection.execute(
        select(commits.c.committed_us).where(commits.c.topic_id == topic_id, commits.c.sequence == newest)
    ).scalar()
    if exact is None:  # its line is folded: the earliest time that is surely not too early
        exact = min(row.newest_commit_us for row in remove if row.newest_sequence >= newest)
    return {"newest_sequence": newest, "newest_commit_us": min(exact, oldest_bound)}


def _period_json(period: Sequence[Any]) -> dict[str, Any]:
    start, end, rows = period
    shown = {"start": format_time(start), "rows": rows}
    return shown if end is None else {**shown, "end": format_time(end)}


def policies_now(connection: Connection, topic: Record) -> Mapping[str, Policy]:
    """The policies of a topic as they are now; none under a legal hold: then nothing of it expires."""
    if legally_held(connection, topic.name):
        return {}
    return policies_of(settings_of(topic, load_rules(connection)[0]))


def file_json(row: Record, policies: Mapping[str, Policy]) -> dict[str, Any]:
    """A row of `files` as the contract's File; `policies`: the topic's, as they are now."""
    return {
        "id": row.id,
        "sequence": row.added_sequence,
        "kind": row.kind,
        "url": row.url,
        "what": row.what,
        "late": row.late,
        "bytes": row.bytes,
        "rows": row.rows,
        "sha256": row.sha256.hex(),
        "schema_version": row.schema_version,
        "periods": [_period_json(period) for period in row.periods],
        "lowest": format_time_or_none(row.lowest_us),
        "highest": format_time_or_none(row.highest_us),
        "expires_at": format_time_or_none(
            expires_us(policies.get(row.what), row.highest_us, row.newest_commit_us)
        ),
    }


def live_branches(topic_id: int, at: int) -> tuple[Select[Any], Select[Any]]:
    """The live set as of a sequence: what lives still, and what was removed later. Each a range of its own index."""
    added = select(files).where(files.c.topic_id == topic_id, files.c.added_sequence <= at)
    return added.where(files.c.removed_sequence.is_(None)), added.where(files.c.removed_sequence > at)


def live_files(
    connection: Connection,
    topic_id: int,
    at: int,
    *,
    above_id: int = 0,
    limit: int,
    after: int | None = None,
    what: str | None = None,
    from_us: int | None = None,
    to_us: int | None = None,
) -> list[Record]:
    """Live files as of `at` by id, above `above_id`; with `after`: with rows committed after it, and `deletes`."""
    found: dict[int, Record] = {}
    conditions = [files.c.what != "deletes"]
    if what is not None:
        conditions.append(files.c.what == what)
    if from_us is not None:
        conditions.append((files.c.highest_us >= from_us) | files.c.highest_us.is_(None))
    if to_us is not None:
        conditions.append((files.c.lowest_us < to_us) | files.c.lowest_us.is_(None))
    chosen = and_(*conditions)
    if after is not None:
        # What a loader must delete is not a matter of what it wants to insert.
        chosen = (chosen | (files.c.what == "deletes")) & (files.c.newest_sequence > after)
    for branch in live_branches(topic_id, at):
        wanted = branch.where(files.c.id > above_id, chosen)
        found.update((row.id, row) for row in connection.execute(wanted.order_by(files.c.id).limit(limit)))
    return [found[number] for number in sorted(found)[:limit]]


@blueprint.get("/v1/topics/<topic>/files")
def live(topic: str) -> Response:
    asked = query()
    require_presigned()
    limit = asked["limit"]
    state = page_state(asked.get("page"), at=int, id=int)
    with here().database.read() as connection:
        row = find_topic(connection, topic)
        check_epoch(connection, row, asked.get("epoch"), asked.get("at", asked.get("after")))
        at = state["at"] if state else asked.get("at", row.sequence)
        for name, sequence in (("at", at), ("after", asked.get("after", 0))):
            if sequence > row.sequence:
                raise Problem(
                    "cursor-ahead",
                    422,
                    f"{name} is {sequence}, the topic's head {row.sequence}.",
                    head=row.sequence,
                )
        if at < row.oldest - 1 or asked.get("after", at) < row.oldest - 1:
            raise snapshot_needed(row, f"History before sequence {row.oldest} is folded.")
        found = live_files(
            connection,
            row.id,
            at,
            above_id=state["id"] if state else 0,
            limit=limit + 1,
            after=asked.get("after"),
            what=asked.get("what"),
            from_us=parse_time(asked["from"]) if "from" in asked else None,
            to_us=parse_time(asked["to"]) if "to" in asked else None,
        )
        policies = policies_now(connection, row)
    shown = found[:limit]
    if "swept" not in asked and any(file.swept_us is not None for file in shown):
        raise Problem(
            "behind", 410,
            f"Objects that were live as of {at} are gone: ask for the live files as of {row.sequence}.",
            epoch=row.epoch, sequence=row.sequence,
        )  # fmt: skip
    entries = [file_json(file, policies) for file in shown]
    said = {
        "topic": topic,
        "epoch": row.epoch,
        "sequence": at,
        "files": entries,
        "next_page": page_token(at=at, id=shown[-1].id) if len(found) > limit else None,
    }
    return answer_files(said, row, entries)
