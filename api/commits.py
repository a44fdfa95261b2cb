"""Commits: one atomic change of a topic each, by compare-and-set on the versions of its positions.

`enter` is the whole transaction, in the order of its numbered steps; the views around it only speak HTTP. What is right
and wrong is decided in `laws.py`, `upkeep_laws.py` and `file_laws.py`; what is written, in `entry.py`; how a body
becomes lines and files, in `requests.py`.
"""

from collections.abc import Sequence
from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Connection, bindparam, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from api.access import caller, forbidden, require_topics
from api.completeness import period_of
from api.database import Clock, Database
from api.entry import id_reused, write_commit
from api.expiry import check_expired
from api.file_laws import LawBroken, NewFile
from api.files import live_among, used_urls
from api.laws import check_append
from api.periods import check_complete
from api.positions import position_json, read_positions, stored_position
from api.problems import Problem, answer, database_away
from api.process import body, here
from api.requests import CommitRequest, read_commit
from api.tables import Record, commit_ids, commits, epochs, lake_partitions, ledger, topics
from api.times import format_time
from api.topic_settings import LEAST_SAFE_AGE_US
from api.topic_state import load_rules, no_topic, settings_of
from api.units import parse_duration
from api.upkeep_laws import LeavingFile, check_upkeep

blueprint = Blueprint("commits", __name__)

LOCK_TOPIC = select(topics).where(topics.c.name == bindparam("name")).with_for_update()
# In place of the digest of an append that a rebuild entered again from its objects: what its maker sent is not known.
ADOPTED = b"adopted"
FIND_ID = select(commit_ids).where(commit_ids.c.id == bindparam("id"))


def enter(
    connection: Connection, clock: Clock, topic_name: str, request: CommitRequest
) -> tuple[int, dict[str, Any], int]:
    """Enters a commit, or gives the first answer again. Status, body, topic id. Raises Problem: nothing is changed.

    The caller's transaction must be one that may write, and be rolled back when this raises.
    """
    # 1. Lock the topic's row; everything is read after that.
    topic = connection.execute(LOCK_TOPIC, {"name": topic_name}).one_or_none()
    if topic is None:
        raise no_topic(topic_name)
    # 2. The commit id: a repeat gets the first answer.
    first = _first_answer(connection, topic, request)
    if first is not None:
        return 200, first, topic.id
    # 3. Epoch, rules, position versions, live files: what another one may have moved meanwhile.
    numbers = [line.lake_partition for line in request.lines or request.upkeep]
    stored = {row.lake_partition: row for row in read_positions(connection, topic.id, numbers)}
    _compare(topic, request, stored)
    remove, beside = _live(connection, topic, request)
    # 4. Laws and files; the age of the objects last.
    period_us = topic.period_us or period_of(topic, settings_of(topic, load_rules(connection)[0]))
    try:
        _check_laws(connection, topic, request, stored, remove, beside, period_us)
    except LawBroken as broken:
        raise Problem(
            "law-broken", 422, f"{broken}. The commit was not taken; this is a defect of its maker.",
            law=broken.law, lake_partition=broken.lake_partition, expected=broken.expected, got=broken.got,
        ) from broken  # fmt: skip
    now_us = clock(connection)
    if request.kind == "expire":
        check_expired(connection, topic, remove, now_us)
    _check_age(connection, topic, request.files, now_us)
    # 5. Write; the sequence last, so that a refusal uses none.
    said = write_commit(
        connection,
        topic,
        request,
        stored=stored,
        remove=remove,
        committed_us=max(now_us, topic.head_us or 0),
        period_us=period_us,
        suspends=_suspends(connection, topic, request),
    )
    return 201, said, topic.id


def _suspends(connection: Connection, topic: Record, request: CommitRequest) -> bool:
    """Whether its dead letters stop the topic. It is kept here, since the worker may die before it has stopped."""
    if topic.suspended_sequence is not None or not any(line.dead_letters for line in request.lines):
        return False
    return bool(settings_of(topic, load_rules(connection)[0])["error_mode"] == "suspend")


