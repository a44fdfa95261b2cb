"""What lies in the database and the store after a seed: lake partitions with their ledger lines, files with their rows.

Read from the tables themselves, not through the code that is under test. What holds of them is in `proof.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson
import pyarrow as pa
from pyroaring import BitMap

from tests.simulation.events import Record

if TYPE_CHECKING:
    from tests.simulation.world import World

COUNTS = (
    "consumed", "carried_in", "written", "duplicates", "differing", "dead_letters", "lost", "carried_out", "late",
    "early",
)  # fmt: skip


@dataclass(slots=True, frozen=True)
class Row:
    """One row or dead letter in the lake."""

    record: Record
    lake_partition: int
    offset: int
    sequence: int
    time_us: int
    late: bool
    file_late: bool


@dataclass(slots=True)
class Line:
    """One ledger line, with the position that it left and the one before it."""

    topic: str
    sequence: int
    lake_partition: int
    id: str
    counts: dict[str, int]
    from_version: str | None
    from_offset: int
    to_offset: int
    carried: set[int]
    highest: int | None
    watermark: int | None
    published_to: int | None
    lost: set[int]
    before: Line | None = None
    rows: list[Row] = field(default_factory=list)
    dead: list[Row] = field(default_factory=list)

    @property
    def late_before(self) -> int | None:
        """Rows before this time are late."""
        if self.before is None:
            return None
        known = [time for time in (self.before.watermark, self.before.published_to) if time is not None]
        return max(known, default=None)


@dataclass(slots=True)
class Part:
    """A lake partition with its lines."""

    topic: str
    number: int
    partition: int
    life: int | None  # of the broker's topic; None: never committed
    row: dict[str, Any]
    lines: list[Line] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.topic} lake partition {self.number}"


def life_of(topic_id: str | None) -> int | None:
    """Which life of a topic the broker's id names."""
    return int(topic_id.rpartition("-")[2]) if topic_id else None


def read_parts(world: World) -> dict[tuple[str, int], Part]:
    """All lake partitions, by topic and number, with their ledger lines in order."""
    rows = world.rows
    parts = {}
    for row in rows("SELECT t.name AS topic, p.* FROM lake_partitions p JOIN topics t ON t.id = p.topic_id"):
        key = row["topic"], row["lake_partition"]
        parts[key] = Part(*key, row["broker_partition"], life_of(row["broker_topic_id"]), row)
    for row in rows(
        "SELECT t.name AS topic, c.id AS commit_id, l.* FROM ledger l JOIN topics t ON t.id = l.topic_id"
        " JOIN commits c ON c.topic_id = l.topic_id AND c.sequence = l.sequence ORDER BY l.topic_id, l.sequence"
    ):
        part = parts[row["topic"], row["lake_partition"]]
        line = Line(
            topic=row["topic"],
            sequence=row["sequence"],
            lake_partition=row["lake_partition"],
            id=str(UUID(row["commit_id"])),
            counts={name: row[name] for name in COUNTS},
            from_version=str(UUID(row["from_version"])) if row["from_version"] else None,
            from_offset=row["from_offset"],
            to_offset=row["to_offset"],
            carried={row["to_offset"] - each for each in BitMap.deserialize(row["carried"])},
            highest=row["highest_us"],
            watermark=row["watermark_us"],
            published_to=row["published_to_us"],
            lost={o for a, b in orjson.loads(row["lost_ranges"] or "[]") or () for o in range(a, b)},
            before=part.lines[-1] if part.lines else None,
        )
        part.lines.append(line)
    return parts


def rows_of(world: World, file: dict[str, Any], table: pa.Table) -> Iterator[Row]:
    """The rows of one live file, each with the record that it came from."""
    made = world.topics[file["topic"]].made
    names = ("_lake_partition", "_offset", "_key")
    columns = [table.column(name).to_pylist() for name in names]
    if file["what"] == "rows":
        columns.append(table.column("_event_time").cast(pa.int64()).to_pylist())
        columns.append(table.column("_late").to_pylist())
    else:
        columns += [[0] * table.num_rows, [False] * table.num_rows]
    for lake_partition, offset, key, time_us, late in zip(*columns, strict=True):
        record = made[int.from_bytes(key, "big")]
        yield Row(record, lake_partition, offset, file["added_sequence"], time_us, late, bool(file["late"]))
