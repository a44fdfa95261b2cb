"""The laws of commits that move no position (replace, rewrite, erase, expire): where did each row go? Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_CAME = ("rows_in", "dead_in", "restored")
# Where a record may go, and whence it may come, beside rows and dead letters in and out.
_ALLOWED = {
    "replace": {"duplicates"},
    "rewrite": {"duplicates", "restored", "lost"},
    "erase": {"erased"},
    "expire": {"expired"},
}
_WENT = ("duplicates", "lost", "erased", "expired")

Line = Mapping[str, Any]
File = Mapping[str, Any]


def broken_laws(
    kind: str, lines: Sequence[Line], added: Sequence[File], removed: Sequence[File]
) -> Iterator[tuple[int | None, str]]:
    """Each law that a commit breaks: the lake partition, if it is one's, and a sentence with figures."""
    if kind not in _ALLOWED:
        yield None, f"this release knows no kind of commit {kind!r}: take the release that made it"
        return
    for line in lines:
        for text in _line(kind, line):
            yield line["lake_partition"], text
    for name, what, files in (
        ("rows_in", "rows", removed), ("dead_in", "dead_letters", removed),
        ("rows_out", "rows", added), ("dead_out", "dead_letters", added),
    ):  # fmt: skip
        said = sum(line[name] for line in lines)
        there = sum(file["rows"] for file in files if file["what"] == what)
        if said != there:
            yield None, f"its lines say {name} = {said}, the files have {there}"
    deletes = sum(file["rows"] for file in added if file["what"] == "deletes")
    came, went = sum(line["rows_in"] for line in lines), sum(line["rows_out"] for line in lines)
    if kind == "rewrite":  # rows that are kept stand in both
        right = max(came, went) <= deletes <= came + went
    else:
        right = deletes == came - went or (kind == "expire" and deletes == 0)
    if not right:
        yield None, f"its deletes name {deletes} rows, {came} rows left and {went} came"


def _line(kind: str, line: Line) -> Iterator[str]:
    came = sum(line[name] for name in _CAME)
    went = sum(line[name] for name in ("rows_out", "dead_out", *_WENT))
    if came != went:
        yield f"{came} records came into the {kind}, {went} went out of it"
    for name in ("restored", *_WENT):
        if line[name] and name not in _ALLOWED[kind]:
            yield f"a commit of kind {kind} has no {name}, the line says {line[name]}"
    if kind == "replace" and line["dead_in"] != line["dead_out"]:
        yield "a replace keeps every dead letter"
