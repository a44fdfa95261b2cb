"""Every earlier revision, full of data, brought to this one on both databases: nothing is lost, and the API goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, delete, insert, inspect, select, text

from api import migrations
from api.app import create_app
from api.database import Database, make_engine
from api.migrate import REVISION, revision_of, upgrade
from api.settings import load
from api.tables import metadata
from tests.api.conftest import FakeClock, World
from tests.api.test_folding import days, fold, hold_laws, ledger, sweep
from tests.api.test_workers import report
from tests.stack.postgres import Postgres

Rows = dict[str, list[dict[str, Any]]]
DAY = 86_400
SHOWN: tuple[tuple[str, dict[str, Any]], ...] = (
    ("batches", {"after": 10, "swept": ""}), ("files", {}), ("periods", {}), ("schema", {}),
)  # fmt: skip


@pytest.fixture
def full(world: World) -> Rows:
    """What a database of today holds when everything has been used: rows of every table."""
    maker = days(world)
    world.clock.forward(399 * DAY)
    sweep(world)
    fold(world)
    for method, path, body in (
        ("POST", "/topics/orders/schemas", {"base_version": 0, "columns": []}),
        ("PUT", "/loaders/dwh", {"topics": ["^.*"], "from": "earliest", "hold": True}),
        ("PUT", "/defaults/all", {"pattern": ".*", "settings": {"grace": "2h"}}),
        ("POST", "/tokens", {"name": "somebody", "scopes": ["read"], "topics": ["orders"]}),
        ("POST", "/claims", {"piece": "seal/orders", "topic": "orders", "holder": "one", "seconds": 60}),
        ("PUT", "/holds/case-17", {"topics": ["payments"], "reason": "a court asks"}),
        ("POST", "/topics/orders/erasures", {"field": "customer_id", "values": ["42"]}),
    ):
        answer = world.client.open(f"/v1{path}", method=method, json=body)
        assert answer.status_code < 300, (path, answer.get_data(as_text=True))
    maker.begin()
    maker.commit(3)
    report(world, maker)
    with world.database.read() as connection:
        return rows(connection, {table.name: list(table.columns.keys()) for table in metadata.sorted_tables})


def rows(connection: Connection, columns: dict[str, list[str]]) -> Rows:
    """All rows of these tables, with these of their columns."""
    return {
        table.name: [
            dict(row._mapping)
            for row in connection.execute(
                select(*(table.c[name] for name in columns[table.name])).order_by(*table.primary_key)
            )
        ]
        for table in metadata.sorted_tables
        if table.name in columns
    }


def fill(connection: Connection, full: Rows) -> Rows:
    """Puts into the tables that there are what they can hold of it; gives what was put in."""
    there = inspect(connection)
    columns = {
        name: [each["name"] for each in there.get_columns(name)]
        for name in metadata.tables
        if there.has_table(name)
    }
    for table in metadata.sorted_tables:
        if table.name in columns:
            connection.execute(delete(table))  # the first migration makes the row of the installation
            values = [{name: row[name] for name in columns[table.name]} for row in full[table.name]]
            if values:
                connection.execute(insert(table), values)
            if connection.dialect.name == "postgresql" and "id" in columns[table.name]:
                _count_on(connection, table.name)
    return rows(connection, columns)


def _count_on(connection: Connection, table: str) -> None:
    """Numbers that the database gives begin above those that are there."""
    sequence = connection.execute(
        text("SELECT pg_get_serial_sequence(:table, 'id')"), {"table": table}
    ).scalar()
    if sequence:
        connection.execute(text(f"SELECT setval('{sequence}', (SELECT coalesce(max(id), 1) FROM {table}))"))


@pytest.mark.slow
def test_every_earlier_revision_is_brought_forward_with_its_data(
    world: World, full: Rows, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    assert [name for name, found in full.items() if not found] == []
    for revision in range(1, REVISION):
        if world.database.sqlite:
            _bring_forward(world, full, revision, f"sqlite:///{tmp_path / f'{revision}.db'}")
            continue
        postgres: Postgres = request.getfixturevalue("postgres")
        name = postgres.create()
        try:
            _bring_forward(world, full, revision, postgres.url(name))
        finally:
            postgres.drop(name)


def _bring_forward(world: World, full: Rows, revision: int, url: str) -> None:
    database = Database(make_engine(url))
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, f"{revision:04}")
        assert revision_of(connection) == revision
        old = fill(connection, full)
    upgrade(load(database=url))
    with database.read() as connection:
        assert revision_of(connection) == REVISION
        assert rows(connection, {name: list(found[0]) for name, found in old.items()}) == old, revision
    database.dispose()

    # The API over it says what it said, and goes on.
    clock = FakeClock(world.clock.now_us)
    app = create_app(load(database=url, auth="none"), clock, prepared=True)
    made = World(app, app.test_client(), clock, url)
    for path, query in SHOWN:
        assert made.get(f"/topics/orders/{path}", **query) == world.get(f"/topics/orders/{path}", **query), (
            revision
        )
    if "folded" in old:
        assert ledger(made) == ledger(world)
        hold_laws(ledger(made))
    sequence = made.maker().commit(3)["sequence"]
    [commit] = made.get("/topics/orders/batches", after=sequence - 1)["commits"]
    assert commit["sequence"] == sequence
    made.process.heads.stop()
    made.database.dispose()
