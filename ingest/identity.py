"""Where an event says who it is and when it happened: paths, headers, and the envelopes known by default.

Pure. Whether a time is believed is `ingest.times`; whether an id was seen, `ingest.dedup`.

A path names fields from the event inwards, with dots between: `metadata.eid`; a dot or backslash of a name is written
`\\.` or `\\\\`. `header:NAME` is the record's last header of that name, as UTF-8. An id of several parts is these parts
joined by `|`, where `\\` and `|` in a part are written `\\\\` and `\\|`: different parts never give the same id.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingest.chunk import Records
from ingest.columns import event_schema
from ingest.names import TEXT, sibling_name
from ingest.schema import TopicSchema, columns_of
from ingest.times import NO_TIME, Times, event_time_us, times_of
from ingest.values import Doubled, id_text

HEADER = "header:"
_PART = re.compile(r"((?:[^.\\]|\\.)*)(?:\.|\Z)", re.DOTALL)

CLOUD_EVENT_ID = ("source", "id")
CLOUD_EVENT_HEADERS = ("ce_source", "ce_id")
NAKADI_ID, NAKADI_TIME = ("metadata", "eid"), ("metadata", "occurred_at")


@lru_cache(1_000)
def parse_path(text: str) -> tuple[str, ...]:
    """The names of a path. `ValueError` when a backslash stands before anything but a dot or a backslash."""
    if re.search(r"\\(?![.\\])(?<!\\\\)", re.sub(r"\\\\", "", text)):
        raise ValueError(
            rf"path {text!r}: a backslash may stand before a dot or a backslash only; write \\ for one"
        )
    parts, at = [], 0
    while True:
        found = _PART.match(text, at)
        if found is None:
            raise ValueError(rf"path {text!r}: ends in a backslash; write \\ for one")
        parts.append(re.sub(r"\\(.)", r"\1", found[1]))
        at = found.end()
        if at == len(text) and not text[found.end(1) :].startswith("."):
            return tuple(parts)


@dataclass(frozen=True)
class Rows:
    """The rows of one chunk while they are decoded: the event's columns, and which record each row is."""

    records: Records
    at: np.ndarray[Any, np.dtype[np.int64]]  # index of each row's record
    schema: TopicSchema
    columns: Sequence[pa.Array]
    event: Callable[[bytes], Any]  # reads a record again, whatever its content type

    def __len__(self) -> int:
        return len(self.at)

    @cached_property
    def headers(self) -> list[dict[str, bytes | None]]:
        """Each row's headers, of equal names the last."""
        headers = self.records.headers
        return [] if headers is None else [dict(headers[i]) for i in self.at.tolist()]


def event_ids(rows: Rows, paths: Sequence[str]) -> pa.Array:
    """The `_event_id` of each row: text, null when any part of it is missing or empty."""
    if paths:
        return _joined([_texts(rows, path) for path in paths])
    found = _joined([_path_texts(rows, (name,)) for name in CLOUD_EVENT_ID])
    if found.null_count != len(rows):
        found = pc.if_else(_cloud_events(rows), found, pa.scalar(None, pa.string()))
    if found.null_count:
        found = pc.coalesce(found, _path_texts(rows, NAKADI_ID))
    if rows.records.headers is not None:
        found = pc.coalesce(_joined([_header_texts(rows, name) for name in CLOUD_EVENT_HEADERS]), found)
    return found


def event_times(rows: Rows, paths: Sequence[str]) -> Times:
    """What each event says about its time, in microseconds, NO_TIME when nothing or nothing readable."""
    if paths:
        return _first_present([_source(rows, path) for path in paths], len(rows))
    cloud = _path_source(rows, ("time",))
    if cloud.any():
        cloud = cloud.only(_cloud_events(rows))
    sources = [cloud, _path_source(rows, NAKADI_TIME)]
    if rows.records.headers is not None:
        headed = _joined([_header_texts(rows, name) for name in CLOUD_EVENT_HEADERS])
        if headed.null_count != len(headed):
            sources.insert(0, _Source(_header_texts(rows, "ce_time"), {}).only(headed.is_valid()))
    return _first_present(sources, len(rows))


def _cloud_events(rows: Rows) -> pa.Array:
    return _path_texts(rows, ("specversion",)).is_valid()


# -- one path ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Source:
    """What stands at a path: a column, and the values of rows where it stands in text or in none."""

    column: pa.Array
    others: dict[int, Any]

    def any(self) -> bool:
        return bool(self.others) or self.column.null_count != len(self.column)

    def only(self, mask: pa.Array) -> _Source:
        column = pc.if_else(mask, self.column, pa.scalar(None, self.column.type))
        return _Source(column, {row: value for row, value in self.others.items() if mask[row].as_py()})


def _source(rows: Rows, path: str) -> _Source:
    if path.startswith(HEADER):
        return _Source(_header_texts(rows, path.removeprefix(HEADER)), {})
    return _path_source(rows, parse_path(path))


def _path_source(rows: Rows, path: tuple[str, ...]) -> _Source:
    count = len(rows)
    column = _leaf(rows, path)
    if column is None:
        column = pa.nulls(count, pa.string())
    again = _in_text(rows, path, column)
    others = {}
    if len(again):
        for row in again.tolist():
            record = rows.records.values[rows.at[row]]
            value = None if record is None else _follow(rows.event(record), path)
            if value is not None:
                others[row] = value
    return _Source(column, others)


