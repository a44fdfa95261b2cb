"""How often a row is written: days with a commit a minute, whose late rows trickle in all through the next day."""

from __future__ import annotations

from dataclasses import dataclass, field

from ingest.upkeep.plan import LiveFile, PeriodState, SealRules, Work, plan

MINUTE = 60_000_000
DAY = 1440 * MINUTE
ROWS = 1_000  # of a commit
LATE = 10  # of a commit, of the day before: 1 %


def rules(small_bytes: int) -> SealRules:
    return SealRules(
        period_us=DAY,
        grace_us=15 * MINUTE,
        most_bytes=1 << 40,
        most_files=5_000,
        full_bytes=1 << 40,
        most_fresh=200,
        small_bytes=small_bytes,
    )


@dataclass
class Lake:
    """Live files, and what the API would say of the periods. A row is a byte."""

    files: dict[int, LiveFile] = field(default_factory=dict)
    sealed: set[int] = field(default_factory=set)
    reopened: dict[int, int] = field(default_factory=dict)
    sequence: int = 0
    appended: int = 0
    written: int = 0  # by upkeep

    def add(self, rows: dict[int, int], *, sealed: bool = False, merged: bool = False) -> None:
        number = len(self.files) + self.sequence * 10_000
        total = sum(rows.values())
        periods = tuple((day * DAY, (day + 1) * DAY, count) for day, count in sorted(rows.items()))
        self.files[number] = LiveFile(
            number, f"{number}", self.sequence, total, total, "", sealed, merged, periods, 1
        )

    def append(self, now: int) -> None:
        """A commit of rows of today, and of late ones of the day before."""
        day = now // DAY
        self.sequence += 1
        self.add({day: ROWS})
        self.appended += ROWS
        if day:
            self.add({day - 1: LATE})
            self.appended += LATE
            if day - 1 in self.sealed:
                self.reopened.setdefault(day - 1, now)

    def states(self, now: int) -> list[PeriodState]:
        found = []
        for day in range(now // DAY + 1):
            if day in self.reopened:
                found.append(PeriodState(day * DAY, "reopened", self.reopened[day]))
            elif day in self.sealed:
                found.append(PeriodState(day * DAY, "sealed"))
            else:
                found.append(PeriodState(day * DAY, "complete" if day < now // DAY else "open"))
        return found

    def replace(self, work: Work) -> None:
        self.sequence += 1
        rest: dict[int, int] = {}
        into = {start // DAY: 0 for start in work.periods}
        for file in work.merge:
            del self.files[file.id]
            self.written += file.rows
            for start, _, rows in file.periods:
                share = into if start // DAY in into else rest
                share[start // DAY] = share.get(start // DAY, 0) + rows
        for day, rows in into.items():
            if rows:
                self.add({day: rows}, sealed=True)
            self.sealed.add(day)
            self.reopened.pop(day, None)
        if rest:
            self.add(rest, merged=True)


@dataclass(frozen=True, slots=True)
class Played:
    """What three days of a topic came to."""

    times: float  # that a row was written, by worker and upkeep
    most_fresh: int  # files that are not sealed, at once
    lake: Lake


def played(small_bytes: int, every_us: int = MINUTE) -> Played:
    """Three days with a commit each `every_us`, and two more in which the last day is sealed, by upkeep's planner.

    `small_bytes`: fresh files below it are merged before their period is complete, where they are many.
    """
    lake = Lake()
    most = 0
    for now in range(0, 5 * DAY, every_us):
        if now < 3 * DAY:  # then nothing comes, and the last day is sealed too
            lake.append(now)
        while work := plan(list(lake.files.values()), lake.states(now), rules(small_bytes), now):
            lake.replace(work)
        most = max(most, sum(not file.sealed for file in lake.files.values()))
    return Played((lake.appended + lake.written) / lake.appended, most, lake)
