"""The body of a commit, as the contract lets it through, becomes lines and files for the laws. Pure.

What a JSON Schema cannot say is refused here: a bitmap that is none, a day that no month has.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from pyroaring import BitMap

from api.file_laws import NewFile
from api.laws import Line, Position
from api.problems import Problem
from api.times import parse_time, parse_time_or_none
from api.upkeep_laws import UpkeepLine


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """A commit as its maker sent it: `lines` of an append, `upkeep` of the other kinds."""

    id: UUID
    kind: str
    epoch: str
    worker: str | None
    rule_version: int
    schema_version: int
    lines: Sequence[Line]
    upkeep: Sequence[UpkeepLine]
    files: Sequence[NewFile]
    remove: Sequence[int]
    beside: Sequence[int]
    periods: Sequence[int]  # starts of those to be marked sealed
    digest: bytes  # of the content, to tell a repeat from another commit with the same id


def read_commit(topic: str, content: Mapping[str, Any]) -> CommitRequest:
    """The request's content as lines and files. Raises Problem (400, 422)."""
    append = content["kind"] == "append"
    lines = [_line(line) for line in content["lines"]] if append else []
    upkeep = [] if append else [_upkeep_line(line) for line in content.get("lines", ())]
    numbers = [line.lake_partition for line in lines or upkeep]
    if len(set(numbers)) < len(numbers):
        raise _refusal("lines", "A lake partition has two lines.")
    remove, beside = (
        [int(number) for number in content.get("remove", ())],
        [int(number) for number in content.get("beside", ())],
    )
    if len({*remove, *beside}) < len(remove) + len(beside):
        raise _refusal("remove", "A file stands twice in `remove` and `beside`.")
    return CommitRequest(
        id=UUID(content["id"]),
        kind=content["kind"],
        epoch=content["epoch"],
        worker=content.get("worker"),
        rule_version=int(content.get("rule_version", 0)),
        schema_version=int(content.get("schema_version", 0)),
        lines=lines,
        upkeep=upkeep,
        files=[_file(file) for file in content.get("files", ())],
        remove=remove,
        beside=beside,
        periods=sorted({parse_time(start) for start in content.get("periods", ())}),
        digest=hashlib.sha256(orjson.dumps([topic, content], option=orjson.OPT_SORT_KEYS)).digest(),
    )


def _refusal(law: str, sentence: str) -> Problem:
    return Problem("law-broken", 422, sentence, law=law, lake_partition=None, expected=1, got=2)


def _upkeep_line(line: Mapping[str, Any]) -> UpkeepLine:
    counts: dict[str, Any] = {name: None if count is None else int(count) for name, count in line.items()}
    return UpkeepLine(**counts)


def _version(text: str | None) -> UUID | None:
    return None if text is None else UUID(text)


def read_bitmap(text: str, lake_partition: int) -> tuple[BitMap, bytes]:
    """A portable roaring bitmap from its base64; with its bytes as this side would write them."""
    try:
        carried = BitMap.deserialize(base64.b64decode(text, validate=True)) if text else BitMap()
    except (binascii.Error, ValueError) as error:
        raise Problem(
            "law-broken", 422, f"carried of lake partition {lake_partition} is no portable roaring bitmap in base64.",
            law="carried", lake_partition=lake_partition, expected="a portable roaring bitmap", got=str(error)[:100],
        ) from error  # fmt: skip
    return carried, carried.serialize()


def _line(line: Mapping[str, Any]) -> Line:
    number = int(line["lake_partition"])
    after = line["position"]
    carried, carried_bytes = read_bitmap(after["carried"], number)
    return Line(
        lake_partition=number,
        from_version=_version(line["from_version"]),
        from_offset=int(line["from_offset"]),
        to_offset=int(line["to_offset"]),
        consumed=int(line["consumed"]),
        carried_in=int(line["carried_in"]),
        written=int(line["written"]),
        duplicates=int(line["duplicates"]),
        differing=int(line["differing"]),
        dead_letters=int(line["dead_letters"]),
        lost=int(line["lost"]),
        carried_out=int(line["carried_out"]),
        late=int(line.get("late", 0)),
        early=int(line.get("early", 0)),
        tombstones=int(line.get("tombstones", 0)),
        lost_ranges=[(int(start), int(stop)) for start, stop in line.get("lost_ranges", ())],
        carried_bytes=carried_bytes,
        position=Position(
            next=int(after["next"]),
            carried=carried,
            highest_us=parse_time_or_none(after["highest"]),
            watermark_us=parse_time_or_none(after["watermark"]),
            published_to_us=parse_time_or_none(after["published_to"]),
            topic_id=after.get("topic_id"),
        ),
    )


def _file(file: Mapping[str, Any]) -> NewFile:
    return NewFile(
        url=file["url"],
        what=file["what"],
        late=file.get("late", False),
        size=int(file["bytes"]),
        rows=int(file["rows"]),
        sha256=file["sha256"],
        schema_version=int(file.get("schema_version", 0)),
        periods=[
            (parse_time(period["start"]), parse_time_or_none(period.get("end")), int(period["rows"]))
            for period in file.get("periods", ())
        ],
        lowest_us=parse_time_or_none(file.get("lowest")),
        highest_us=parse_time_or_none(file.get("highest")),
        modified_us=parse_time(file["modified_at"]),
        newest_sequence=None if file.get("newest_sequence") is None else int(file["newest_sequence"]),
    )
