"""Erasing beside a running worker: what Kafka had when it was asked for is gone, all else is there."""

from __future__ import annotations

import json

import pytest

from tests.ingest.test_way import worker
from tests.ingest.upkeep.test_kills import Stream, appended
from tests.ingest.upkeep.test_rebuild import tukang
from tests.stack.kafka import Kafka
from tests.stack.services import Services

pytestmark = pytest.mark.slow


def test_an_erasure_under_load_takes_all_of_before_and_nothing_else(kafka: Kafka, services: Services) -> None:
    topic = kafka.topic(partitions=2, retention_ms=-1)
    services.create(topic, event_id=["id"], event_time=["at"], lateness="1s", period="hour", grace="0s")
    worker(services, topic, FLUSH_AGE="300ms")
    stream = Stream(kafka, topic, pause_s=0.8)
    stream.start()
    services.wait("a few commits", lambda: appended(services, topic) > 2_500)
    committed = appended(services, topic)
    said = tukang(services, "erase", topic, "--where", "who.name = 'w3'")
    stream.stop()
    services.wait("everything in the lake", lambda: appended(services, topic) == stream.records)

    rows = services.rows(topic)
    others = rows.sql("SELECT count(DISTINCT n) FROM rows WHERE n % 7 <> 3").fetchone()
    assert others == (sum(number % 7 != 3 for number in range(stream.sent)),)
    record = json.loads(said.splitlines()[-1])["record"]
    assert record["rows"] >= committed // 8
    first_left = rows.sql("SELECT min(n) FROM rows WHERE n % 7 = 3 AND NOT _late").fetchone()
    assert first_left is not None
    assert first_left[0] is None or first_left[0] >= committed * 0.9, "what was there before is gone"
    assert tukang(services, "verify", topic, "--deep").splitlines()[-1] == "complete"
