"""An older table brought to a newer schema: new columns null, integers as doubles, declared types, nothing lost.

Pure, over Arrow. Which schema is newer is decided in `ingest.schema`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingest.columns import SYSTEM, dropped, event_schema, type_name
from ingest.declared import MISFIT, NOTHING_DECLARED
from ingest.names import TEXT, sibling_name
from ingest.schema import Field, TopicSchema, columns_of
from ingest.strict import values_of_sibling
from ingest.values import Deep, Doubled, Number, integer_as_double, text_of

_EXACT = 1 << 53  # integers up to here are exact in a double
_SYSTEM_NAMES = frozenset(SYSTEM.names) | {"_sequence"}

Texts: TypeAlias = pa.Array | None  # of the values that a column cannot hold


def conform(table: pa.Table, schema: TopicSchema) -> pa.Table:
    """`table` with all columns of `schema`, in its order; the same object when it has them already.

    System columns that the table has stay in front (`_sequence` too). Columns of dropped paths go. Raises `ValueError`
    when the table has a column that the schema does not know or cannot hold: then the schema is not newer than it.
    """
    event = event_schema(schema)
    names = table.schema.names
    lead = [i for i, name in enumerate(names) if name in _SYSTEM_NAMES]
    first = len(lead)
    if names[first:] == event.names and table.schema.types[first:] == event.types:
        return table
    arrays = {name: table.column(name).combine_chunks() for name in names if name not in _SYSTEM_NAMES}
    conformed = _fields(arrays, schema.root, list(event), table.num_rows, "")
    return pa.table(
        [*(table.column(i) for i in lead), *conformed],
        schema=pa.schema([*(table.schema.field(i) for i in lead), *event]),
    )


def _fields(
    arrays: dict[str, pa.Array], own: Field, wanted: list[pa.Field], rows: int, path: str
) -> list[pa.Array]:
    """The columns of one object. `path`: where it stands, for messages."""
    known = {field.name for field in wanted}
    columns = {column.name: column.field for column in columns_of(own.fields, not path) if not column.sibling}
    gone = []  # main columns whose field has only its sibling now
    for name in arrays:
        field = columns.get(name.removesuffix(TEXT))
        if name in known or (field is not None and dropped(field)):
            continue
        if name in columns and sibling_name(name) in known:
            gone.append(name)
        else:
            raise ValueError(
                f"column {path}{name} is not in the schema: it is older than the rows, ask for the newest"
            )
    done: dict[str, pa.Array] = {}
    for each in wanted:
        array = arrays.get(each.name)
        if array is None:
            continue
        sibling = sibling_name(each.name)
        texts: Texts = None
        if array.type != each.type:
            array, texts = _widened(array, columns[each.name], each.type, path + each.name)
        done[each.name] = array
        if texts is not None:
            if sibling not in known:
                raise ValueError(
                    f"column {path}{each.name} has values that {each.type} cannot hold, and no sibling"
                )
            arrays[sibling] = done[sibling] = _beside(arrays.get(sibling), texts)
    for name in gone:
        values = [None if raw is None else _value(raw, columns[name]) for raw in arrays[name].to_pylist()]
        texts = pa.array([None if value is None else text_of(value) for value in values], pa.string())
        done[sibling_name(name)] = _beside(arrays.get(sibling_name(name)), texts)
    return [done[each.name] if each.name in done else pa.nulls(rows, each.type) for each in wanted]


def _beside(older: pa.Array | None, texts: pa.Array) -> pa.Array:
    """The sibling that holds what it had, and the texts where it had none."""
    return texts if older is None else pc.coalesce(older, texts)


def _widened(array: pa.Array, own: Field, wanted: pa.DataType, path: str) -> tuple[pa.Array, Texts]:
    if array.null_count == len(array):
        return pa.nulls(len(array), wanted), None
    if pa.types.is_int64(array.type) and pa.types.is_float64(wanted):
        return _doubles(array)
    if own.declaration is not None:
        return _declared(array, own, wanted)
    mask = array.is_null() if array.null_count else None
    if pa.types.is_struct(array.type) and pa.types.is_struct(wanted):
        children = {array.type.field(i).name: array.field(i) for i in range(array.type.num_fields)}
        fields = _fields(children, own, list(wanted), len(array), f"{path}.")
        return pa.StructArray.from_arrays(fields, fields=list(wanted), mask=mask), None
    if pa.types.is_list(array.type) and pa.types.is_list(wanted) and own.element is not None:
        return _lists(array, own, wanted, path)
    if own.declared is not None:  # and taken back
        return _declared(array, own, wanted)
    raise ValueError(
        f"column {path} is {array.type} in the rows and {wanted} in the schema: not of this topic"
    )


def _lists(array: pa.ListArray, own: Field, wanted: pa.DataType, path: str) -> tuple[pa.Array, Texts]:
    """A list whose elements widen; where one of them does not fit, the whole list goes to the sibling."""
    begin, end = (array.offsets[0].as_py(), array.offsets[-1].as_py()) if len(array) else (0, 0)
    offsets = pc.subtract(array.offsets, begin).cast(pa.int32())
    assert own.element is not None
    values, lost = _widened(array.values[begin:end], own.element, wanted.value_type, path)
    mask = array.is_null().to_numpy(zero_copy_only=False).copy()
    texts: list[str | None] = [None] * len(array)
    if lost is not None:
        bad = np.flatnonzero(lost.is_valid().to_numpy(zero_copy_only=False))
        for row in np.unique(np.searchsorted(offsets.to_numpy(), bad, "right") - 1).tolist():
            texts[row] = text_of(_value(array[row].as_py(), own))
            mask[row] = True
    made = pa.ListArray.from_arrays(offsets, values, type=wanted, mask=pa.array(mask) if mask.any() else None)
    return made, None if lost is None else pa.array(texts, pa.string())


def _doubles(array: pa.Array) -> tuple[pa.Array, Texts]:
    values = array.fill_null(0).to_numpy(zero_copy_only=False)
    mask = array.is_null().to_numpy(zero_copy_only=False).copy()
    texts: list[str | None] = [None] * len(values)
    lost = False
    for i in np.flatnonzero((values > _EXACT) | (values < -_EXACT)).tolist():
        if integer_as_double(int(values[i])) is None:
            texts[i], mask[i], lost = str(values[i]), True, True
    doubles = pa.array(values.astype(np.float64), mask=mask if mask.any() else None)
    return doubles, pa.array(texts, pa.string()) if lost else None


def _declared(array: pa.Array, own: Field, wanted: pa.DataType) -> tuple[pa.Array, Texts]:
    """Values of before a declaration, or of before it was taken back. A hash is for what comes after it: older values
    stay readable, as text.
    """
    type_ = type_name(own)
    fits = type_ is not None and type_ not in ("hash", "struct", "list")
    fitted: list[Any] = []
    texts: list[str | None] = []
    for raw in array.to_pylist():
        value = None if raw is None else _value(raw, own)
        fit = MISFIT if value is not None and not fits else None
        if value is not None and fits:
            fit = NOTHING_DECLARED.converted(value, str(type_))
        fitted.append(None if fit is MISFIT else fit)
        texts.append(text_of(value) if fit is MISFIT else None)
    return pa.array(fitted, wanted), pa.array(texts, pa.string()) if any(texts) else None


def _value(raw: Any, own: Field) -> Any:
    """The JSON value that a row holds in a column: names and siblings put together again."""
    if isinstance(raw, Mapping):
        last: dict[str, Any] = {}
        repeated: dict[str, list[Any]] = {}
        for column in columns_of(own.fields, False):
            each = column.field
            if dropped(each):
                continue
            if column.sibling:
                if raw.get(column.sibling_name) is not None:
                    every = values_of_sibling(raw[column.sibling_name])
                    last[each.name] = every[-1]
                    if len(every) > 1:
                        repeated[each.name] = every
            elif raw.get(column.name) is not None and each.name not in last:
                last[each.name] = _value(raw[column.name], each)
        return Doubled(last, repeated) if repeated else last
    if isinstance(raw, list) and own.element is not None:
        return [None if each is None else _value(each, own.element) for each in raw]
    if isinstance(raw, dt.datetime):
        return raw.isoformat().replace("+00:00", "Z")
    if isinstance(raw, dt.date):
        return raw.isoformat()
    if isinstance(raw, Decimal):
        return Number(f"{raw:f}")
    return Deep(raw) if own.kind == "json" else raw
