"""Migrations on both databases: once at a time, complete, and refused where a person must decide."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import delete, insert, select, text, update

from api.app import create_app
from api.database import Database, make_engine
from api.migrate import REVISION, SchemaError, check, revision_of, upgrade, upgrade_at_start
from api.months import drop_month, ensure_months
from api.settings import load
from api.tables import LEDGER_COUNTS, commits, installation, ledger, metadata
from api.times import DAY_US


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'tukang.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


def test_migrations_make_the_tables_that_the_code_describes(empty_url: str) -> None:
    upgrade(load(database=empty_url))
    database = Database(make_engine(empty_url))
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = [
            difference
            for difference in compare_metadata(context, metadata)
            # The months and the default of the partitioned tables belong to them.
            if not (
                difference[0] == "remove_table" and difference[1].name.startswith(("commits_", "ledger_"))
            )
            and not (
                difference[0] == "remove_index"
                and difference[1].table.name.startswith(("commits_", "ledger_"))
            )
        ]
        assert differences == []
        assert revision_of(connection) == REVISION
    database.dispose()


def test_an_empty_database_migrates_at_start(empty_url: str) -> None:
    app = create_app(load(database=empty_url, auth="none"))
    assert app.test_client().get("/health/ready").get_json() == {"status": "ready"}
    assert upgrade(load(database=empty_url)) == (REVISION, REVISION)


@pytest.mark.slow
def test_processes_that_start_at_once_migrate_once(empty_url: str) -> None:
    program = (
        "import sys; from api.database import *; from api.migrate import _upgrade; "
        "print(_upgrade(Database(make_engine(sys.argv[1])), only_at_start=True))"
    )
    root = Path(__file__).parents[2]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, empty_url], stdout=subprocess.PIPE, text=True, cwd=root
        )
        for _ in range(4)
    ]
    found = sorted(int(process.communicate()[0]) for process in processes)
    assert found == [0, REVISION, REVISION, REVISION]


@pytest.mark.slow
def test_a_database_of_an_older_revision_waits_for_a_person_on_postgresql(postgres_url: str) -> None:
    upgrade(load(database=postgres_url))
    database = Database(make_engine(postgres_url))
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    with pytest.raises(SchemaError, match="tukang migrate"), database.read() as connection:
        check(connection)
    database.dispose()


def test_a_newer_database_is_served_while_it_says_that_older_code_may(empty_url: str) -> None:
    upgrade(load(database=empty_url))
    database = Database(make_engine(empty_url))
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    upgrade_at_start(database)
    with database.write() as connection:
        connection.execute(update(installation).values(runs_from=9999))
    with pytest.raises(SchemaError, match="newer release"):
        upgrade_at_start(database)
    app = create_app(load(database=empty_url, auth="none"), prepared=True)
    answer = app.test_client().get("/health/ready")
    assert (answer.status_code, answer.get_json()["type"]) == (503, "/problems/not-ready")
    database.dispose()


@pytest.mark.slow
def test_months_are_made_ahead_and_strays_are_kept(postgres_url: str) -> None:
    upgrade(load(database=postgres_url))
    database = Database(make_engine(postgres_url))
    jan_2031 = 1_925_000_000_000_000
    row = {
        "topic_id": 1, "epoch_id": 1, "kind": "append", "digest": b"", "schema_version": 0, "rule_version": 0,
        "files_added": 0, "files_removed": 0, "rows_added": 0, "rows_total": 0, "id": UUID(int=0),
    }  # fmt: skip
    with database.write() as connection:
        ensure_months(connection, jan_2031)
        ensure_months(connection, jan_2031)
        connection.execute(insert(commits), [row | {"sequence": 1, "committed_us": jan_2031}])
        connection.execute(insert(commits), [row | {"sequence": 2, "committed_us": 0}])
        where = connection.execute(
            text("SELECT sequence, tableoid::regclass::text FROM commits ORDER BY sequence")
        ).all()
    assert [tuple(entry) for entry in where] == [(1, "commits_2031_01"), (2, "commits_default")]
    # A process that ran for longer than the months it had made: its strays move when their month is made.
    with database.write() as connection:
        ensure_months(connection, 0)
        moved = connection.execute(text("SELECT tableoid::regclass::text FROM commits WHERE sequence = 2"))
        assert moved.scalar() == "commits_1970_01"
    with database.read() as connection:
        assert connection.execute(
            select(commits.c.sequence).order_by(commits.c.sequence)
        ).scalars().all() == [1, 2]
    database.dispose()


@pytest.mark.slow
def test_a_month_that_folding_emptied_is_dropped_once_it_is_long_over(postgres_url: str) -> None:
    upgrade(load(database=postgres_url))
    days = iter((60, 62, 90, 92, 92, 92, 92))
    database = Database(make_engine(postgres_url), clock=lambda _: next(days) * DAY_US)
    row = {"topic_id": 1, "lake_partition": 0, "sequence": 1, "committed_us": 0}
    with database.write() as connection:
        ensure_months(connection, 0)  # January to April of 1970
        for name in LEDGER_COUNTS:
            row[name] = 0
        connection.execute(insert(ledger), [row])
    # The day after January's end plus a month; January of the ledger holds a row.
    dropped = [drop_month(database) for _ in range(5)]
    assert dropped == ["commits_1970_01", None, "commits_1970_02", "ledger_1970_02", None]
    with database.write() as connection:
        connection.execute(delete(ledger))
    assert drop_month(database) == "ledger_1970_01"
    with database.write() as connection:
        connection.execute(insert(ledger), [row])
        where = connection.execute(text("SELECT tableoid::regclass::text FROM ledger")).scalar()
    assert where == "ledger_default"  # what comes all the same has a place
    database.dispose()
