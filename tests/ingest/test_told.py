"""What a topic is told while it is read: declared types, dropped and hashed paths, and to stop at a dead letter."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path

import pytest

from tests.ingest.test_operate import tukang
from tests.ingest.test_way import START_MS, produce, worker
from tests.stack.kafka import Kafka
from tests.stack.services import Services

pytestmark = pytest.mark.slow

KEY = b"a key that nobody knows"


def orders(first: int, last: int) -> list[tuple[int, bytes | None, int]]:
    """Orders of one partition."""
    return [
        (
            0,
            json.dumps({"n": n, "paid": f"{n}.50", "card": {"number": n}, "who": f"w{n}"}).encode(),
            START_MS + n,
        )
        for n in range(first, last)
    ]


def test_what_is_declared_while_a_worker_reads_holds_from_then_on(
    kafka: Kafka, services: Services, tmp_path: Path
) -> None:
    topic = kafka.topic(partitions=1, retention_ms=-1)
    services.create(topic, lateness="0s", error_mode="suspend")
    key = tmp_path / "key"
    key.write_bytes(KEY + b"\n")
    worker(services, topic, HASH_KEY_FILE=str(key))
    produce(kafka, topic, [*orders(0, 50), (0, b"{poison", START_MS), *orders(50, 100)])

    def state() -> str:
        return str(services.get(f"/topics/{topic}")["state"])

    services.wait("the topic is suspended", lambda: state() == "suspended")
    assert services.get(f"/topics/{topic}")["dead_letters"] == 1
    at = services.committed(topic)
    declared = {"types": {"paid": "decimal(12,2)"}, "drop": ["card.number"], "hash": ["who"]}
    services.http.patch(f"/topics/{topic}", json={"settings": declared}).raise_for_status()
    produce(kafka, topic, orders(100, 200))
    tukang(services, "topics", "resume", topic)
    services.wait_committed(topic, 201)
    services.wait("the topic runs again", lambda: state() == "running")
    rows = services.rows(topic).sql(
        "SELECT _offset, _offset < 101, paid::VARCHAR, paid__text, card.number, who FROM rows ORDER BY n"
    )
    found = rows.fetchall()
    assert len(found) == 200
    for n, (offset, _, paid, text, number, who) in enumerate(found):
        hashed = hmac.digest(KEY, f"w{n}".encode(), hashlib.sha256).hex()
        if offset < at:
            assert (paid, text, number, who) == (f"{n}.50", None, n, f"w{n}")
        else:
            assert (paid, text, number, who) == (f"{n}.50", None, None, hashed)
    assert at < 201, "it was read on while it was suspended"
    columns = {each["column"]: each for each in services.get(f"/topics/{topic}/schema")["columns"]}
    assert (columns["paid"]["type"], columns["paid"]["reason"]) == ("decimal(12,2)", "declared")
