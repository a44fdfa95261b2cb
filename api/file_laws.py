"""The laws of files that a commit enters: where they lie, what they say of themselves, that each is new. Pure.

Under the store's prefix: `fresh/TOPIC/NAME`, `dead_letters/TOPIC/NAME`, `deletes/TOPIC/NAME`, and for the files of one
complete period `sealed/TOPIC/event_date=2026-01-01/NAME` or `sealed/TOPIC/event_hour=2026-01-01-05/NAME`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from api.times import DAY_US, format_time

FOLDERS = {"rows": "fresh", "dead_letters": "dead_letters", "deletes": "deletes"}


class LawBroken(Exception):
    """One law that a commit breaks: a defect of its maker, never a race."""

    def __init__(self, law: str, lake_partition: int | None, expected: Any, got: Any, sentence: str) -> None:
        super().__init__(sentence)
        self.law = law
        self.lake_partition = lake_partition
        self.expected = expected
        self.got = got


def broken(law: str, lake_partition: int | None, expected: Any, got: Any, sentence: str) -> NoReturn:
    raise LawBroken(law, lake_partition, expected, got, sentence)


@dataclass(frozen=True, slots=True)
class NewFile:
    """One object that a commit enters. `periods`: (start, end, rows); end None: one period."""

    url: str
    what: str
    late: bool
    size: int  # bytes
    rows: int
    sha256: str  # hexadecimal
    schema_version: int
    periods: Sequence[tuple[int, int | None, int]]
    lowest_us: int | None
    highest_us: int | None
    modified_us: int
    newest_sequence: int | None = None  # of its rows; None: this commit's own

    def key_parts(self) -> list[str]:
        return self.url.removeprefix("s3://").split("/")[1:]

    @property
    def sealed(self) -> bool:
        """Whether it claims to be one of a complete period's own files."""
        return self.what == "rows" and self.key_parts()[-4:-3] == ["sealed"]


def period_folder(start_us: int, period_us: int) -> str:
    """Name of the folder of a period's sealed files."""
    start = format_time(start_us)
    return f"event_date={start[:10]}" if period_us == DAY_US else f"event_hour={start[:10]}-{start[11:13]}"


def check_files(
    files: Sequence[NewFile],
    *,
    topic: str,
    schema_version: int,
    period_us: int,
    used_urls: Collection[str] = (),
    seals: bool = False,
) -> None:
    """Raises LawBroken unless each file keeps every law. `seals`: whether the commit may add sealed files.

    `schema_version` is the topic's newest; `used_urls` are those of the files that some commit named before.
    """
    urls: set[str] = set()
    for file in files:
        if file.url in urls or file.url in used_urls:
            broken("url", None, "a url never used before", file.url, "an object is entered twice")
        urls.add(file.url)
        _check_folder(file, topic, period_us, seals=seals)
        if file.schema_version > schema_version:
            broken(
                "schema_version", None, schema_version, file.schema_version, "the file's schema was never registered"
            )  # fmt: skip
        _check_times(file)


def _check_folder(file: NewFile, topic: str, period_us: int, *, seals: bool) -> None:
    parts = file.key_parts()
    if seals and file.sealed and parts[-3] == topic and parts[-1]:
        _check_sealed(file, period_us)
        return
    folder = FOLDERS[file.what]
    if len(parts) >= 3 and parts[-3:-1] == [folder, topic] and parts[-1]:
        return
    broken(
        "folder", None, f"{folder}/{topic}/NAME", "/".join(parts[-4:]),
        f"a file of {file.what} of this topic lies under {folder}/{topic}/",
    )  # fmt: skip


def _check_sealed(file: NewFile, period_us: int) -> None:
    if len(file.periods) != 1 or file.periods[0][1] is not None:
        broken("sealed", None, 1, len(file.periods), "a sealed file has rows of one period")
    start_us = file.periods[0][0]
    folder = period_folder(start_us // period_us * period_us, period_us)
    if file.key_parts()[-2] != folder:
        broken("sealed", None, folder, file.key_parts()[-2], "a sealed file lies in the folder of its period")
    inside = file.lowest_us is not None and file.highest_us is not None
    if inside and not start_us <= (file.lowest_us or 0) <= (file.highest_us or 0) < start_us + period_us:
        broken(
            "sealed",
            None,
            folder,
            format_time(file.lowest_us or 0),
            "a sealed file has rows of another period",
        )


def _check_times(file: NewFile) -> None:
    if file.what == "rows" and (file.lowest_us is None or file.highest_us is None):
        broken(
            "times", None, "lowest and highest", None, "a file of rows says its lowest and highest event time"
        )
    if file.lowest_us is not None and file.highest_us is not None and file.lowest_us > file.highest_us:
        broken(
            "times", None, format_time(file.lowest_us), format_time(file.highest_us),
            "a file's highest event time is below its lowest",
        )  # fmt: skip
    if file.what == "rows":
        counted = sum(rows for _, _, rows in file.periods)
        if counted != file.rows:
            broken(
                "periods", None, file.rows, counted, "the rows of a file's periods are not the file's rows"
            )
    for start_us, end_us, _ in file.periods:
        if end_us is not None and end_us <= start_us:
            broken(
                "periods", None, format_time(start_us), format_time(end_us), "a range of periods ends before it starts"
            )  # fmt: skip
