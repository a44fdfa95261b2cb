"""Which rows hold a value that is to be erased: the field itself, its siblings, JSON text, keys, headers, and dead
letters. Pure.

The field is a path in the event (`customer_id`, `customer.id`). A value is compared as text: 42 and "42" are the same.
Where an event was kept as text (JSON columns, siblings, the bytes of dead letters), the field is looked for by its name
and value; that text may be broken JSON, so it is matched, not parsed. Keys, headers and the bytes of letters that are
no JSON and do not name the field have no names: there any place counts where the value stands, not within a longer word
or number.

`_key`, `_headers.NAME` and `_headers` (any name) are fields too: there the whole value counts, and nothing else is
looked at. So a topic whose keys are its customers' is erased by them, dead letters included.
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
_NAMELESS = ("_key", "_headers")
_NO_JSON = ("not_json", "not_utf8")  # reasons of dead letters whose bytes may be of any format


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

    @property
    def nameless(self) -> bool:
        """Whether it is the key or a header of the record that is meant, and no field of the event."""
        return self.path[0] in _NAMELESS


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
    """The top-level columns that may hold a value, and what says how they are to be read."""
    if wanted.nameless:
        return [name for name in schema.names if name == wanted.path[0]]
    always = (wanted.path[0], "_value", "_reason", *_NAMELESS)
    return [name for name in schema.names if name in always or _holds_text(schema.field(name))]


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
    columns = [name for name in columns_to_read(schema, wanted) if not _all_null(metadata, name)]
    if columns != [wanted.path[0]]:
        return bool(columns)
    path = ".".join(wanted.path)
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        leaves = [row_group.column(number) for number in range(row_group.num_columns)]
        found = [leaf for leaf in leaves if leaf.path_in_schema == path]
        statistics = found[0].statistics if found else None
        if statistics is None or not statistics.has_min_max or not isinstance(statistics.min, int | bytes):
            return True
        for value in wanted.values:
            if isinstance(statistics.min, bytes):
                if statistics.min <= value.encode() <= statistics.max:
                    return True
                continue
            if re.fullmatch(r"-?\d+", value) and statistics.min <= int(value) <= statistics.max:
                return True
    return False


def _all_null(metadata: pq.FileMetaData, name: str) -> bool:
    """Whether the statistics prove that a key or headers are nowhere in the file."""
    if name not in _NAMELESS:
        return False
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for leaf in (row_group.column(number) for number in range(row_group.num_columns)):
            if leaf.path_in_schema.split(".")[0] == name:
                statistics = leaf.statistics
                if statistics is None or not statistics.has_null_count or statistics.num_values:
                    return False
    return True


def hits(table: pa.Table, wanted: Wanted) -> pa.BooleanArray:
    """For each row, whether it holds a value."""
    if wanted.nameless:
        return _whole(table, wanted)
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
            alone = leaf_name == wanted.path[-1] + SIBLING
            for pattern in _words(wanted) if name in _NAMELESS else _patterns(wanted, alone=alone):
                matched = pc.fill_null(pc.match_substring_regex(text, pattern), False)
                found.append(matched if rows is None else _of_rows(matched, rows, table.num_rows))
    if "_reason" in table.schema.names and "_value" in table.schema.names:
        found += _in_any_bytes(table, wanted)
    return reduce(pc.or_, (pc.fill_null(each, False) for each in found))


def _whole(table: pa.Table, wanted: Wanted) -> pa.BooleanArray:
    """The rows with such a key, or with such a header."""
    values = pa.array([value.encode() for value in wanted.values], pa.binary())
    if wanted.path[0] not in table.schema.names:
        return pa.array(np.zeros(table.num_rows, np.bool_))
    column = table.column(wanted.path[0]).combine_chunks()
    if wanted.path[0] == "_key":
        return pc.is_in(column, value_set=values)
    headers = pc.list_flatten(column)
    matched = pc.is_in(pc.struct_field(headers, ["value"]), value_set=values)
    if name := ".".join(wanted.path[1:]):
        matched = pc.and_(matched, pc.equal(pc.struct_field(headers, ["key"]), name))
    return _of_rows(matched, pc.list_parent_indices(column), table.num_rows)


def _in_any_bytes(table: pa.Table, wanted: Wanted) -> Iterator[pa.BooleanArray]:
    """Dead letters that are no JSON, do not name the field, and have the value somewhere."""
    value = table.column("_value").combine_chunks()
    open_ = pc.is_in(table.column("_reason").combine_chunks(), value_set=pa.array(_NO_JSON))
    nameless = pc.and_(open_, pc.invert(pc.match_substring(value, wanted.path[-1])))
    for pattern in _words(wanted):
        yield pc.and_(nameless, pc.match_substring_regex(value, pattern))


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


def _words(wanted: Wanted) -> Iterator[str]:
    """Regular expressions (RE2) of one of the values, not within a longer word or number."""
    for begin in range(0, len(wanted.values), AT_ONCE):
        values = "|".join(map(re.escape, wanted.values[begin : begin + AT_ONCE]))
        yield rf"(?:^|[^0-9A-Za-z_])(?:{values})(?:[^0-9A-Za-z_]|$)"


def _json_value(value: str) -> str:
    forms = {json.dumps(value), json.dumps(value, ensure_ascii=False)}
    if re.fullmatch(r"-?\d+(\.\d+)?", value) or value in ("true", "false"):
        forms.add(value)
    return "|".join(sorted(map(re.escape, forms)))
