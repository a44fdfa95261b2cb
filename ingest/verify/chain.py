"""The chain: commits and ledger lines of one topic in their order, and the laws that bind them. Pure.

Fed with every commit up to one sequence, it knows what must stand at the end: the positions, the live files, and of
each commit what its objects must say. The laws are those of the ledger; they stand here a third time on purpose,
because the worker that keeps them and the API that checks them may both be wrong.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ingest.position import Offsets, carried_from_text, no_offsets, time_from_text
from ingest.verify.finding import Finding, Grade
from ingest.verify.upkeep_laws import broken_laws

COUNTS = (
    "consumed", "carried_in", "written", "duplicates", "differing", "dead_letters", "lost", "carried_out",
    "late", "early", "tombstones",
)  # fmt: skip
_TIMES = ("highest", "watermark", "published_to")


@dataclass(slots=True)
class Link:
    """Where the last line of a lake partition left it."""

    version: str | None = None
    next: int | None = None
    carried: Offsets = field(default_factory=no_offsets)
    carried_text: str = ""
    times: dict[str, int | None] = field(default_factory=lambda: dict.fromkeys(_TIMES))
    topic_id: str | None = None
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Span:
    """The offsets that one line may have put into files: those it read or had carried, less those it carries on."""

    lake_partition: int
    start: int
    end: int
    lowest: int  # the lowest of them
    carried_in: str  # as in the position that the line starts from
    carried_out: str
    written: int
    dead_letters: int

    def holds(self, offsets: Offsets) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which of these offsets this line can have written."""
        read = (offsets >= self.start) & (offsets < self.end)
        had = np.isin(offsets, carried_from_text(self.carried_in, self.start))
        return (read | had) & ~np.isin(offsets, carried_from_text(self.carried_out, self.end))


@dataclass(frozen=True, slots=True)
class Made:
    """What the ledger says of one commit: its objects must say the same."""

    id: str
    kind: str
    lines: int  # hash of the canonical form of its lines
    spans: tuple[Span, ...]
    files: int


