"""API and workers as real processes beside a real broker and store, for tests of the whole way."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest

from deploy.part import LOOPBACK, Part, Ward, free_ports
from tests.stack.kafka import Kafka
from tests.stack.store import Bucket

PATIENCE_S = 60.0


class Services:
    """One API and any number of workers over one broker, bucket and database."""

    def __init__(
        self, folder: Path, kafka: Kafka, bucket: Bucket, ward: Ward, database: str | None = None
    ) -> None:
        self.folder = folder
        self.port = free_ports(1)[0]
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.database = database or f"sqlite:///{folder / 'tukang.db'}"
        self.bucket = bucket
        self.environment = {
            **ward.environment,
            **bucket.environment,
            "TUKANG_BROKER": kafka.settings.servers,
            "TUKANG_API": self.url,
            "TUKANG_AUTH": "none",
            "TUKANG_FLUSH_AGE": "1s",
            "TUKANG_BROKER_SESSION_TIMEOUT": "6s",
            "TUKANG_BROKER_METADATA_AGE": "3s",
            "TUKANG_MEMORY": "512MiB",
        }
        self.http = httpx.Client(base_url=f"{self.url}/v1", timeout=60)
        self.parts: list[Part] = []

    def api(self) -> Part:
        """Starts the API and waits until it answers."""
        return self._part(
            "api",
            ["api"],
            {"TUKANG_DATABASE": self.database, "TUKANG_LISTEN": f"{LOOPBACK}:{self.port}"},
            ready=lambda: httpx.get(f"{self.url}/health/ready").is_success,
            port=self.port,
        )

    def worker(self, name: str = "worker-1", **settings: str) -> Part:
        """Starts a worker; it is ready when it says so by a report, which tests wait for by its work."""
        return self._part(
            name,
            ["worker"],
            {"TUKANG_NAME": name, **{f"TUKANG_{key}": value for key, value in settings.items()}},
        )

    def _part(
        self,
        name: str,
        command: list[str],
        settings: Mapping[str, str],
        ready: Callable[[], bool] = lambda: True,
        port: int | None = None,
    ) -> Part:
        def answers() -> bool:
            try:
                return ready()
            except httpx.TransportError:
                return False

        part = Part(
            name,
            [sys.executable, "-m", "tukang", *command],
            folder=self.folder,
            ready=answers,
            environment={**self.environment, **settings},
            port=port,
        )
        part.start()
        self.parts.append(part)
        return part

    def get(self, path: str, **query: Any) -> Any:
        """An answer of the API."""
        answer = self.http.get(path, params=query)
        answer.raise_for_status()
        return answer.json()

    def create(self, topic: str, **settings: Any) -> None:
        """Registers a topic with settings of its own."""
        self.http.post("/topics", json={"topic": topic, "settings": settings}).raise_for_status()

    def files(self, topic: str, what: str = "rows") -> list[dict[str, Any]]:
        """The live files of a topic."""
        found: list[dict[str, Any]] = []
        asked: dict[str, Any] = {"limit": 1000}
        while True:
            answer = self.get(f"/topics/{topic}/files", **asked)
            found += [file for file in answer["files"] if file["what"] == what]
            if answer["next_page"] is None:
                return found
            asked["page"] = answer["next_page"]

    def committed(self, topic: str) -> int:
        """How many records have been committed: written, duplicates, dead letters and lost."""
        total = 0
        page: str | None = None
        while True:
            answer = self.get(f"/topics/{topic}/ledger", limit=1000, **({"page": page} if page else {}))
            total += sum(
                line["written"] + line["duplicates"] + line["dead_letters"] + line["lost"]
                for line in answer["lines"]
            )
            page = answer["next_page"]
            if page is None:
                return total

    def wait(self, what: str, until: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
        """Waits for a state; fails with the logs' ends when it does not come, or when a part died."""
        end = time.monotonic() + patience_s
        while time.monotonic() < end:
            if until():
                return
            time.sleep(0.1)
        tails = "".join(f"\n{part.name}:{part.tail(40)}" for part in self.parts)
        raise AssertionError(f"{what} did not happen within {patience_s:.0f} s{tails}")

    def wait_committed(self, topic: str, records: int) -> None:
        """Waits until so many records are committed, none held back."""

        def arrived() -> bool:
            answer = self.http.get(f"/topics/{topic}")
            return answer.is_success and self.committed(topic) >= records

        self.wait(f"{records} records of {topic} in the lake", arrived)

    def rows(self, topic: str, what: str = "rows") -> duckdb.DuckDBPyConnection:
        """A connection whose view `rows` is all live files of a kind, downloaded: an independent reader."""
        folder = self.folder / "download" / topic / what
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in self.files(topic, what):
            key = file["url"].removeprefix(f"s3://{self.bucket.name}/")
            (folder / key.rpartition("/")[2]).write_bytes(self.bucket.read(key))
        connection = duckdb.connect()
        connection.execute(
            f"CREATE VIEW rows AS SELECT * FROM read_parquet('{folder}/*.parquet', union_by_name = true)"
        )
        return connection

    def stop(self) -> None:
        """Ends everything that was started."""
        self.http.close()
        for part in reversed(self.parts):
            part.end()


@pytest.fixture
def services(tmp_path: Path, kafka: Kafka, bucket: Bucket) -> Iterator[Services]:
    """API (SQLite) started, no worker yet."""
    with Ward() as ward:
        services = Services(tmp_path, kafka, bucket, ward)
        try:
            services.api()
            yield services
        finally:
            services.stop()


@pytest.fixture
def keys(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """The credentials of the bucket in this process too, for what a test runs in it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, services.environment[name])
