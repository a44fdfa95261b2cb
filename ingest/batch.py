"""The batch: what a topic holds, when it is due, and the cut that becomes one commit.

Pure: time, ids and limits are arguments. A cut takes every ready row of its partitions, or lowers the watermark that it
stores to just before the oldest row left behind, so that no carried row is ever at or before a stored watermark.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from ingest import reorder
from ingest.conform import conform
from ingest.held import Held, Rows
from ingest.ledger import Line, prove
from ingest.position import MAX_CARRIED_BYTES, Position, carried_to_text
from ingest.reorder import Mask, Times
from ingest.schema import TopicSchema

MANY_CARRIED = 200_000  # offsets; fewer are never too large for a position (two bytes each at most)


@dataclass(frozen=True, slots=True)
class FlushRules:
    """When a topic's ready rows are due."""

    rows: int
    bytes: int
    age_us: int
    lateness_us: int


@dataclass(frozen=True, slots=True)
class Cut:
    """One commit's worth of a topic: what goes, decided; `tables` arranges it.

    `parts` stand in the order of lake partition and offset; `go` and `late` say of each of their rows whether it goes
    and whether it is flagged.
    """

    commit_id: str
    topic: str
    parts: tuple[Rows, ...]
    go: Mask
    late: Mask
    dead_parts: tuple[pa.Table, ...]
    lines: tuple[Line, ...]
    schema: TopicSchema

    def tables(self) -> tuple[pa.Table, pa.Table, pa.Table | None]:
        """Rows on time, late rows (flagged), dead letters; rows sorted by (event time, lake partition, offset).

        The heavy part of a cut, apart from it, because it needs nothing of what goes on being read meanwhile.
        """
        dead = pa.concat_tables(self.dead_parts) if self.dead_parts else None
        if not self.parts:
            empty = self.schema.arrow().empty_table()
            return empty, empty, dead
        everything = pa.concat_tables([conform(rows.table, self.schema) for rows in self.parts])
        # The parts' order makes a stable sort by time alone the whole order.
        order = np.argsort(np.concatenate([rows.times for rows in self.parts]), kind="stable")
        on_time = everything.take(pa.array(order[(self.go & ~self.late)[order]]))
        late = everything.take(pa.array(order[(self.go & self.late)[order]]))
        flags = pa.array(np.ones(late.num_rows, np.bool_))
        return on_time, late.set_column(late.schema.get_field_index("_late"), "_late", flags), dead

    def with_topic_id(self, topic_id: str | None) -> Cut:
        """The cut with the broker's topic id, asked for after its last fetch, in each position.

        None (the topic is gone, or the broker knows no ids): the one known stays, so that a later life is told from it.
        """
        if topic_id is None:
            return self
        lines = tuple(
            replace(line, position=replace(line.position, topic_id=topic_id)) for line in self.lines
        )
        return replace(self, lines=lines)


@dataclass(slots=True)
class _Share:
    """One lake partition's part in a cut while it is decided."""

    held: Held
    times: Times
    must: Mask
    go: Mask
    watermark_us: int | None


def due(helds: Iterable[Held], rules: FlushRules, idle: Mapping[int, bool], now_us: int) -> str | None:
    """Why the topic is due now (`rows`, `bytes`, `age`), or None. `idle` by lake partition."""
    ready = held_rows = held_bytes = dead_bytes = 0
    oldest_us: int | None = None
    for held in helds:
        rested = idle.get(held.base.lake_partition, False)
        ready += held.ready(rules.lateness_us, idle=rested)
        held_rows += sum(len(rows.times) for rows in held.rows)
        held_bytes += held.bytes
        dead_bytes += sum(table.nbytes for table in held.dead)
        since_us = held.dirty_since_us
        if since_us is None and rested and held.watermark(rules.lateness_us, idle=True) != held.watermark_us:
            since_us = held.quiet_since_us
        if since_us is not None and (oldest_us is None or since_us < oldest_us):
            oldest_us = since_us
    if ready >= rules.rows:
        return "rows"
    row_bytes = (held_bytes - dead_bytes) / held_rows if held_rows else 0.0
    if ready * row_bytes + dead_bytes >= rules.bytes:
        return "bytes"
    if oldest_us is not None and now_us - oldest_us >= rules.age_us:
        return "age"
    return None


