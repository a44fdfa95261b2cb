"""Records what the worker, the upkeep, the loader and the commands of this release ask the API: `make record`.

Not part of `make test`: it is run at a release, and its result is kept for `test_recorded.py` of the next one.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import threading
from pathlib import Path

from werkzeug.serving import make_server

from api.app import create_app
from api.settings import load
from deploy.part import LOOPBACK, Ward, clean_environment
from tests.api.recorder import RECORDING, UNRECORDED, Recorder
from tests.ingest.test_way import events, produce
from tests.stack.kafka import Kafka
from tests.stack.services import Services
from tests.stack.store import Bucket


def tukang(services: Services, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tukang", *arguments],
        env=clean_environment(services.environment),
        cwd=services.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr  # what `verify` finds is not the matter here


def test_record(tmp_path: Path, kafka: Kafka, bucket: Bucket) -> None:
    with Ward() as ward:
        services = Services(tmp_path, kafka, bucket, ward)
        app = create_app(load(database=services.database, auth="none"))
        recorder = Recorder(app)
        server = make_server(LOOPBACK, services.port, recorder, threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        services.http.headers[UNRECORDED] = "1"
        try:
            _work(services, kafka)
        finally:
            services.stop()
            server.shutdown()
            server.server_close()
    assert any("/schemas" in each["path"] for each in recorder.exchanges)
    assert any(each["path"].endswith("/batches") for each in recorder.exchanges)
    recorder.write(importlib.metadata.version("tukang"))
    assert RECORDING.exists()


def _work(services: Services, kafka: Kafka) -> None:
    topic = kafka.topic("orders", partitions=2, retention_ms=-1)
    settings = services.folder / "topics.toml"
    told = 'event_id = ["id"]\nevent_time = ["at"]\nlateness = "1s"\ngrace = "1s"\n'
    settings.write_text(f"[{topic}]\n{told}")
    tukang(services, "topics", "apply", str(settings))
    warehouse = f"duckdb:///{services.folder}/warehouse.duckdb"
    tukang(services, "load", "--to", warehouse, "--loader", "dwh", topic)
    produce(kafka, topic, events(0, 200))
    produce(kafka, topic, [(0, b"[1]", 1_767_225_600_000)])
    worker = services.worker(TOPICS=topic, GROUP="recorded")
    services.wait_committed(topic, 201)
    settings.write_text(f"[{topic}]\n{told}flush_rows = 7\n")
    tukang(services, "topics", "apply", str(settings))
    version = services.get(f"/topics/{topic}")["settings_version"]
    services.wait("the worker to be told", lambda: _told(services, topic, version))
    worker.end()
    tukang(services, "load", "--to", warehouse, "--loader", "dwh", topic)
    tukang(services, "upkeep", "--once")
    for command in ("topics pause", "topics resume", "topics settings"):
        tukang(services, *command.split(), topic)
    tukang(services, "loaders", "hold", "dwh")
    for command in ("topics list", "loaders list", "loaders show dwh", "status", "verify"):
        tukang(services, *command.split())
    tukang(services, "sql", f"SELECT count(*) FROM {topic}")


def _told(services: Services, topic: str, version: int) -> bool:
    """Whether the worker's state is of a report after the change."""
    found = services.get(f"/topics/{topic}")
    return bool(found["settings_version"] == version and found["state"] == "running")
