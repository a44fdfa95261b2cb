"""The laws of the ledger, kept by the worker and checked here before anything is written. Pure: no I/O, no clock.

append:  consumed + carried_in = written + duplicates + dead_letters + lost + carried_out
chain:   a line starts where the last one of its lake partition ended, with the carried set that one left
carried: the carried set lies within the old set and the new range
never back: watermark, highest, published_to
files:   their rows are what the lines say was written; no name twice; under the topic's own folders

The numbers of `Line` are records, offsets are positions in the broker's log, times microseconds since 1970 UTC.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from pyroaring import BitMap

from api.file_laws import NewFile, broken, check_files
from api.times import format_time, format_time_or_none

CARRIED_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Position:
    """The state of one lake partition, as stored or as a line leaves it. `next` None: never committed."""

    next: int | None
    carried: BitMap  # distances below next
    highest_us: int | None
    watermark_us: int | None
    published_to_us: int | None
    version: UUID | None = None
    topic_id: str | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """What an append did in one lake partition."""

    lake_partition: int
    from_version: UUID | None
    from_offset: int
    to_offset: int
    consumed: int
    carried_in: int
    written: int
    duplicates: int
    differing: int
    dead_letters: int
    lost: int
    carried_out: int
    position: Position
    carried_bytes: bytes = b""
    late: int = 0
    early: int = 0
    tombstones: int = 0
    lost_ranges: Sequence[Sequence[int]] = ()


def check_append(
    lines: Sequence[Line],
    stored: Mapping[int, Position],
    files: Sequence[NewFile],
    *,
    topic: str,
    schema_version: int,
    period_us: int,
    used_urls: Collection[str] = (),
) -> None:
    """Raises LawBroken unless the append keeps every law. `stored`: by lake partition, one for each line.

    `schema_version` is the topic's newest; `used_urls` are those of the commit's own that some commit named before.
    """
    for line in lines:
        check_line(line, stored[line.lake_partition])
    check_append_files(
        lines, files, topic=topic, schema_version=schema_version, period_us=period_us, used_urls=used_urls
    )


def check_line(line: Line, stored: Position) -> None:
    """The laws of one line against the stored position of its lake partition."""
    after = line.position
    came = line.consumed + line.carried_in
    went = line.written + line.duplicates + line.dead_letters + line.lost + line.carried_out
    if came != went:
        broken("sum", line.lake_partition, came, went,
            f"consumed + carried_in = {came}, but written + duplicates + dead_letters + lost + carried_out = {went}",
        )  # fmt: skip
    if stored.next is not None and line.from_offset != stored.next:
        broken(
            "chain",
            line.lake_partition,
            stored.next,
            line.from_offset,
            "from_offset is not the stored position's next",
        )
    if line.to_offset < line.from_offset:
        broken(
            "offsets",
            line.lake_partition,
            line.from_offset,
            line.to_offset,
            "to_offset lies before from_offset",
        )
    if after.next != line.to_offset:
        broken(
            "offsets", line.lake_partition, line.to_offset, after.next, "the position's next is not to_offset"
        )
    if line.consumed > line.to_offset - line.from_offset:
        broken("consumed", line.lake_partition, line.to_offset - line.from_offset, line.consumed,
            "more records were consumed than the range has offsets",
        )  # fmt: skip
    if line.carried_in != len(stored.carried):
        broken(
            "carried_in",
            line.lake_partition,
            len(stored.carried),
            line.carried_in,
            "carried_in is not the stored carried set's",
        )
    if line.carried_out != len(after.carried):
        broken(
            "carried_out",
            line.lake_partition,
            len(after.carried),
            line.carried_out,
            "carried_out is not the size of `carried`",
        )
    if len(line.carried_bytes) > CARRIED_BYTES:
        broken(
            "carried_bytes",
            line.lake_partition,
            CARRIED_BYTES,
            len(line.carried_bytes),
            "the carried set is beyond 1 MiB",
        )
    _check_carried_within(line, stored)
    for name, before_us, after_us in (
        ("highest", stored.highest_us, after.highest_us),
        ("watermark", stored.watermark_us, after.watermark_us),
        ("published_to", stored.published_to_us, after.published_to_us),
    ):
        if before_us is not None and (after_us is None or after_us < before_us):
            broken(name, line.lake_partition, format_time(before_us), format_time_or_none(after_us), f"{name} went back"
            )  # fmt: skip
    if line.differing > line.duplicates:
        broken(
            "differing",
            line.lake_partition,
            line.duplicates,
            line.differing,
            "more differing duplicates than duplicates",
        )
    for name, count in (("late", line.late), ("early", line.early)):
        if count > line.written:
            broken(name, line.lake_partition, line.written, count, f"more {name} rows than rows written")
    if line.tombstones > line.written + line.dead_letters:
        broken(
            "tombstones",
            line.lake_partition,
            line.written,
            line.tombstones,
            "more tombstones than rows and dead letters",
        )
    _check_lost(line)


def _check_carried_within(line: Line, stored: Position) -> None:
    carried = line.position.carried
    if not carried:
        return
    if carried.min() < 1 or carried.max() > line.to_offset:
        broken("carried_within", line.lake_partition, [1, line.to_offset], [carried.min(), carried.max()],
            "a carried distance leads to no offset below next",
        )  # fmt: skip
    step = line.to_offset - line.from_offset
    older = carried.copy()
    if step > 0:
        older.remove_range(0, min(step, 2**32 - 1) + 1)
    if not older:
        return
    # A distance that the shift takes beyond 32 bits cannot be in the new set either.
    strangers = older - stored.carried.shift(step) if step < 2**32 else older
    if strangers:
        offset = line.to_offset - strangers.min()
        broken("carried_within", line.lake_partition, "an offset that was carried before or read now", offset,
            f"offset {offset} is carried, but was not carried before and is not in the range read now",
        )  # fmt: skip


def _check_lost(line: Line) -> None:
    end, length = 0, 0
    for start, stop in line.lost_ranges:
        if not end <= start < stop <= line.to_offset:
            broken("lost_ranges", line.lake_partition, f"ranges in order, below {line.to_offset}", [start, stop],
                "lost_ranges are not in order, overlap, are empty or lie beyond the position",
            )  # fmt: skip
        length, end = length + stop - start, stop
    if line.lost > length:
        broken("lost", line.lake_partition, length, line.lost, "more records are lost than lost_ranges name")


def check_append_files(
    lines: Sequence[Line],
    files: Sequence[NewFile],
    *,
    topic: str,
    schema_version: int,
    period_us: int,
    used_urls: Collection[str] = (),
) -> None:
    """The laws of an append's files: which there may be, where they lie, what their rows add up to."""
    kinds: set[tuple[str, bool]] = set()
    for file in files:
        kind = (file.what, file.late)
        if file.what == "deletes" or kind == ("dead_letters", True):
            broken(
                "files", None, "rows or dead_letters", file.what, f"an append has no such file: {file.what}"
            )
        if kind in kinds:
            broken("files", None, 1, 2, f"an append has one file of {file.what} (late: {file.late}) at most")
        kinds.add(kind)
        if file.newest_sequence is not None:
            broken("newest_sequence", None, None, file.newest_sequence, "the rows of an append are its own")
    check_files(files, topic=topic, schema_version=schema_version, period_us=period_us, used_urls=used_urls)
    for what in ("rows", "dead_letters"):
        said = sum(line.written if what == "rows" else line.dead_letters for line in lines)
        there = sum(file.rows for file in files if file.what == what)
        if said != there:
            law = "written" if what == "rows" else "dead_letters"
            broken(law, None, said, there, f"the lines say {said} {what}, the files have {there}")
