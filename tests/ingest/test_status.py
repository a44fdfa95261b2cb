"""`tukang status`: what a person sees of the API's answers, and that nothing stale is shown."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console
from werkzeug.serving import make_server

from api.app import create_app
from api.settings import load
from ingest.settings import Settings
from ingest.status import show, status

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)

RUNNING: dict[str, Any] = {
    "topic": "orders", "state": "running", "reason": None, "todo": None, "lag": 1_234, "rows": 5_000_000,
    "dead_letters": 7, "fresh_until": "2026-01-01T11:59:58.123456Z", "complete_until": "2026-01-01T00:00:00Z",
    "last_commit_at": "2026-01-01T11:59:30Z",
}  # fmt: skip
STALE = {
    **RUNNING, "topic": "clicks", "state": "unknown", "reason": "no report of a worker for 60 s", "lag": None,
    "todo": "Is one running?", "fresh_until": None, "complete_until": None, "last_commit_at": None,
}  # fmt: skip
LOADER = {
    "name": "dwh",
    "behind": 1,
    "lag_commits": 12,
    "lag_rows": 3_400,
    "moved_at": "2026-01-01T09:00:00Z",
}
WORKER = {
    "name": "worker-1", "state": "reporting", "reported_at": "2026-01-01T11:59:55Z", "version": "0.1.0",
    "memory_bytes": 256 << 20, "memory_limit": 1 << 30,
    "topics": [{"topic": "orders", "state": "running", "lake_partitions": [0, 1, 2]}],
}  # fmt: skip


def shown(*topics: Any, loaders: Any = (), workers: Any = ()) -> list[str]:
    out = io.StringIO()
    show(topics, loaders, workers, NOW, Console(file=out, width=200))
    return out.getvalue().splitlines()


def line(lines: list[str], start: str) -> str:
    [found] = [each for each in (" ".join(line.split()) for line in lines) if each.startswith(start)]
    return found


def test_a_topic_stands_in_one_line() -> None:
    assert line(shown(RUNNING), "orders") == (
        "orders running 1,234 2026-01-01 11:59:58 2026-01-01 00:00:00 5,000,000 7 30 s ago"
    )


def test_what_is_not_known_now_is_unknown_and_never_a_stale_number() -> None:
    lines = shown(STALE)
    assert line(lines, "clicks unknown") == "clicks unknown unknown unknown not yet 5,000,000 7 none"
    assert "clicks is unknown: no report of a worker for 60 s. Is one running?" in lines
    silent = {**WORKER, "state": "unknown", "reported_at": "2026-01-01T11:00:00Z"}
    assert (
        line(shown(RUNNING, workers=[silent]), "worker-1")
        == "worker-1 unknown unknown unknown 60 min ago 0.1.0"
    )


def test_a_state_comes_with_its_reason_and_what_to_do() -> None:
    gap = {
        **RUNNING,
        "state": "gap",
        "reason": "records [1, 5) were lost.",
        "todo": "`tukang topics accept-gap`.",
    }
    assert "orders is gap: records [1, 5) were lost. `tukang topics accept-gap`." in shown(gap)


def test_loaders_and_workers_have_their_lag_and_memory() -> None:
    lines = shown(RUNNING, loaders=[LOADER], workers=[WORKER])
    assert line(lines, "dwh") == "dwh 1 12 3,400 3 h ago"
    assert line(lines, "worker-1") == "worker-1 reporting 3 256 MiB of 1,024 5 s ago 0.1.0"


def test_an_empty_installation_says_what_brings_topics() -> None:
    assert "TUKANG_TOPICS" in " ".join(shown())


@pytest.fixture
def api(tmp_path: Path) -> Iterator[str]:
    app = create_app(load(database=f"sqlite:///{tmp_path / 'tukang.db'}", auth="none"))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.slow
def test_status_asks_the_real_api(api: str, capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(broker="127.0.0.1:9", bucket="none", api=api)
    httpx.post(f"{api}/v1/topics", json={"topic": "orders"}).raise_for_status()
    assert status(settings, as_json=True) == 0
    said = json.loads(capsys.readouterr().out)
    assert [topic["topic"] for topic in said["topics"]] == ["orders"]
    assert said["topics"][0]["lag"] is None
    assert status(settings) == 0
    assert "orders is unknown" in capsys.readouterr().out


@pytest.mark.slow
def test_an_api_that_is_away_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(Settings(broker="127.0.0.1:9", bucket="none", api="http://127.0.0.1:9")) == 2
    [said] = capsys.readouterr().err.splitlines()
    assert "does not answer" in said
    assert "TUKANG_API" in said