def cut(
    topic: str,
    helds: Sequence[Held],
    schema: TopicSchema,
    rules: FlushRules,
    idle: Mapping[int, bool],
    commit_id: str,
    *,
    most_rows: int,
    early: Collection[int] = (),
) -> Cut | None:
    """Takes what is ready out of `helds`; None when nothing was read and nothing moved.

    `early`: lake partitions whose held-back rows go too (memory, or the log's start comes near): counted, and the
    position keeps the newest time published, so that later rows before it are flagged late. A lake partition whose
    carried records are still being read again takes no part.
    """
    helds = sorted(
        (held for held in helds if not len(held.awaited)), key=lambda held: held.base.lake_partition
    )
    shares = [_share(held, rules, early, idle) for held in helds]
    shares = [share for share in shares if _moved(share)]
    if not shares:
        return None
    _limit(shares, most_rows)
    parts = tuple(rows for share in shares for rows in share.held.rows)
    dead = tuple(table for share in shares for table in share.held.dead)
    late = [
        reorder.late(share.times, share.held.watermark_us, share.held.published_to_us) for share in shares
    ]
    lines = tuple(_line(share, commit_id) for share in shares)
    prove(topic, lines)
    return Cut(
        commit_id=commit_id,
        topic=topic,
        parts=parts,
        go=np.concatenate([share.go for share in shares]),
        late=np.concatenate(late),
        dead_parts=dead,
        lines=lines,
        schema=schema,
    )


def _share(held: Held, rules: FlushRules, early: Collection[int], idle: Mapping[int, bool]) -> _Share:
    times, stood_in = held.times(), held.stood_in()
    lake_partition = held.base.lake_partition
    watermark_us = held.watermark(rules.lateness_us, idle=idle.get(lake_partition, False))
    must = held.must_go(times, stood_in)
    all_go = lake_partition in early
    go = np.ones(len(times), np.bool_) if all_go else reorder.ready(times, watermark_us, must)
    if not all_go and _too_scattered(held, go):
        go = np.ones(len(times), np.bool_)
    return _Share(held, times, must, go, watermark_us)


def _too_scattered(held: Held, go: Mask) -> bool:
    """Whether the carried set would come near the size that the API takes: then the rows are published early."""
    if int((~go).sum()) < MANY_CARRIED:
        return False
    _, carried = held.left(go)
    return len(carried_to_text(carried, held.reached)) > MAX_CARRIED_BYTES // 2


def _moved(share: _Share) -> bool:
    held = share.held
    return held.dirty_since_us is not None or bool(share.go.any()) or share.watermark_us != held.watermark_us


def _limit(shares: list[_Share], most_rows: int) -> None:
    """Leaves the newest rows behind when more than `most_rows` would go, and lowers the watermarks accordingly."""
    going = sum(int(share.go.sum()) for share in shares)
    if going <= most_rows:
        return
    optional = [share.go & ~share.must for share in shares]
    budget = most_rows - sum(int((share.go & share.must).sum()) for share in shares)
    waiting = np.concatenate([share.times[mask] for share, mask in zip(shares, optional, strict=True)])
    last_us = reorder.oldest(waiting, budget) if 0 < budget < len(waiting) else None
    if last_us is None and budget > 0:
        return
    for share, mask in zip(shares, optional, strict=True):
        kept = mask & (share.times <= last_us) if last_us is not None else np.zeros_like(mask)
        left = share.times[mask & ~kept]
        share.go = (share.go & share.must) | kept
        share.watermark_us = reorder.lowered(share.watermark_us, share.held.watermark_us, left)


def _line(share: _Share, commit_id: str) -> Line:
    """The ledger line of one lake partition, which is moved on to its new base."""
    held, counts = share.held, share.held.counts
    kept, carried = held.left(share.go)
    early = share.go & ~share.must
    early &= share.times > share.watermark_us if share.watermark_us is not None else True
    published_to_us = held.published_to_us
    if early.any():
        published_to_us = reorder.highest_of(published_to_us, int(share.times[early].max()))
    is_late = share.go & reorder.late(share.times, held.watermark_us, held.published_to_us)
    position = Position(
        lake_partition=held.base.lake_partition,
        partition=held.base.partition,
        next=held.reached,
        carried=carried,
        highest_us=held.highest_us,
        watermark_us=share.watermark_us,
        published_to_us=published_to_us,
        topic_id=held.base.topic_id,
        version=commit_id,
    )
    line = Line(
        lake_partition=held.base.lake_partition,
        from_version=held.base.version,
        from_offset=held.first,
        to_offset=held.reached,
        position=position,
        consumed=counts.consumed,
        carried_in=held.carried_in,
        written=int(share.go.sum()),
        duplicates=counts.duplicates,
        differing=counts.differing,
        dead_letters=counts.dead_letters,
        lost=counts.lost,
        carried_out=len(carried),
        late=int(is_late.sum()),
        early=int(early.sum()),
        tombstones=_tombstones(held.rows, share.go),
        lost_ranges=_merged(counts.lost_ranges),
    )
    held.taken(position, kept)
    return line


def _tombstones(parts: list[Rows], go: Mask) -> int:
    """How many of the rows that go are tombstones."""
    start = total = 0
    for rows in parts:
        stones = np.asarray(rows.table.column("_tombstone").to_numpy(), dtype=np.bool_)
        total += int((stones & go[start : start + len(stones)]).sum())
        start += len(stones)
    return total


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges [from, to) in order, those that touch made one."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
