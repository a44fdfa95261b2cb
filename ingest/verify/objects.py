"""The store against the catalogue: is each live object there, and is it the one that was committed?

Size and checksum come from the store's own word (a HEAD), row count, times, offsets and the ledger's lines from the
footer (the object's tail). Data is read only where the store keeps no checksum, and of that only so much.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import tenacity

from ingest.encode import FOOTER_KEY
from ingest.lake import Lake, LakeMissing, LakeUnavailable
from ingest.position import time_from_text
from ingest.verify.chain import Made, canonical, plain
from ingest.verify.finding import Finding

TAIL_BYTES = (
    64 << 10
)  # a footer is rarely longer; a smaller object is read whole, and its checksum proven by it
READ_BYTES = 256_000_000  # at most so much is read of objects that the store keeps no checksum of
PART_BYTES = 8 << 20
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

File = Mapping[str, Any]
In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(slots=True)
class Checked:
    """What was found of one object. `proven`: its bytes have the committed checksum, as far as the store can know."""

    file: File
    findings: list[Finding] = field(default_factory=list)
    proven: bool = False


def patient(act: Callable[[], Out]) -> Out:
    """Asks a store that does not answer a few times more. Raises `LakeUnavailable` then."""
    tries = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(LakeUnavailable),
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
        stop=tenacity.stop_after_attempt(5),
        reraise=True,
    )
    return tries(act)


def each(pool: Executor, work: Callable[[In], Out], items: Iterable[In], ahead: int = 64) -> Iterator[Out]:
    """`work` of each item, in order, in the pool's threads; never more than `ahead` are waiting."""
    rest = iter(items)
    running = [pool.submit(work, item) for item in islice(rest, ahead)]
    while running:
        done = running.pop(0)
        yield done.result()
        running.extend(pool.submit(work, item) for item in islice(rest, 1))


def check(
    lake: Lake, topic: str, file: File, made: Made | None, lines_of: Callable[[int], list[Mapping[str, Any]]]
) -> Checked:
    """Looks at one live object. `made` is what the ledger says of its commit, `lines_of` its lines in full."""
    checked = Checked(file)

    def damage(code: str, text: str, **where: Any) -> Checked:
        checked.findings.append(
            Finding("damage", code, topic, text, sequence=file["sequence"], file=file["url"], **where)
        )
        return checked

    try:
        size, sha256, tail = _seen(lake, file)
        if size != file["bytes"]:
            return damage("object_size", f"the object has {size} bytes, {file['bytes']} were committed")
        if sha256 not in (None, file["sha256"]):
            return damage("object_checksum", "its bytes are not those that were committed (SHA-256)")
        if not tail:
            tail = patient(lambda: lake.get(file["url"], max(0, size - TAIL_BYTES), size))
            needed = int.from_bytes(tail[-8:-4], "little") + 8
            if len(tail) < needed <= size:
                tail = patient(lambda: lake.get(file["url"], size - needed, size))
    except LakeMissing:
        return damage(
            "object_missing",
            f"the object is not in the store; {file['rows']} {file['what']} are gone: put it back from a copy of the "
            "bucket, or read its times from Kafka again (tukang topics backfill)",
        )
    checked.proven = sha256 is not None
    try:
        footer = pq.read_metadata(pa.BufferReader(tail))
    except (pa.ArrowInvalid, OSError) as error:
        return damage("footer", f"its Parquet footer cannot be read: {error}")
    if footer.num_rows != file["rows"]:
        damage("rows_missing", f"its footer has {footer.num_rows} rows, {file['rows']} were committed")
    for code, text, where in (
        *_wrong_statistics(footer, file, made), *_wrong_footer(footer, file, made, topic, lines_of)
    ):  # fmt: skip
        damage(code, text, **where)
    return checked


def _seen(lake: Lake, file: File) -> tuple[int, str | None, bytes]:
    """Size and SHA-256 of an object, and all its bytes if it is small: then they say both, in one request."""
    if file["bytes"] <= TAIL_BYTES:
        try:
            data = lake.get(file["url"], 0, file["bytes"] + 1)
        except LakeUnavailable:
            pass  # the store is away, or the object is empty: asked below
        else:
            if len(data) <= file["bytes"]:
                return len(data), hashlib.sha256(data).hexdigest(), data
    look = patient(lambda: lake.look(file["url"]))
    return look.bytes, look.sha256, b""


