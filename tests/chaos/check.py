"""The independent check: DuckDB on the live files against what Kafka holds and the producers know for sure.

It trusts nothing of the workers, and of the API only the list of live files and the map of partitions.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import Consumer, KafkaError, TopicPartition

from tests.chaos.town import Town

_PIECE = 200_000
_TRUTH = pa.schema([("partition", pa.int32()), ("offset", pa.int64()), ("value", pa.binary())])


@dataclass
class Findings:
    """Of one topic. Everything but the first three lines must be 0."""

    topic: str
    records: int = 0  # committed in Kafka
    rows: int = 0
    duplicates: int = 0  # records whose twin is in the lake
    dead_letters: int = 0
    lost: int = 0  # neither row, nor twin of a row, nor dead letter
    doubled: int = 0  # rows of one offset, or of one event id in one partition, more than one
    invented: int = 0  # rows of offsets that are no committed records, such as aborted ones
    changed: int = 0  # rows that do not say what the record says
    examples: list[Any] = field(default_factory=list)

    @property
    def wrong(self) -> int:
        return self.lost + self.doubled + self.invented + self.changed


def read_truth(town: Town, topic: str, folder: Path) -> Path:
    """All committed records of a topic, read by librdkafka (which shares no code with the worker), as Parquet."""
    consumer = Consumer(
        {
            "bootstrap.servers": town.kafka.settings.servers,
            "group.id": "the-check",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    path = folder / f"{topic}.truth.parquet"
    partitions = sorted(consumer.list_topics(topic, timeout=30).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, each, 0) for each in partitions])
    ended: set[int | None] = set()
    waited = 0
    columns: tuple[list[int | None], list[int | None], list[bytes | None]] = ([], [], [])
    with pq.ParquetWriter(path, _TRUTH) as writer:

        def write() -> None:
            writer.write_table(pa.table(list(columns), schema=_TRUTH))
            for column in columns:
                column.clear()

        while len(ended) < len(partitions):
            messages = consumer.consume(10_000, timeout=0.5)
            waited = 0 if messages else waited + 1
            assert waited < 120, f"Kafka gave nothing of {topic} for a minute before its end"
            for message in messages:
                if (error := message.error()) is None:
                    columns[0].append(message.partition())
                    columns[1].append(message.offset())
                    columns[2].append(message.value())
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended.add(message.partition())
            if len(columns[0]) >= _PIECE:
                write()
        write()
    consumer.close()
    return path


def download(town: Town, topic: str, folder: Path) -> None:
    """All live files of a topic, by kind."""
    bucket, client = town.bucket, town.bucket.client()
    wanted: list[tuple[str, Path]] = []
    page: str | None = None
    while True:
        answer = town.get(f"/topics/{topic}/files", limit=1000, **({"page": page} if page else {}))
        for file in answer["files"]:
            key = file["url"].removeprefix(f"s3://{bucket.name}/")
            wanted.append((key, folder / topic / file["what"] / key.rpartition("/")[2]))
        page = answer["next_page"]
        if page is None:
            break

    def fetch(each: tuple[str, Path]) -> None:
        key, path = each
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(client.get_object(Bucket=bucket.name, Key=key)["Body"].read())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(fetch, wanted))


def check(town: Town, topic: str, folder: Path) -> Findings:
    """What is in the lake against what was produced."""
    truth = read_truth(town, topic, folder)
    download(town, topic, folder)
    found = Findings(topic)
    db = duckdb.connect(str(folder / f"{topic}.duckdb"))
    lake_partitions = {
        each["lake_partition"]: each["broker_partition"]
        for each in town.get(f"/topics/{topic}")["partitions"]
    }
    assert all(lake == broker for lake, broker in lake_partitions.items()), "no topic was made again here"
    db.execute(
        f"""CREATE TABLE truth AS SELECT partition, "offset" AS o, CASE WHEN json_valid(decode(value))
            THEN json_extract_string(decode(value), '$.id') END AS id, value FROM read_parquet('{truth}')"""
    )
    for what, columns in (
        ("rows", '_lake_partition AS partition, _offset AS o, id, n, "at", amount, who'),
        ("dead_letters", "_lake_partition AS partition, _offset AS o, _value AS value"),
    ):
        if not (folder / topic / what).exists():  # none
            db.execute(f"CREATE TABLE {what} AS SELECT partition, o, id, value FROM truth LIMIT 0")
            continue
        files = folder / topic / what / "*.parquet"
        db.execute(
            f"CREATE TABLE {what} AS SELECT {columns} FROM read_parquet('{files}', union_by_name = true)"
        )

    def number(query: str) -> int:
        row = db.execute(query).fetchone()
        assert row is not None
        return int(row[0])

    def wrong(name: str, query: str) -> None:
        count = number(f"SELECT count(*) FROM ({query})")
        setattr(found, name, getattr(found, name) + count)
        if count:
            found.examples.append((name, db.execute(f"{query} LIMIT 10").fetchall()))

    found.records = number("SELECT count(*) FROM truth")
    found.rows = number("SELECT count(*) FROM rows")
    found.dead_letters = number("SELECT count(*) FROM dead_letters")
    found.duplicates = number(
        "SELECT count(*) FROM truth t WHERE id IS NOT NULL AND NOT EXISTS (FROM rows r WHERE r.partition ="
        " t.partition AND r.o = t.o) AND EXISTS (FROM rows r WHERE r.partition = t.partition AND r.id = t.id)"
    )
    wrong(
        "lost",
        "SELECT partition, o, id FROM truth t WHERE id IS NOT NULL AND NOT EXISTS"
        " (FROM rows r WHERE r.partition = t.partition AND r.id = t.id)",
    )
    wrong(
        "lost",
        "SELECT partition, o, id FROM truth t WHERE id IS NULL AND NOT EXISTS"
        " (FROM dead_letters d WHERE d.partition = t.partition AND d.o = t.o AND d.value = t.value)",
    )
    for what in ("rows", "dead_letters"):
        wrong("doubled", f"SELECT partition, o, count(*) FROM {what} GROUP BY ALL HAVING count(*) > 1")
        wrong(
            "invented",
            f"SELECT partition, o FROM {what} r WHERE NOT EXISTS"
            " (FROM truth t WHERE r.partition = t.partition AND r.o = t.o)",
        )
    wrong("doubled", "SELECT partition, id, count(*) FROM rows GROUP BY ALL HAVING count(*) > 1")
    wrong(
        "changed",
        "SELECT r.partition, r.o, r.n, decode(t.value) FROM rows r JOIN truth t USING (partition, o) WHERE"
        " r.id IS DISTINCT FROM t.id OR r.n <> CAST(json_extract(decode(t.value), '$.n') AS BIGINT)"
        " OR r.\"at\" <> json_extract_string(decode(t.value), '$.at')"
        " OR r.amount <> CAST(json_extract(decode(t.value), '$.amount') AS DOUBLE)"
        " OR r.who.name <> json_extract_string(decode(t.value), '$.who.name')",
    )
    return found


def in_lake(folder: Path, topics: Iterable[str]) -> pa.Table:
    """The numbers of all events in the lake, with their topics: what the producers' own knowledge is held against."""
    tables = []
    for topic in topics:
        with duckdb.connect(str(folder / f"{topic}.duckdb"), read_only=True) as db:
            tables.append(db.execute("SELECT n FROM rows").to_arrow_table())
    return pa.concat_tables(tables)
