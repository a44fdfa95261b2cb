"""One application over each database, a clock that the test moves, and a person who makes commits."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

from api.app import create_app
from api.database import Database
from api.migrate import upgrade
from api.process import EXTENSION, Process
from api.settings import load
from api.tables import metadata
from tests.api.maker import Maker
from tests.stack.postgres import Postgres


@dataclass
class FakeClock:
    """The database's time, moved by the test."""

    now_us: int = 1_767_258_000_000_000  # 2026-01-01T09:00:00Z

    def __call__(self, _connection: Any) -> int:
        return self.now_us

    def forward(self, seconds: float) -> None:
        self.now_us += int(seconds * 1_000_000)


@dataclass
class World:
    """An application, its database and clock, and a client."""

    app: Flask
    client: FlaskClient
    clock: FakeClock
    url: str
    makers: dict[str, Maker] = field(default_factory=dict)

    @property
    def process(self) -> Process:
        found: Process = self.app.extensions[EXTENSION]
        return found

    @property
    def database(self) -> Database:
        return self.process.database

    def everything(self) -> dict[str, list[Any]]:
        """All rows of all tables, to see that nothing has changed."""
        with self.database.read() as connection:
            return {
                table.name: [
                    tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))
                ]
                for table in metadata.sorted_tables
            }

    def maker(self, topic: str = "orders", partitions: int = 2) -> Maker:
        """A worker of the topic, at the positions that are stored now."""
        made = Maker(self.client, topic, list(range(partitions)), lambda: self.clock.now_us)
        made.begin()
        return made

    def get(self, path: str, status: int = 200, **query: Any) -> Any:
        answer = self.client.get(f"/v1{path}", query_string=query)
        assert answer.status_code == status, answer.get_data(as_text=True)
        return answer.get_json()

    def send(self, method: str, path: str, body: Any = None, status: int = 200, **options: Any) -> Any:
        answer = self.client.open(f"/v1{path}", method=method, json=body, **options)
        assert answer.status_code == status, answer.get_data(as_text=True)
        return answer.get_json()


class EmptyDatabase:
    """One migrated PostgreSQL database, emptied for each test: making one takes ten times as long."""

    def __init__(self, server: Postgres) -> None:
        self.name = server.create()
        self.url = server.url(self.name)
        upgrade(load(database=self.url))
        self._address = self.url.replace("postgresql+psycopg://", "postgresql://")
        with psycopg.connect(self._address) as connection:
            self._installation = connection.execute(
                "SELECT defaults_version, runs_from FROM installation"
            ).fetchone()
            tables = connection.execute(
                "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
                " AND NOT relispartition AND relname NOT IN ('installation', 'alembic_version')"
            )
            self._tables = ", ".join(row[0] for row in tables)

    def empty(self) -> None:
        with psycopg.connect(self._address) as connection:
            connection.execute("SET lock_timeout = '10s'")  # a test that left a transaction open is a defect
            connection.execute(f"TRUNCATE {self._tables} RESTART IDENTITY CASCADE".encode())
            connection.execute(
                "UPDATE installation SET defaults_version = %s, runs_from = %s", self._installation
            )


@pytest.fixture(scope="session")
def empty_postgres(postgres: Postgres) -> EmptyDatabase:
    return EmptyDatabase(postgres)


@pytest.fixture(scope="session")
def empty_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite database, to copy."""
    file = tmp_path_factory.mktemp("sqlite") / "tukang.db"
    upgrade(load(database=f"sqlite:///{file}"))
    return file


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A migrated database of each kind without any topic."""
    if request.param == "sqlite":
        yield f"sqlite:///{shutil.copy(request.getfixturevalue('empty_sqlite'), tmp_path / 'tukang.db')}"
        return
    database: EmptyDatabase = request.getfixturevalue("empty_postgres")
    database.empty()
    yield database.url


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def world(database_url: str, clock: FakeClock) -> Iterator[World]:
    """The application over each database: the behaviour suite runs on both."""
    app = create_app(load(database=database_url, auth="none"), clock, prepared=True)
    made = World(app, app.test_client(), clock, database_url)
    yield made
    made.process.heads.stop()
    made.database.dispose()
