"""Names and types of columns for a warehouse without structs: `a__b`, lists as JSONB or as child tables.

Pure: from the shape of rows to a layout that only ever grows, and from a layout to expressions that fill it. A layout
is kept in the warehouse beside the cursor, so that a name, once given, stays. Expressions are DuckDB's SQL and give
text as PostgreSQL's COPY reads it.

Text in PostgreSQL holds every character but NUL, which becomes U+2400 (the picture of NUL).
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from loaders.shape import SIBLING, TEXT, List, Struct, Type, convert, exact, join, literal, quoted

LONGEST_NAME = 63
"""Bytes of an identifier in PostgreSQL."""

MOST_COLUMNS = 400
"""So many columns of any type fit into a row's 8 kB; what comes later lies in the JSONB column `_more`, by its path."""

MORE = "_more"
JSON = "JSON"  # a list: its elements' types do not matter to JSONB

_TYPES = {
    "BOOLEAN": "boolean",
    "INTEGER": "integer",
    "BIGINT": "bigint",
    "DOUBLE": "double precision",
    "VARCHAR": "text",
    "BLOB": "bytea",
    "DATE": "date",
    "TIMESTAMP WITH TIME ZONE": "timestamptz",
    JSON: "jsonb",
}

KEYS = (("_lake_partition", "INTEGER"), ("_offset", "BIGINT"))
"""What names a row, in every table."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `name` None: it lies in `_more`."""

    path: tuple[str, ...]
    name: str | None
    type: str

    @property
    def sql_type(self) -> str:
        """As PostgreSQL writes it."""
        return _TYPES.get(
            self.type, self.type.replace("DECIMAL", "numeric") if "DECIMAL" in self.type else "text"
        )


@dataclass(frozen=True, slots=True)
class Table:
    """One table of a topic. `list`: the path of the list whose elements are its rows; empty: the topic's own table."""

    name: str
    list: tuple[str, ...]
    columns: tuple[Column, ...]

    def to_json(self) -> dict[str, Any]:
        """As the warehouse keeps it."""
        return {
            "name": self.name,
            "list": list(self.list),
            "columns": [[list(each.path), each.name, each.type] for each in self.columns],
        }

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> "Table":
        columns = tuple(Column(tuple(path), name, type_) for path, name, type_ in kept["columns"])
        return cls(kept["name"], tuple(kept["list"]), columns)


def leaves(shape: Struct, path: tuple[str, ...] = ()) -> Iterable[tuple[tuple[str, ...], Type]]:
    """Everything in a shape that is no struct, with its path."""
    for name, type_ in shape.fields:
        if isinstance(type_, Struct):
            yield from leaves(type_, (*path, name))
        else:
            yield (*path, name), type_


def flat_type(type_: Type) -> str:
    """A leaf's type in a layout."""
    return type_ if isinstance(type_, str) else JSON


def grown(table: Table, shape: Struct, without: Iterable[tuple[str, ...]] = ()) -> Table:
    """The table with a column for each leaf of `shape` (less those of `without`), each of a type that holds both."""
    columns = {each.path: each for each in table.columns}
    taken = {each.name for each in table.columns} | {MORE}
    left_out = set(without)

    def add(path: tuple[str, ...], type_: str) -> None:
        own = columns.get(path)
        if own is None:
            spoken = path[1:] if table.list and path[0] == "element" else path
            name = column_name(spoken, taken) if len(taken) <= MOST_COLUMNS else None
            columns[path] = Column(path, name, type_)
            taken.add(name)
        else:
            columns[path] = Column(path, own.name, _joined(own.type, type_))
            if {own.type, type_} == {"BIGINT", "DOUBLE"}:
                sibling = (*path[:-1], path[-1] + SIBLING)
                if sibling not in columns:
                    add(sibling, TEXT)

    for path, type_ in leaves(shape):
        if path not in left_out:
            add(path, flat_type(type_))
    return Table(table.name, table.list, tuple(columns.values()))


def _joined(a: str, b: str) -> str:
    both = join(a, b)
    assert isinstance(both, str)
    return both


def column_name(path: Sequence[str], taken: Iterable[str | None]) -> str:
    """`a__b`; with a hash of the path at the end where that is too long or taken."""
    name = "__".join(path)
    if len(name.encode()) <= LONGEST_NAME and name not in taken:
        return name
    digest = hashlib.sha256(json.dumps(list(path)).encode()).hexdigest()[:8]
    return f"{name.encode()[: LONGEST_NAME - 9].decode(errors='ignore')}_{digest}"


