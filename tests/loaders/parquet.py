"""The model's objects as real Parquet files, with the columns that workers write."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.loaders.model import Key, Lake, Object, Row

TIME = pa.timestamp("us", "UTC")
HEADERS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))
SYSTEM: tuple[tuple[str, pa.DataType], ...] = (
    ("_lake_partition", pa.int32()),
    ("_offset", pa.int64()),
    ("_event_id", pa.string()),
    ("_event_time", TIME),
    ("_time_from", pa.string()),
    ("_timestamp", TIME),
    ("_key", pa.binary()),
    ("_headers", HEADERS),
    ("_late", pa.bool_()),
    ("_tombstone", pa.bool_()),
)
START_US = 1_767_225_600_000_000  # 2026-01-01


def system_columns(keys: list[Key]) -> dict[str, pa.Array]:
    """The system columns of rows with these keys."""
    count = len(keys)
    times = [START_US + offset * 1_000_003 for _, offset in keys]
    return {
        "_lake_partition": pa.array([number for number, _ in keys], pa.int32()),
        "_offset": pa.array([offset for _, offset in keys], pa.int64()),
        "_event_id": pa.array([f"{number}-{offset}" for number, offset in keys]),
        "_event_time": pa.array(times, TIME),
        "_time_from": pa.array(["event"] * count),
        "_timestamp": pa.array(times, TIME),
        "_key": pa.array([b"\x00\xff" + str(offset).encode() for _, offset in keys], pa.binary()),
        "_headers": pa.array([[("trace", b"\xfe"), ("user", b"ada"), ("none", None)]] * count, HEADERS),
        "_late": pa.array([False] * count),
        "_tombstone": pa.array([False] * count),
    }


def event_table(
    keys: list[Key], columns: Mapping[str, pa.Array], sequences: list[int] | None = None
) -> pa.Table:
    """Rows as a worker writes them; with `sequences` as upkeep does."""
    system = system_columns(keys)
    if sequences is not None:
        system["_sequence"] = pa.array(sequences, pa.int64())
    return pa.table({**system, **columns})


def write_object(each: Object, folder: Path) -> Path:
    """One object of the model as a file, at most once."""
    path = folder / f"{each.file.id}.parquet"
    if not path.exists():
        keys = sorted(each.rows)
        if each.file.what == "rows":
            values = {"value": pa.array([each.rows[key].value for key in keys])}
            sequences = [each.rows[key].sequence for key in keys] if each.own_sequence else None
            table = event_table(keys, values, sequences)
        else:
            columns = (
                ["_lake_partition", "_offset", "_event_time"]
                if each.file.what == "deletes"
                else ["_lake_partition", "_offset", "_key"]
            )
            table = pa.table(system_columns(keys)).select(columns)
        pq.write_table(table, path)
    return path


def write_objects(lake: Lake, ids: list[int], folder: Path) -> dict[int, Path]:
    """The files of a change, by id."""
    return {each: write_object(lake.objects[each], folder) for each in ids}


def as_rows(found: list[tuple[int, int, str, int]]) -> dict[Key, Row]:
    """Rows (lake partition, offset, value, sequence) of a warehouse as the model has them; none may stand twice."""
    rows = {(number, offset): Row(value, sequence) for number, offset, value, sequence in found}
    assert len(rows) == len(found), "a row stands twice in the table"
    return rows