def right_bytes(lake: Lake, topic: str, file: File) -> Finding | None:
    """Reads an object whole and compares its checksum."""
    digest = hashlib.sha256()
    try:
        for start in range(0, file["bytes"], PART_BYTES):
            end = min(start + PART_BYTES, file["bytes"])
            digest.update(patient(lambda: lake.get(file["url"], start, end)))  # noqa: B023 -- called at once
    except LakeMissing:
        text = "the object is not in the store any more"
        return Finding("damage", "object_missing", topic, text, sequence=file["sequence"], file=file["url"])
    if digest.hexdigest() == file["sha256"]:
        return None
    text = "its bytes are not those that were committed (SHA-256)"
    return Finding("damage", "object_checksum", topic, text, sequence=file["sequence"], file=file["url"])


def worth_reading(files: Iterable[File]) -> tuple[list[File], int]:
    """Of objects without a checksum in the store: those that are read after all, and how many are not."""
    total, chosen, left = 0, [], 0
    for file in files:
        total += file["bytes"]
        if total <= READ_BYTES:
            chosen.append(file)
        else:
            left += 1
    return chosen, left


def orphans(lake: Lake, topic: str, named: set[str]) -> list[str]:
    """Objects of a topic that no commit ever named: put by a worker that did not come to its commit."""
    folders = ("fresh", "sealed", "dead_letters", "deletes")
    return sorted(url for folder in folders for url in lake.listing(f"{folder}/{topic}/") if url not in named)


_Wrong = Iterator[tuple[str, str, dict[str, Any]]]


def _wrong_statistics(footer: pq.FileMetaData, file: File, made: Made | None) -> _Wrong:
    """Event times and offsets by the statistics of the row groups."""
    names = {footer.schema.column(i).path: i for i in range(footer.num_columns)}
    times = "_timestamp" if file["what"] == "dead_letters" else "_event_time"
    low, high = _bounds(footer, names.get(times))
    for name, here in (("lowest", low), ("highest", high)):
        said = file["what"] != "deletes" or file[name] is not None
        if said and here is not None and here != time_from_text(file[name]):
            yield "footer", f"its {name} {times} is not the {file[name]} that was committed", {}
    if made is not None and made.spans:
        low, high = _bounds(footer, names.get("_offset"))
        lowest, end = min(span.lowest for span in made.spans), max(span.end for span in made.spans)
        if low is not None and high is not None and (low < lowest or high >= end):
            text = f"it has offsets {low} to {high}, its commit wrote some of {lowest} to {end - 1}"
            yield "row_outside", text, {"offsets": (low, high + 1)}


def _bounds(footer: pq.FileMetaData, column: int | None) -> tuple[int | None, int | None]:
    """Lowest and highest value of a column, times in microseconds; None where the statistics do not say."""
    lows, highs = [], []
    for group in range(footer.num_row_groups if column is not None else 0):
        found = footer.row_group(group).column(column).statistics
        if found is None:
            return None, None
        if found.has_min_max:
            lows.append(_number(found.min))
            highs.append(_number(found.max))
    return (min(lows), max(highs)) if lows else (None, None)


def _number(value: Any) -> int:
    return (value - _EPOCH) // timedelta(microseconds=1) if isinstance(value, datetime) else int(value)


def _wrong_footer(
    footer: pq.FileMetaData,
    file: File,
    made: Made | None,
    topic: str,
    lines_of: Callable[[int], list[Mapping[str, Any]]],
) -> _Wrong:
    """A footer carries its commit, and an append's its lines: what the ledger says now must be what was said then."""
    if made is None:
        return
    try:
        said = json.loads((footer.metadata or {})[FOOTER_KEY])
        commit, its_topic = said["commit"], said["topic"]
        lines = said["lines"] if made.kind == "append" else []
        same = made.kind != "append" or canonical(lines) == made.lines
    except (KeyError, TypeError, ValueError) as error:
        yield "footer", f"its footer does not name its commit: {error!r}", {}
        return
    if (its_topic, commit) != (topic, made.id):
        yield "footer", f"its footer names commit {commit} of topic {its_topic}, not {made.id}", {}
    elif not same:
        yield from _changed(lines, lines_of(file["sequence"]))


def _changed(then: Iterable[Mapping[str, Any]], now: Iterable[Mapping[str, Any]]) -> _Wrong:
    """What differs between the lines of a footer and those of the ledger."""
    before = {line["lake_partition"]: plain(line) for line in then}
    after = {line["lake_partition"]: plain(line) for line in now}
    for number in sorted(before.keys() | after.keys()):
        old, new = before.get(number), after.get(number)
        if old is None or new is None:
            text = "the ledger's line is not in the object's footer" if old is None else "a line was removed"
            known = old or new or {}
        else:
            known = old
            changes = [f"{name} {new[name]} (was {old[name]})" for name in old if old[name] != new[name]]
            text = f"the line was changed since it was committed: {', '.join(changes)}"
        if old != new:
            start, end = known["from_offset"], known["to_offset"]
            offsets = (start, end) if end > start else None
            yield "line_changed", text, {"lake_partition": number, "offsets": offsets}
