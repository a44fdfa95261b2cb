"""A small lake of its own for tests that damage it: a real broker, store and API, written by the core's own code.

The worker is left out: a test says what each commit reads and what becomes of it, and knows which file is which.
"""

from __future__ import annotations

import hashlib
import io
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from confluent_kafka import Producer
from werkzeug.serving import make_server

from api.app import create_app
from api.database import Clock, database_clock
from api.settings import load
from ingest.encode import PERIOD_US, Encoded, encode
from ingest.ids import uuid7
from ingest.lake import Lake
from ingest.ledger import Line
from ingest.position import Position
from ingest.publish import object_key
from ingest.settings import Settings
from tests.stack.kafka import Kafka
from tests.stack.store import Bucket

NOON_US = 1_767_268_800_000_000  # 2026-01-01T12:00:00Z
SECOND_US = 1_000_000


class SmallLake:
    """One topic with two partitions. `append` reads records that it first sends to the broker."""

    def __init__(self, folder: Path, kafka: Kafka | None, bucket: Bucket, url: str, topic: str) -> None:
        self.bucket, self.topic = bucket, topic
        self._kafka = kafka
        self.database = folder / "tukang.db"
        self.lake = Lake(bucket.name, endpoint=bucket.endpoint)
        self.http = httpx.Client(base_url=f"{url}/v1", timeout=30)
        broker = kafka.settings.servers if kafka else "127.0.0.1:9"
        self.settings = Settings(broker=broker, bucket=bucket.name, s3_endpoint=bucket.endpoint, api=url)
        self.positions: dict[int, Position] = {}
        self.epoch = ""
        answer = self._post("/positions", {"topics": [{"topic": topic, "partitions": [0, 1]}]})
        self._take(answer["topics"][0])

    def append(
        self,
        *reads: tuple[int, int],
        duplicates: int = 0,
        dead: int = 0,
        late: int = 0,
        carry: int = 0,
        send: bool = True,
    ) -> dict[str, Any]:
        """One commit of `(lake partition, records)` each; the counts of what became of them are of each of the reads.

        Carried before is written first. Returns the commit as the feed shows it.
        """
        lines, tables, late_tables, dead_tables = [], [], [], []
        for number, records in reads:
            if send:
                self.send(number, records)
            line, offsets = self._line(number, records, duplicates, dead, late, carry)
            lines.append(line)
            written = offsets[: len(offsets) - duplicates - dead - carry]
            tables.append(rows(number, written[late:]))
            late_tables.append(rows(number, written[:late], late=True))
            dead_tables.append(dead_rows(number, offsets[len(written) : len(written) + dead]))
        return self.publish(
            lines, pa.concat_tables(tables), pa.concat_tables(late_tables), pa.concat_tables(dead_tables)
        )

    def publish(
        self,
        lines: Sequence[Line],
        on_time: pa.Table,
        late: pa.Table | None = None,
        dead: pa.Table | None = None,
    ) -> dict[str, Any]:
        """Files and a commit of these lines, whatever they say: only the API's laws hold."""
        commit = uuid7(time.time_ns() // 1000, secrets.randbits)
        footer = {"topic": self.topic, "epoch": self.epoch, "commit": commit, "kind": "append", "schema_version": 0,
                  "lines": [line.to_json() for line in lines]}  # fmt: skip
        files = []
        for table, what, is_late in (
            (on_time, "rows", False),
            (late, "rows", True),
            (dead, "dead_letters", False),
        ):
            if table is not None and table.num_rows:
                made = encode(table, {**footer, "what": what}, what=what, late=is_late, schema_version=0,
                              period_us=PERIOD_US["day"])  # fmt: skip
                files.append(self.put(made))
        body = {"id": commit, "kind": "append", "epoch": self.epoch, "lines": footer["lines"], "files": files}
        answer = self._post(f"/topics/{self.topic}/commits", body)
        self._take(answer)
        return self.commits()[-1]

    def replace(self, *files: dict[str, Any], drop: Sequence[int] = ()) -> dict[str, Any]:
        """What upkeep does: files become one sealed file, less the duplicates at these places, which it names."""
        commit = uuid7(time.time_ns() // 1000, secrets.randbits)
        parts = []
        for file in files:
            part = pq.read_table(io.BytesIO(self.read(file)))
            parts.append(part.append_column("_sequence", pa.array([file["sequence"]] * part.num_rows)))
        everything = pa.concat_tables(parts)
        stays = np.ones(everything.num_rows, np.bool_)
        stays[list(drop)] = False
        footer = {
            "topic": self.topic,
            "epoch": self.epoch,
            "commit": commit,
            "kind": "replace",
            "schema_version": 0,
        }
        sealed = everything.filter(pa.array(stays)).sort_by("_event_time")
        named = everything.filter(pa.array(~stays)).select(["_lake_partition", "_offset", "_event_time"])
        entries = [{**self.put(_encoded(sealed, footer), "sealed/{topic}/event_date=2026-01-01/{name}.parquet"),
                    "newest_sequence": max(file["sequence"] for file in files)}]  # fmt: skip
        if named.num_rows:
            entry = self.put(_encoded(named, footer), "deletes/{topic}/{name}.parquet")
            entries.append({**entry, "what": "deletes", "periods": []})
        lines = []
        for number in (0, 1):
            came = pc.sum(pc.equal(everything["_lake_partition"], number)).as_py()
            left = pc.sum(pc.equal(named["_lake_partition"], number)).as_py() or 0
            lines.append(
                {"lake_partition": number, "rows_in": came, "rows_out": came - left, "duplicates": left}
            )
        body = {"id": commit, "kind": "replace", "epoch": self.epoch, "lines": lines, "files": entries,
                "remove": [file["id"] for file in files], "periods": []}  # fmt: skip
        self._post(f"/topics/{self.topic}/commits", body)
        return self.commits()[-1]

    def put(self, made: Encoded, key: str | None = None) -> dict[str, Any]:
        """Puts a file; returns its entry."""
        name = uuid7(time.time_ns() // 1000, secrets.randbits)
        where = key.format(topic=self.topic, name=name) if key else None
        put = self.lake.put(
            where or object_key(self.topic, name, made.what, made.late), made.data, made.sha256
        )
        return made.entry(put.url, put.modified_at)

    @property
    def kafka(self) -> Kafka:
        assert self._kafka is not None, "this lake has no broker"
        return self._kafka

    def send(self, partition: int, records: int) -> None:
        """Records to the broker, if there is one, whose content nobody reads here."""
        if self._kafka is not None:
            producer = Producer({**self.kafka.settings.confluent_config(), "linger.ms": 1})
            for _ in range(records):
                producer.produce(self.topic, b"{}", partition=partition)
            assert producer.flush(30) == 0

    def commits(self) -> list[dict[str, Any]]:
        asked: dict[str, Any] = {"limit": 1000, "swept": "1"}
        answer = self.http.get(f"/topics/{self.topic}/batches", params=asked)
        if answer.status_code == 410:  # the history is folded
            asked["after"] = answer.json()["oldest"] - 1
            answer = self.http.get(f"/topics/{self.topic}/batches", params=asked)
        found: list[dict[str, Any]] = answer.json()["commits"]
        return found

    def files(self, what: str = "rows") -> list[dict[str, Any]]:
        answer = self.http.get(f"/topics/{self.topic}/files", params={"limit": 1000})
        return [file for file in answer.json()["files"] if file["what"] == what]

    def read(self, file: dict[str, Any]) -> bytes:
        return self.bucket.read(self._key(file))

    def overwrite(self, file: dict[str, Any], data: bytes) -> None:
        """What nobody may do: other bytes under a name that is taken."""
        self.bucket.client().put_object(Bucket=self.bucket.name, Key=self._key(file), Body=data)

    def delete(self, file: dict[str, Any]) -> None:
        self.bucket.client().delete_object(Bucket=self.bucket.name, Key=self._key(file))

    def sql(self, statement: str, *values: object) -> None:
        """A hand in the catalogue."""
        with closing(sqlite3.connect(self.database, timeout=30)) as connection, connection:
            assert connection.execute(statement, values).rowcount != 0, "the hand found nothing to change"

    def next_line(self, number: int, records: int, **counts: int) -> Line:
        """A line that chains, of so many records, which says that all were written unless told otherwise."""
        before = self.positions[number]
        start = before.next or 0
        position = replace(before, next=start + records)
        line = Line(
            number, before.version, start, start + records, position, consumed=records, written=records
        )
        return replace(line, **counts)

    def _line(
        self, number: int, records: int, duplicates: int, dead: int, late: int, carry: int
    ) -> tuple[Line, np.ndarray[Any, np.dtype[np.int64]]]:
        before = self.positions[number]
        start = before.next or 0
        offsets = np.concatenate((before.carried, np.arange(start, start + records)))
        written = len(offsets) - duplicates - dead - carry
        times = [NOON_US + int(offset) * SECOND_US for offset in offsets[:written]]
        watermark = max([before.watermark_us or 0, *times]) or None
        position = Position(
            number,
            number,
            start + records,
            offsets[len(offsets) - carry :],
            watermark,
            watermark,
            None,
            None,
            None,
        )
        line = Line(
            number, before.version, start, start + records, position,
            consumed=records, carried_in=len(before.carried), written=written, duplicates=duplicates,
            dead_letters=dead, carried_out=carry, late=late,
        )  # fmt: skip
        return line, offsets

    def _key(self, file: dict[str, Any]) -> str:
        return str(file["url"]).removeprefix(f"s3://{self.bucket.name}/")

    def _take(self, answer: dict[str, Any]) -> None:
        self.epoch = answer["epoch"]
        for position in answer["positions"]:
            self.positions[position["lake_partition"]] = Position.from_json(position)

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self.http.post(path, json=body)
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found


def rows(
    lake_partition: int, offsets: Sequence[int] | np.ndarray[Any, Any], *, late: bool = False
) -> pa.Table:
    """Rows of these offsets, a second apart."""
    count = len(offsets)
    return pa.table(
        {
            "_lake_partition": pa.array([lake_partition] * count, pa.int32()),
            "_offset": pa.array(list(offsets), pa.int64()),
            "_event_id": pa.array([f"{lake_partition}-{offset}" for offset in offsets], pa.string()),
            "_event_time": pa.array(
                [NOON_US + int(offset) * SECOND_US for offset in offsets], pa.timestamp("us", "UTC")
            ),
            "_late": pa.array([late] * count, pa.bool_()),
            "n": pa.array(np.random.default_rng(1).random(count)),
        }
    )


def _encoded(table: pa.Table, footer: dict[str, Any]) -> Encoded:
    return encode(table, footer, what="rows", late=False, schema_version=0, period_us=PERIOD_US["day"])


def dead_rows(lake_partition: int, offsets: Sequence[int] | np.ndarray[Any, Any]) -> pa.Table:
    """Dead letters of these offsets."""
    count = len(offsets)
    return pa.table(
        {
            "_lake_partition": pa.array([lake_partition] * count, pa.int32()),
            "_offset": pa.array(list(offsets), pa.int64()),
            "_timestamp": pa.array([NOON_US] * count, pa.timestamp("us", "UTC")),
            "_reason": pa.array(["not_json"] * count, pa.string()),
        }
    )


def reencoded(data: bytes, keep: int) -> bytes:
    """The same Parquet file with only its first rows, footer and all."""
    table = pq.read_table(io.BytesIO(data))
    sink = io.BytesIO()
    pq.write_table(table.slice(0, keep), sink, compression="zstd")
    return sink.getvalue()


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@contextmanager
def small_lake(
    folder: Path,
    kafka: Kafka | None,
    bucket: Bucket,
    topic: str = "orders",
    clock: Clock = database_clock,
) -> Iterator[SmallLake]:
    """A lake of one topic, with its API in this process; with a broker the topic gets a name of its own."""
    app = create_app(load(database=f"sqlite:///{folder / 'tukang.db'}", auth="none"), clock)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        topic = kafka.topic(partitions=2) if kafka else topic
        lake = SmallLake(folder, kafka, bucket, f"http://127.0.0.1:{server.server_port}", topic)
        with closing(lake.http):
            yield lake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
