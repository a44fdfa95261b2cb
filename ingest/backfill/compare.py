"""Rows as they are in the lake beside the same records as they are read now: what is another, and what one writes.

Pure over Arrow. A row is the same when its identity (`_lake_partition`, `_offset`) is; what differs is told column by
column. A row that Kafka no longer has, or that lies outside the range, stays as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingest.conform import conform
from ingest.dead_letters import SCHEMA
from ingest.decode import Decoded
from ingest.dedup import Seen
from ingest.held import stands_in
from ingest.schema import TopicSchema
from ingest.topic_settings import TopicSettings

Mask = npt.NDArray[np.bool_]
Longs = npt.NDArray[np.int64]

NAME = ["_lake_partition", "_offset"]
NAMED = [*NAME, "_event_time"]
TWIN = ["_lake_partition", "_event_id", "_event_time", "_time_from"]


@dataclass(slots=True)
class Difference:
    """What reading again changes, in rows."""

    read: int = 0  # read again
    kept: int = 0  # in the range, but Kafka no longer has them: they stay as they are
    changed: int = 0
    columns: Counter[str] = field(default_factory=Counter)  # changed rows by column
    duplicates: int = 0  # of a row in the lake, by their present id
    dead: int = 0  # that are no events any more
    restored: int = 0  # rows and dead letters of files whose objects are gone

    @property
    def any(self) -> bool:
        return bool(self.changed or self.duplicates or self.dead or self.restored)

    def add(self, other: Difference) -> None:
        self.read += other.read
        self.kept += other.kept
        self.changed += other.changed
        self.columns.update(other.columns)
        self.duplicates += other.duplicates
        self.dead += other.dead
        self.restored += other.restored


@dataclass(frozen=True, slots=True)
class Outcome:
    """What some rows become. `rows` sorted by event time, lake partition and offset; `named` names all that leave and
    all that come; `fresh` are those with another id, as `TWIN`, for the next rows to be compared with."""

    rows: pa.Table
    dead: pa.Table
    named: pa.Table
    fresh: pa.Table
    duplicates: Counter[int]
    difference: Difference


def compared(
    old: pa.Table,
    asked: Mask,
    parts: Mapping[int, Sequence[Decoded]],
    schema: TopicSchema,
    settings: TopicSettings,
    twins: pa.Table,
    retyped: Collection[str] = (),
) -> Outcome:
    """`old`: rows of the lake; `asked`: which of them were to be read again; `parts`: what came, by lake partition;
    `twins`: rows elsewhere that theirs may be duplicates of; `retyped`: columns that the files have in another type.
    `schema` is as wide as all of them."""
    old = conform(old, schema)
    decoded = [part for some in parts.values() for part in some]
    new = pa.concat_tables([schema.arrow().empty_table(), *(conform(part.table, schema) for part in decoded)])
    content = np.concatenate([np.empty(0, np.int64), *(part.content for part in decoded)])
    dead = [part.dead for part in decoded if part.dead.num_rows]
    places, died = _places(old, new), _places(old, pa.concat_tables(dead)) if dead else np.empty(0, np.int64)
    before = old.take(pa.array(places))
    new = new.set_column(new.schema.get_field_index("_late"), "_late", before.column("_late"))
    difference = Difference(read=new.num_rows + len(died), dead=len(died))
    difference.kept = int(asked.sum()) - difference.read
    other = np.zeros(new.num_rows, np.bool_)
    for name in new.schema.names:
        differs = _differs(before.column(name), new.column(name))
        if name in retyped:
            differs = np.asarray(new.column(name).is_valid().to_numpy(), np.bool_)
        if differs is not None:
            difference.columns[name] += int(differs.sum())
            other |= differs
    left = np.ones(old.num_rows, np.bool_)
    left[places] = False
    left[died] = False
    stay = old.filter(pa.array(left))
    ids = _differs(before.column("_event_id"), new.column("_event_id"))
    keep, duplicates, fresh = sifted(new, content, ids, stay, settings, twins)
    difference.changed = int((other & keep).sum())
    difference.duplicates = duplicates.total()
    rows = pa.concat_tables([stay, new.filter(pa.array(keep))])
    order = [(name, "ascending") for name in ("_event_time", "_lake_partition", "_offset")]
    return Outcome(
        rows.sort_by(order),
        pa.concat_tables(dead) if dead else SCHEMA.empty_table(),
        _named(old, rows),
        fresh,
        duplicates,
        difference,
    )


def _places(old: pa.Table, new: pa.Table) -> Longs:
    """Where in `old` each row of `new` stands, by identity."""
    index = old.select(NAME).append_column("place", pa.array(np.arange(old.num_rows)))
    asked = new.select(NAME).append_column("turn", pa.array(np.arange(new.num_rows)))
    found = asked.join(index, NAME, join_type="inner").sort_by("turn")
    if found.num_rows != new.num_rows:
        raise ValueError("Kafka gave records that were not asked for")
    return np.asarray(found.column("place").to_numpy(), np.int64)


def _differs(before: pa.ChunkedArray, after: pa.ChunkedArray) -> Mask | None:
    """Which values are others; None: none is."""
    if before.equals(after):
        return None
    one, two = before.combine_chunks(), after.combine_chunks()
    if pa.types.is_nested(one.type):
        mask = np.fromiter(
            (a != b for a, b in zip(one.to_pylist(), two.to_pylist(), strict=True)), np.bool_, len(one)
        )
    else:
        same = pc.fill_null(pc.equal(one, two), pc.and_(one.is_null(), two.is_null()))
        if pa.types.is_floating(one.type):
            same = pc.or_(same, pc.fill_null(pc.and_(pc.is_nan(one), pc.is_nan(two)), False))
        mask = ~np.asarray(same.to_numpy(zero_copy_only=False), np.bool_)
    return mask if mask.any() else None


def sifted(
    new: pa.Table,
    content: Longs,
    ids: Mask | None,
    stay: pa.Table,
    settings: TopicSettings,
    twins: pa.Table,
) -> tuple[Mask, Counter[int], pa.Table]:
    """Which rows stay: only one whose id is another can be a duplicate that nobody saw before."""
    keep, duplicates = np.ones(new.num_rows, np.bool_), Counter[int]()
    if ids is None:
        return keep, duplicates, new.select(TWIN).slice(0, 0)
    known = pa.concat_tables([twins, stay.select(TWIN), new.filter(pa.array(~ids)).select(TWIN)])
    numbers = np.asarray(new.column("_lake_partition").to_numpy())
    for number in np.unique(numbers[ids]).tolist():
        at = np.flatnonzero(ids & (numbers == number))
        own = known.filter(pc.equal(known.column("_lake_partition"), number))
        rows = new.take(pa.array(at))
        seen = Seen(settings.dedup_window_us)
        seen.load(own.column("_event_id"), *times_of(own, settings))
        verdict = seen.sift(
            rows.column("_event_id"),
            *times_of(rows, settings),
            content[at],
            on_differing="keep" if settings.keep_differing else "drop",
        )
        keep[at] = verdict.keep
        duplicates[number] += verdict.duplicates
    return keep, duplicates, new.filter(pa.array(ids & keep)).select(TWIN)


def times_of(table: pa.Table, settings: TopicSettings) -> tuple[Longs, Mask]:
    """Event times, and whether each stands in for a missing one, as a worker sees it."""
    times = np.asarray(table.column("_event_time").cast(pa.int64()).to_numpy(), np.int64)
    return times, stands_in(table) if settings.timed else np.zeros(table.num_rows, np.bool_)


def _named(old: pa.Table, rows: pa.Table) -> pa.Table:
    both = pa.concat_tables([old.select(NAMED), rows.select(NAMED)])
    return both.group_by(NAMED).aggregate([]).select(NAMED)
