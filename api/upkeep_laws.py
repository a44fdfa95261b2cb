"""The laws of the commits that upkeep makes: what leaves the live set and what comes, row by row accounted for. Pure.

replace: rows_in = rows_out + duplicates, dead letters stay
rewrite: rows_in + dead_in + restored = rows_out + dead_out + duplicates + lost
erase:   rows_in + dead_in = rows_out + dead_out + erased
expire:  rows_in + dead_in = expired

`rows_in` and `dead_in` are the rows of the files that leave, `rows_out` and `dead_out` of those that come. `deletes`
files name the rows that a loader takes away: all that left for good; in a rewrite all that leave and all that come.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from api.file_laws import NewFile, broken, check_files

# What a commit may add and remove at most; more is several commits.
MOST_ADDED = 1_000
MOST_REMOVED = 100_000


@dataclass(frozen=True, slots=True)
class UpkeepLine:
    """What a commit of upkeep did to the rows of one lake partition, in records."""

    lake_partition: int
    rows_in: int = 0
    rows_out: int = 0
    dead_in: int = 0
    dead_out: int = 0
    duplicates: int = 0
    restored: int = 0
    lost: int = 0
    erased: int = 0
    expired: int = 0
    from_offset: int | None = None
    to_offset: int | None = None


@dataclass(frozen=True, slots=True)
class LeavingFile:
    """A live file that a commit removes, or stands beside. `periods` as in NewFile."""

    id: int
    what: str
    rows: int
    sealed: bool
    newest_sequence: int


# Which counts a kind of commit may have beside rows and dead letters in and out.
COUNTS = {
    "replace": {"duplicates"},
    "rewrite": {"duplicates", "restored", "lost"},
    "erase": {"erased"},
    "expire": {"expired"},
}


def check_upkeep(
    kind: str,
    lines: Sequence[UpkeepLine],
    files: Sequence[NewFile],
    remove: Sequence[LeavingFile],
    beside: Sequence[LeavingFile] = (),
    *,
    topic: str,
    schema_version: int,
    period_us: int,
    used_urls: Collection[str] = (),
) -> None:
    """Raises LawBroken unless the commit keeps every law of its kind. `remove`: the live files that leave.

    `beside`: those that were read and relied on, and stay.
    """
    if any(file.what == "deletes" for file in [*remove, *beside]):
        broken(
            "remove", None, "rows or dead_letters", "deletes", "a deletes file stays as long as the history"
        )
    for line in lines:
        _check_line(kind, line)
    if kind == "expire" and any(file.what != "deletes" for file in files):
        broken("files", None, "deletes", "rows", "an expire adds no rows")
    if kind != "replace" and not remove and not any(line.restored for line in lines):
        broken("remove", None, "files that leave", 0, f"a commit of kind {kind} removes files")
    check_files(
        files,
        topic=topic,
        schema_version=schema_version,
        period_us=period_us,
        used_urls=used_urls,
        seals=kind in ("replace", "erase"),
    )
    _check_sums(kind, lines, files, remove)
    _check_deletes(kind, lines, files)
    _check_newest(kind, files, remove)


def _check_line(kind: str, line: UpkeepLine) -> None:
    for name in ("duplicates", "restored", "lost", "erased", "expired"):
        if getattr(line, name) and name not in COUNTS[kind]:
            broken(
                name, line.lake_partition, 0, getattr(line, name), f"a commit of kind {kind} has no {name}"
            )
    came = line.rows_in + line.dead_in + line.restored
    went = line.rows_out + line.dead_out + line.duplicates + line.lost + line.erased + line.expired
    if came != went:
        broken(
            "sum",
            line.lake_partition,
            came,
            went,
            f"{came} records came into the {kind}, {went} went out of it",
        )
    if kind == "replace" and line.dead_in != line.dead_out:
        broken(
            "dead_out", line.lake_partition, line.dead_in, line.dead_out, "a replace keeps every dead letter"
        )
    if kind == "erase" and (line.rows_out > line.rows_in or line.dead_out > line.dead_in):
        broken("sum", line.lake_partition, line.rows_in, line.rows_out, "an erase turns nothing into rows")


def _check_sums(
    kind: str, lines: Sequence[UpkeepLine], files: Sequence[NewFile], remove: Sequence[LeavingFile]
) -> None:
    for name, said, there in (
        ("rows_in", sum(line.rows_in for line in lines), sum(f.rows for f in remove if f.what == "rows")),
        (
            "dead_in",
            sum(line.dead_in for line in lines),
            sum(f.rows for f in remove if f.what == "dead_letters"),
        ),
        ("rows_out", sum(line.rows_out for line in lines), sum(f.rows for f in files if f.what == "rows")),
        (
            "dead_out",
            sum(line.dead_out for line in lines),
            sum(f.rows for f in files if f.what == "dead_letters"),
        ),
    ):
        if said != there:
            broken(
                name,
                None,
                there,
                said,
                f"the lines of the {kind} say {name} = {said}, the files have {there}",
            )


def _check_deletes(kind: str, lines: Sequence[UpkeepLine], files: Sequence[NewFile]) -> None:
    there = sum(file.rows for file in files if file.what == "deletes")
    rows_in, rows_out = sum(line.rows_in for line in lines), sum(line.rows_out for line in lines)
    if kind == "rewrite":
        # The identities of both, each once: kept rows have the same in both.
        if not max(rows_in, rows_out) <= there <= rows_in + rows_out:
            broken(
                "deletes", None, [max(rows_in, rows_out), rows_in + rows_out], there,
                "the deletes of a rewrite name all rows that leave and all that come",
            )  # fmt: skip
    elif there != rows_in - rows_out and not (kind == "expire" and there == 0):
        broken(
            "deletes",
            None,
            rows_in - rows_out,
            there,
            f"the deletes of the {kind} name all rows that left for good",
        )


def _check_newest(kind: str, files: Sequence[NewFile], remove: Sequence[LeavingFile]) -> None:
    newest = max((file.newest_sequence for file in remove), default=0)
    for file in files:
        if file.newest_sequence is None or file.what == "deletes":
            continue
        if kind not in ("replace", "erase"):
            broken("newest_sequence", None, None, file.newest_sequence, f"the rows of a {kind} are its own")
        if not 1 <= file.newest_sequence <= newest:
            broken(
                "newest_sequence", None, newest, file.newest_sequence, "no file that leaves has rows so new"
            )
