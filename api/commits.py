"""Commits: one atomic change of a topic each, by compare-and-set on the versions of its positions.

`enter` is the whole transaction, in the order of its numbered steps; the views around it only speak HTTP. What is right
and wrong is decided in `laws.py`; how a body becomes lines and files, in `requests.py`.
"""

from collections.abc import Sequence
from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Connection, bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from api.completeness import period_of
from api.database import Clock, Database
from api.files import enter_files, used_urls
from api.laws import LawBroken, Line, NewFile, check_append
from api.periods import add_rows
from api.positions import position_json, read_positions, stored_position
from api.problems import Problem, answer, database_away
from api.process import body, here
from api.requests import CommitRequest, read_commit
from api.tables import Record, commit_ids, commits, epochs, lake_partitions, ledger, topics
from api.times import format_time
from api.topic_settings import LEAST_SAFE_AGE_US
from api.topic_state import load_rules, settings_of
from api.units import parse_duration

blueprint = Blueprint("commits", __name__)

POSITION_UPDATE = (
    update(lake_partitions)
    .where(
        lake_partitions.c.topic_id == bindparam("b_topic_id"),
        lake_partitions.c.lake_partition == bindparam("b_lake_partition"),
    )
    .values(
        {
            name: bindparam(name)
            for name in (
                "next",
                "carried",
                "carried_count",
                "highest_us",
                "watermark_us",
                "published_to_us",
                "version",
                "broker_topic_id",
            )
        }
    )
)


def enter(
    connection: Connection, clock: Clock, topic_name: str, request: CommitRequest
) -> tuple[int, dict[str, Any], int]:
    """Enters a commit, or gives the first answer again. Status, body, topic id. Raises Problem: nothing is changed.

    The caller's transaction must be one that may write, and be rolled back when this raises.
    """
    # 1. Lock the topic's row; everything is read after that.
    topic = connection.execute(
        select(topics).where(topics.c.name == topic_name).with_for_update()
    ).one_or_none()
    if topic is None:
        raise Problem("not-found", 404, f"There is no topic {topic_name}, or it is not for this caller.")
    # 2. The commit id: a repeat gets the first answer.
    first = _first_answer(connection, topic, request)
    if first is not None:
        return 200, first, topic.id
    # 3. Epoch, rules and position versions: what another one may have moved meanwhile.
    stored = {
        row.lake_partition: row
        for row in read_positions(connection, topic.id, [line.lake_partition for line in request.lines])
    }
    _compare(topic, request, stored)
    # 4. Laws and files; the age of the objects last.
    try:
        check_append(
            request.lines,
            {number: stored_position(row) for number, row in stored.items()},
            request.files,
            topic=topic_name,
            schema_version=topic.schema_version,
            used_urls=used_urls(connection, [file.url for file in request.files]),
        )
    except LawBroken as broken:
        raise Problem(
            "law-broken", 422, f"{broken}. The commit was not taken; this is a defect of its maker.",
            law=broken.law, lake_partition=broken.lake_partition, expected=broken.expected, got=broken.got,
        ) from broken  # fmt: skip
    now_us = clock(connection)
    _check_age(connection, topic, request.files, now_us)
    # 5. Write; the sequence last, so that a refusal uses none.
    committed_us = max(now_us, topic.head_us or 0)
    return 201, _write(connection, topic, request, stored, committed_us), topic.id


def _first_answer(connection: Connection, topic: Record, request: CommitRequest) -> dict[str, Any] | None:
    known = connection.execute(select(commit_ids).where(commit_ids.c.id == request.id)).one_or_none()
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
    if known.topic_id != topic.id or commit is None or commit.digest != request.digest:
        raise _reused(request)
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


def _reused(request: CommitRequest) -> Problem:
    return Problem(
        "commit-id-reused",
        422,
        f"Commit {request.id} was taken with other content. An id names one commit for ever.",
    )


def _position_after(line: Record, version: Any) -> dict[str, Any]:
    """The position that a ledger line left, as the answer to its commit said it."""
    shown = {
        **line._mapping,
        "next": line.to_offset,
        "carried_count": line.carried_out,
        "open": True,
        "version": version,
    }
    return position_json(shown)


def _compare(topic: Record, request: CommitRequest, stored: dict[int, Record]) -> None:
    if request.epoch != topic.epoch:
        raise Problem(
            "epoch-moved", 409,
            f"The topic is in epoch {topic.epoch} now, not {request.epoch}: drop what is held, ask for the positions.",
            epoch=topic.epoch, positions=[position_json(row._mapping) for row in stored.values()],
        )  # fmt: skip
    if request.rule_version < topic.rule_version:
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


