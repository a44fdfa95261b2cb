"""The ledger: per commit and lake partition, what was read and what became of it.

The laws here are kept by the worker before it asks; the API checks them again with code of its own. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from ingest.position import Position


class LawBroken(Exception):
    """A line does not add up. It is a defect, never a race: the topic stops and shows it."""


@dataclass(frozen=True, slots=True)
class Line:
    """One lake partition in one append. Counts are records; offsets have gaps, so they are counted, not subtracted.

    consumed + carried_in = written + duplicates + dead_letters + lost + carried_out
    """

    lake_partition: int
    from_version: str | None
    from_offset: int
    to_offset: int
    position: Position
    consumed: int = 0
    carried_in: int = 0
    written: int = 0
    duplicates: int = 0
    differing: int = 0  # of the duplicates: same id, other bytes
    dead_letters: int = 0
    lost: int = 0
    carried_out: int = 0
    late: int = 0  # of the written
    early: int = 0  # of the written: newer than the watermark, published for want of memory or log
    tombstones: int = 0  # of the written
    lost_ranges: list[tuple[int, int]] = field(default_factory=list)  # [from, to) offsets

    def broken_laws(self) -> Iterator[str]:
        """Each law that this line breaks, in words with figures; none for a sound line."""
        came = self.consumed + self.carried_in
        went = self.written + self.duplicates + self.dead_letters + self.lost + self.carried_out
        if came != went:
            yield (
                f"consumed + carried_in = {came}, "
                f"but written + duplicates + dead_letters + lost + carried_out = {went}"
            )
        if self.carried_out != len(self.position.carried):
            yield f"carried_out = {self.carried_out}, but the carried set has {len(self.position.carried)} offsets"
        if self.to_offset != self.position.next or self.to_offset < self.from_offset:
            yield f"range {self.from_offset} to {self.to_offset} does not end at next = {self.position.next}"
        if self.consumed > self.to_offset - self.from_offset:
            yield f"consumed = {self.consumed} of {self.to_offset - self.from_offset} offsets"
        if self.differing > self.duplicates or self.late > self.written or self.early > self.written:
            yield "a part is larger than its whole (differing, late or early)"

    def to_json(self) -> dict[str, Any]:
        """The line as a commit carries it."""
        data = asdict(self)
        data["position"] = self.position.to_commit()
        data["lost_ranges"] = [list(pair) for pair in self.lost_ranges]
        return data


def prove(topic: str, lines: Iterable[Line]) -> None:
    """Raises `LawBroken` with every broken law of the lines."""
    broken = [f"lake partition {line.lake_partition}: {law}" for line in lines for law in line.broken_laws()]
    if broken:
        raise LawBroken(f"the ledger of {topic} does not add up: {'; '.join(broken)}")
