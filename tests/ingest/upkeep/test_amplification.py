"""How often upkeep writes a row: a day of a row a second, whose late ones trickle in all through the next day."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from ingest.upkeep.plan import LiveFile, PeriodState, SealRules, Work, plan

MINUTE = 60_000_000
DAY = 1440 * MINUTE
ROWS = 1_000  # a minute
LATE = 10  # a minute, of the day before: 1 %


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

    def add(self, rows: dict[int, int], *, sealed: bool = False) -> None:
        number = len(self.files) + self.sequence * 10_000
        total = sum(rows.values())
        periods = tuple((day * DAY, (day + 1) * DAY, count) for day, count in sorted(rows.items()))
        self.files[number] = LiveFile(
            number, f"{number}", self.sequence, total, total, "", sealed, periods, 1
        )

    def append(self, now: int) -> None:
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
            self.add(rest)


@pytest.mark.parametrize(("small", "most_times", "most_files"), [(1 << 30, 3.0, 202), (500, 2.1, 1_600)])
def test_a_row_is_written_less_than_three_times_although_one_in_a_hundred_is_late(
    small: int, most_times: float, most_files: int
) -> None:
    """Where all fresh files are small, and where only those of late rows are."""
    lake = Lake()
    most = 0
    for minute in range(5 * 1440):
        now = minute * MINUTE
        if minute < 3 * 1440:  # then nothing comes, and the last day is sealed too
            lake.append(now)
        while work := plan(list(lake.files.values()), lake.states(now), rules(small), now):
            lake.replace(work)
        most = max(most, sum(not file.sealed for file in lake.files.values()))
    assert sum(file.rows for file in lake.files.values()) == lake.appended
    assert lake.sealed >= {0, 1, 2}
    assert (lake.appended + lake.written) / lake.appended < most_times
    assert most <= most_files
