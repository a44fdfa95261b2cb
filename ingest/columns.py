"""A topic's schema as types of Arrow: of the table that a worker writes, and of what the fast parser is told.

Pure. What the columns are is decided in `ingest.schema`; no value is looked at here.
"""

from __future__ import annotations

import re

import pyarrow as pa

from ingest.names import TEXT
from ingest.schema import Field, TopicSchema, columns_of

TIME = pa.timestamp("us", "UTC")
HEADERS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))

SYSTEM = pa.schema(
    [
        ("_lake_partition", pa.int32()),
        ("_offset", pa.int64()),
        ("_event_id", pa.string()),
        ("_event_time", TIME),
        ("_time_from", pa.string()),
        ("_timestamp", TIME),
        ("_key", pa.binary()),
        ("_headers", HEADERS),
        ("_late", pa.bool_()),
        ("_tombstone", pa.bool_()),
    ]
)

SIMPLE = {
    "boolean": pa.bool_(),
    "integer": pa.int64(),
    "double": pa.float64(),
    "string": pa.string(),
    "json": pa.string(),
    "hash": pa.string(),
    "timestamp": TIME,
    "date": pa.date32(),
}
_DECIMAL = re.compile(r"decimal\(\s*([1-9][0-9]?)\s*,\s*([0-9]{1,2})\s*\)\Z")


def simple_type(text: str) -> pa.DataType:
    """The type of Arrow for `boolean` ... `hash`, `decimal(p,s)`; `ValueError` for any other text."""
    known = SIMPLE.get(text)
    if known is not None:
        return known
    found = _DECIMAL.match(text)
    if found is None or not 0 <= int(found[2]) <= int(found[1]) <= 38:
        raise ValueError(
            f"type {text!r} is none of {', '.join(SIMPLE)}, decimal(p,s) with s <= p <= 38: declare one of these"
        )
    return pa.decimal128(int(found[1]), int(found[2]))


def type_name(own: Field) -> str | None:
    """`boolean` ... `decimal(p,s)`, `struct`, `list`; None while only null was seen."""
    if own.declaration is not None:
        return own.declaration
    kind = own.kind
    return ("double" if own.double is not None else "integer") if kind == "number" else kind


def dropped(own: Field) -> bool:
    return own.declaration == "drop"


def table_type(own: Field) -> pa.DataType | None:
    """The type of the field's main column; None if it has none yet (a struct without columns cannot be written)."""
    name = type_name(own)
    if name is None or name == "drop":
        return None
    if name == "struct":
        fields = struct_fields(own, False)
        return pa.struct(fields) if fields else None
    if name == "list":
        element = table_type(own.element) if own.element is not None else None
        return None if element is None else pa.list_(element)
    return simple_type(name)


def struct_fields(own: Field, top: bool) -> list[pa.Field]:
    """The columns of an object: each field's main column, and siblings."""
    fields = []
    for column in columns_of(own.fields, top):
        if dropped(column.field):
            continue
        if column.sibling:
            fields.append(pa.field(column.sibling_name, pa.string()))
        else:
            type_ = table_type(column.field)
            if type_ is not None:
                fields.append(pa.field(column.name, type_))
    return fields


def event_schema(schema: TopicSchema) -> pa.Schema:
    """The columns of the event alone."""
    known: pa.Schema | None = schema.memo.get("event")
    if known is None:
        fields = struct_fields(schema.root, True)
        if schema.root.text is not None:
            fields.append(pa.field(TEXT, pa.string()))
        known = schema.memo["event"] = pa.schema(fields)
    return known


def table_schema(schema: TopicSchema) -> pa.Schema:
    """The schema of a full row: system columns, then the event's."""
    known: pa.Schema | None = schema.memo.get("table")
    if known is None:
        known = schema.memo["table"] = pa.schema([*SYSTEM, *event_schema(schema)])
    return known
