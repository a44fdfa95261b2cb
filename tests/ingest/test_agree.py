"""Workers that see the same new fields in the same second, with other types in each: one schema, no file in vain, and
every row says what its record said."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ingest.schema import TopicSchema
from tests.ingest.json_reference import normal, parse
from tests.ingest.row_reference import put_together
from tests.ingest.test_way import START_MS, produce, worker
from tests.stack.kafka import Kafka
from tests.stack.services import Services

pytestmark = pytest.mark.slow

WAVES = 3
PARTITIONS = 2
EACH = 20  # records of a wave and partition


def record(wave: int, partition: int, number: int) -> bytes:
    """In one partition the new field is a number, in the other a string; below it each has a field of its own."""
    value: Any = number if partition else f"s{number}"
    own = {f"of_{partition}": value, "shared": value, "list": [value]}
    return json.dumps({"n": number, f"new_{wave}": value, f"in_{wave}": own}).encode()


def test_workers_that_see_new_fields_in_the_same_second_agree(kafka: Kafka, services: Services) -> None:
    topic = kafka.topic(partitions=PARTITIONS, retention_ms=-1)
    services.create(topic, lateness="0s")
    workers = [worker(services, topic, name) for name in ("worker-1", "worker-2")]

    def shared() -> bool:
        reporting = [
            [entry for entry in found["topics"] if entry["topic"] == topic]
            for found in services.get("/workers")["workers"]
        ]
        return sorted(len(entry[0]["lake_partitions"]) for entry in reporting if entry) == [1, 1]

    services.wait("a partition for each worker", shared)
    sent: dict[tuple[int, int], bytes] = {}
    for wave in range(WAVES):
        records: list[tuple[int, bytes | None, int]] = []
        for number in range(EACH):
            for partition in range(PARTITIONS):
                sent[partition, wave * EACH + number] = value = record(wave, partition, number)
                records.append((partition, value, START_MS + wave))
        produce(kafka, topic, records)
        services.wait_committed(topic, len(sent))

    schema = TopicSchema.from_json(services.get(f"/topics/{topic}/schema"))
    names = [column.field.name for column in schema.columns if not column.sibling]
    assert sorted(names) == sorted(
        ["n", *(f"{kind}_{wave}" for kind in ("new", "in") for wave in range(WAVES))]
    )
    cursor = services.rows(topic).sql("SELECT * FROM rows")
    rows = [dict(zip(cursor.columns, row, strict=True)) for row in cursor.fetchall()]
    assert len(rows) == len(sent)
    assert all(f"topic {topic}: sequence" in part.log.read_text() for part in workers), (
        "one of them read nothing"
    )
    for row in rows:
        value = sent[row["_lake_partition"], row["_offset"]]
        assert normal(put_together(row, schema)) == normal(parse(value))