class Chain:
    """Takes commits in order and finds what breaks a law."""

    def __init__(self, topic: str, oldest: int) -> None:
        """`oldest`: the first sequence that is not folded; what lies before comes from `folded.begin`."""
        self.topic = topic
        self.links: dict[int, Link] = {}
        self.live: dict[int, dict[str, Any]] = {}  # files by id
        self.deletes: list[
            dict[str, Any]
        ] = []  # files that name rows which left: kept as long as the history
        self.urls: set[str] = set()  # every object that a commit ever named
        self.made: dict[int, Made] = {}
        self.lost: dict[int, int] = {}  # records lost at the source, by lake partition
        self.rows: Counter[int] = Counter()  # that are live, by lake partition: written, less what left
        self._sequence = oldest - 1

    def take(self, commit: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
        """One commit (as the feed shows it) with all its lines."""
        sequence, kind = commit["sequence"], commit["kind"]
        if sequence != self._sequence + 1:
            text = f"commits {self._sequence + 1} to {sequence - 1} are missing"
            yield self.damage("sequence_gap", text, sequence=sequence)
        self._sequence = sequence
        removed = [file for number in commit["remove"] if (file := self.live.pop(number, None))]
        if len(removed) < len(commit["remove"]):
            yield self.damage("live_set", "it removes files that were not live", sequence=sequence)
        yield from self._enter(commit)
        spans: list[Span] = []
        if kind == "append":
            if not lines:
                yield self.damage("ledger_line", "the commit has no line in the ledger", sequence=sequence)
            for line in lines:
                try:
                    link = link_of(line)
                except (TypeError, ValueError) as error:
                    text = f"the line has no position that can be read: {error}"
                    number = line["lake_partition"]
                    yield self.damage("ledger_line", text, sequence=sequence, lake_partition=number)
                    continue
                spans.append(self._span(line, link))
                yield from self._line(line, link)
                self.links[line["lake_partition"]] = link
                self.rows[line["lake_partition"]] += line["written"]
                if line["lost"]:
                    self.lost[line["lake_partition"]] = (
                        self.lost.get(line["lake_partition"], 0) + line["lost"]
                    )
            yield from self._sums(commit, lines)
        else:
            yield from self._upkeep(commit, lines, removed)
            for line in lines:
                self.rows[line["lake_partition"]] += line["rows_out"] - line["rows_in"]
        self.made[sequence] = Made(commit["id"], kind, canonical(lines), tuple(spans), len(commit["add"]))

    def end(self, head: int) -> Iterator[Finding]:
        """No commit follows: was the last one the head?"""
        if self._sequence != head:
            yield self.damage(
                "sequence_gap", f"commits {self._sequence + 1} to {head} are missing", sequence=head
            )

    def stands_at(self, partitions: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
        """The stored positions must be where the last lines left them."""
        known = set()
        for stored in partitions:
            number = stored["lake_partition"]
            known.add(number)
            link = self.links.get(number, Link())
            marks = (
                ("next", stored["next"], link.next),
                ("carried_count", stored["carried_count"], len(link.carried)),
                ("watermark", time_from_text(stored["watermark"]), link.times["watermark"]),
            )
            for name, here, there in marks:
                if here != there:
                    yield self.damage(
                        "position_moved",
                        f"the stored position has {name} = {here}, the ledger's last line leaves {there}",
                        lake_partition=number,
                        offsets=_offsets(*sorted((stored["next"] or 0, link.next or 0))),
                    )
        for number in sorted(self.links.keys() - known):
            text = "the ledger has lines of it, but no position is stored"
            yield self.damage("position_moved", text, lake_partition=number)

    def _line(self, line: Mapping[str, Any], after: Link) -> Iterator[Finding]:
        where: dict[str, Any] = {
            "lake_partition": line["lake_partition"],
            "sequence": line["sequence"],
            "offsets": _offsets(line["from_offset"], line["to_offset"]),
        }
        yield from chained(self, line, after)
        came = line["consumed"] + line["carried_in"]
        went = sum(line[name] for name in ("written", "duplicates", "dead_letters", "lost", "carried_out"))
        carried, length = after.carried, line["to_offset"] - line["from_offset"]
        lost_length = sum(end - start for start, end in line["lost_ranges"])
        laws = (
            (came == went, f"consumed + carried_in = {came}, but what became of them adds up to {went}"),
            (
                line["carried_out"] == len(carried),
                f"carried_out = {line['carried_out']} of {len(carried)} carried",
            ),
            (
                length >= 0 and line["to_offset"] == after.next,
                f"the range ends at {line['to_offset']}, next is {after.next}",
            ),
            (line["consumed"] <= length, f"consumed = {line['consumed']} of {length} offsets"),
            (
                not len(carried) or (carried[0] >= 0 and carried[-1] < line["to_offset"]),
                "an offset beyond next is carried",
            ),
            (line["lost"] <= lost_length, f"lost = {line['lost']}, its ranges have {lost_length} offsets"),
            (line["differing"] <= line["duplicates"], "more differing duplicates than duplicates"),
            (max(line["late"], line["early"]) <= line["written"], "more late or early rows than rows"),
        )
        for kept, text in laws:
            if not kept:
                yield self.damage("ledger_line", text, **where)

    def _sums(self, commit: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
        """What the lines say was written must be what the commit's files have."""
        where: dict[str, Any] = {"sequence": commit["sequence"]}
        if len(lines) == 1:
            where["lake_partition"] = lines[0]["lake_partition"]
            where["offsets"] = _offsets(lines[0]["from_offset"], lines[0]["to_offset"])
        for name, what, late in (
            ("written", "rows", None),
            ("late", "rows", True),
            ("dead_letters", "dead_letters", None),
        ):
            files = [
                each for each in commit["add"] if each["what"] == what and (late is None or each["late"])
            ]
            said, entered = sum(line[name] for line in lines), sum(file["rows"] for file in files)
            if said != entered:
                urls = ", ".join(file["url"] for file in files) or "none"
                text = f"its lines say {name} = {said}, its files of these have {entered} rows ({urls})"
                yield self.damage("sum_broken", text, **where)

    def _upkeep(
        self,
        commit: Mapping[str, Any],
        lines: Sequence[Mapping[str, Any]],
        removed: Sequence[Mapping[str, Any]],
    ) -> Iterator[Finding]:
        for number, text in broken_laws(commit["kind"], lines, commit["add"], removed):
            where: dict[str, Any] = {} if number is None else {"lake_partition": number}
            yield self.damage("sum_broken", f"{commit['kind']}: {text}", sequence=commit["sequence"], **where)

    def _enter(self, commit: Mapping[str, Any]) -> Iterator[Finding]:
        for file in commit["add"]:
            if file["url"] in self.urls:
                text = "the object is entered twice: its rows count twice"
                yield self.damage("entered_twice", text, sequence=commit["sequence"], file=file["url"])
            self.urls.add(file["url"])
            if file["what"] == "deletes":
                self.deletes.append(file)
            else:
                self.live[file["id"]] = file

    def _span(self, line: Mapping[str, Any], after: Link) -> Span:
        before = self.links.get(line["lake_partition"]) or Link()
        lowest = int(before.carried[0]) if len(before.carried) else line["from_offset"]
        return Span(
            line["lake_partition"], line["from_offset"], line["to_offset"], lowest,
            before.carried_text, after.carried_text, line["written"], line["dead_letters"],
        )  # fmt: skip

    def damage(self, code: str, text: str, **where: Any) -> Finding:
        grade: Grade = "damage"
        return Finding(grade, code, self.topic, text, **where)


def chained(chain: Chain, line: Mapping[str, Any], after: Link) -> Iterator[Finding]:
    """A line must start where the one before left its lake partition; `after` is where it leaves it."""
    where: dict[str, Any] = {
        "lake_partition": line["lake_partition"],
        "sequence": line["sequence"],
        "offsets": _offsets(line["from_offset"], line["to_offset"]),
    }
    before = chain.links.get(line["lake_partition"]) or Link()
    start = line["from_offset"]
    if line["from_version"] != before.version or before.next not in (None, start):
        text = (
            f"it starts at offset {start} of version {line['from_version']}, but the line before (commit"
            f" {before.sequence}) ends at {before.next} with {before.version}: lines between are missing, or one"
            " of the two was changed"
        )
        between = _offsets(*sorted((before.next or 0, start))) or where["offsets"]
        yield chain.damage("chain_broken", text, **{**where, "offsets": between})
    elif line["carried_in"] != len(before.carried):
        text = f"carried_in = {line['carried_in']}, but the line before leaves {len(before.carried)} carried"
        yield chain.damage("chain_broken", text, **where)
    strangers = np.setdiff1d(after.carried[after.carried < start], before.carried)
    if len(strangers):
        text = f"offset {strangers[0]} is carried, but was neither carried before nor read now"
        yield chain.damage("ledger_line", text, **where)
    for name in _TIMES:
        old, new = before.times[name], after.times[name]
        if old is not None and (new is None or new < old):
            yield chain.damage("ledger_line", f"{name} went back", **where)


def canonical(lines: Iterable[Mapping[str, Any]]) -> int:
    """A hash of ledger lines that is the same for the API's form and a footer's."""
    return hash(
        json.dumps(sorted(map(plain, lines), key=lambda line: int(line["lake_partition"])), sort_keys=True)
    )


def plain(line: Mapping[str, Any]) -> dict[str, Any]:
    """What the API and a footer both say of a line. The broker's topic id may be filled in later, so it is left out."""
    position = line["position"] or {}
    return {
        "lake_partition": line["lake_partition"],
        "from_version": line["from_version"],
        "from_offset": line["from_offset"],
        "to_offset": line["to_offset"],
        **{name: line[name] for name in COUNTS},
        "lost_ranges": [list(pair) for pair in line["lost_ranges"]],
        "next": position.get("next"),
        "carried": position.get("carried"),
        **{name: time_from_text(position.get(name)) for name in _TIMES},
    }


def link_of(line: Mapping[str, Any]) -> Link:
    """Where a line leaves its lake partition. Raises TypeError or ValueError when it does not say."""
    position = line["position"]
    if position is None or line["from_offset"] is None or line["to_offset"] is None:
        raise ValueError("it is empty")
    return Link(
        version=line["id"],
        next=position["next"],
        carried=carried_from_text(position["carried"], position["next"]),
        carried_text=position["carried"],
        times={name: time_from_text(position[name]) for name in _TIMES},
        topic_id=position.get("topic_id"),
        sequence=line["sequence"],
    )


def _offsets(start: int | None, end: int | None) -> tuple[int, int] | None:
    return None if start is None or end is None or end <= start else (start, end)
