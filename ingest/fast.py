"""A piece of a chunk, parsed at once by pyarrow with a schema that says everything: the way of nearly all events.

Pure. It takes a piece only if every record of it gives exactly the row that the record-by-record way would give; what
pyarrow lets through without a word is looked for here. Each record is wrapped as `{"v":` record `}`, so that one that
is empty, no object, unclosed or two objects is an error or changes the count of rows. Nothing is ever inferred.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.json as pj

from ingest.columns import event_schema, table_type
from ingest.doubles import doubtful_rows
from ingest.names import sibling_name
from ingest.schema import Field, TopicSchema, columns_of
from ingest.values import empty_text

_OPEN, _CLOSE = b'{"v":', b"}\n"
_BETWEEN = _CLOSE + _OPEN
LARGEST = 1 << 30  # bytes of a piece; pyarrow counts in 32 bits


@dataclass(frozen=True, slots=True)
class Piece:
    """The event's columns, as in `event_schema`, a row for each record; `doubtful` rows must be read one by one."""

    columns: list[pa.Array]
    doubtful: npt.NDArray[np.int64]


class FastParser:
    """Parses pieces by one schema. Compiled once for each; may be used by several threads."""

    def __init__(self, schema: TopicSchema) -> None:
        self._root = schema.root
        self._rest = schema.root.text is not None
        self._event = event_schema(schema)
        self._options = pj.ParseOptions(
            explicit_schema=pa.schema([("v", pa.struct(_fields(schema.root)))]),
            unexpected_field_behavior="error",
        )
        names: set[str] = set()
        self._doubles_in_lists = _double_names(schema.root, False, names)
        self._double_names = frozenset(
            text[1:].encode()
            for name in names
            for text in (json.dumps(name), json.dumps(name, ensure_ascii=False))
        )

    def parse(self, values: Sequence[bytes]) -> Piece | None:
        """The rows of `values`, or None: some record among them needs another look."""
        count = len(values)
        joined = _OPEN + _BETWEEN.join(values) + _CLOSE
        if len(joined) > LARGEST or b"\0" in joined or not _utf8(joined):
            return None
        options = pj.ReadOptions(use_threads=False, block_size=len(joined) + 1)
        try:
            table = pj.read_json(pa.BufferReader(joined), read_options=options, parse_options=self._options)
        except pa.ArrowInvalid:
            return None
        if table.num_rows != count:
            return None  # a record forged a row
        events = table.column(0)
        events = events.chunk(0) if events.num_chunks == 1 else events.combine_chunks()
        if events.null_count:
            return None  # `null` is no event
        doubles: list[pa.Array] = []
        columns = self._columns(events, doubles)
        if columns is None:
            return None
        doubtful = np.zeros(0, np.int64)
        if doubles:
            lengths = np.fromiter(map(len, values), np.int64, count)
            starts = np.cumsum(lengths + len(_BETWEEN)) - lengths - len(_CLOSE)
            doubtful = doubtful_rows(joined, starts, doubles, self._double_names, self._doubles_in_lists)
        return Piece(columns, doubtful)

    def _columns(self, events: pa.StructArray, doubles: list[pa.Array]) -> list[pa.Array] | None:
        try:
            columns = [array for _, array in _built(self._root, events, True, doubles)]
        except _ContentError:
            return None
        if self._rest:
            columns.append(pa.nulls(len(events), pa.string()))
        return columns


def _utf8(joined: bytes) -> bool:
    if joined.isascii():
        return True
    ends = pa.py_buffer(np.array([0, len(joined)], np.int64))
    try:
        pa.LargeStringArray.from_buffers(1, ends, pa.py_buffer(joined)).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _type(own: Field) -> pa.DataType:
    """What the parser is told of a field. Where it is told null, any other value sends the piece to the other way."""
    kind = own.kind
    if kind == "struct" and not own.retired:
        return pa.struct(_fields(own))
    if kind == "list":
        element = own.element
        if element is None or element.kind is None:
            return pa.list_(
                pa.bool_()
            )  # only null is let through: see _built. (A list of null breaks pyarrow 26.)
        return pa.list_(_type(element))
    if kind == "number":
        return pa.int64() if own.double is None else pa.float64()
    if own.declared is not None:
        return pa.null()
    return {"string": pa.string(), "boolean": pa.bool_()}.get(kind or "", pa.null())


def _fields(own: Field) -> list[pa.Field]:
    fields = []
    for name, each in own.fields.items():
        try:
            name.encode()
        except UnicodeEncodeError:
            continue  # a lone surrogate: no parser but ours takes it
        fields.append(pa.field(name, _type(each)))
    return fields


def _double_names(own: Field, listed: bool, names: set[str]) -> bool:
    """Collects the keys of double columns; whether some are elements of lists."""
    found = False
    for name, each in own.fields.items():
        below, in_list = each, False
        while below.kind == "list" and below.element is not None:
            below, in_list = below.element, True
        if below.kind == "number" and below.double is not None:
            names.add(name)
            found |= in_list
        elif below.kind == "struct":
            found |= _double_names(below, listed, names)
    return found


class _ContentError(Exception):
    """A list that never had an element with content has one now."""


def _built(
    own: Field, array: pa.StructArray, top: bool, doubles: list[pa.Array]
) -> Iterator[tuple[str, pa.Array]]:
    """The columns of one object, in the order of `columns_of`, from the struct as it was parsed."""
    texts: dict[str, pa.Array] = {}
    parsed = {array.type.field(i).name: i for i in range(array.type.num_fields)}
    for column in columns_of(own.fields, top):
        each = column.field
        if column.sibling:
            text = texts.get(each.name)
            yield sibling_name(column.name), pa.nulls(len(array), pa.string()) if text is None else text
            continue
        index = parsed.get(each.name)
        child = pa.nulls(len(array)) if index is None else array.field(index)
        wanted = table_type(each)
        if wanted is None:
            texts[each.name] = _contentless(child)
        else:
            yield column.name, _shaped(each, child, wanted, doubles)


def _shaped(own: Field, array: pa.Array, wanted: pa.DataType, doubles: list[pa.Array]) -> pa.Array:
    """One field's array in the type that the table has."""
    if pa.types.is_float64(array.type):
        doubles.append(array)
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), wanted)
    if pa.types.is_struct(array.type):
        children = list(_built(own, array, False, doubles))
        if array.type == wanted:
            return array
        return pa.StructArray.from_arrays(
            [child for _, child in children],
            fields=list(wanted),
            mask=array.is_null() if array.null_count else None,
        )
    if pa.types.is_list(array.type) and own.element is not None:
        values = _shaped(own.element, array.values, wanted.value_type, doubles)
        if array.type == wanted:
            return array
        return pa.ListArray.from_arrays(
            array.offsets, values, type=wanted, mask=array.is_null() if array.null_count else None
        )
    return array


def _contentless(array: pa.Array) -> pa.Array:
    """Texts of values that have no content, for the sibling of a field without a column."""
    if array.null_count == len(array):
        return pa.nulls(len(array), pa.string())
    _without_content(array)
    return pa.array(
        [None if value is None else empty_text(value) for value in array.to_pylist()], pa.string()
    )


def _without_content(array: pa.Array) -> None:
    if pa.types.is_list(array.type):
        _without_content(array.values)
    elif pa.types.is_struct(array.type):
        for i in range(array.type.num_fields):
            _without_content(array.field(i))
    elif array.null_count != len(array):
        raise _ContentError
