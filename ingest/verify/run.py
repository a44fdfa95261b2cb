"""`tukang verify`: the order of things. Each topic is pinned to one sequence, so workers may go on meanwhile."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.progress import Progress

from ingest.broker import BrokerAway, BrokerRefused
from ingest.catalog import CatalogRefused, CatalogUnavailable
from ingest.inquiry import HistoryFolded, Inquiry, TopicUnknown
from ingest.lake import Lake, LakeRefused, LakeUnavailable
from ingest.parties import broker_of
from ingest.position import time_from_text
from ingest.printer import printer
from ingest.settings import Settings
from ingest.verify import folded, objects, rows, source
from ingest.verify.chain import Chain
from ingest.verify.finding import EXIT, Finding, Verdict, verdict
from ingest.verify.objects import File
from ingest.verify.report import Report, as_json, as_text, progress

THREADS = 16

_AWAY = (CatalogRefused, CatalogUnavailable, LakeRefused, LakeUnavailable, BrokerRefused, BrokerAway)
# What a topic's state says that the ledger cannot say. The others are no sign that anything is missing.
_WRONG_STATES = ("refused", "truncated", "new_life", "gap")


class TimeWrong(Exception):
    """--from or --to is no time."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for on the command line."""

    deep: bool = False
    caught_up: bool = False
    start_us: int | None = None
    end_us: int | None = None

    def wants(self, file: File) -> bool:
        """Whether a file may hold rows of the range; dead letters of unknown time always."""
        low, high = time_from_text(file["lowest"]), time_from_text(file["highest"])
        if low is None or high is None:
            return True
        return (self.start_us is None or high >= self.start_us) and (self.end_us is None or low < self.end_us)


def verify(
    settings: Settings,
    topic: str | None = None,
    *,
    as_json: bool = False,
    deep: bool = False,
    start: str | None = None,
    end: str | None = None,
    caught_up: bool = False,
) -> int:
    """Checks one topic, or all; prints what it found. Returns 0 complete, 1 something is wrong, 2 could not check."""
    out, err = printer(sys.stdout), Console(stderr=True, highlight=False)
    try:
        asked = Asked(deep, caught_up, _time(start), _time(end))
        with _Checker(settings, asked) as checker, progress(err) as bars:
            reports = list(checker.check([topic] if topic else None, bars))
    except (*_AWAY, TopicUnknown, HistoryFolded, TimeWrong) as error:
        err.print(f"could not be checked: {error}", markup=False, soft_wrap=True)
        return EXIT["unchecked"]
    except KeyboardInterrupt:
        err.print("interrupted; nothing is proven")
        return EXIT["unchecked"]
    except Exception:
        # A defect of this program says nothing about the lake: never the exit code of damage.
        traceback.print_exc()
        return EXIT["unchecked"]
    last = verdict((finding for report in reports for finding in report.findings), caught_up=caught_up)
    _print(reports, last, asked, out, as_json)
    return EXIT[last]


def _print(reports: list[Report], last: Verdict, asked: Asked, out: Console, in_json: bool) -> None:
    if in_json:
        as_json(reports, last, sys.stdout, deep=asked.deep, caught_up=asked.caught_up)
    else:
        ranged = asked.start_us is not None or asked.end_us is not None
        as_text(reports, last, out, deep=asked.deep, caught_up=asked.caught_up, ranged=ranged)


