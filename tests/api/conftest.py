"""One application over each database, a clock that the test moves, and a person who makes commits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api.app import create_app
from api.database import Database
from api.migrate import upgrade
from api.process import EXTENSION, Process
from api.settings import load
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


@pytest.fixture(scope="session")
def migrated_template(postgres: Postgres) -> str:
    """A PostgreSQL database at the newest revision, to copy from."""
    name = postgres.create()
    upgrade(load(database=postgres.url(name)))
    return name


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'tukang.db'}"
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    name = postgres.create(request.getfixturevalue("migrated_template"))
    yield postgres.url(name)
    postgres.drop(name)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def world(database_url: str, clock: FakeClock) -> Iterator[World]:
    """The application over each database: the behaviour suite runs on both."""
    app = create_app(load(database=database_url, auth="none"), clock)
    made = World(app, app.test_client(), clock, database_url)
    yield made
    made.process.heads.stop()
    made.database.dispose()
