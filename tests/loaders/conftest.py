"""A real API over a real store, and a maker of commits for it."""

import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import httpx
import pytest
import sqlalchemy

from api.epochs import open_epoch
from deploy.part import LOOPBACK, Part, Ward, free_ports
from deploy.seaweedfs import SeaweedFS
from tests.loaders.maker import Maker
from tests.stack.store import Bucket

ROOT = Path(__file__).parents[2]
_numbers = count(1)


@dataclass
class Api:
    """One API process. `environment` is what a loader's process needs beside it."""

    folder: Path
    bucket: Bucket
    database: str
    marks: dict[str, str]
    port: int = field(default_factory=lambda: free_ports(1)[0])
    part: Part | None = None
    auth: str = "none"

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **self.marks,
            **self.bucket.environment,
            "TUKANG_API": self.url,
            "TUKANG_AUTH": self.auth,
            "PYTHONPATH": str(ROOT),
        }

    def start(self) -> None:
        self.part = Part(
            "api",
            [sys.executable, "-m", "tukang", "api"],
            folder=self.folder,
            ready=self._answers,
            environment={
                **self.environment,
                "TUKANG_DATABASE": self.database,
                "TUKANG_LISTEN": f"{LOOPBACK}:{self.port}",
            },
            port=self.port,
        )
        self.part.start()

    def stop(self) -> None:
        if self.part is not None:
            self.part.end()
            self.part = None

    @property
    def _file(self) -> Path:
        return Path(self.database.removeprefix("sqlite:///"))

    def back_up(self) -> Path:
        """A copy of the catalogue as it is now."""
        copy = self.folder / f"backup-{time.time_ns()}.db"
        with closing(sqlite3.connect(self._file)) as source, closing(sqlite3.connect(copy)) as to:
            source.backup(to)
        return copy

    def restore(self, backup: Path, common: int) -> None:
        """The catalogue as it was, in a new life of every topic that shares everything up to `common`."""
        self.stop()
        for each in self.folder.glob(f"{self._file.name}*"):
            each.unlink()
        shutil.copy(backup, self._file)
        engine = sqlalchemy.create_engine(self.database)
        with engine.begin() as connection:
            for number in connection.execute(sqlalchemy.text("SELECT id FROM topics")).scalars().all():
                open_epoch(connection, number, common, time.time_ns() // 1000)
        engine.dispose()
        self.start()

    def say_swept(self) -> None:
        """What the sweep enters when it has deleted the objects of files that are not live."""
        with closing(sqlite3.connect(self._file, timeout=30)) as connection, connection:
            connection.execute(
                "UPDATE files SET swept_us = ? WHERE removed_sequence IS NOT NULL AND what <> 'deletes'",
                [time.time_ns() // 1000],
            )

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health/ready").is_success
        except httpx.TransportError:
            return False


@contextmanager
def running_api(folder: Path, store: SeaweedFS) -> Iterator[Api]:
    """An API on SQLite with a bucket of its own."""
    bucket = Bucket(
        f"loaders-{next(_numbers)}",
        store.endpoint,
        store.credentials["AWS_ACCESS_KEY_ID"],
        store.credentials["AWS_SECRET_ACCESS_KEY"],
    )
    bucket.client().create_bucket(Bucket=bucket.name)
    with Ward() as ward:
        running = Api(folder, bucket, f"sqlite:///{folder / 'tukang.db'}", dict(ward.environment))
        running.start()
        try:
            yield running
        finally:
            running.stop()


@pytest.fixture(scope="session")
def shared_api(tmp_path_factory: pytest.TempPathFactory, store: SeaweedFS) -> Iterator[Api]:
    with running_api(tmp_path_factory.mktemp("api"), store) as running:
        yield running


def here(running: Api, monkeypatch: pytest.MonkeyPatch) -> Api:
    """With what a loader is told in this process's environment."""
    for name, value in running.environment.items():
        if name.startswith(("TUKANG_", "AWS_")):
            monkeypatch.setenv(name, value)
    return running


@pytest.fixture
def api(shared_api: Api, monkeypatch: pytest.MonkeyPatch) -> Api:
    """The session's API, with its settings for a loader in this process's environment too."""
    return here(shared_api, monkeypatch)


@pytest.fixture
def own_api(tmp_path: Path, store: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """An API that one test may stop and restore."""
    with running_api(tmp_path, store) as running:
        yield here(running, monkeypatch)


@pytest.fixture
def maker(api: Api, tmp_path: Path) -> Iterator[Maker]:
    made = Maker(api.url, api.bucket, tmp_path / "objects", f"orders-{next(_numbers)}")
    yield made
    made.http.close()


@pytest.fixture
def own_maker(own_api: Api, tmp_path: Path) -> Iterator[Maker]:
    made = Maker(own_api.url, own_api.bucket, tmp_path / "objects")
    yield made
    made.http.close()