def _first_answer(connection: Connection, topic: Record, request: CommitRequest) -> dict[str, Any] | None:
    known = connection.execute(FIND_ID, {"id": request.id}).one_or_none()
    if known is None:
        return None
    commit = connection.execute(
        select(commits, epochs.c.epoch)
        .join(epochs, epochs.c.id == commits.c.epoch_id)
        .where(
            commits.c.topic_id == known.topic_id,
            commits.c.sequence == known.sequence,
            commits.c.committed_us == known.committed_us,
        )
    ).one_or_none()
    if commit is not None and commit.digest == ADOPTED and request.epoch != commit.epoch:
        return None  # its maker, who never heard of the new epoch: it is told of that one
    if known.topic_id != topic.id or commit is None or commit.digest != request.digest:
        raise id_reused(request)
    lines = connection.execute(
        select(ledger, lake_partitions.c.broker_partition)
        .join(
            lake_partitions,
            (lake_partitions.c.topic_id == ledger.c.topic_id)
            & (lake_partitions.c.lake_partition == ledger.c.lake_partition),
        )
        .where(
            ledger.c.topic_id == topic.id,
            ledger.c.sequence == commit.sequence,
            ledger.c.committed_us == commit.committed_us,
        )
        .order_by(ledger.c.lake_partition)
    ).all()
    return {
        "topic": topic.name,
        "epoch": commit.epoch,
        "sequence": commit.sequence,
        "committed_at": format_time(commit.committed_us),
        "version": str(commit.id),
        "positions": [_position_after(line, commit.id) for line in lines if line.carried is not None],
    }


def _position_after(line: Record, version: Any) -> dict[str, Any]:
    """The position that a ledger line left, as the answer to its commit said it."""
    return position_json(
        {
            **line._mapping,
            "next": line.to_offset,
            "carried_count": line.carried_out,
            "open": True,
            "version": version,
        }
    )


def _compare(topic: Record, request: CommitRequest, stored: dict[int, Record]) -> None:
    if request.epoch != topic.epoch:
        raise Problem(
            "epoch-moved", 409,
            f"The topic is in epoch {topic.epoch} now, not {request.epoch}: drop what is held, ask for the positions.",
            epoch=topic.epoch, positions=[position_json(row._mapping) for row in stored.values()],
        )  # fmt: skip
    # What the other kinds read is live in step 3, or they are refused there.
    if request.kind in ("append", "rewrite") and request.rule_version < topic.rule_version:
        raise Problem(
            "rule-version-old", 409,
            f"The commit was made under rules {request.rule_version}, {topic.rule_version} hold now: drop all held.",
            rule_version=topic.rule_version,
        )  # fmt: skip
    moved = [
        line.lake_partition
        for line in request.lines
        for row in [stored.get(line.lake_partition)]
        if row is None or not row.open or row.version != line.from_version
    ]
    if moved:
        raise Problem(
            "position-moved", 409,
            f"Lake partitions {moved[:20]} moved (or are not open) since the commit was begun: drop what is held of "
            "the topic, dedup memory too, and start again from the stored positions.",
            epoch=topic.epoch, positions=[position_json(row._mapping) for row in stored.values()],
        )  # fmt: skip


def _live(
    connection: Connection, topic: Record, request: CommitRequest
) -> tuple[Sequence[Record], Sequence[Record]]:
    """The files to remove and to stand beside; Problem unless all are live."""
    if not request.remove and not request.beside:
        return [], []
    found = live_among(connection, topic.id, [*request.remove, *request.beside])
    gone = [number for number in [*request.remove, *request.beside] if number not in found]
    if gone:
        raise Problem(
            "file-not-live", 409,
            f"{len(gone)} files are not live any more (or never were, in this topic): begin again from `files`.",
            files=gone,
        )  # fmt: skip
    return [found[number] for number in request.remove], [found[number] for number in request.beside]


