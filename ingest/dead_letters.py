"""What cannot become a row: why, and the table that keeps it.

The list of reasons is closed: programs count and alarm by them. Parsing is not done here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.chunk import Records
from ingest.columns import HEADERS, TIME
from ingest.times import usable_stamps

Reason = Literal[
    "empty",  # a value of no bytes, or of white space alone
    "no_value",  # a tombstone, in a topic that does not take them as rows
    "not_utf8",
    "not_json",
    "not_object",  # JSON, but an array, a string, a number, true, false or null
    "too_large",  # more bytes than max_record_bytes
]
REASONS: tuple[str, ...] = get_args(Reason)

LONGEST_TEXT = 300  # characters of a reason's text

SCHEMA = pa.schema(
    [
        ("_lake_partition", pa.int32()),
        ("_offset", pa.int64()),
        ("_timestamp", TIME),
        ("_key", pa.binary()),
        ("_headers", HEADERS),
        ("_value", pa.binary()),
        ("_reason", pa.string()),
        ("_reason_text", pa.string()),
        ("_reason_at", pa.int64()),  # byte in the value, null where there is no such place
        ("_first_seen", TIME),
    ]
)


class Unreadable(ValueError):
    """The record is no event: its bytes become a dead letter. `at`: the byte where that shows."""

    def __init__(self, reason: Reason, text: str, at: int | None) -> None:
        super().__init__(text)
        self.reason: Reason = reason
        self.text = text[:LONGEST_TEXT]
        self.at = at


@dataclass(frozen=True, slots=True)
class Letter:
    """One record of a chunk, by its index, and why it is no row."""

    index: int
    reason: Reason
    text: str
    at: int | None


def dead_letters(
    records: Records,
    letters: Sequence[Letter],
    lake_partition: int,
    first_seen_us: int | npt.NDArray[np.int64],
) -> pa.Table:
    """The table of `letters`, in order of offset, with their records' bytes."""
    if not letters:
        return SCHEMA.empty_table()
    ordered = sorted(letters, key=lambda letter: letter.index)
    at = [letter.index for letter in ordered]
    stamps = usable_stamps(records.timestamps_ms[at])
    return pa.table(
        [
            pa.array(np.full(len(at), lake_partition, np.int32)),
            pa.array(records.offsets[at]),
            pa.array(stamps * 1000, mask=stamps < 0).cast(TIME),
            pa.array([records.keys[i] for i in at], pa.binary()),
            headers_array(records, at),
            pa.array([records.values[i] for i in at], pa.binary()),
            pa.array([letter.reason for letter in ordered], pa.string()),
            pa.array([letter.text for letter in ordered], pa.string()),
            pa.array([letter.at for letter in ordered], pa.int64()),
            pa.array(np.broadcast_to(np.asarray(first_seen_us, np.int64), len(records))[at]).cast(TIME),
        ],
        schema=SCHEMA,
    )


def headers_array(records: Records, at: Sequence[int] | None = None) -> pa.Array:
    """The `_headers` of the records `at` (all of them: None)."""
    count = len(records) if at is None else len(at)
    if records.headers is None:
        return pa.nulls(count, HEADERS)
    chosen = records.headers if at is None else [records.headers[i] for i in at]
    counts = np.fromiter(map(len, chosen), np.int32, count)
    offsets = np.zeros(count + 1, np.int32)
    np.cumsum(counts, out=offsets[1:])
    flat = [pair for pairs in chosen for pair in pairs]
    pairs = pa.StructArray.from_arrays(
        [
            pa.array([name for name, _ in flat], pa.string()),
            pa.array([value for _, value in flat], pa.binary()),
        ],
        fields=list(HEADERS.value_type),
    )
    # A record without headers among others that have some: null, as when none has any.
    return pa.ListArray.from_arrays(offsets, pairs, type=HEADERS, mask=pa.array(counts == 0))
