"""What is said of a topic: its settings that hold, its state with reason and what to do, its lag. Reads, never writes.

The state is what fresh reports of workers say, the worst of them; what the API itself knows (paused, a gap that nobody
accepted) stands above them. A report older than 60 s says nothing any more.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select

from api.completeness import complete_until_of, reaches_of
from api.problems import Problem
from api.tables import Record, defaults, installation, lake_partitions, topics, worker_topics, workers
from api.times import format_time_or_none
from api.topic_settings import Rule, resolve

STALE_US = 60_000_000
# Worst first.
STATES = (
    "refused",
    "truncated",
    "new_life",
    "gap",
    "suspended",
    "waiting",
    "paused",
    "starting",
    "running",
    "unknown",
)
TODO = {
    "refused": "A commit broke a law: this is a defect. Look at the worker's log, keep it for a report, restart it.",
    "truncated": "The log ends before the position. Decide with `tukang topics accept-reset --from ...`.",
    "new_life": "The topic was made anew at the broker. Decide with `tukang topics accept-reset --from ...`.",
    "gap": "Records were deleted at the broker before they were read. When you have taken note of the ranges in the "
    "ledger: `tukang topics accept-gap`.",
    "suspended": "Dead letters stopped the topic (error_mode: suspend). Look at them with `tukang dead-letters list`, "
    "then `tukang topics resume`.",
    "waiting": "The worker waits for the broker, the store or this API; it goes on by itself. See `reason`.",
    "paused": "Go on with `tukang topics resume`.",
    "starting": None,
    "running": None,
    "unknown": "No worker has reported this topic for 60 s: is one running whose topics and group match?",
}


def load_rules(connection: Connection) -> tuple[list[Rule], int]:
    """All defaults by pattern, and the version of them."""
    rules = [
        Rule(row.name, row.pattern, row.priority, row.settings)
        for row in connection.execute(select(defaults).order_by(defaults.c.priority, defaults.c.name))
    ]
    return rules, connection.execute(select(installation.c.defaults_version)).scalar_one()


def settings_version(topic: Record, defaults_version: int) -> int:
    """Grows with every change of the topic's own settings and of any defaults."""
    found: int = topic.settings_version + defaults_version
    return found


def settings_of(topic: Record, rules: Sequence[Rule]) -> dict[str, Any]:
    return resolve(topic.name, topic.settings, rules)


def reports_of(connection: Connection, topic_ids: Sequence[int], now_us: int) -> dict[int, list[Record]]:
    """Fresh reports of workers, by topic."""
    found: dict[int, list[Record]] = {topic_id: [] for topic_id in topic_ids}
    for row in connection.execute(
        select(worker_topics, workers.c.name.label("worker"))
        .join(workers, workers.c.id == worker_topics.c.worker_id)
        .where(
            worker_topics.c.topic_id.in_(list(topic_ids)), worker_topics.c.received_us >= now_us - STALE_US
        )
    ):
        found[row.topic_id].append(row)
    return found


def state_of(topic: Record, reports: Sequence[Record]) -> dict[str, Any]:
    """`state`, `reason`, `since` and `todo` of a topic."""
    # Of equal states one that says more: a worker tells so that too many of its records are dead letters.
    worst = min(reports, key=lambda report: (STATES.index(report.state), report.detail is None), default=None)
    state, reason, since = "unknown", "no report of a worker for 60 s", None
    if worst is not None:
        state, reason, since = worst.state, worst.detail or worst.reason, worst.since_us
    if state in ("suspended", "paused") and held_back(topic) is None:
        state, reason, since = "starting", "resumed: the worker goes on after its next report", None
    if topic.gap_sequence is not None and STATES.index("gap") < STATES.index(state):
        state, since = "gap", None
        reason = f"records were lost at the source, first in commit {topic.gap_sequence}"
    if topic.suspended_sequence is not None and STATES.index("suspended") < STATES.index(state):
        state, since = "suspended", None
        reason = f"commit {topic.suspended_sequence} has dead letters"
    if topic.paused_us is not None and STATES.index("paused") < STATES.index(state):
        state, reason, since = "paused", "an operator paused it", topic.paused_us
    return {"state": state, "reason": reason, "since": format_time_or_none(since), "todo": TODO[state]}


def held_back(topic: Record) -> str | None:
    """Why workers do not read the topic until somebody resumes it: `suspended`, `paused`, or None."""
    if topic.suspended_sequence is not None:
        return "suspended"
    return None if topic.paused_us is None else "paused"


