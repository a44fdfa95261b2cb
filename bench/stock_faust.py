"""A contender: Faust as its documentation shows it. At least once, no deduplication, no order."""

import io
import os
import uuid

import boto3
import faust
import pyarrow as pa
import pyarrow.parquet as pq

app = faust.App(
    os.environ["BENCH_GROUP"],
    broker=f"kafka://{os.environ['BENCH_BROKER']}",
    store="memory://",
    web_enabled=False,
    topic_disable_leader=True,
)
events = app.topic(os.environ["BENCH_TOPIC"], value_serializer="json")
s3 = boto3.client("s3", endpoint_url=os.environ["BENCH_S3"])


@app.agent(events)
async def to_parquet(stream):
    async for batch in stream.take(50_000, within=2):
        table = pa.Table.from_pylist(batch)
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        s3.put_object(
            Bucket=os.environ["BENCH_BUCKET"], Key=f"{uuid.uuid4()}.parquet", Body=buffer.getvalue()
        )


@app.on_rebalance_complete.connect
async def ready(*args, **kwargs):
    print("reading", flush=True)  # noqa: T201


if __name__ == "__main__":
    app.main()
