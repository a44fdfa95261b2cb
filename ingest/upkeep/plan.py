"""What to seal now: which files become which, decided from the live files and the periods alone. Pure.

A period is sealed when it is complete. One that was reopened waits, the longer the more often it was sealed, so that a
trickle of late rows does not rewrite it again and again: its new rows become an additional file that is compared with
the big ones and leaves them where they are, until additions pass a tenth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ingest.position import time_from_text

ADDITIONS = 0.1  # of a period's first sealed rows: beyond, everything is merged
LONGEST_WAIT_DOUBLINGS = 7
TOO_MANY = 50  # times as many fresh files: then those that are not small are merged too

State = Literal["open", "complete", "sealed", "reopened"]


@dataclass(frozen=True, slots=True)
class LiveFile:
    """A live file of rows, as the API lists it."""

    id: int
    url: str
    sequence: int
    rows: int
    bytes: int
    sha256: str
    sealed: bool
    merged: bool  # by upkeep, of files of periods that were not sealed yet
    periods: tuple[tuple[int, int, int], ...]  # start, end, rows
    schema_version: int

    @classmethod
    def from_json(cls, topic: str, file: Mapping[str, Any], period_us: int) -> LiveFile:
        """A file of the answer of `GET /v1/topics/{topic}/files`."""
        periods = []
        for period in file["periods"]:
            start = time_from_text(period["start"])
            end = time_from_text(period.get("end"))
            assert start is not None
            periods.append((start, start + period_us if end is None else end, int(period["rows"])))
        return cls(
            id=file["id"],
            url=file["url"],
            sequence=file["sequence"],
            rows=file["rows"],
            bytes=file["bytes"],
            sha256=file["sha256"],
            sealed=f"sealed/{topic}/" in file["url"],
            merged=file["kind"] == "replace" and f"fresh/{topic}/" in file["url"],
            periods=tuple(periods),
            schema_version=file["schema_version"],
        )

    def overlaps(self, start: int, end: int) -> bool:
        """Whether it may have rows of [start, end)."""
        return any(first < end and last > start for first, last, _ in self.periods)

    def rows_of(self, start: int, end: int) -> int:
        """Its rows of [start, end), at most."""
        return sum(rows for first, last, rows in self.periods if first < end and last > start)


@dataclass(frozen=True, slots=True)
class PeriodState:
    """A period as the API answers it; `reopened_us`: when the first row came that reopened it."""

    start: int
    state: State
    reopened_us: int | None = None


@dataclass(frozen=True, slots=True)
class SealRules:
    """Times in microseconds, sizes in bytes."""

    period_us: int
    grace_us: int
    most_bytes: int  # merged at once; one period is always taken whole
    most_files: int  # merged at once: each takes memory; a period with more is made fewer first
    full_bytes: int  # of a file that merging makes no fewer
    most_fresh: int  # small fresh files, before those of periods still open are merged too
    small_bytes: (
        int  # of a fresh file: a larger one waits for its period, else its rows are written once more
    )


@dataclass(frozen=True, slots=True)
class Work:
    """One replace: `merge` leaves, `beside` is compared and stays, `periods` (starts) are sealed by it."""

    periods: tuple[int, ...]
    merge: tuple[LiveFile, ...]
    beside: tuple[LiveFile, ...]


def plan(
    files: Sequence[LiveFile], periods: Iterable[PeriodState], rules: SealRules, now_us: int
) -> Work | None:
    """The next replace of a topic, oldest periods first; None: nothing is due."""
    chosen: list[int] = []
    merge: dict[int, LiveFile] = {}
    beside: dict[int, LiveFile] = {}
    for period in sorted(periods, key=lambda each: each.start):
        start, end = period.start, period.start + rules.period_us
        own = [file for file in files if file.overlaps(start, end)]
        if not _due(period, own, rules, now_us):
            continue
        whole = _merges_whole(own, start, end)
        more = {file.id: file for file in own if not file.sealed or whole}
        taken = {**merge, **more}
        if chosen and (
            sum(file.bytes for file in taken.values()) > rules.most_bytes or len(taken) > rules.most_files
        ):
            break
        if not chosen and len(more) > rules.most_files and (some := _some(more.values(), rules)):
            return Work((), some, ())
        chosen.append(start)
        merge |= more
        beside |= {file.id: file for file in own if file.id not in more}
    if not chosen:
        fresh = [file for file in files if not file.sealed]
        small = [file for file in fresh if file.bytes < rules.small_bytes]
        # Those that were merged once are merged again only where they are many themselves.
        once, again = [[file for file in small if file.merged is merged] for merged in (False, True)]
        many = max(once, again, key=len)
        if len(fresh) > rules.most_fresh * TOO_MANY:
            many = fresh
        if len(many) <= rules.most_fresh:
            return None
        merge = {file.id: file for file in _alike(many, rules)}
    kept = tuple(file for file in beside.values() if file.id not in merge)
    return Work(tuple(chosen), tuple(merge.values()), kept)


def _some(files: Iterable[LiveFile], rules: SealRules) -> tuple[LiveFile, ...]:
    """Fresh files that merging makes fewer, as many as one merge takes, the smallest first; none: there are too few."""
    taken = _smallest([file for file in files if not file.sealed and file.bytes < rules.full_bytes], rules)
    return tuple(taken) if len(taken) > 1 else ()


def _due(period: PeriodState, own: Sequence[LiveFile], rules: SealRules, now_us: int) -> bool:
    if period.state == "complete":
        return bool(own)
    if period.state != "reopened" or period.reopened_us is None or not own:
        return False
    times_sealed = len({file.sequence for file in own if file.sealed})
    wait_us = rules.grace_us * 2 ** min(times_sealed, LONGEST_WAIT_DOUBLINGS)
    return bool(now_us >= period.reopened_us + wait_us)


def _merges_whole(own: Sequence[LiveFile], start: int, end: int) -> bool:
    """Whether the period's sealed files are merged too, because what came after the first sealing passed a tenth."""
    sealed = [file for file in own if file.sealed]
    if not sealed:
        return False
    first = min(file.sequence for file in sealed)
    base = sum(file.rows_of(start, end) for file in sealed if file.sequence == first)
    added = sum(file.rows_of(start, end) for file in own if not file.sealed or file.sequence != first)
    return added > base * ADDITIONS


def _alike(files: Sequence[LiveFile], rules: SealRules) -> list[LiveFile]:
    """The small files of the same periods, without those that are themselves as large as many of them.

    Else what was merged before would be merged again each time; and late rows of a sealed period would get into one
    file with those of an open one, and take them along whenever their own period is sealed again.
    """
    groups: dict[tuple[int, ...], list[LiveFile]] = {}
    for file in files:
        groups.setdefault(tuple(start for start, _, _ in file.periods), []).append(file)
    most = max(groups.values(), key=len)
    chosen = most if len(most) > rules.most_fresh // 2 else files
    return _smallest(chosen, rules, enough=max(2, rules.most_fresh // 2))


def _smallest(files: Iterable[LiveFile], rules: SealRules, *, enough: float = math.inf) -> list[LiveFile]:
    """As many as one merge takes, the smallest first; after `enough`, none that is half as large as all before it."""
    taken: list[LiveFile] = []
    size = 0
    for file in sorted(files, key=lambda each: each.bytes):
        full = len(taken) >= 2 and (size + file.bytes > rules.most_bytes or len(taken) == rules.most_files)
        if full or (len(taken) >= enough and file.bytes * 2 > size):
            break
        size += file.bytes
        taken.append(file)
    return taken
