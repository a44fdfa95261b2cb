"""A broker with one log per partition: transactions, retention, compaction, truncation, topics made again.

It keeps every record it ever took, so that the proof can ask what became of it. What it answers may be late; nothing
here fails, the way to it does (`worker.py`).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.simulation.events import Event, Record


@dataclass(slots=True)
class Log:
    """One partition. A marker of a transaction takes an offset and is no record."""

    start: int = 0
    end: int = 0
    records: dict[int, Record] = field(default_factory=dict)  # by offset; those that are still there
    open_transactions: dict[int, int] = field(default_factory=dict)  # transaction -> its first offset here

    @property
    def stable_end(self) -> int:
        return min(self.open_transactions.values(), default=self.end)

    def read(self, position: int, most: int) -> tuple[list[Record], int]:
        """Committed records from `position` on, and the position after them."""
        upto = min(self.stable_end, position + most)
        found = [self.records[offset] for offset in range(position, upto) if offset in self.records]
        return [record for record in found if not record.aborted], max(position, upto)


class Topic:
    """A topic in its present life, and the records of all its lives."""

    def __init__(self, name: str, partitions: int, now: Callable[[], float]) -> None:
        self.name = name
        self.life = 1
        self.partitions = partitions
        self.logs = [Log() for _ in range(partitions)]
        self.made: list[Record] = []  # the index of a record is its place here
        self.lost_tail: dict[int, int] = {}  # partition -> where its log was truncated
        self._now = now
        self._transactions: dict[int, list[Record]] = {}

    @property
    def id(self) -> str:
        return f"{self.name}-life-{self.life}"

    def append(self, partition: int, event: Event, transaction: int | None = None) -> None:
        log = self.logs[partition]
        now = self._now()
        readable_at = None if transaction is not None or log.open_transactions else now
        record = Record(len(self.made), self.life, partition, log.end, event, now, readable_at, transaction)
        self.made.append(record)
        log.records[log.end] = record
        if transaction is not None:
            log.open_transactions.setdefault(transaction, log.end)
            self._transactions.setdefault(transaction, []).append(record)
        log.end += 1

    def end_transaction(self, transaction: int, *, abort: bool) -> None:
        for record in self._transactions.pop(transaction, []):
            record.aborted = abort
        for log in self.logs:
            before = log.stable_end
            if log.open_transactions.pop(transaction, None) is not None:
                log.end += 1  # the marker
            for offset in range(before, log.stable_end):
                if offset in log.records:
                    log.records[offset].readable_at = self._now()

    @property
    def open_transactions(self) -> list[int]:
        return list(self._transactions)

    def delete_before(self, partition: int, offset: int, why: str) -> int:
        """Retention: the log now starts at `offset`. How many records went."""
        log = self.logs[partition]
        offset = min(offset, log.stable_end)
        gone = [log.records.pop(each) for each in range(log.start, offset) if each in log.records]
        log.start = max(log.start, offset)
        return self._gone(gone, why)

    def compact(self, partition: int, rng: random.Random, share: float) -> int:
        """Compaction: some older records are gone, the offsets of the others stay."""
        log = self.logs[partition]
        upto = max(log.start, log.stable_end - 3)
        chosen = [each for each in range(log.start, upto) if each in log.records and rng.random() < share]
        return self._gone([log.records.pop(each) for each in chosen], "compaction")

    def truncate(self, partition: int, offset: int) -> int:
        """An unclean election: what was at or after `offset` never was, for this broker."""
        log = self.logs[partition]
        gone = [log.records.pop(each) for each in range(offset, log.end) if each in log.records]
        log.end = offset
        log.start = min(log.start, offset)
        log.open_transactions = {}
        self.lost_tail[partition] = min(offset, self.lost_tail.get(partition, offset))
        return self._gone(gone, "truncation")

    def add_partition(self) -> None:
        self.partitions += 1
        self.logs.append(Log())

    def make_again(self) -> None:
        """Deleted, and made again under the same name: another id, empty logs."""
        for log in self.logs:
            self._gone(list(log.records.values()), "new life")
        self.life += 1
        self.logs = [Log() for _ in range(self.partitions)]
        self._transactions.clear()
        self.lost_tail.clear()

    def _gone(self, records: list[Record], why: str) -> int:
        for record in records:
            record.gone_at, record.gone_by = self._now(), why
        return len(records)
