"""A flood of dead letters, for real: it is kept whole, under the ceiling, with an alarm, and good records go on."""

from __future__ import annotations

import os
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from deploy.part import LOOPBACK, free_ports
from tests.ingest.test_way import START_MS, event, produce, worker
from tests.stack.kafka import Kafka
from tests.stack.services import Services

pytestmark = pytest.mark.slow

MIB = 2**20
CEILING = 64 * MIB
RECORDS, BYTES = 200_000, 600  # twice the ceiling


def rubbish() -> Iterator[tuple[int, bytes | None, int]]:
    """Records that are no events, none like another."""
    for number in range(RECORDS):
        yield number % 2, b"%d: not JSON" % number + os.urandom(BYTES // 2).hex().encode(), START_MS


def test_a_flood_of_rubbish_is_kept_under_the_ceiling_and_good_records_go_on(
    kafka: Kafka, services: Services
) -> None:
    topic = kafka.topic(partitions=2, retention_ms=-1)
    services.create(topic, event_id=["id"], event_time=["at"], lateness="0s")
    produce(kafka, topic, rubbish(), **{"compression.type": "lz4"})
    port = free_ports(1)[0]
    part = worker(services, topic, MEMORY="64MiB", METRICS=f"{LOOPBACK}:{port}")

    def figures() -> dict[str, float]:
        try:
            text = httpx.get(f"http://{LOOPBACK}:{port}/metrics", timeout=10).text
        except httpx.TransportError:
            return {}
        return {
            each.name: each.samples[0].value for each in text_string_to_metric_families(text) if each.samples
        }

    highest = 0.0

    def arrived() -> bool:
        nonlocal highest
        highest = max(highest, figures().get("tukang_memory_bytes", 0.0))
        return bool(services.get(f"/topics/{topic}").get("dead_letters") == RECORDS)

    services.wait("the flood in the lake", arrived, 120)
    assert 0 < highest < CEILING * 1.25, highest / MIB
    assert figures()["tukang_dead_letter_alarm"] == 1
    assert figures()["tukang_dead_letter_share"] == 1
    services.wait(
        "the alarm in the API", lambda: "dead letters" in str(services.get(f"/topics/{topic}")["reason"])
    )
    produce(kafka, topic, [(number % 2, event(number), START_MS) for number in range(1000)])
    services.wait_committed(topic, RECORDS + 1000)
    assert services.rows(topic).sql("SELECT count(DISTINCT n) FROM rows").fetchall() == [(1000,)]
    letters = services.rows(topic, "dead_letters")
    assert letters.sql(
        "SELECT count(*), count(DISTINCT (_lake_partition, _offset)) FROM rows"
    ).fetchall() == [(RECORDS, RECORDS)]
    assert services.get(f"/topics/{topic}")["state"] == "running"
    assert part.running, part.tail()
