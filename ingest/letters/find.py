"""Which dead letters are meant, and where they stand: the live files of a topic, read one after the other.

What is chosen is decided here, over columns; what becomes of them is `show`, `export` and `replay`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ingest.dead_letters import REASONS, SCHEMA
from ingest.inquiry import Inquiry
from ingest.lake import Lake, LakeMissing
from ingest.lake_object import got

File = Mapping[str, Any]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters: by reason, by record timestamp (when they were first seen, if they have none) in [start, end) in
    microseconds, by offset in [first, last], by lake partition. Nothing given: all.
    """

    reasons: frozenset[str] = frozenset()
    start_us: int | None = None
    end_us: int | None = None
    first: int | None = None
    last: int | None = None
    lake_partition: int | None = None

    def __post_init__(self) -> None:
        for reason in self.reasons:
            if reason not in REASONS:
                raise ValueError(f"there is no reason {reason!r}: it is one of {', '.join(REASONS)}")

    def mask(self, letters: pa.Table) -> Mask:
        """Which rows of a table of dead letters are meant."""
        mask = np.ones(letters.num_rows, np.bool_)
        if self.reasons:
            mask &= _mask(pc.is_in(letters.column("_reason"), value_set=pa.array(sorted(self.reasons))))
        if self.start_us is not None or self.end_us is not None:
            times = pc.coalesce(letters.column("_timestamp"), letters.column("_first_seen")).cast(pa.int64())
            at = np.asarray(times.to_numpy(), np.int64)
            mask &= at >= (self.start_us if self.start_us is not None else np.iinfo(np.int64).min)
            if self.end_us is not None:
                mask &= at < self.end_us
        offsets = np.asarray(letters.column("_offset").to_numpy(), np.int64)
        if self.first is not None:
            mask &= offsets >= self.first
        if self.last is not None:
            mask &= offsets <= self.last
        if self.lake_partition is not None:
            mask &= np.asarray(letters.column("_lake_partition").to_numpy()) == self.lake_partition
        return mask


def offsets_of(text: str | None) -> tuple[int | None, int | None]:
    """`17`, `17-40`, `17-` or `-40` as first and last offset."""
    if text is None:
        return None, None
    first, dash, last = text.partition("-")
    try:
        start = int(first) if first else None
        end = (int(last) if last else None) if dash else start
    except ValueError:
        raise ValueError(f"{text!r} is no range of offsets: write 17, 17-40, 17- or -40") from None
    if start is not None and end is not None and end < start:
        raise ValueError(f"{text!r} ends before it begins: write {end}-{start}")
    return start, end


def files_of(inquiry: Inquiry, topic: str, sequence: int | None = None) -> list[dict[str, Any]]:
    """The live files of dead letters, oldest commit first. Raises `TopicUnknown`."""
    at = inquiry.topic(topic)["sequence"] if sequence is None else sequence
    files = [file for file in inquiry.files(topic, at) if file["what"] == "dead_letters"] if at else []
    return sorted(files, key=lambda file: (file["sequence"], file["id"]))


def read(lake: Lake, file: File) -> pa.Table:
    """All letters of a file, as in `dead_letters.SCHEMA`. Raises `LakeMissing`. Blocks: call in a thread."""
    data = got(lake, str(file["url"]))
    # In this thread alone: one of Arrow's that lets go of Python's bytes while the command ends would abort it.
    table = pq.read_table(pa.BufferReader(data), use_threads=False, pre_buffer=False)
    return table.select(SCHEMA.names).cast(SCHEMA)


def found(lake: Lake, files: Iterable[File], wanted: Wanted) -> Iterator[pa.Table]:
    """The wanted letters, file by file. One that left the lake meanwhile (replayed, expired) is passed over."""
    for file in files:
        try:
            letters = read(lake, file)
        except LakeMissing:
            continue
        chosen = letters.filter(pa.array(wanted.mask(letters)))
        if chosen.num_rows:
            yield chosen


def _mask(array: pa.ChunkedArray) -> Mask:
    return np.asarray(array.to_numpy(), np.bool_)
