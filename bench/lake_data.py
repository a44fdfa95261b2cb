"""A day of events as workers leave it: many small commits, each of a short span of time, through the real API.

Made by numpy, so that twenty million rows take minutes; what is written, put and committed is done by the worker's own
code. One row in a hundred is late, one in a thousand has a twin in another partition.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import httpx
import numpy as np
import pyarrow as pa

from ingest.encode import PERIOD_US, Encoded, encode
from ingest.ids import uuid7
from ingest.lake import Lake
from ingest.ledger import Line
from ingest.position import Position, time_to_text
from ingest.publish import object_key
from ingest.schema import TopicSchema

DAY_START_US = 1_767_225_600_000_000  # 2026-01-01
DAY_US = PERIOD_US["day"]
PARTITIONS = 4
CUSTOMERS = 100_000
LATE = 0.01
TWINS = 0.001
KINDS = pa.array(["view", "search", "cart", "order", "pay", "return", "login", "logout"])
COUNTRIES = pa.array(["ID", "DE", "FR", "NL", "US", "JP", "BR", "IN", "MY", "SG"])
COLUMNS = (
    ("customer", "integer"),
    ("kind", "string"),
    ("country", "string"),
    ("amount", "double"),
    ("note", "string"),
)


@dataclass(frozen=True)
class Left:
    """What the workers left."""

    rows: int
    commits: int


def events(rows: int, commits: int, schema: pa.Schema) -> Iterator[list[tuple[int, pa.Table, pa.Table]]]:
    """For each commit, of each partition: its number, rows on time, late rows."""
    dice = np.random.default_rng(1)
    next_offset = [0] * PARTITIONS
    each = rows // (commits * PARTITIONS)
    span = DAY_US // commits
    for number in range(commits):
        parts = []
        for partition in range(PARTITIONS):
            start = DAY_START_US + number * span
            times = np.sort(start + dice.integers(0, span, each))
            late = dice.random(each) < LATE
            times[late] = np.maximum(
                DAY_START_US, times[late] - dice.integers(span, span + 3_600_000_000, int(late.sum()))
            )
            offsets = np.arange(next_offset[partition], next_offset[partition] + each)
            next_offset[partition] += each
            identities = offsets * PARTITIONS + partition
            twins = (dice.random(each) < TWINS) & (partition > 0)
            identities[twins] -= 1  # the row of the partition before, at the same offset
            table = _table(partition, offsets, identities, times, dice, schema)
            mask = pa.array(late)
            on_time = table.filter(pa.array(~late))
            parts.append((partition, on_time, _flagged(table.filter(mask))))
        yield parts


def _table(
    partition: int, offsets: Any, identities: Any, times: Any, dice: np.random.Generator, schema: pa.Schema
) -> pa.Table:
    count = len(offsets)
    mixed = (identities.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)).tobytes()
    digits = np.frombuffer(mixed.hex().encode(), dtype="S16")
    columns: dict[str, Any] = {
        "_lake_partition": np.full(count, partition, np.int32),
        "_offset": offsets,
        "_event_id": pa.array(digits.astype(str)),
        "_event_time": pa.array(times, pa.int64()).cast(pa.timestamp("us", "UTC")),
        "_time_from": ["event"] * count,
        "_timestamp": pa.array(times, pa.int64()).cast(pa.timestamp("us", "UTC")),
        "_late": np.zeros(count, np.bool_),
        "_tombstone": np.zeros(count, np.bool_),
        "customer": (dice.random(count) ** 2 * CUSTOMERS).astype(np.int64),
        "kind": KINDS.take(pa.array(dice.integers(0, len(KINDS), count))),
        "country": COUNTRIES.take(pa.array(dice.integers(0, len(COUNTRIES), count))),
        "amount": np.round(dice.random(count) * 500, 2),
        "note": pa.array(np.char.add("note ", dice.integers(0, 1 << 40, count).astype(str))),
    }
    return pa.table(
        [
            pa.nulls(count, field.type) if field.name not in columns
            else pa.array(columns[field.name]).cast(field.type)
            for field in schema
        ],
        schema=schema,
    )  # fmt: skip


def _flagged(late: pa.Table) -> pa.Table:
    return late.set_column(
        late.schema.get_field_index("_late"),
        late.schema.field("_late"),
        pa.array([True] * late.num_rows, pa.bool_()),
    )


def leave(api: str, lake: Lake, topic: str, rows: int, commits: int) -> Left:
    """Commits the day, and reports that its partitions have passed it."""
    with httpx.Client(base_url=f"{api}/v1", timeout=120) as http, ThreadPoolExecutor(4) as pool:
        _ask(
            http, "POST", "/topics", {"topic": topic, "settings": {"event_id": ["id"], "event_time": ["at"]}}
        )
        columns = [
            {"name": name, "column": name, "type": kind, "reason": None, "first": None}
            for name, kind in COLUMNS
        ]
        made = _ask(http, "POST", f"/topics/{topic}/schemas", {"base_version": 0, "columns": columns})
        schema = TopicSchema.from_json(made)
        asked = {"topic": topic, "partitions": list(range(PARTITIONS))}
        known = _ask(http, "POST", "/positions", {"topics": [asked]})["topics"][0]
        positions = {each["lake_partition"]: Position.from_json(each) for each in known["positions"]}
        dice = Random(2)
        done = 0
        for number, parts in enumerate(events(rows, commits, schema.arrow())):
            passed = DAY_START_US + (number + 1) * DAY_US // commits
            lines = [
                _line(positions[p], on_time.num_rows, late.num_rows, passed) for p, on_time, late in parts
            ]
            commit = uuid7(time.time_ns() // 1000, dice.getrandbits)
            footer = {"topic": topic, "epoch": known["epoch"], "commit": commit, "kind": "append",
                      "schema_version": schema.version, "lines": [line.to_json() for line in lines]}  # fmt: skip
            tables = [
                (pa.concat_tables([part[1] for part in parts]), False),
                (pa.concat_tables([part[2] for part in parts]), True),
            ]
            files = list(pool.map(lambda each, footer=footer: _put(lake, topic, *each, footer, dice), tables))
            body = {"id": commit, "kind": "append", "epoch": known["epoch"], "schema_version": schema.version,
                    "lines": footer["lines"], "files": [file for file in files if file]}  # fmt: skip
            answer = _ask(http, "POST", f"/topics/{topic}/commits", body)
            positions = {each["lake_partition"]: Position.from_json(each) for each in answer["positions"]}
            done += sum(on_time.num_rows + late.num_rows for _, on_time, late in parts)
        _report(http, topic, known["epoch"])
    return Left(done, commits)


def _line(before: Position, on_time: int, late: int, passed: int) -> Line:
    start = before.next or 0
    after = replace(before, next=start + on_time + late, highest_us=passed, watermark_us=passed)
    count = on_time + late
    return Line(
        before.lake_partition,
        before.version,
        start,
        start + count,
        after,
        consumed=count,
        written=count,
        late=late,
    )


def _put(
    lake: Lake, topic: str, table: pa.Table, late: bool, footer: dict[str, Any], dice: Random
) -> dict[str, Any] | None:
    if not table.num_rows:
        return None
    order = [("_event_time", "ascending"), ("_lake_partition", "ascending"), ("_offset", "ascending")]
    made: Encoded = encode(
        table.sort_by(order), {**footer, "what": "rows"}, what="rows", late=late,
        schema_version=footer["schema_version"], period_us=DAY_US,
    )  # fmt: skip
    name = uuid7(time.time_ns() // 1000, dice.getrandbits)
    put = lake.put(object_key(topic, name, "rows", late), made.data, made.sha256)
    return made.entry(put.url, put.modified_at)


def _report(http: httpx.Client, topic: str, epoch: str) -> None:
    now = time_to_text(time.time_ns() // 1000)
    told = {"topic": topic, "epoch": epoch, "state": "running", "settings_version": 0, "partitions": [],
            "broker_partitions": list(range(PARTITIONS)), "broker_partitions_at": now}  # fmt: skip
    _ask(
        http,
        "PUT",
        "/workers/bench",
        {"version": "bench", "sent_at": now, "rule_version": 0, "topics": [told]},
    )


def _ask(http: httpx.Client, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = http.request(method, path, json=body)
    if not answer.is_success:
        raise SystemExit(f"{method} {path}: {answer.status_code} {answer.text}")
    found: dict[str, Any] = answer.json()
    return found
