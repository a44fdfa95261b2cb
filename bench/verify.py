"""`make bench-verify`: how long `tukang verify` takes over many files, with build/bench-verify.json.

BENCH_FILES (10000) says how many, BENCH_FILE_BYTES (70000) how large: above 64 KiB no object is read. The lake is
made by real commits against a real broker, store and API; making it is not measured.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from confluent_kafka import Producer
from rich.console import Console
from rich.progress import track

from bench.run import BenchFailed, broker
from deploy.part import Ward
from deploy.publish import make_topics
from deploy.seaweedfs import SeaweedFS
from tests.ingest.small_lake import SmallLake, rows, small_lake
from tests.stack.store import Bucket

ROWS = 20  # of a file

console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)


def send(bootstrap: str, topic: str, records: int) -> None:
    """What the files' rows were read from, so that the ledger agrees with the broker."""
    producer = Producer({"bootstrap.servers": bootstrap, "queue.buffering.max.messages": 10_000_000})
    for _ in range(records):
        producer.produce(topic, b"{}", partition=0)
    producer.flush()


def fill(lake: SmallLake, files: int, file_bytes: int) -> None:
    """So many commits of one file each, whose size comes from bytes that do not compress."""
    ballast = np.random.default_rng(1)
    lake.commits = lambda: [{}]  # type: ignore[method-assign]  # nobody asks what was committed
    for number in track(range(files), "committing files", console=console):
        line = lake.next_line(0, ROWS)
        table = rows(0, np.arange(number * ROWS, (number + 1) * ROWS))
        keys = [ballast.bytes(file_bytes // ROWS) for _ in range(ROWS)]
        lake.publish([line], table.append_column("_key", pa.array(keys, pa.binary())))


def main() -> int:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    files = int(os.environ.get("BENCH_FILES", "10000"))
    file_bytes = int(os.environ.get("BENCH_FILE_BYTES", "70000"))
    folder = Path(tempfile.mkdtemp(prefix="tukang-bench-"))
    with Ward(remove=folder) as ward, broker(folder, ward) as (_, bootstrap):
        store = SeaweedFS(folder, bucket="lake", environment=ward.environment)
        store.start()
        make_topics(bootstrap, ["orders"], 2, {"retention.ms": "-1"})
        send(bootstrap, "orders", files * ROWS)
        keys = store.credentials
        bucket = Bucket("lake", store.endpoint, keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"])
        os.environ.update(bucket.environment)
        with small_lake(folder, None, bucket, "orders") as lake:
            fill(lake, files, file_bytes)
            began = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-m", "tukang", "verify", "--json"],
                env=os.environ
                | {
                    "TUKANG_API": str(lake.http.base_url).removesuffix("/v1/"),
                    "TUKANG_BROKER": bootstrap,
                    "TUKANG_BUCKET": "lake",
                    "TUKANG_S3_ENDPOINT": store.endpoint,
                },
                capture_output=True,
                text=True,
                check=False,
            )
            seconds = time.monotonic() - began
        store.end()
    if done.returncode:
        raise BenchFailed(f"verify did not find the lake complete: {(done.stdout + done.stderr)[-2000:]}")
    [topic] = json.loads(done.stdout)["topics"]
    if topic["files"] != files:
        raise BenchFailed(f"verify looked at {topic['files']:,} files of {files:,}")
    result = {"files": files, "file_bytes": file_bytes, "seconds": round(seconds, 1)}
    console.print(f"{files:,} files of {file_bytes:,} bytes checked in {seconds:.1f} s")
    path = Path("build/bench-verify.json")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchFailed as failed:
        console.print(f"[red]The benchmark failed:[/] {failed}")
        sys.exit(1)
