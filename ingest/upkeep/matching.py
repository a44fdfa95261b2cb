"""Which rows hold a value that is to be erased: the field itself, its siblings, JSON text, and dead letters. Pure.

The field is a path in the event (`customer_id`, `customer.id`). A value is compared as text: 42 and "42" are the same.
Where an event was kept as text (JSON columns, siblings, the bytes of dead letters), the field is looked for by its name
and value; that text may be broken JSON, so it is matched, not parsed.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

AT_ONCE = 200  # values in one pattern
SIBLING = "__text"
_TEXT = (pa.string(), pa.large_string())


class WhereWrong(Exception):
    """--where is not FIELD = VALUE."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Values of a field."""

    path: tuple[str, ...]
    values: tuple[str, ...]

    @property
    def field(self) -> str:
        return ".".join(self.path)


def parse_where(text: str) -> Wanted:
    """`customer_id = 42`, `customer.name = 'Ann'`. Raises WhereWrong."""
    match = re.fullmatch(r"\s*([^\s=']+)\s*=\s*(?:'((?:[^']|'')*)'|(\S+))\s*", text)
    if match is None:
        raise WhereWrong(
            f"{text!r} is not FIELD = VALUE; write it like customer_id = 42 or customer.name = 'Ann'"
        )
    value = match[2].replace("''", "'") if match[2] is not None else match[3]
    return Wanted(tuple(match[1].split(".")), (value,))


def not_a_column(columns: Sequence[Mapping[str, Any]], wanted: Wanted) -> str | None:
    """What to tell who names a field that no event has had as a column: that, and which one may be meant."""
    paths = list(_paths(columns))
    if wanted.field in paths or wanted.field.startswith("_"):
        return None
    near = [path for path in paths if path.rpartition(".")[2] == wanted.path[-1]]
    near = near or difflib.get_close_matches(wanted.field, paths, 1)
    meant = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"no event had a column {wanted.field}, so only text and dead letters are searched{meant}"


def _paths(columns: Sequence[Mapping[str, Any]], before: str = "") -> Iterator[str]:
    for column in columns:
        path = f"{before}{column['column']}"
        yield path
        if isinstance(column["type"], Mapping) and "struct" in column["type"]:
            yield from _paths(column["type"]["struct"], f"{path}.")


def columns_to_read(schema: pa.Schema, wanted: Wanted) -> list[str]:
    """The top-level columns that may hold a value."""
    return [
        name for name in schema.names if name in (wanted.path[0], "_value") or _holds_text(schema.field(name))
    ]


def _holds_text(field: pa.Field) -> bool:
    """Whether text of the event may stand in a column: JSON columns are strings, and so are the siblings."""
    if field.name.startswith("_") and not field.name.endswith(SIBLING):
        return False
    return any(kind in _TEXT for kind in _leaves(field.type))


def _leaves(kind: pa.DataType) -> Iterator[pa.DataType]:
    if pa.types.is_struct(kind):
        for child in kind:
            yield from _leaves(child.type)
    elif pa.types.is_list(kind):
        yield from _leaves(kind.value_type)
    else:
        yield kind


def may_hold(metadata: pq.FileMetaData, schema: pa.Schema, wanted: Wanted) -> bool:
    """False only when the footer's statistics prove that no row holds a value: one column, and all values outside."""
    if columns_to_read(schema, wanted) != [wanted.path[0]]:
        return bool(columns_to_read(schema, wanted))
    path = ".".join(wanted.path)
    for group in range(metadata.num_row_groups):
        columns = metadata.row_group(group)
        found = [
            columns.column(number) for number in range(columns.num_columns)
            if columns.column(number).path_in_schema == path
        ]  # fmt: skip
        statistics = found[0].statistics if found else None
        if statistics is None or not statistics.has_min_max or not isinstance(statistics.min, int):
            return True
        for value in wanted.values:
            if re.fullmatch(r"-?\d+", value) and statistics.min <= int(value) <= statistics.max:
                return True
    return False


def hits(table: pa.Table, wanted: Wanted) -> pa.BooleanArray:
    """For each row, whether it holds a value."""
    none = pa.array([False] * table.num_rows, pa.bool_())
    found = [none]
    field = table.schema.get_field_index(wanted.path[0])
    if field >= 0:
        leaf = _leaf(table.column(field).combine_chunks(), wanted.path[1:])
        if leaf is not None:
            found.append(pc.is_in(pc.cast(leaf, pa.string()), value_set=pa.array(wanted.values, pa.string())))
    for name in columns_to_read(table.schema, wanted):
        for leaf_name, text, rows in _texts(name, table.column(name).combine_chunks()):
            # A sibling has the value alone; in other text it stands behind the field's name.
            for pattern in _patterns(wanted, alone=leaf_name == wanted.path[-1] + SIBLING):
                matched = pc.fill_null(pc.match_substring_regex(text, pattern), False)
                found.append(matched if rows is None else _of_rows(matched, rows, table.num_rows))
    return reduce(pc.or_, (pc.fill_null(each, False) for each in found))


def _of_rows(matched: pa.BooleanArray, rows: pa.Array, count: int) -> pa.BooleanArray:
    """What was found in the elements of lists, by the rows that have them."""
    mask = np.zeros(count, np.bool_)
    mask[rows.filter(matched).to_numpy()] = True
    return pa.array(mask)


def _leaf(values: pa.Array, path: Sequence[str]) -> pa.Array | None:
    for name in path:
        if not pa.types.is_struct(values.type) or values.type.get_field_index(name) < 0:
            return None
        values = pc.struct_field(values, [name])
    simple = (
        pa.types.is_integer(values.type)
        or pa.types.is_string(values.type)
        or pa.types.is_boolean(values.type)
    )
    return values if simple or pa.types.is_floating(values.type) or pa.types.is_decimal(values.type) else None


def _texts(
    name: str, values: pa.Array, rows: pa.Array | None = None
) -> Iterator[tuple[str, pa.Array, pa.Array | None]]:
    """All text below a column, with the name of its field, and with the row of each text inside lists."""
    if pa.types.is_struct(values.type):
        for field, child in zip(values.type, values.flatten(), strict=True):
            yield from _texts(field.name, child, rows)
    elif pa.types.is_list(values.type):
        parents = pc.list_parent_indices(values)
        yield from _texts(name, pc.list_flatten(values), parents if rows is None else rows.take(parents))
    elif values.type in _TEXT or pa.types.is_binary(values.type):
        yield name, values, rows


def _patterns(wanted: Wanted, *, alone: bool) -> Iterator[str]:
    """Regular expressions (RE2) of the field with one of the values, in JSON text; `alone`: the value alone."""
    name = re.escape(json.dumps(wanted.path[-1]))
    for begin in range(0, len(wanted.values), AT_ONCE):
        some = wanted.values[begin : begin + AT_ONCE]
        values = "|".join(_json_value(value) for value in some)
        yield rf"^\s*(?:{values})\s*$" if alone else rf"{name}\s*:\s*(?:{values})(?:[\s,}}\]]|$)"


def _json_value(value: str) -> str:
    forms = {json.dumps(value), json.dumps(value, ensure_ascii=False)}
    if re.fullmatch(r"-?\d+(\.\d+)?", value) or value in ("true", "false"):
        forms.add(value)
    return "|".join(sorted(map(re.escape, forms)))
