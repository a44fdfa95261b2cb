"""A database that is deleted under load: made again from the lake, and workers and loaders go on by themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from deploy.part import clean_environment
from tests.ingest.test_way import worker
from tests.ingest.upkeep.processes import start_upkeep
from tests.ingest.upkeep.test_kills import Stream, appended
from tests.ingest.upkeep.test_seal import states
from tests.stack.kafka import Kafka
from tests.stack.services import Services

pytestmark = pytest.mark.slow


def tukang(services: Services, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tukang", *command],
        env=clean_environment({**services.environment, "TUKANG_DATABASE": services.database}),
        cwd=services.folder, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def loaded(warehouse: Path) -> list[tuple[int, int, int]]:
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        tables = connection.sql(
            "SELECT table_schema, table_name FROM information_schema.columns WHERE column_name = 'n'"
        ).fetchall()
        assert len(tables) == 1
        name = ".".join(f'"{part}"' for part in tables[0])
        return connection.sql(f"SELECT _lake_partition, _offset, n FROM {name} ORDER BY ALL").fetchall()


def test_a_database_deleted_under_load_is_made_again_and_nothing_is_lost_or_doubled(
    kafka: Kafka, services: Services
) -> None:
    topic = kafka.topic(partitions=2, retention_ms=-1)
    services.create(topic, event_id=["id"], event_time=["at"], lateness="1s", period="hour", grace="0s")
    worker(services, topic, FLUSH_AGE="300ms")
    stream = Stream(kafka, topic, pause_s=0.8)
    stream.start()
    environment = {**services.environment, "TUKANG_MEMORY": "256MiB"}
    log = str(services.folder / "upkeep.log")
    upkeep = start_upkeep({**environment, "TUKANG_NAME": "upkeep-1"}, log)
    services.wait("sealed periods", lambda: "sealed" in states(services, topic))
    services.wait("a copy", lambda: len(services.bucket.keys(f"catalog/{topic}/")) > 2)
    upkeep.kill()
    upkeep.join()
    # The loader is ahead of the copy when the database goes: some of what it has never happened.
    before = appended(services, topic)
    services.wait("commits beyond the copy", lambda: appended(services, topic) > before + 1_500)
    warehouse = services.folder / "warehouse.duckdb"
    load = ("load", "--to", f"duckdb:///{warehouse}", "--loader", "dwh", topic)
    tukang(services, *load)
    epoch = services.get(f"/topics/{topic}")["epoch"]

    api = services.parts[0]
    api.end()
    services.parts.remove(api)
    for file in services.folder.glob("tukang.db*"):
        file.unlink()
    said = tukang(services, "rebuild")
    assert "dwh" in said or "none" in said
    services.api()
    assert services.get(f"/topics/{topic}")["epoch"] != epoch

    upkeep = start_upkeep({**environment, "TUKANG_NAME": "upkeep-2"}, log)
    sent = stream.sent
    services.wait("the stream goes on", lambda: stream.sent > sent + 1_500)
    stream.stop()
    services.wait("everything in the lake", lambda: appended(services, topic) == stream.records)
    upkeep.kill()
    upkeep.join()
    rows = services.rows(topic).sql("SELECT _lake_partition, _offset, n FROM rows ORDER BY ALL").fetchall()
    assert len({row[:2] for row in rows}) == len(rows)
    assert {row[2] for row in rows} == set(range(stream.sent))
    tukang(services, *load)
    assert loaded(warehouse) == rows
    assert tukang(services, "verify", topic, "--deep").splitlines()[-1] == "complete"
