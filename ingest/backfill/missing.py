"""Live files whose objects are gone from the store: which offsets they had, and their rows from Kafka once more.

Nobody can read such a file, but all else is known. An offset below a lake partition's `next` is carried, or a row or a
dead letter of another file, or left by a commit that names it in a `deletes` file, or was a duplicate, or was in the
file that is gone. Duplicates are told by their ids, as they were at first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyroaring import BitMap

from ingest.backfill.commit import Counts, counts
from ingest.backfill.compare import NAME, NAMED, TWIN, Difference, Outcome, sifted
from ingest.backfill.units import File, by_partition
from ingest.conform import conform
from ingest.dead_letters import SCHEMA
from ingest.decode import Decoded
from ingest.lake import Lake
from ingest.lake_object import opened
from ingest.position import Position, time_from_text, time_to_text
from ingest.schema import TopicSchema
from ingest.topic_settings import TopicSettings

FOLDERS = ("fresh", "sealed", "dead_letters")


class NotAllThere(Exception):
    """Kafka does not have all that was in the files: the text says how many are missing."""


def gone(lake: Lake, topic: str, files: Sequence[File]) -> list[File]:
    """The live files of which the store has no object."""
    there = {url for folder in FOLDERS for url in lake.listing(f"{folder}/{topic}/")}
    return [file for file in files if file["url"] not in there]


def outside(lost: Iterable[File], start_us: int, end_us: int) -> tuple[str, str] | None:
    """The range that has all rows of these files, if the given one has not."""
    times = [(time_from_text(file["lowest"]), time_from_text(file["highest"])) for file in lost]
    lowest = min((low for low, _ in times if low is not None), default=start_us)
    highest = max((high for _, high in times if high is not None), default=start_us)
    if start_us <= lowest and highest < end_us:
        return None
    return time_to_text(min(lowest, start_us)) or "", time_to_text(max(highest + 1, end_us)) or ""


def unaccounted(
    lake: Lake, files: Iterable[File], positions: Iterable[Position], begins: Mapping[int, int]
) -> dict[int, npt.NDArray[np.int64]]:
    """By lake partition, the offsets that no file names and that are not carried. `files`: live ones that are there,
    and every `deletes` file; `positions`: as of an earlier sequence than theirs; `begins`: where the ledger begins."""
    left: dict[int, BitMap] = {}
    for position in positions:
        number, begin = position.lake_partition, begins.get(position.lake_partition, 0)
        left[number] = BitMap(range(max(0, (position.next or 0) - begin)))
        carried = position.carried - begin
        left[number] -= BitMap(carried[carried >= 0].astype(np.uint32))
    for file in files:
        table = _names(lake, file)
        numbers = np.asarray(table.column(NAME[0]).to_numpy())
        offsets = np.asarray(table.column(NAME[1]).to_numpy(), np.int64)
        for number in np.unique(numbers).tolist():
            if number in left:
                own = offsets[numbers == number] - begins.get(number, 0)
                left[number] -= BitMap(own[own >= 0].astype(np.uint32))
    return {
        number: np.array(bitmap.to_array(), np.int64) + begins.get(number, 0)
        for number, bitmap in left.items()
        if bitmap
    }


def _names(lake: Lake, file: File) -> pa.Table:
    return pq.read_table(opened(lake, str(file["url"]), int(file["bytes"])), columns=NAME, pre_buffer=True)


def found_again(
    parts: Mapping[int, Sequence[Decoded]],
    schema: TopicSchema,
    settings: TopicSettings,
    twins: pa.Table,
    lost: Sequence[File],
) -> tuple[Outcome, Counts]:
    """What the files had, from all records that no other file names: rows with an event time that one of them had, less
    duplicates. Raises `NotAllThere`."""
    decoded = [part for some in parts.values() for part in some]
    rows = pa.concat_tables(
        [schema.arrow().empty_table(), *(conform(part.table, schema) for part in decoded)]
    )
    content = np.concatenate([np.empty(0, np.int64), *(part.content for part in decoded)])
    dead = pa.concat_tables([SCHEMA.empty_table(), *(part.dead for part in decoded)])
    times = np.asarray(rows.column("_event_time").cast(pa.int64()).to_numpy(), np.int64)
    on_time, late = (
        _within(times, [file for file in lost if file["late"] is is_late]) for is_late in (False, True)
    )
    inside = on_time | late
    rows = rows.set_column(rows.schema.get_field_index("_late"), "_late", pa.array(late & ~on_time))
    rows, content = rows.filter(pa.array(inside)), content[inside]
    keep, _, fresh = sifted(
        rows, content, np.ones(rows.num_rows, np.bool_), rows.select(TWIN).slice(0, 0), settings, twins
    )
    rows = rows.filter(pa.array(keep))
    counted = counts()
    for what, came, name in (("rows", rows, "rows_in"), ("dead_letters", dead, "dead_in")):
        wanted = sum(int(file["rows"]) for file in lost if file["what"] == what)
        if came.num_rows < wanted:
            raise NotAllThere(f"{came.num_rows} of {wanted} {what.replace('_', ' ')}")
        out = by_partition(came)
        counted[name.replace("_in", "_out")] += out
        for number, count in sorted(out.items()):  # which of them were in the files nobody knows
            counted[name][number] += min(count, wanted)
            counted["restored"][number] += count - min(count, wanted)
            wanted -= min(count, wanted)
    rows = rows.sort_by([(name, "ascending") for name in ("_event_time", "_lake_partition", "_offset")])
    difference = Difference(restored=rows.num_rows + dead.num_rows)
    return Outcome(rows, dead, rows.select(NAMED), fresh, Counter(), difference), counted


def _within(times: npt.NDArray[np.int64], files: Sequence[File]) -> npt.NDArray[np.bool_]:
    mask = np.zeros(len(times), np.bool_)
    for file in files:
        if file["what"] == "rows":
            low, high = time_from_text(file["lowest"]), time_from_text(file["highest"])
            mask |= (times >= (low or 0)) & (times <= (high or np.iinfo(np.int64).max))
    return mask
