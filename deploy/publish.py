"""Sends a table of records to a broker, as producers do: compressed, in batches, by key."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

CHUNK = 5_000
"""Records turned into Python objects at once, and between two calls of `told`."""


class PublishError(Exception):
    """The broker did not take records: the message says which topic and why."""


def make_topics(
    bootstrap: str, names: list[str], partitions: int, config: dict[str, str] | None = None
) -> None:
    """Make topics of `partitions` partitions each; those that are there already stay as they are."""
    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    topics = [NewTopic(name, partitions, 1, config=config or {}) for name in names]
    for name, made in client.create_topics(topics).items():
        try:
            made.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise PublishError(f"topic {name} could not be made: {error.args[0].str()}") from error


def publish(bootstrap: str, records: pa.Table, told: Callable[[int], None] = lambda count: None) -> None:
    """Send `records` in their order; returns when all are acknowledged.

    Their columns: `topic`, `key`, `value`, `timestamp` (ms, 0 for now). `told` hears after each chunk how many
    records went out with it.
    """
    failed: list[str] = []

    def undelivered(error: KafkaError, message: Any) -> None:
        failed.append(f"{message.topic()}: {error.str()}")

    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "log_level": 0,  # what fails is told by `undelivered`
            "compression.type": "lz4",
            "linger.ms": 20,
            "partitioner": "murmur2_random",  # as Java's producers: equal keys meet in one partition
            "max.in.flight.requests.per.connection": 1,  # a retry must not overtake
            "delivery.report.only.error": True,
            "on_delivery": undelivered,
            "message.timeout.ms": 30_000,
        }
    )
    for chunk in records.to_batches(max_chunksize=CHUNK):
        columns = (chunk.column(name).to_pylist() for name in ("topic", "key", "value", "timestamp"))
        for topic, key, value, timestamp in zip(*columns, strict=True):
            while True:
                try:
                    producer.produce(topic, value, key, timestamp=timestamp)
                    break
                except BufferError:
                    producer.poll(0.1)  # the queue is full: wait until the broker took some
        producer.poll(0)
        if failed:
            break
        told(chunk.num_rows)
    producer.flush()
    if failed:
        raise PublishError(f"the broker did not take {len(failed)} records; the first: {failed[0]}")
