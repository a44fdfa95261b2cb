"""The writing of a commit that passed every check: step 5 of `commits.py`, statement by statement.

Statements are made once: building them costs more than running them. Nothing here refuses anything, but an id that
another topic's commit took at the same moment.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError

from api.database import several, together
from api.file_laws import NewFile
from api.files import enter_files, remove_files
from api.laws import Line
from api.periods import change_rows, rows_by_period, seal
from api.positions import position_json
from api.problems import Problem
from api.requests import CommitRequest
from api.tables import Record, commit_ids, commits, epochs, lake_partitions, ledger, topics
from api.times import format_time
from api.upkeep_laws import UpkeepLine

ENTER_ID = insert(commit_ids)
ENTER_COMMIT = insert(commits).values(
    epoch_id=select(epochs.c.id).where(epochs.c.epoch == bindparam("epoch")).scalar_subquery()
)
ENTER_LINES = insert(ledger)
MOVE_POSITION = (
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
MOVE_HEAD = (
    update(topics)
    .where(topics.c.id == bindparam("b_id"))
    .values(
        {
            name: bindparam(name)
            for name in (
                "sequence",
                "head_us",
                "period_us",
                "gap_sequence",
                "rows_total",
                "live_files",
                "live_rows",
                "live_bytes",
                "live_dead_letters",
            )
        }
    )
)


def write_commit(
    connection: Connection,
    topic: Record,
    request: CommitRequest,
    *,
    stored: Mapping[int, Record],
    remove: Sequence[Record],
    committed_us: int,
    period_us: int,
) -> dict[str, Any]:
    """Writes the commit, the next sequence last. `stored`: positions of its lines, `remove`: rows of `files`."""
    sequence = topic.sequence + 1
    rows_files = [file for file in request.files if file.what == "rows"]
    rows_added = sum(file.rows for file in rows_files)
    try:
        # Other kinds ask questions on their way.
        with together(connection) if request.kind == "append" else nullcontext():
            connection.execute(
                ENTER_ID,
                {"id": request.id, "topic_id": topic.id, "sequence": sequence, "committed_us": committed_us},
            )
            connection.execute(
                ENTER_COMMIT,
                {
                    "topic_id": topic.id,
                    "sequence": sequence,
                    "committed_us": committed_us,
                    "id": request.id,
                    "epoch": topic.epoch,
                    "kind": request.kind,
                    "worker": request.worker,
                    "digest": request.digest,
                    "schema_version": request.schema_version,
                    "rule_version": request.rule_version,
                    "files_added": len(request.files),
                    "files_removed": len(remove),
                    "rows_added": rows_added,
                    "rows_total": topic.rows_total + _to_load(request),
                },
            )
            head = {"topic_id": topic.id, "sequence": sequence, "committed_us": committed_us}
            if request.lines:
                connection.execute(
                    ENTER_LINES, several([head | _append_line(line, stored) for line in request.lines])
                )
                connection.execute(
                    MOVE_POSITION,
                    several([position_values(topic.id, request.id, line, stored) for line in request.lines]),
                )
            if request.upkeep:
                connection.execute(ENTER_LINES, [head | _upkeep_line(line) for line in request.upkeep])
            if remove:
                remove_files(connection, [file.id for file in remove], sequence)
            if request.files:
                enter_files(connection, topic.id, sequence, request.kind, request.files, remove, committed_us)
            counted = rows_by_period([file.periods for file in rows_files], period_us)
            for start, rows in rows_by_period(
                [f.periods for f in remove if f.what == "rows"], period_us
            ).items():
                counted[start] = counted.get(start, 0) - rows
            if counted:
                reopening = rows_files if request.kind not in ("erase", "expire") else []
                change_rows(connection, topic.id, counted, reopening, period_us, sequence, committed_us)
            if request.periods:
                seal(
                    connection,
                    topic.id,
                    request.periods,
                    set(request.beside),
                    period_us,
                    sequence,
                    committed_us,
                )
            _move_head(
                connection, topic, request, remove, sequence, committed_us, period_us if rows_files else None
            )
    except IntegrityError as error:
        # The one thing that stands behind no topic's lock.
        if "commit_ids" in str(error.orig):
            raise id_reused(request) from error
        raise
    return {
        "topic": topic.name,
        "epoch": topic.epoch,
        "sequence": sequence,
        "committed_at": format_time(committed_us),
        "version": str(request.id),
        "positions": [
            position_json(
                {
                    **position_values(topic.id, request.id, line, stored),
                    "lake_partition": line.lake_partition,
                    "broker_partition": stored[line.lake_partition].broker_partition,
                    "open": True,
                }
            )
            for line in sorted(request.lines, key=lambda line: line.lake_partition)
        ],
    }


def id_reused(request: CommitRequest) -> Problem:
    return Problem(
        "commit-id-reused",
        422,
        f"Commit {request.id} was taken with other content. An id names one commit for ever.",
    )


def _move_head(
    connection: Connection,
    topic: Record,
    request: CommitRequest,
    remove: Sequence[Record],
    sequence: int,
    committed_us: int,
    period_us: int | None,
) -> None:
    lost = any(line.lost for line in request.lines)
    connection.execute(
        MOVE_HEAD,
        {
            "b_id": topic.id,
            "sequence": sequence,
            "head_us": committed_us,
            "period_us": topic.period_us or period_us,
            "gap_sequence": sequence if lost and topic.gap_sequence is None else topic.gap_sequence,
            "rows_total": topic.rows_total + _to_load(request),
            "live_files": topic.live_files + _counted(request.files) - len(remove),
            "live_rows": topic.live_rows + _rows(request.files, "rows") - _rows(remove, "rows"),
            "live_bytes": topic.live_bytes
            + sum(file.size for file in request.files if file.what != "deletes")
            - sum(file.bytes for file in remove),
            "live_dead_letters": topic.live_dead_letters
            + _rows(request.files, "dead_letters")
            - _rows(remove, "dead_letters"),
        },
    )


def _to_load(request: CommitRequest) -> int:
    """Rows that a loader inserts for it; what a replace or an erase adds, it has already."""
    return _rows(request.files, "rows") if request.kind in ("append", "rewrite") else 0


def _counted(files: Sequence[NewFile]) -> int:
    """`deletes` files say what left; they are no part of the live set."""
    return sum(file.what != "deletes" for file in files)


def _rows(files: Sequence[Any], what: str) -> int:
    return sum(file.rows for file in files if file.what == what)


def _topic_id_after(line: Line, stored: Mapping[int, Record]) -> str | None:
    """The broker's topic id of a life is written once; a line may fill it, never change it."""
    found: str | None = stored[line.lake_partition].broker_topic_id
    return found if found is not None else line.position.topic_id


def position_values(topic_id: int, version: Any, line: Line, stored: Mapping[int, Record]) -> dict[str, Any]:
    """The position that a line leaves, as columns of `lake_partitions`."""
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


def _append_line(line: Line, stored: Mapping[int, Record]) -> dict[str, Any]:
    after = line.position
    return {
        "lake_partition": line.lake_partition,
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


def _upkeep_line(line: UpkeepLine) -> dict[str, Any]:
    return {
        "lake_partition": line.lake_partition,
        "from_offset": line.from_offset,
        "to_offset": line.to_offset,
        "rows_in": line.rows_in,
        "rows_out": line.rows_out,
        "dead_in": line.dead_in,
        "dead_out": line.dead_out,
        "duplicates": line.duplicates,
        "restored": line.restored,
        "lost": line.lost,
        "erased": line.erased,
        "expired": line.expired,
    }