def _leaf(rows: Rows, path: tuple[str, ...]) -> pa.Array | None:
    """The column at the path, when every step of it is a struct."""
    arrays = dict(zip(event_schema(rows.schema).names, rows.columns, strict=True))
    own, array, top = rows.schema.root, None, True
    for name in path:
        below = own.fields.get(name)
        if below is None or own.kind != "struct":
            return None
        column = next(c.name for c in columns_of(own.fields, top) if c.field is below)
        if array is None:
            array = arrays.get(column)
        else:
            index = array.type.get_field_index(column)
            array = pc.struct_field(array, [index]) if index >= 0 else None
        if array is None:
            return None
        own, top = below, False
    return array


def _in_text(rows: Rows, path: tuple[str, ...], leaf: pa.Array) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Rows whose value at the path may stand in JSON text: in a sibling or JSON column on the way, or the rest."""
    arrays = dict(zip(event_schema(rows.schema).names, rows.columns, strict=True))
    mask = np.zeros(len(rows), bool)

    def mark(array: pa.Array | None) -> None:
        if array is not None and array.null_count != len(array):
            mask.__ior__(array.is_valid().to_numpy(zero_copy_only=False))

    if path[0] not in rows.schema.root.fields:
        mark(arrays.get(TEXT))
    own, array, top = rows.schema.root, None, True
    for name in path:
        below = own.fields.get(name)
        if below is None:
            break
        column = next(c.name for c in columns_of(own.fields, top) if c.field is below)
        texts = []
        if below.sibling is not None:
            texts.append(sibling_name(column))
        if below.kind == "json" or below.declaration is not None:
            texts.append(column)
        for each in [*texts, column]:
            child: pa.Array | None
            if array is None:
                child = arrays.get(each)
            else:
                index = array.type.get_field_index(each)
                child = pc.struct_field(array, [index]) if index >= 0 else None
            if each is not column or each in texts:
                mark(child)
        array = child
        if array is None or not pa.types.is_struct(array.type):
            break
        own, top = below, False
    if not mask.any():
        return np.zeros(0, np.int64)
    if leaf.null_count != len(leaf):
        mask &= leaf.is_null().to_numpy(zero_copy_only=False)
    return np.flatnonzero(mask)


def _follow(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if isinstance(value, Doubled):
            value = value.last
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


# -- texts and times -----------------------------------------------------------------------------------------------


def _texts(rows: Rows, path: str) -> pa.Array:
    return _as_text(_source(rows, path))


def _path_texts(rows: Rows, path: tuple[str, ...]) -> pa.Array:
    return _as_text(_path_source(rows, path))


def _as_text(source: _Source) -> pa.Array:
    column = source.column
    type_ = column.type
    if pa.types.is_int64(type_):
        column = column.cast(pa.string())
    elif pa.types.is_float64(type_) or pa.types.is_boolean(type_):
        column = pa.array([id_text(value) for value in column.to_pylist()], pa.string())
    elif not pa.types.is_string(type_):
        column = pa.nulls(len(column), pa.string())
    if source.others:
        texts = column.to_pylist()
        for row, value in source.others.items():
            texts[row] = id_text(value)
        column = pa.array(texts, pa.string())
    return column


def _header_texts(rows: Rows, name: str) -> pa.Array:
    if rows.records.headers is None:
        return pa.nulls(len(rows), pa.string())
    found = [each.get(name) for each in rows.headers]
    return pa.array([None if value is None else _utf8(value) for value in found], pa.string())


def _utf8(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def _joined(parts: list[pa.Array]) -> pa.Array:
    parts = [_not_empty(part) for part in parts]
    if len(parts) == 1:
        return parts[0]
    if any(part.null_count == len(part) for part in parts):
        return pa.nulls(len(parts[0]), pa.string())
    return pc.binary_join_element_wise(*[_escaped(part) for part in parts], "|")


def _not_empty(part: pa.Array) -> pa.Array:
    """An empty text is no id: it would make one event of all that have it."""
    empty = pc.equal(pc.binary_length(part), 0)
    if not pc.any(empty, min_count=0).as_py():
        return part
    return pc.if_else(empty, pa.scalar(None, pa.string()), part)


def _escaped(part: pa.Array) -> pa.Array:
    for each in ("\\", "|"):
        if pc.any(pc.match_substring(part, each), min_count=0).as_py():
            part = pc.replace_substring(part, each, "\\" + each)
    return part


def _first_present(sources: list[_Source], count: int) -> Times:
    """The time of the first source that has a value, readable or not."""
    times = np.full(count, NO_TIME)
    open_ = np.ones(count, bool)
    for source in sources:
        if not source.any():
            continue
        own = times_of(source.column)
        present = source.column.is_valid().to_numpy(zero_copy_only=False)
        for row, value in source.others.items():
            time = event_time_us(value)
            own[row] = NO_TIME if time is None else time
            present[row] = True
        times = np.where(open_ & present, own, times)
        open_ &= ~present
    return times
