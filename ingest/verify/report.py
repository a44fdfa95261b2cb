"""What verify tells a person, and a program: progress, the table, the findings, what was proven, the last word."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ingest.printer import fitted
from ingest.verify.finding import Finding, Verdict, verdict

SHOWN = 20  # findings of one code and topic that are printed; --json has all

_LOOKED_AT = (
    "What was looked at: the commits, one after the other, and whether their ledger lines add up; every live"
    " object{which}: size, checksum, rows and footer against what was committed; the positions against the ledger's"
    " end; the ledger against the broker's log, where the broker still has it."
)
_DEEP = {
    True: " The rows were read: each offset at most once in the lake, and inside what its commit read.",
    False: " The rows themselves were not read: --deep does that.",
}


@dataclass(slots=True)
class Report:
    """One topic: what was looked at, as of which commit, and what was found."""

    topic: str
    epoch: str = ""
    sequence: int = 0
    commits: int = 0
    lines: int = 0
    files: int = 0
    rows: int = 0
    dead_letters: int = 0
    bytes: int = 0
    lost: int = 0
    behind: int | None = None  # offsets that no commit has, and records held back; None: not known
    orphans: int = 0
    deep_rows: int | None = None
    findings: list[Finding] = field(default_factory=list)

    def to_json(self, caught_up: bool) -> dict[str, Any]:
        """As `--json` prints it."""
        names = ("topic", "epoch", "sequence", "commits", "lines", "files", "rows", "dead_letters", "bytes", "lost",
                 "behind", "orphans", "deep_rows")  # fmt: skip
        said = {name: getattr(self, name) for name in names}
        said["verdict"] = verdict(self.findings, caught_up=caught_up)
        said["findings"] = [finding.to_json() for finding in self.findings]
        return said


def progress(console: Console) -> Progress:
    """Bars on a terminal; nothing elsewhere, and nothing stays."""
    return Progress(
        TextColumn("{task.description:<36}"), BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip


def as_json(reports: Iterable[Report], last: Verdict, stream: TextIO, **asked: Any) -> None:
    """One JSON object."""
    topics = [report.to_json(asked["caught_up"]) for report in reports]
    json.dump({"verdict": last, **asked, "topics": topics}, stream, indent=2)
    stream.write("\n")


def as_text(
    reports: list[Report], last: Verdict, console: Console, *, deep: bool, caught_up: bool, ranged: bool
) -> None:
    """Table, findings, what was proven. The last line is `complete` when all is right."""
    table = Table(box=box.SIMPLE_HEAVY)
    for name in (
        "topic",
        "as of commit",
        "commits",
        "files",
        "rows",
        "dead letters",
        "lost",
        "behind",
        "found",
    ):
        table.add_column(name, justify="left" if name in ("topic", "found") else "right")
    for report in reports:
        said = verdict(report.findings, caught_up=caught_up)
        grades = Counter(finding.grade for finding in report.findings)
        words = ", ".join(f"{count} {grade}" for grade, count in sorted(grades.items())) or "nothing"
        behind = "unknown" if report.behind is None else f"{report.behind:,}"
        figures = (
            report.sequence,
            report.commits,
            report.files,
            report.rows,
            report.dead_letters,
            report.lost,
        )
        colour = {"complete": "green", "wrong": "red", "unchecked": "yellow"}[said]
        table.add_row(report.topic, *(f"{figure:,}" for figure in figures), behind, Text(words, style=colour))
    console.print(fitted(table, console))
    for report in reports:
        _findings(report, console)
    which = " with rows of that time" if ranged else ""
    console.print(_LOOKED_AT.format(which=which) + _DEEP[deep], markup=False)
    console.print(_last_line(reports, last, caught_up), markup=False)


def _findings(report: Report, console: Console) -> None:
    shown: Counter[str] = Counter()
    order = {"damage": 0, "unchecked": 1, "behind": 2, "note": 3}
    for finding in sorted(report.findings, key=lambda finding: order[finding.grade]):
        shown[finding.code] += 1
        if shown[finding.code] <= SHOWN:
            # No wrapping: a line is to be found by grep, and an address to be copied.
            console.print(f"{finding.grade} ({finding.code}): {finding.line()}", markup=False, soft_wrap=True)
    for code, count in shown.items():
        if count > SHOWN:
            console.print(
                f"... and {count - SHOWN} more of {report.topic} ({code}); --json has all", markup=False
            )


def _last_line(reports: list[Report], last: Verdict, caught_up: bool) -> str:
    if last == "complete":
        return "complete"
    grades = ("damage", "behind") if caught_up else ("damage",)
    if last == "wrong":
        found = sum(finding.grade in grades for report in reports for finding in report.findings)
        return f"wrong: {found} findings"
    return "could not be checked, see above"
