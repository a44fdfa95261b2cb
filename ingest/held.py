"""What a worker holds of one lake partition: rows read and not committed yet, and the counts of their ledger line.

Pure: chunks decoded elsewhere come in, a cut takes rows out (`ingest.batch`). No I/O, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingest import reorder
from ingest.dedup import Seen
from ingest.position import Offsets, Position
from ingest.reorder import Mask, Times


@dataclass(slots=True)
class Rows:
    """One decoded table with the columns that decide its way: times in microseconds, and who never waits."""

    table: pa.Table
    times: Times
    stood_in: Mask  # the time stands in for an event time: the row neither waits nor moves the watermark

    def filter(self, mask: Mask) -> Rows:
        """The rows where `mask` is true."""
        return Rows(self.table.filter(pa.array(mask)), self.times[mask], self.stood_in[mask])

    @property
    def offsets(self) -> Offsets:
        return np.asarray(self.table.column("_offset").to_numpy(), dtype=np.int64)


def stands_in(table: pa.Table) -> Mask:
    """Which rows' times stand in for an event time."""
    event = pc.equal(table.column("_time_from").cast(pa.string()), pa.scalar("event"))
    return ~np.asarray(event.to_numpy(), dtype=np.bool_)


@dataclass(slots=True)
class Counts:
    """The counts of a ledger line as they grow between two cuts (records)."""

    consumed: int = 0
    duplicates: int = 0
    differing: int = 0
    dead_letters: int = 0
    lost: int = 0
    lost_ranges: list[tuple[int, int]] = field(default_factory=list)