def _check_laws(
    connection: Connection,
    topic: Record,
    request: CommitRequest,
    stored: dict[int, Record],
    remove: Sequence[Record],
    beside: Sequence[Record],
    period_us: int,
) -> None:
    used = used_urls(connection, [file.url for file in request.files])
    if request.kind == "append":
        check_append(
            request.lines,
            {number: stored_position(row) for number, row in stored.items()},
            request.files,
            topic=topic.name,
            schema_version=topic.schema_version,
            period_us=period_us,
            used_urls=used,
        )
        return
    for line in request.upkeep:
        if line.lake_partition not in stored:
            raise LawBroken(
                "lines", line.lake_partition, "a lake partition of the topic", None, "the lake partition is unknown"
            )  # fmt: skip
    check_upkeep(
        request.kind,
        request.upkeep,
        request.files,
        [_leaving(file) for file in remove],
        [_leaving(file) for file in beside],
        topic=topic.name,
        schema_version=topic.schema_version,
        period_us=period_us,
        used_urls=used,
    )
    if request.periods:
        check_complete(connection, topic, request.periods, period_us)


def _leaving(file: Record) -> LeavingFile:
    return LeavingFile(file.id, file.what, file.rows, file.sealed, file.newest_sequence)


def _check_age(connection: Connection, topic: Record, files: Sequence[NewFile], now_us: int) -> None:
    """Nothing is wrong with an old object, but the sweep may be on its way to it."""
    if not any(now_us - file.modified_us > LEAST_SAFE_AGE_US // 2 for file in files):
        return
    limit = parse_duration(settings_of(topic, load_rules(connection)[0])["safe_age"]) // 2
    old = [file.url for file in files if now_us - file.modified_us > limit]
    if old:
        raise Problem(
            "object-too-old", 409,
            f"{len(old)} objects were put more than {limit // 1_000_000} s ago: read and put them again.", files=old,
        )  # fmt: skip


def commit(database: Database, topic_name: str, content: dict[str, Any]) -> tuple[int, dict[str, Any], int]:
    """One commit in its own transaction: status, body, topic id (0: refused). A refusal is a body too, no exception."""
    try:
        request = read_commit(topic_name, content)
        with database.write() as connection:
            return enter(connection, database.clock, topic_name, request)
    except Problem as problem:
        return problem.status, problem.body(), 0


def _commit_here(topic_name: str, content: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    process = here()
    status, said, topic_id = commit(process.database, topic_name, content)
    if status == 201:
        process.heads.moved(topic_id, said["sequence"])
    return status, said


def _respond(status: int, said: dict[str, Any]) -> Response:
    response = answer(said, status)
    if status >= 400:
        response.mimetype = "application/problem+json"
    return response


def require_kind(kind: str) -> None:
    """Raises Problem (403) unless the caller may make commits of this kind: workers only append."""
    if kind != "append" and "upkeep" not in caller().scopes:
        raise forbidden(["upkeep"])


@blueprint.post("/v1/topics/<topic>/commits")
def commit_one(topic: str) -> Response:
    require_kind(body()["kind"])
    return _respond(*_commit_here(topic, body()))


@blueprint.post("/v1/commits")
def commit_many() -> Response:
    entries = body()["commits"]
    names = [entry["topic"] for entry in entries]
    require_topics(names)
    for entry in entries:
        require_kind(entry["kind"])
    if len(set(names)) < len(names):
        raise Problem(
            "request-invalid", 400, "commits: a topic stands in the request twice", errors=["commits: a topic twice"]
        )  # fmt: skip
    results = []
    for entry in entries:
        content = {name: value for name, value in entry.items() if name != "topic"}
        try:
            status, said = _commit_here(entry["topic"], content)
        except (OperationalError, PoolTimeoutError) as error:
            # What was committed before stays committed, and must be answered.
            problem = database_away(error)
            status, said = problem.status, problem.body()
        results.append({"topic": entry["topic"], "status": status, "body": said})
    return answer({"results": results}, 207)
