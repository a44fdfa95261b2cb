"""A contender: a loader by hand, with the fastest parts there are. At least once; duplicates and order per batch."""

import io
import os
import uuid

import boto3
import confluent_kafka
import numpy as np
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

consumer = confluent_kafka.Consumer(
    {
        "bootstrap.servers": os.environ["BENCH_BROKER"],
        "group.id": os.environ["BENCH_GROUP"],
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "fetch.queue.backoff.ms": 2,  # the default of 1,000 halves the rate
    }
)
consumer.subscribe([os.environ["BENCH_TOPIC"]], on_assign=lambda *_: print("reading", flush=True))  # noqa: T201
s3 = boto3.client("s3", endpoint_url=os.environ["BENCH_S3"])
values: list[bytes] = []
while True:
    messages = consumer.consume(50_000, timeout=0.2)
    values += [message.value() for message in messages if message.error() is None]
    if len(values) < 500_000 and (messages or not values):
        continue
    table = pa.json.read_json(io.BytesIO(b"\n".join(values)))
    ids = table["id"].combine_chunks().dictionary_encode().indices
    table = table.take(np.unique(ids.to_numpy(), return_index=True)[1]).sort_by("time")
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    s3.put_object(Bucket=os.environ["BENCH_BUCKET"], Key=f"{uuid.uuid4()}.parquet", Body=buffer.getvalue())
    consumer.commit(asynchronous=False)
    values.clear()