def _time(text: str | None) -> int | None:
    """A time on the command line: ISO 8601, UTC unless it says otherwise; a date is its midnight."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise TimeWrong(f"{text!r} is no time: write it like 2026-01-31 or 2026-01-31T10:00:00Z") from None
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    return time_from_text(found.astimezone(UTC).isoformat())


class _Checker:
    """The parts that every topic is checked with."""

    def __init__(self, settings: Settings, asked: Asked) -> None:
        self._asked = asked
        self._settings = settings
        self._inquiry = Inquiry.of(settings)
        self._pool = ThreadPoolExecutor(THREADS)

    def __enter__(self) -> _Checker:
        settings = self._settings
        self._lake = Lake(
            settings.bucket, settings.prefix, endpoint=settings.s3_endpoint, connections=THREADS
        )
        self._lake.check()
        self._source = source.Source(broker_of(settings))
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._inquiry.close()

    def check(self, topics: list[str] | None, bars: Progress) -> Iterator[Report]:
        """Each topic in turn."""
        names = topics or [each["topic"] for each in self._inquiry.topics()]
        if not names:
            raise TopicUnknown(f"the API at {self._settings.api} knows no topic: there is nothing to check")
        for name in names:
            yield self._topic(name, bars)

    def _topic(self, name: str, bars: Progress) -> Report:
        # The broker first: what it has now must be in the ledger that is read afterwards.
        log = self._source.log(name)
        topic = self._inquiry.topic_as_of(name)
        report = Report(name, topic["epoch"], topic["sequence"])
        chain = self._chain(topic, report, bars)
        report.findings += _state(topic)
        report.findings += chain.stands_at(topic["partitions"])
        report.lost = sum(chain.lost.values())
        report.findings += self._live_set(topic, chain)
        files = [file for file in chain.live.values() if self._asked.wants(file)]
        report.files, report.bytes = len(files), sum(file["bytes"] for file in files)
        report.rows = sum(file["rows"] for file in files if file["what"] == "rows")
        report.dead_letters = sum(file["rows"] for file in files if file["what"] == "dead_letters")
        deletes = [file for file in chain.deletes if self._asked.wants(file)]
        found = self._objects(name, [*files, *deletes], chain, bars)
        if self._asked.deep:
            broken = {finding.file for finding in found if finding.code.startswith("object_")}
            whole = [file for file in files if file["url"] not in broken]
            found += self._rows(name, whole, chain, report, bars)
        report.findings += self._still_live(name, report.sequence, found)
        self._orphans(name, chain, report)
        self._compare(topic, log, chain, report)
        return report

    def _chain(self, topic: Mapping[str, Any], report: Report, bars: Progress) -> Chain:
        name, head = topic["topic"], topic["sequence"]
        oldest = self._inquiry.oldest(name)
        chain = Chain(name, oldest)
        if oldest > 1:
            lines = self._inquiry.lines(name, 0, oldest - 1)
            live = self._inquiry.files(name, oldest - 1, swept=True)
            report.findings += folded.begin(chain, lines, live)
        bar = bars.add_task(f"{name}: ledger", total=head - oldest + 1)
        lines = self._inquiry.lines(name, oldest - 1, head)
        line = next(lines, None)
        for commit in self._inquiry.commits(name, oldest - 1, head):
            own = []
            while line is not None and line["sequence"] <= commit["sequence"]:
                if line["sequence"] == commit["sequence"]:
                    own.append(line)
                else:
                    text = "the ledger has a line of a commit that the feed does not have"
                    number = line["lake_partition"]
                    report.findings.append(
                        Finding("damage", "chain_broken", name, text, number, None, line["sequence"])
                    )
                line = next(lines, None)
            report.findings += chain.take(commit, own)
            report.commits += 1
            report.lines += len(own)
            bars.advance(bar)
        report.findings += chain.end(head)
        return chain

    def _live_set(self, topic: Mapping[str, Any], chain: Chain) -> Iterator[Finding]:
        """The live files that loaders are told must be what the commits add up to."""
        name = topic["topic"]
        told = {file["id"]: file for file in self._inquiry.files(name, topic["sequence"])}
        for number in sorted(told.keys() ^ chain.live.keys()):
            file = told.get(number) or chain.live[number]
            text = "it is told to loaders as live, but no commit added it, or one removed it"
            if number not in told:
                text = "commits added it and none removed it, but loaders are not told of it"
            yield Finding("damage", "live_set", name, text, sequence=file["sequence"], file=file["url"])
        for what, figure in (("rows", "rows"), ("dead_letters", "dead_letters")):
            here = sum(file["rows"] for file in told.values() if file["what"] == what)
            if here != topic[figure]:
                text = f"the topic says {topic[figure]} live {what}, its live files have {here}"
                yield Finding("damage", "live_set", name, text)
        live = sum(file["rows"] for file in told.values() if file["what"] == "rows")
        if live != chain.rows.total():
            text = f"by the ledger {chain.rows.total()} rows are live, the live files have {live}"
            yield Finding("damage", "live_set", name, text)

    def _objects(self, name: str, files: Sequence[File], chain: Chain, bars: Progress) -> list[Finding]:
        found: list[Finding] = []
        bare: list[File] = []
        bar = bars.add_task(f"{name}: objects", total=len(files))

        def lines_of(sequence: int) -> list[Mapping[str, Any]]:
            return list(self._inquiry.lines(name, sequence - 1, sequence))

        def check(file: File) -> objects.Checked:
            return objects.check(self._lake, name, file, chain.made.get(file["sequence"]), lines_of)

        for checked in objects.each(self._pool, check, files):
            found += checked.findings
            if not checked.proven and not checked.findings and not self._asked.deep:
                bare.append(checked.file)
            bars.advance(bar)
        chosen, left = objects.worth_reading(bare)
        read: Callable[[File], Finding | None] = lambda file: objects.right_bytes(self._lake, name, file)  # noqa: E731
        found += [finding for finding in objects.each(self._pool, read, chosen) if finding is not None]
        if left:
            text = f"the store keeps no checksum of {left} objects: their bytes are proven by --deep only"
            found.append(Finding("note", "no_checksum", name, text))
        return found

    def _rows(
        self, name: str, files: Sequence[File], chain: Chain, report: Report, bars: Progress
    ) -> list[Finding]:
        places = rows.Places(chain)
        found: list[Finding] = []
        bar = bars.add_task(f"{name}: rows", total=len(files))
        for read in objects.each(self._pool, lambda file: rows.read(self._lake, name, file), files, ahead=4):
            found += places.take(read)
            bars.advance(bar)
        everything = len(files) == len(chain.live)
        found += places.end(chain.rows if everything else None)
        report.deep_rows = places.rows
        return found

    def _still_live(self, name: str, sequence: int, found: list[Finding]) -> list[Finding]:
        """An object that left the live set meanwhile may rightly be gone."""
        missing = {finding.file for finding in found if finding.code == "object_missing"}
        if not missing:
            return found
        head = self._inquiry.topic(name)["sequence"]
        live = {file["url"] for file in self._inquiry.files(name, head)} if head > sequence else missing
        return [each for each in found if each.code != "object_missing" or each.file in live]

    def _orphans(self, name: str, chain: Chain, report: Report) -> None:
        """Objects that no commit names are not in the lake: said, not damage. The sweep deletes them."""
        urls = objects.orphans(self._lake, name, chain.urls)
        # What was committed after the pinned sequence is no orphan.
        head = self._inquiry.topic(name)["sequence"] if urls else report.sequence
        for commit in self._inquiry.commits(name, report.sequence, head):
            named = {file["url"] for file in commit["add"]}
            urls = [url for url in urls if url not in named]
        report.orphans = len(urls)
        text = "no commit names this object, so it is not in the lake; the sweep deletes it when it is old enough"
        report.findings += [Finding("note", "orphan", name, text, file=url) for url in urls]

    def _compare(
        self, topic: Mapping[str, Any], log: source.Log | None, chain: Chain, report: Report
    ) -> None:
        name, partitions = topic["topic"], topic["partitions"]
        beyond = {}
        for each in partitions:
            ends = log.ends.get(each["broker_partition"]) if log else None
            if each["open"] and ends is not None and each["next"] is not None and ends.end < each["next"]:
                beyond[each["broker_partition"]] = each["next"]
        behind = self._source.behind(name, beyond)
        found = list(source.compare(name, log, chain.links, partitions, behind))
        report.findings += found
        if log is not None and not any(finding.grade == "unchecked" for finding in found):
            report.behind = sum(_length(finding, chain) for finding in found if finding.grade == "behind")


def _length(finding: Finding, chain: Chain) -> int:
    """Records that a finding of the grade `behind` stands for."""
    if finding.code == "held_back" and finding.lake_partition is not None:
        return len(chain.links[finding.lake_partition].carried)
    return finding.offsets[1] - finding.offsets[0] if finding.offsets else 0


def _state(topic: Mapping[str, Any]) -> Iterator[Finding]:
    """What only the worker knows: a topic that was stopped, and records that the source lost."""
    if topic["state"] in _WRONG_STATES:
        text = f"the topic's state is {topic['state']}: {topic['reason']}. {topic['todo'] or ''}".strip()
        yield Finding("damage", topic["state"], topic["topic"], text)
