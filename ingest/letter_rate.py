"""How many of the records read lately became dead letters, and whether that is too many. Pure: time is an argument."""

from __future__ import annotations

from collections import deque

WINDOW_US = 300_000_000  # five minutes
SLOT_US = 15_000_000
LEAST = 10  # dead letters within the window; fewer are no alarm, whatever their share


class LetterRate:
    """Records and dead letters of the last five minutes, in slots of fifteen seconds, by the worker's clock."""

    def __init__(self) -> None:
        self._slots: deque[tuple[int, int, int]] = deque()  # slot, records, letters
        self.raised = False

    def add(self, now_us: int, records: int, letters: int) -> None:
        """Counts what a commit read."""
        slot = now_us // SLOT_US
        if self._slots and self._slots[-1][0] >= slot:
            last, records_before, letters_before = self._slots.pop()
            self._slots.append((last, records_before + records, letters_before + letters))
        else:
            self._slots.append((slot, records, letters))

    def counts(self, now_us: int) -> tuple[int, int]:
        """Records and dead letters of the window that ends now."""
        while self._slots and self._slots[0][0] <= (now_us - WINDOW_US) // SLOT_US:
            self._slots.popleft()
        return sum(slot[1] for slot in self._slots), sum(slot[2] for slot in self._slots)

    def share(self, now_us: int) -> float:
        """Dead letters of all records of the window; 0 when there is none."""
        records, letters = self.counts(now_us)
        return letters / records if records else 0.0

    def alarm(self, now_us: int, above: float) -> str | None:
        """What is wrong and what to do, when the share is above the limit; else None."""
        records, letters = self.counts(now_us)
        if letters < LEAST or letters <= above * records:
            return None
        return (
            f"{letters} of the {records} records of the last 5 min are dead letters"
            f" ({letters / records:.1%}, dead_letter_alarm is {above:.1%}): tukang dead-letters list says why"
        )