def changes_of(
    connection: Connection, rows: Sequence[Record], rules: tuple[list[Rule], int]
) -> list[dict[str, Any]]:
    """What a worker must know of topics (rows of `topics`): settings, versions, paused."""
    return [
        {
            "topic": topic.name,
            "epoch": topic.epoch,
            "state": held_back(topic) or ("gap" if topic.gap_sequence else "running"),
            "paused": held_back(topic) is not None,
            "settings_version": settings_version(topic, rules[1]),
            "rule_version": topic.rule_version,
            "schema_version": topic.schema_version,
            "settings": settings_of(topic, rules[0]),
            "settings_own": sorted(topic.settings),
        }
        for topic in rows
    ]


def partition_report(reports: Sequence[Record]) -> dict[int, tuple[str, list[Any]]]:
    """Newest report of each lake partition: worker, [number, next, end, stable_end, carried, at_end]."""
    return {
        entry[0]: (report.worker, entry)
        for report in sorted(reports, key=lambda report: report.received_us)
        for entry in report.partitions
    }


def _lag(row: Record, report: tuple[str, list[Any]] | None) -> int | None:
    """Offsets between the committed position and the log's end, and what is carried; None: unknown."""
    if report is None or report[1][2] is None:
        return None
    start = row.next if row.next is not None else report[1][1]
    return None if start is None else max(report[1][2] - start, 0) + row.carried_count


def describe(
    connection: Connection, rows: Sequence[Record], now_us: int, *, with_partitions: bool = False
) -> list[dict[str, Any]]:
    """Topics (rows of `topics`) as the contract's TopicSummary; with partitions, settings and versions: Topic."""
    ids = [topic.id for topic in rows]
    rules = load_rules(connection)
    reports = reports_of(connection, ids, now_us)
    by_topic: dict[int, list[Record]] = {topic_id: [] for topic_id in ids}
    columns = [column for column in lake_partitions.c if column.name != "carried"]
    for row in connection.execute(
        select(*columns)
        .where(lake_partitions.c.topic_id.in_(ids))
        .order_by(lake_partitions.c.topic_id, lake_partitions.c.lake_partition)
    ):
        by_topic[row.topic_id].append(row)
    changes = changes_of(connection, rows, rules) if with_partitions else [{}] * len(rows)
    return [
        {**change, **_describe(topic, by_topic[topic.id], reports[topic.id], rules[0], with_partitions)}
        for topic, change in zip(rows, changes, strict=True)
    ]


def _describe(
    topic: Record,
    partitions: Sequence[Record],
    reports: Sequence[Record],
    rules: Sequence[Rule],
    full: bool,
) -> dict[str, Any]:
    reported = partition_report(reports)
    reaches = reaches_of(partitions)
    lags = {row.lake_partition: _lag(row, reported.get(row.lake_partition)) for row in partitions if row.open}
    known = [lag for lag in lags.values() if lag is not None]
    marks = [reach.watermark_us for reach in reaches]
    fresh = [
        max((time for time in (reach.watermark_us, reach.caught_up_us) if time is not None), default=None)
        for reach in reaches
    ]
    described = {
        "topic": topic.name,
        "epoch": topic.epoch,
        "sequence": topic.sequence,
        **state_of(topic, reports),
        "paused": held_back(topic) is not None,
        "files": topic.live_files,
        "rows": topic.live_rows,
        "bytes": topic.live_bytes,
        "dead_letters": topic.live_dead_letters,
        "lag": sum(known) if lags and len(known) == len(lags) else None,
        "complete_until": format_time_or_none(complete_until_of(topic, reaches, settings_of(topic, rules))),
        "fresh_until": format_time_or_none(_lowest(fresh)),
        "watermark": format_time_or_none(_lowest(marks)),
        "last_commit_at": format_time_or_none(topic.head_us),
    }
    if full:
        described["partitions"] = [
            {
                "lake_partition": row.lake_partition,
                "broker_partition": row.broker_partition,
                "topic_id": row.broker_topic_id,
                "open": row.open,
                "next": row.next,
                "carried_count": row.carried_count,
                "watermark": format_time_or_none(row.watermark_us),
                "caught_up_at": format_time_or_none(row.caught_up_us),
                "end": report[1][2] if report else None,
                "stable_end": report[1][3] if report else None,
                "lag": lags.get(row.lake_partition),
                "worker": report[0] if report else None,
            }
            for row in partitions
            for report in [reported.get(row.lake_partition)]
        ]
    return described


def _lowest(times: Sequence[int | None]) -> int | None:
    """The lowest of all; None when one is not known or there is none."""
    known = [time for time in times if time is not None]
    return min(known) if known and len(known) == len(times) else None


def no_topic(name: str) -> Problem:
    """The same answer for a topic that does not exist and one that the caller may not see."""
    return Problem("not-found", 404, f"There is no topic {name}, or it is not for this caller.")


def find_topic(connection: Connection, name: str) -> Record:
    """The topic's row; raises Problem when there is none."""
    row = connection.execute(select(topics).where(topics.c.name == name)).one_or_none()
    if row is None:
        raise no_topic(name)
    return row
