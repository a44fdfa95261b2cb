"""Dead letters decoded again: which of them are rows now, which of these are duplicates, and what one rewrite writes.

Pure over Arrow, but for `Known`, by which rows of the lake come in. The steps are those of any record: decode, dedup,
reorder (late rows are flagged), encode; the bytes and the commit are `ingest.letters.replay`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingest import reorder
from ingest.chunk import Headers, Records
from ingest.conform import conform
from ingest.decode import Decoded, decode
from ingest.dedup import Seen
from ingest.held import stands_in
from ingest.schema import TopicSchema
from ingest.topic_settings import TopicSettings

# Event ids and the range of event times (None: any) -> the rows of the lake that have them, with `_lake_partition`,
# `_event_id`, `_event_time`, `_time_from`.
Known = Callable[[pa.Array, tuple[int, int] | None], pa.Table]


@dataclass(frozen=True, slots=True)
class Again:
    """What became of letters. `rows` sorted by event time, lake partition and offset, late ones flagged."""

    rows: pa.Table
    came_alive: (
        pa.Table
    )  # names (`_lake_partition`, `_offset`) of the letters that are rows or duplicates now
    duplicates: Counter[int]  # by lake partition


def records_of(letters: pa.Table) -> tuple[Records, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Letters of one lake partition as records, and when each was first seen."""
    offsets = np.asarray(letters.column("_offset").to_numpy(), np.int64)
    stamps_us = letters.column("_timestamp").cast(pa.int64()).fill_null(-1_000)
    headers: list[Headers] = [
        tuple((pair["key"], pair["value"]) for pair in pairs or ())
        for pairs in letters.column("_headers").to_pylist()
    ]
    records = Records(
        offsets,
        np.asarray(stamps_us.to_numpy(), np.int64) // 1_000,
        letters.column("_key").to_pylist(),
        letters.column("_value").to_pylist(),
        headers if any(headers) else None,
    )
    return records, np.asarray(letters.column("_first_seen").cast(pa.int64()).to_numpy(), np.int64)


def decoded(letters: pa.Table, schema: TopicSchema, settings: TopicSettings) -> Iterator[tuple[int, Decoded]]:
    """The letters (in order of lake partition and offset) decoded as if they were read now: lake partition by lake
    partition, each with the schema that the ones before it made."""
    numbers = np.asarray(letters.column("_lake_partition").to_numpy(), np.int64)
    for number in np.unique(numbers).tolist():
        records, seen_us = records_of(letters.filter(pa.array(numbers == number)))
        result = decode(records, number, schema, settings.decode, seen_us)
        schema = result.schema
        yield number, result


def judged(
    parts: Mapping[int, Decoded],
    schema: TopicSchema,
    settings: TopicSettings,
    watermarks: Mapping[int, int | None],
    known: Known,
) -> Again:
    """Drops duplicates of rows that are in the lake (and of each other), flags late ones, sorts. `watermarks`: as
    stored, by lake partition."""
    tables, duplicates = [], Counter[int]()
    names = [part.table.select(["_lake_partition", "_offset"]) for part in parts.values()]
    twins = _twins([part.table for part in parts.values()], settings, known)
    for number, part in parts.items():
        table = part.table
        if not table.num_rows:
            continue
        times, stood_in = _times(table, settings)
        seen = Seen(settings.dedup_window_us)
        if twins is not None:
            own = twins.filter(pc.equal(twins.column("_lake_partition"), number))
            seen.load(own.column("_event_id"), *_times(own, settings))
        verdict = seen.sift(
            table.column("_event_id"),
            times,
            stood_in,
            part.content,
            on_differing="keep" if settings.keep_differing else "drop",
        )
        duplicates[number] += verdict.duplicates
        late = reorder.late(times, watermarks.get(number), None)
        flagged = table.set_column(table.schema.get_field_index("_late"), "_late", pa.array(late))
        tables.append(conform(flagged, schema).filter(pa.array(verdict.keep)))
    rows = pa.concat_tables(tables) if tables else schema.arrow().empty_table()
    order = [(name, "ascending") for name in ("_event_time", "_lake_partition", "_offset")]
    return Again(rows.sort_by(order), pa.concat_tables(names), duplicates)


def _times(table: pa.Table, settings: TopicSettings) -> tuple[reorder.Times, reorder.Mask]:
    """Event times, and whether each stands in for a missing one, as a worker sees it."""
    times = np.asarray(table.column("_event_time").cast(pa.int64()).to_numpy(), np.int64)
    return times, stands_in(table) if settings.timed else np.zeros(table.num_rows, np.bool_)


def _twins(tables: Sequence[pa.Table], settings: TopicSettings, known: Known) -> pa.Table | None:
    """The rows of the lake that could be twins of some of these; None: there can be none."""
    with_id = [table.filter(pc.is_valid(table.column("_event_id"))) for table in tables]
    with_id = [table for table in with_id if table.num_rows]
    if not with_id:
        return None
    ids = pc.unique(pa.concat_arrays([table.column("_event_id").combine_chunks() for table in with_id]))
    found = [_times(table, settings) for table in with_id]
    window = settings.dedup_window_us
    lowest = min(int(times.min()) for times, _ in found) - window
    highest = max(int(times.max()) for times, _ in found) + window
    return known(ids, None if any(stood_in.any() for _, stood_in in found) else (lowest, highest))


def alive_mask(letters: pa.Table, came_alive: pa.Table) -> reorder.Mask:
    """Which letters are among those that came alive."""
    alive = set(
        zip(
            came_alive.column("_lake_partition").to_pylist(),
            came_alive.column("_offset").to_pylist(),
            strict=True,
        )
    )
    names = zip(
        letters.column("_lake_partition").to_pylist(), letters.column("_offset").to_pylist(), strict=True
    )
    return np.fromiter((name in alive for name in names), np.bool_, letters.num_rows)
