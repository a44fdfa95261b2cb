"""Findings: what verify has to say of a topic, and what follows from all of them. Pure.

A finding names what a person needs to look further: topic, lake partition, offsets, sequence, file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Grade = Literal["damage", "behind", "unchecked", "note"]
"""damage: something is wrong. behind: the source has what the ledger has not yet. unchecked: could not be looked at.
note: worth knowing, nothing is wrong."""

Verdict = Literal["complete", "wrong", "unchecked"]

EXIT: dict[Verdict, int] = {"complete": 0, "wrong": 1, "unchecked": 2}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found; `code` is from a closed list (docs/verify.md), `text` is a sentence for a person."""

    grade: Grade
    code: str
    topic: str
    text: str
    lake_partition: int | None = None
    offsets: tuple[int, int] | None = None  # [from, to)
    sequence: int | None = None
    file: str | None = None  # its s3:// address

    def to_json(self) -> dict[str, Any]:
        """Without what does not apply."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def line(self) -> str:
        """The finding in one line."""
        where = [self.topic]
        if self.lake_partition is not None:
            where.append(f"lake partition {self.lake_partition}")
        if self.offsets is not None:
            where.append(f"offsets {self.offsets[0]} to {self.offsets[1] - 1}")
        if self.sequence is not None:
            where.append(f"commit {self.sequence}")
        if self.file is not None:
            where.append(self.file)
        return f"{', '.join(where)}: {self.text}"


def verdict(findings: Iterable[Finding], *, caught_up: bool) -> Verdict:
    """What follows: damage outweighs what could not be checked. `caught_up`: being behind the source is wrong too."""
    grades = {finding.grade for finding in findings}
    if "damage" in grades or (caught_up and "behind" in grades):
        return "wrong"
    return "unchecked" if "unchecked" in grades else "complete"