def lists(shape: Struct) -> list[tuple[tuple[str, ...], List]]:
    """The lists of a shape that become child tables: not the system's, and none within another list."""
    return [
        (path, type_) for path, type_ in leaves(shape) if isinstance(type_, List) and path != ("_headers",)
    ]


def element_shape(list_: List) -> Struct:
    """The columns of a child table: its keys, then the fields of `element`, or `value`."""
    own = "element" if isinstance(list_.element, Struct) else "value"
    return Struct((*KEYS, ("_index", "BIGINT"), (own, list_.element)))


def child_rows(rows: str, path: tuple[str, ...], list_: List) -> str:
    """A query for a child table's rows: one for each element of each row's list, `_index` from 0."""
    own = "element" if isinstance(list_.element, Struct) else "value"
    keys = '"_lake_partition", "_offset"'
    return (
        f'SELECT {keys}, unnest(l) AS "{own}", generate_subscripts(l, 1) - 1 AS "_index" '
        f"FROM (SELECT {keys}, {_at(path)} AS l FROM ({rows}))"
    )


def values(table: Table, shape: Struct) -> list[tuple[str, str]]:
    """(column, expression) for each column of the table that rows of `shape` fill."""
    have = dict(leaves(shape))
    wanted = {each.path: each for each in table.columns}
    filled: list[tuple[str, str]] = []
    more: list[tuple[Column, str]] = []
    for each in table.columns:
        sibling_of = (*each.path[:-1], each.path[-1].removesuffix(SIBLING))
        main = wanted.get(sibling_of) if sibling_of != each.path else None
        widened = main is not None and main.type == "DOUBLE" and have.get(sibling_of) == "BIGINT"
        if each.path not in have and not widened:
            continue
        value = _value(have.get(each.path), each, (*each.path[:-1], each.path[-1] + SIBLING) in wanted)
        if widened:
            rest = f"CASE WHEN NOT {exact(_at(sibling_of))} THEN CAST({_at(sibling_of)} AS VARCHAR) END"
            value = rest if value is None else f"coalesce({value}, {rest})"
        if value is None:
            continue
        if each.name is None:
            more.append((each, value))
        else:
            filled.append((each.name, value))
    if more:
        pairs = ", ".join(f"{literal('.'.join(each.path))}, {_json_of(each, value)}" for each, value in more)
        filled.append((MORE, _nul_free_json(f"CAST(json_object({pairs}) AS VARCHAR)")))
    return filled


def _value(have: Type | None, column: Column, sibling: bool) -> str | None:
    """The expression of a column from a leaf of type `have`."""
    if have is None:
        return None
    at = _at(column.path)
    if column.path == ("_headers",):
        return _nul_free_json(_headers(at))
    if column.type == JSON:
        return _nul_free_json(f"CAST(to_json({at}) AS VARCHAR)")
    if flat_type(have) == JSON:
        return _nul_free(convert(at, have, TEXT))
    if have == "BLOB":
        return f"'\\x' || lower(hex({at}))"
    if (have, column.type) == ("BIGINT", "DOUBLE"):
        return f"CASE WHEN {exact(at)} THEN CAST({at} AS DOUBLE) END" if sibling else f"CAST({at} AS DOUBLE)"
    converted = convert(at, have, column.type)
    return _nul_free(converted) if column.type == TEXT else converted


def _json_of(column: Column, value: str) -> str:
    return f"CAST({value} AS JSON)" if column.type == JSON else value


def _headers(at: str) -> str:
    """Values as text where they are UTF-8, else under `base64`."""
    text = "try(decode(_tukang_h.value))"
    plain = f"json_object('key', _tukang_h.key, 'value', {text})"
    coded = "json_object('key', _tukang_h.key, 'base64', to_base64(_tukang_h.value))"
    item = f"CASE WHEN _tukang_h.value IS NULL OR {text} IS NOT NULL THEN {plain} ELSE {coded} END"
    return f"CAST(to_json(list_transform({at}, lambda _tukang_h: {item})) AS VARCHAR)"


def _nul_free(text: str) -> str:
    return f"replace({text}, chr(0), chr(9216))"


def _nul_free_json(text: str) -> str:
    """Within JSON text NUL is an escape. chr(1), which cannot stand there, holds the place of double backslashes."""
    return f"replace(replace(replace({text}, '\\\\', chr(1)), '\\u0000', chr(9216)), chr(1), '\\\\')"


def _at(path: Sequence[str]) -> str:
    """The value at a path, null where an object on the way is."""
    value = quoted(path[0])
    for name in path[1:]:
        value = f"struct_extract({value}, {literal(name)})"
    return value
