"""Rebuild: a lost database made again from the catalogue that upkeep keeps in the lake.

Everything up to the last catalogued commit comes back as it was, R being its sequence. Then a new epoch opens that
shares R with the old one. What was committed after R is entered again where the objects themselves tell it: an append
whose footers chain onto the positions. What is left is read from Kafka again. Loaders learn from the feed's 410 where
to go on, whatever they had loaded beyond R.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pyroaring import BitMap
from sqlalchemy import Connection, func, insert, select, text, update

from api.catalogue import values
from api.commits import ADOPTED, enter
from api.database import Database, make_engine
from api.epochs import open_epoch
from api.migrate import upgrade_at_start
from api.months import ensure_months
from api.periods import rows_by_period
from api.problems import Problem
from api.requests import read_commit
from api.settings import ApiSettings, SettingsError
from api.tables import (
    commit_ids,
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
from api.topic_settings import PERIODS_US
from api.upkeep_tables import erasures, holds

FOUR_WEEKS_US = 28 * 86_400_000_000
NUMBER_ON = [
    text(f"SELECT setval(pg_get_serial_sequence('{name}', 'id'), (SELECT coalesce(max(id), 1) FROM {name}))")
    for name in ("files", "erasures")
]


class RebuildRefused(SettingsError):
    """The database has topics: it is not lost."""


Kept = Mapping[str, Any]
"""Of a topic: `topic` (its name), `state`, `commits` in order, `appends` (bodies without epoch) that may come after."""


def rebuild(settings: ApiSettings, kept: Iterable[Kept]) -> Iterator[str]:
    """Fills an empty database, and says a line of each topic. Raises RebuildRefused when the database is not empty."""
    database = Database(make_engine(settings.database, 2))
    try:
        upgrade_at_start(database)
        with database.read() as connection:
            found = connection.execute(select(func.count()).select_from(topics)).scalar_one()
        if found:
            raise RebuildRefused(
                f"TUKANG_DATABASE: the database has {found} topics, so it is not lost. `tukang rebuild` only fills an "
                "empty one: stop the API, put the old database aside, and try again."
            )
        entered = [_topic(database, each) for each in kept]
        if not database.sqlite:
            with database.write() as connection:
                for statement in NUMBER_ON:
                    connection.execute(statement)
        # After all topics are in: new files get numbers above those of every old one.
        for each in entered:
            yield _rebuilt(database, *each)
    finally:
        database.dispose()


def _topic(database: Database, kept: Kept) -> tuple[Kept, str, int]:
    with database.write() as connection:
        now_us = database.clock(connection)
        common = int(kept["commits"][-1]["sequence"]) if kept["commits"] else 0
        topic_id = _enter_topic(connection, kept, common)
        epoch_id = _enter_epochs(connection, topic_id, kept["state"])
        _enter_folded(connection, topic_id, kept)
        _enter_commits(connection, topic_id, epoch_id, kept["commits"])
        _enter_positions(connection, topic_id, kept["state"])
        _enter_periods(connection, topic_id, kept["state"], common)
        for row in kept["state"]["schemas"]:
            connection.execute(insert(schemas).values(topic_id=topic_id, **values(schemas, row)))
        _count(connection, topic_id)
        _enter_installation(connection, topic_id, kept["state"], common)
        _enter_erasures(connection, topic_id, kept["state"], common)
        return kept, open_epoch(connection, topic_id, common, now_us), common


def _rebuilt(database: Database, kept: Kept, epoch: str, common: int) -> str:
    adopted = _adopt(database, kept, epoch)
    with database.read() as connection:
        topic = connection.execute(select(topics).where(topics.c.name == kept["topic"])).one()
    told = ", ".join(sorted(row["loader"] for row in kept["state"]["cursors"])) or "none"
    return (
        f"{topic.name}: epoch {epoch}, as it was up to sequence {common}, {adopted} appends entered again from their "
        f"objects, {topic.live_files} live files, {topic.live_rows} rows; loaders that are told where to go on: {told}"
    )


def _enter_topic(connection: Connection, kept: Kept, common: int) -> int:
    row = values(topics, kept["state"]["topic"])
    last = kept["commits"][-1]["commit"] if kept["commits"] else None
    whole = common == row["sequence"]  # else the state is newer than the last commit that is left
    row |= {
        "sequence": common,
        "oldest": int(kept["commits"][0]["sequence"]) if kept["commits"] else row["oldest"],
        "head_us": last["committed_us"] if last else None,
        "rows_total": last["rows_total"] if last else 0,
        "complete_until_us": row["complete_until_us"] if whole else None,
        "gap_sequence": row["gap_sequence"] if (row["gap_sequence"] or 0) <= common else None,
        "broker_partitions": None,
        "broker_partitions_us": None,
    }
    del row["id"]
    made = connection.execute(insert(topics).values(**row).returning(topics.c.id)).scalar_one()
    return int(made)


def _enter_epochs(connection: Connection, topic_id: int, state: Mapping[str, Any]) -> int:
    number = 0
    for row in state["epochs"]:
        content = values(epochs, row)
        del content["id"]
        number = connection.execute(
            insert(epochs).values(topic_id=topic_id, **content).returning(epochs.c.id)
        ).scalar_one()
    return number


def _enter_folded(connection: Connection, topic_id: int, kept: Kept) -> None:
    """What is before the first commit that is left: lines of days, and the files of it that are live."""
    first = int(kept["commits"][0]["sequence"]) if kept["commits"] else int(kept["state"]["topic"]["oldest"])
    for row in kept["state"]["folded"]:
        if row["sequence"] < first:
            line = {name: value for name, value in values(folded, row).items() if value is not None}
            connection.execute(insert(folded).values(topic_id=topic_id, **line))
    common = int(kept["commits"][-1]["sequence"]) if kept["commits"] else first - 1
    for row in kept["state"]["files"]:
        if row["added_sequence"] < first:
            content = values(files, row)
            if (content["removed_sequence"] or 0) > common:
                content |= {"removed_sequence": None, "swept_us": None}  # by a commit that is lost
            connection.execute(insert(files).values(topic_id=topic_id, **content))


def _enter_commits(
    connection: Connection, topic_id: int, epoch_id: int, entries: Sequence[Mapping[str, Any]]
) -> None:
    for four_weeks in sorted({entry["commit"]["committed_us"] // FOUR_WEEKS_US for entry in entries}):
        ensure_months(connection, four_weeks * FOUR_WEEKS_US)
    for entry in entries:
        commit = values(commits, entry["commit"])
        connection.execute(insert(commits).values(topic_id=topic_id, epoch_id=epoch_id, **commit))
        place = {name: commit[name] for name in ("sequence", "committed_us", "id")}
        connection.execute(insert(commit_ids).values(topic_id=topic_id, **place))
        for row in entry["lines"]:
            line = {name: value for name, value in values(ledger, row).items() if value is not None}
            connection.execute(insert(ledger).values(topic_id=topic_id, **line))
        for row in entry["files"]:
            connection.execute(insert(files).values(topic_id=topic_id, **values(files, row)))
        if entry["removed"]:
            connection.execute(
                update(files)
                .where(files.c.topic_id == topic_id, files.c.id.in_(entry["removed"]))
                .values(removed_sequence=entry["sequence"])
            )


def _enter_positions(connection: Connection, topic_id: int, state: Mapping[str, Any]) -> None:
    """Each lake partition stands where its last append left it: nothing after that is known to be in the lake."""
    for row in state["lake_partitions"]:
        content = values(lake_partitions, row)
        last = connection.execute(
            select(ledger, commits.c.id.label("version"))
            .join(
                commits,
                (commits.c.topic_id == ledger.c.topic_id)
                & (commits.c.sequence == ledger.c.sequence)
                & (commits.c.committed_us == ledger.c.committed_us),
            )
            .where(
                ledger.c.topic_id == topic_id,
                ledger.c.lake_partition == content["lake_partition"],
                ledger.c.carried.is_not(None),
            )
            .order_by(ledger.c.sequence.desc())
            .limit(1)
        ).one_or_none()
        content |= {
            "next": last.to_offset if last else None,
            "carried": last.carried if last else BitMap().serialize(),
            "carried_count": last.carried_out if last else 0,
            "highest_us": last.highest_us if last else None,
            "watermark_us": last.watermark_us if last else None,
            "published_to_us": last.published_to_us if last else None,
            "version": last.version if last else None,
            "caught_up_us": None,
        }
        connection.execute(insert(lake_partitions).values(topic_id=topic_id, **content))


def _enter_periods(connection: Connection, topic_id: int, state: Mapping[str, Any], common: int) -> None:
    period_us = state["topic"].get("period_us") or PERIODS_US["day"]
    live = connection.execute(
        select(files.c.periods).where(
            files.c.topic_id == topic_id, files.c.removed_sequence.is_(None), files.c.what == "rows"
        )
    ).scalars()
    rows = rows_by_period(list(live), period_us)
    known = {row["start_us"]: row for row in state["periods"]}
    for start in sorted(known.keys() | rows.keys()):
        row = known.get(start, {})
        sealed, reopened = row.get("sealed_sequence"), row.get("reopened_sequence")
        sealed = sealed if sealed is not None and sealed <= common else None
        reopened = reopened if reopened is not None and reopened <= common else None
        connection.execute(
            insert(periods).values(
                topic_id=topic_id,
                start_us=start,
                rows=rows.get(start, 0),
                sealed_sequence=sealed,
                reopened_sequence=reopened,
                reopened_us=row.get("reopened_us") if reopened is not None else None,
            )
        )


def _count(connection: Connection, topic_id: int) -> None:
    found = {"live_files": 0, "live_rows": 0, "live_bytes": 0, "live_dead_letters": 0}
    for file in connection.execute(
        select(files.c.what, files.c.rows, files.c.bytes).where(
            files.c.topic_id == topic_id, files.c.removed_sequence.is_(None), files.c.what != "deletes"
        )
    ):
        found["live_files"] += 1
        found["live_bytes"] += file.bytes
        found["live_rows" if file.what == "rows" else "live_dead_letters"] += file.rows
    connection.execute(update(topics).where(topics.c.id == topic_id).values(**found))


def _enter_installation(connection: Connection, topic_id: int, state: Mapping[str, Any], common: int) -> None:
    """Defaults, holds and loaders, unless another topic's state brought them already; and this topic's cursors."""
    for table in (defaults, holds, loaders):
        for row in state[table.name]:
            if connection.execute(select(table.c.name).where(table.c.name == row["name"])).first() is None:
                content = {name: value for name, value in values(table, row).items() if name != "id"}
                connection.execute(insert(table).values(**content))
    connection.execute(
        update(loaders).values(seen_topic_id=topic_id, lease_holder=None, lease_expires_us=None)
    )
    for row in state["cursors"]:
        loader_id = connection.execute(
            select(loaders.c.id).where(loaders.c.name == row["loader"])
        ).scalar_one()
        content = values(cursors, row)
        if content["sequence"] is not None:
            content["sequence"] = min(content["sequence"], common)
        connection.execute(insert(cursors).values(loader_id=loader_id, topic_id=topic_id, **content))


def _enter_erasures(connection: Connection, topic_id: int, state: Mapping[str, Any], common: int) -> None:
    """Records with their signatures, which the public key beside them proves. One whose commits are lost was not done:
    it is open again, and its rule is the topic's."""
    for row in state.get("erasures", []):
        content = values(erasures, row)
        if any(sequence > common for sequence in (content["record"] or {}).get("commits", [])):
            content |= dict.fromkeys(("finished_us", "record", "signature", "public_key"))
        content["sequence"] = min(content["sequence"], common)
        if content["record"] is None:
            del content["record"]  # absent, not JSON's null
        connection.execute(insert(erasures).values(topic_id=topic_id, **content))


def _adopt(database: Database, kept: Kept, epoch: str) -> int:
    """Enters appends by the laws that every commit keeps; one that does not chain is nobody's, and read again."""
    followed = {line["from_version"] for body in kept["appends"] for line in body["lines"]}
    waiting = sorted(kept["appends"], key=lambda body: (body["id"] not in followed, body["id"]))
    adopted = 0
    while True:
        left = []
        for body in waiting:
            try:
                with database.write() as connection:
                    request = replace(read_commit(kept["topic"], {**body, "epoch": epoch}), digest=ADOPTED)
                    status, _, _ = enter(connection, database.clock, kept["topic"], request)
                adopted += status == 201
            except Problem:
                left.append(body)
        if len(left) == len(waiting):
            return adopted
        waiting = left
