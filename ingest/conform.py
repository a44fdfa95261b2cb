"""An older table brought to a newer schema: new columns null, integers as doubles, nothing lost.

Pure, over Arrow. Which schema is newer is decided in `ingest.schema`.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingest.columns import SYSTEM, event_schema
from ingest.names import sibling_name
from ingest.schema import TopicSchema
from ingest.values import integer_as_double

_EXACT = 1 << 53  # integers up to here are exact in a double


def conform(table: pa.Table, schema: TopicSchema) -> pa.Table:
    """`table` with all columns of `schema`, in its order; the same object when it has them already.

    System columns that the table has stay in front (`_sequence` too). Raises `ValueError` when the table has a column
    that the schema does not know or cannot hold: then the schema is not newer than the table.
    """
    event = event_schema(schema)
    names = table.schema.names
    lead = [i for i, name in enumerate(names) if name in _SYSTEM_NAMES]
    first = len(lead)
    if names[first:] == event.names and table.schema.types[first:] == event.types:
        return table
    own = pa.schema([field for i, field in enumerate(table.schema) if i not in set(lead)])
    arrays = {
        field.name: table.column(field.name).combine_chunks() if table.num_rows else None for field in own
    }
    conformed = _fields(arrays, list(event), table.num_rows, "")
    return pa.table(
        [*(table.column(i) for i in lead), *conformed],
        schema=pa.schema([*(table.schema.field(i) for i in lead), *event]),
    )


_SYSTEM_NAMES = frozenset(SYSTEM.names) | {"_sequence"}


def _fields(arrays: dict[str, pa.Array], wanted: list[pa.Field], rows: int, path: str) -> list[pa.Array]:
    known = {field.name for field in wanted}
    for name in arrays:
        if name not in known:
            raise ValueError(
                f"column {path}{name} is not in the schema: it is older than the rows, ask for the newest"
            )
    texts: dict[str, pa.Array] = {}
    done: dict[str, pa.Array] = {}
    for field in wanted:
        array = arrays.get(field.name)
        if array is None:
            continue
        if array.type == field.type:
            done[field.name] = array
        else:
            sibling = sibling_name(field.name)
            done[field.name], text = _widened(array, field.type, f"{path}{field.name}", sibling in known)
            if text is not None:
                texts[sibling] = text
    for name, text in texts.items():
        done[name] = text if name not in done else pc.coalesce(done[name], text)
    return [done[field.name] if field.name in done else pa.nulls(rows, field.type) for field in wanted]


def _widened(
    array: pa.Array, wanted: pa.DataType, path: str, sibling: bool
) -> tuple[pa.Array, pa.Array | None]:
    """The array in the wanted type, and texts of the values that it cannot hold."""
    if pa.types.is_int64(array.type) and pa.types.is_float64(wanted):
        return _doubles(array, path, sibling)
    if pa.types.is_struct(array.type) and pa.types.is_struct(wanted):
        children = {array.type.field(i).name: array.field(i) for i in range(array.type.num_fields)}
        fields = _fields(children, list(wanted), len(array), f"{path}.")
        mask = array.is_null() if array.null_count else None
        return pa.StructArray.from_arrays(fields, fields=list(wanted), mask=mask), None
    if pa.types.is_list(array.type) and pa.types.is_list(wanted):
        begin = array.offsets[0].as_py() if len(array) else 0
        values = array.values[begin:] if begin else array.values
        offsets = pc.subtract(array.offsets, begin) if begin else array.offsets
        values, text = _widened(values, wanted.value_type, path, False)
        mask = array.is_null() if array.null_count else None
        return pa.ListArray.from_arrays(offsets, values, type=wanted, mask=mask), text
    raise ValueError(
        f"column {path} is {array.type} in the rows and {wanted} in the schema: no schema of this topic"
    )


def _doubles(array: pa.Array, path: str, sibling: bool) -> tuple[pa.Array, pa.Array | None]:
    values = array.fill_null(0).to_numpy(zero_copy_only=False)
    large = np.flatnonzero((values > _EXACT) | (values < -_EXACT))
    lost = [i for i in large.tolist() if integer_as_double(int(values[i])) is None]
    doubles = pa.array(values.astype(np.float64), mask=_mask(array, lost))
    if not lost:
        return doubles, None
    if not sibling:
        raise ValueError(f"column {path} has integers that no double holds, and no sibling for them")
    texts: list[str | None] = [None] * len(values)
    for i in lost:
        texts[i] = str(values[i])
    return doubles, pa.array(texts, pa.string())


def _mask(array: pa.Array, lost: list[int]) -> pa.Array | None:
    if not array.null_count and not lost:
        return None
    mask = array.is_null().to_numpy(zero_copy_only=False).copy()
    mask[lost] = True
    return mask