class Held:
    """The rows, dead letters and counts of one lake partition since its last cut.

    `base` is the position after the last cut; `next` the offset that will be read next. Carried records exist only in
    Kafka: after a start the ones of `base` are read again, `awaited` are those not seen yet.
    """

    def __init__(self, base: Position, start: int, seen: Seen, now_us: int) -> None:
        """`start`: the log's start for a lake partition that was never committed (which is no gap)."""
        self.base = base
        self.first = base.next if base.next is not None else start  # the line's from_offset
        self.carried_in = len(base.carried)
        self.awaited: Offsets = base.carried
        self.next = int(self.awaited[0]) if len(self.awaited) else self.first
        self.reached = (
            self.first
        )  # the line's to_offset: never below `first`, also while carried ones are read again
        self.highest_us = base.highest_us
        self.watermark_us = base.watermark_us
        self.published_to_us = base.published_to_us
        self.seen = seen
        self.rows: list[Rows] = []
        self.dead: list[pa.Table] = []
        self.counts = Counts()
        self.bytes = 0
        self.dirty_since_us: int | None = None
        self.quiet_since_us = now_us  # the worker's clock, when the highest record was read

    def wanted(self, offsets: Offsets) -> Mask | None:
        """Which of the records are to be taken: new ones and awaited ones. None: all of them."""
        if len(offsets) == 0 or (len(self.awaited) == 0 and offsets[0] >= self.reached):
            return None
        return (offsets >= self.reached) | np.isin(offsets, self.awaited)

    def add(
        self,
        table: pa.Table,
        dead: pa.Table,
        content: npt.NDArray[np.int64],
        stood_in: Mask,
        read: Offsets,
        next_offset: int,
        now_us: int,
        *,
        keep_differing: bool,
    ) -> list[str]:
        """Takes the decoded records of one chunk that starts at `self.next` and ends before `next_offset`.

        `read`: the offsets of all records taken, rows and dead letters alike. Returns the ids that flood.
        """
        self.counts.consumed += int((read >= self.reached).sum())
        if len(self.awaited):
            self._reread(read, next_offset)
        times = np.asarray(table.column("_event_time").cast(pa.int64()).to_numpy(), dtype=np.int64)
        moving = times[~stood_in]
        if len(moving) and (self.highest_us is None or int(moving.max()) > self.highest_us):
            self.highest_us = int(moving.max())
            self.quiet_since_us = now_us
        flooding: list[str] = []
        if len(times):
            verdict = self.seen.sift(
                table.column("_event_id"),
                times,
                stood_in,
                content,
                on_differing="keep" if keep_differing else "drop",
            )
            self.counts.duplicates += verdict.duplicates
            self.counts.differing += verdict.differing
            flooding = verdict.flooding
            rows = Rows(table, times, stood_in)
            if verdict.duplicates:
                rows = rows.filter(verdict.keep)
            if len(rows.times):
                self.rows.append(rows)
                self.bytes += rows.table.nbytes
        if dead.num_rows:
            self.dead.append(dead)
            self.counts.dead_letters += dead.num_rows
            self.bytes += dead.nbytes
        self._advance(next_offset, now_us)
        return flooding

    def settle(self, now_us: int) -> None:
        """Where it begins is to be committed although nothing was read: it was found by an operator's word (`end`, a
        time), which means another place later, and what came between would be read by nobody."""
        self.dirty_since_us = now_us

    def lose(self, start: int, end: int, now_us: int) -> None:
        """Offsets [start, end) are no longer in Kafka: the new ones and the awaited ones among them are lost."""
        gone = self.awaited[(self.awaited >= start) & (self.awaited < end)]
        self._lose_awaited(gone)
        first = max(start, self.reached)
        if end > first:
            self.counts.consumed += end - first
            self.counts.lost += end - first
            self.counts.lost_ranges.append((first, end))
        self._advance(max(end, self.next), now_us)

    def pass_over(self, next_offset: int, now_us: int) -> None:
        """A chunk that brought no record for us: only the position moves."""
        self._lose_awaited(self.awaited[self.awaited < next_offset])
        self._advance(next_offset, now_us)

    def committed(self, position: Position, window_us: int) -> None:
        """The last cut is in the lake: its topic id is known, and ids older than the window may go."""
        self.base = position
        if position.watermark_us is not None:
            self.seen.forget(position.watermark_us - window_us)

    def _reread(self, read: Offsets, next_offset: int) -> None:
        """Crosses off the awaited offsets that came, and counts those that a read past them did not bring."""
        left = self.awaited[~np.isin(self.awaited, read)]
        self.awaited = left
        self._lose_awaited(left[left < next_offset])

    def _lose_awaited(self, gone: Offsets) -> None:
        if len(gone):
            self.awaited = self.awaited[~np.isin(self.awaited, gone)]
            self.counts.lost += len(gone)
            self.counts.lost_ranges.extend((int(offset), int(offset) + 1) for offset in gone)

    def _advance(self, next_offset: int, now_us: int) -> None:
        moved = next_offset > self.reached
        self.next = next_offset
        self.reached = max(self.reached, next_offset)
        if (moved or self.counts.lost) and self.dirty_since_us is None:
            self.dirty_since_us = now_us

    def idle(self, end: int, confirmed_at_us: int, lateness_us: int) -> bool:
        """At the log's end, confirmed, and quiet for `lateness` by the worker's clock.

        `end`: high watermark, -1 where a hanging transaction hides records; never judged by a record's timestamp, so a
        backlog or an outage is never idle.
        """
        return (
            len(self.awaited) == 0
            and end >= 0
            and self.next >= end
            and confirmed_at_us - self.quiet_since_us >= lateness_us
        )

    def watermark(self, lateness_us: int, *, idle: bool) -> int | None:
        """The watermark that a cut would store now; the stored one while carried records are still read again."""
        if len(self.awaited):
            return self.watermark_us
        return reorder.watermark(self.highest_us, lateness_us, self.watermark_us, idle=idle)

    @property
    def row_count(self) -> int:
        """How many rows are held."""
        return sum(len(rows.times) for rows in self.rows)

    def times(self) -> Times:
        return np.concatenate([rows.times for rows in self.rows]) if self.rows else np.empty(0, np.int64)

    def stood_in(self) -> Mask:
        return np.concatenate([rows.stood_in for rows in self.rows]) if self.rows else np.empty(0, np.bool_)

    def oldest_ms(self) -> int | None:
        """The oldest record timestamp that is held, in milliseconds; None: none is known."""
        times = [pc.min(rows.table.column("_timestamp")).as_py() for rows in self.rows]
        known = [time for time in times if time is not None]
        return int(min(known).timestamp() * 1000) if known else None

    def ready(self, lateness_us: int, *, idle: bool) -> int:
        """How many rows would go out now."""
        watermark_us = self.watermark(lateness_us, idle=idle)
        return sum(
            int(reorder.ready(rows.times, watermark_us, self.must_go(rows.times, rows.stood_in)).sum())
            for rows in self.rows
        )

    def must_go(self, times: Times, stood_in: Mask) -> Mask:
        """Rows that never wait and are never left behind: late, stood in, or not newer than the stored watermark."""
        mask = stood_in | reorder.late(times, self.watermark_us, self.published_to_us)
        return mask if self.watermark_us is None else mask | (times <= self.watermark_us)

    def left(self, go: Mask) -> tuple[list[Rows], Offsets]:
        """The rows that stay when those of `go` leave, and the offsets that stay carried (ascending)."""
        kept: list[Rows] = []
        start = 0
        for rows in self.rows:
            stay = ~go[start : start + len(rows.times)]
            start += len(rows.times)
            if stay.all():
                kept.append(rows)
            elif stay.any():
                kept.append(rows.filter(stay))
        offsets = [rows.offsets for rows in kept] + [self.awaited]
        return kept, np.sort(np.concatenate(offsets))

    def taken(self, position: Position, kept: list[Rows]) -> None:
        """After a cut: `kept` is carried, `position` is the new base, the counts start anew."""
        self.base = position
        self.first = self.reached
        self.carried_in = len(position.carried)
        self.watermark_us = position.watermark_us
        self.published_to_us = position.published_to_us
        self.rows = kept
        self.dead = []
        self.counts = Counts()
        self.bytes = sum(rows.table.nbytes for rows in kept)
        self.dirty_since_us = None