def _write(
    connection: Connection,
    topic: Record,
    request: CommitRequest,
    stored: dict[int, Record],
    committed_us: int,
) -> dict[str, Any]:
    sequence = topic.sequence + 1
    period_us = topic.period_us
    rows_files = [file for file in request.files if file.what == "rows"]
    if rows_files and period_us is None:
        period_us = period_of(topic, settings_of(topic, load_rules(connection)[0]))
    epoch_id = connection.execute(select(epochs.c.id).where(epochs.c.epoch == topic.epoch)).scalar_one()
    try:
        connection.execute(
            insert(commit_ids).values(
                id=request.id, topic_id=topic.id, sequence=sequence, committed_us=committed_us
            )
        )
    except IntegrityError as error:
        # The same id for another topic, at the same moment.
        raise _reused(request) from error
    rows_added = sum(file.rows for file in rows_files)
    connection.execute(
        insert(commits).values(
            topic_id=topic.id,
            sequence=sequence,
            committed_us=committed_us,
            id=request.id,
            epoch_id=epoch_id,
            kind=request.kind,
            worker=request.worker,
            digest=request.digest,
            schema_version=request.schema_version,
            rule_version=request.rule_version,
            files_added=len(request.files),
            files_removed=0,
            rows_added=rows_added,
        )
    )
    connection.execute(
        insert(ledger),
        [_ledger_row(topic.id, sequence, committed_us, line, stored) for line in request.lines],
    )
    connection.execute(
        POSITION_UPDATE, [_position_row(topic.id, request.id, line, stored) for line in request.lines]
    )
    if request.files:
        enter_files(connection, topic.id, sequence, request.kind, request.files, committed_us)
    if rows_files:
        assert period_us is not None
        add_rows(connection, topic.id, rows_files, period_us, sequence, committed_us)
    lost = any(line.lost for line in request.lines)
    connection.execute(
        update(topics)
        .where(topics.c.id == topic.id)
        .values(
            sequence=sequence,
            head_us=committed_us,
            period_us=period_us,
            gap_sequence=topic.gap_sequence if topic.gap_sequence is not None or not lost else sequence,
            live_files=topic.live_files + len(request.files),
            live_rows=topic.live_rows + rows_added,
            live_bytes=topic.live_bytes + sum(file.size for file in request.files),
            live_dead_letters=topic.live_dead_letters
            + sum(file.rows for file in request.files if file.what == "dead_letters"),
        )
    )
    return {
        "topic": topic.name,
        "epoch": topic.epoch,
        "sequence": sequence,
        "committed_at": format_time(committed_us),
        "version": str(request.id),
        "positions": [
            position_json(
                {
                    **_position_row(topic.id, request.id, line, stored),
                    "lake_partition": line.lake_partition,
                    "broker_partition": stored[line.lake_partition].broker_partition,
                    "open": True,
                }
            )
            for line in sorted(request.lines, key=lambda line: line.lake_partition)
        ],
    }


def _topic_id_after(line: Line, stored: dict[int, Record]) -> str | None:
    """The broker's topic id of a life is written once; a line may fill it, never change it."""
    found: str | None = stored[line.lake_partition].broker_topic_id
    return found if found is not None else line.position.topic_id


def _position_row(topic_id: int, version: Any, line: Line, stored: dict[int, Record]) -> dict[str, Any]:
    after = line.position
    return {
        "b_topic_id": topic_id,
        "b_lake_partition": line.lake_partition,
        "next": after.next,
        "carried": line.carried_bytes,
        "carried_count": line.carried_out,
        "highest_us": after.highest_us,
        "watermark_us": after.watermark_us,
        "published_to_us": after.published_to_us,
        "version": version,
        "broker_topic_id": _topic_id_after(line, stored),
    }


def _ledger_row(
    topic_id: int, sequence: int, committed_us: int, line: Line, stored: dict[int, Record]
) -> dict[str, Any]:
    after = line.position
    return {
        "topic_id": topic_id,
        "sequence": sequence,
        "lake_partition": line.lake_partition,
        "committed_us": committed_us,
        "from_version": line.from_version,
        "from_offset": line.from_offset,
        "to_offset": line.to_offset,
        "consumed": line.consumed,
        "carried_in": line.carried_in,
        "written": line.written,
        "duplicates": line.duplicates,
        "differing": line.differing,
        "dead_letters": line.dead_letters,
        "lost": line.lost,
        "carried_out": line.carried_out,
        "late": line.late,
        "early": line.early,
        "tombstones": line.tombstones,
        "lost_ranges": [list(pair) for pair in line.lost_ranges] or None,
        "carried": line.carried_bytes,
        "highest_us": after.highest_us,
        "watermark_us": after.watermark_us,
        "published_to_us": after.published_to_us,
        "broker_topic_id": _topic_id_after(line, stored),
    }


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


@blueprint.post("/v1/topics/<topic>/commits")
def commit_one(topic: str) -> Response:
    return _respond(*_commit_here(topic, body()))


@blueprint.post("/v1/commits")
def commit_many() -> Response:
    entries = body()["commits"]
    names = [entry["topic"] for entry in entries]
    if len(set(names)) < len(names):
        raise Problem(
            "request-invalid",
            400,
            "commits: a topic stands in the request twice",
            errors=["commits: a topic twice"],
        )
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
