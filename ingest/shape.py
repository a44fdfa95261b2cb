"""What the fast parser is told of a topic, and how what it gives becomes the table's columns.

Pure, over Arrow; compiled once for each schema, since a topic may have thousands of columns. How bytes are parsed and
checked is `ingest.fast`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ingest.columns import struct_fields, table_type
from ingest.declared import NATURAL, Declared, Hidden
from ingest.schema import Field, columns_of
from ingest.values import content, empty_text, text_of

Path = tuple[str, ...]
# Fields, and the kind that their values have in the records of this piece instead of the column's: all go to siblings.
Variant = Mapping[Path, str]

VARIANTS: Mapping[str, pa.DataType] = {"string": pa.string(), "number": pa.int64(), "boolean": pa.bool_()}


class ContentError(Exception):
    """The parsed piece holds something that the record-by-record way would treat otherwise."""


@dataclass(slots=True)
class Gathered:
    """What the checks after shaping need: double columns of any depth, and whether some number came as text."""

    doubles: list[pa.Array] = field(default_factory=list)
    zero_texts: bool = False  # an integer 0 was written as text: the record may say -0


class Shape:
    """The plan of one object: which parsed field gives which columns."""

    def __init__(
        self,
        own: Field,
        top: bool,
        variant: Variant,
        declared: Declared,
        hidden: Hidden | str,
        path: Path = (),
    ) -> None:
        fields = struct_fields(own, top)
        self.types = [each.type for each in fields]
        self._fields = fields
        places = {each.name: i for i, each in enumerate(fields)}
        self.columns: list[_Column] = []
        self.parsed: list[pa.Field] = []
        same = True
        for column in columns_of(own.fields, top):
            if column.sibling:
                same = False
                continue
            each = column.field
            if not _encodable(each.name):
                same = False
                continue
            below = hidden.get(each.name, "") if isinstance(hidden, Mapping) else hidden
            made = _Column(each, (*path, each.name), variant, declared, below)
            made.main, made.text = places.get(column.name), places.get(column.sibling_name)
            same &= made.main == len(self.columns) and made.same and column.name == each.name
            self.columns.append(made)
            self.parsed.append(pa.field(each.name, made.parsed))
        self.same = same and len(self.columns) == len(fields)

    def shaped(self, children: list[pa.Array], rows: int, gathered: Gathered) -> list[pa.Array]:
        """The object's columns from its parsed fields, each of length `rows`."""
        done: list[pa.Array | None] = [None] * len(self.types)
        for column, child in zip(self.columns, children, strict=True):
            main, text = column.shaped(child, gathered)
            if column.main is not None:
                done[column.main] = main
            if column.text is not None:
                done[column.text] = text
            elif text is not None and text.null_count != rows:
                raise ContentError
        return [pa.nulls(rows, self.types[i]) if each is None else each for i, each in enumerate(done)]

    def double_names(self, names: set[str]) -> bool:
        """Collects the keys whose values go to double columns; whether some are in lists."""
        listed = False
        for column, parsed in zip(self.columns, self.parsed, strict=True):
            listed |= column.double_names(parsed.name, names)
        return listed

    def struct(self, array: pa.StructArray, gathered: Gathered) -> pa.Array:
        children = [array.field(i) for i in range(array.type.num_fields)]
        shaped = self.shaped(children, len(array), gathered)
        if self.same:
            return array
        mask = array.is_null() if array.null_count else None
        return pa.StructArray.from_arrays(shaped, fields=self._fields, mask=mask)


class _Column:
    """The plan of one field, or of the element of a list."""

    __slots__ = (
        "_convert",
        "_declared",
        "_double",
        "_element",
        "_hidden",
        "_struct",
        "_variant",
        "main",
        "parsed",
        "same",
        "text",
        "wanted",
    )

    def __init__(
        self, own: Field, path: Path, variant: Variant, declared: Declared, hidden: Hidden | str
    ) -> None:
        self.main: int | None = None
        self.text: int | None = None
        self.wanted = table_type(own)
        self._variant = variant.get(path)
        self._struct: Shape | None = None
        self._element: _Column | None = None
        self._double = False
        self._declared = declared
        self._hidden = hidden
        self._convert: str | None = None
        self.same = True
        kind = own.kind
        if self._variant is not None:
            self.parsed = VARIANTS[self._variant]
            self.same = False
            return
        if own.declaration is not None and own.declaration not in NATURAL:
            self._convert = own.declaration
        if own.declaration is not None and (self._convert != "drop" or kind not in ("struct", "list")):
            self.parsed = declared.parsed_type(own)
            self._double = self.parsed == pa.float64()
        elif kind == "struct" and not own.retired:
            self._struct = Shape(own, False, variant, declared, hidden, path)
            self.parsed = pa.struct(self._struct.parsed)
            self.same = self._struct.same
        elif kind == "list":
            element = own.element
            if element is None or element.kind is None:
                # Nothing but null is let through (`_without_content`). A list of null makes pyarrow 26 read astray.
                self.parsed = pa.list_(pa.bool_())
            else:
                self._element = _Column(element, (*path, ""), variant, declared, hidden)
                self.parsed = pa.list_(self._element.parsed)
                self.same = self._element.same
        elif kind == "number":
            self._double = own.double is not None
            self.parsed = pa.float64() if self._double else pa.int64()
        else:
            # Null: any other value sends the piece another way (JSON text, lone surrogates, no type known yet).
            self.parsed = {"string": pa.string(), "boolean": pa.bool_()}.get(kind or "", pa.null())
        if self._convert is not None or self.wanted is None or self.parsed == pa.null():
            self.same = False

    def double_names(self, name: str, names: set[str]) -> bool:
        """Collects the keys whose values go to double columns; whether some are in lists."""
        if self._struct is not None:
            return self._struct.double_names(names)
        below, listed = self, False
        while below._element is not None:
            below, listed = below._element, True
        if below is not self:
            return below.double_names(name, names) or (listed and below._double)
        if self._double:
            names.add(name)
        return False

    def shaped(self, array: pa.Array, gathered: Gathered) -> tuple[pa.Array | None, pa.Array | None]:
        """The main column, and the texts for the sibling; None for what is all null or not there."""
        rows = len(array)
        if array.null_count == rows and (self._variant or self._convert or self.wanted is None):
            return None, None
        if self._variant is not None:
            return None, _texts(array, gathered)
        if self._double:
            gathered.doubles.append(array)
        if self._convert is not None or self.wanted is None:
            self._doubles_below(array, gathered)
        if self._convert is not None:
            return self._declared.shaped(array, self._convert)
        if self.wanted is None:
            return None, self._contentless(array)
        if self._struct is not None:
            return self._struct.struct(array, gathered), None
        if self._element is not None:
            values, texts = self._element.shaped(array.values, gathered)
            if texts is not None and texts.null_count != len(texts):
                raise ContentError
            if not self.same:
                if values is None:
                    values = pa.nulls(len(array.values), self.wanted.value_type)
                mask = array.is_null() if array.null_count else None
                return pa.ListArray.from_arrays(array.offsets, values, type=self.wanted, mask=mask), None
        elif array.type == pa.null():
            return None, None
        return array, None

    def _doubles_below(self, array: pa.Array, gathered: Gathered) -> None:
        """Gathers the double columns of what is not kept: it must be JSON all the same."""
        if self._struct is not None:
            for i, column in enumerate(self._struct.columns):
                child = array.field(i)
                if column._double:
                    gathered.doubles.append(child)
                column._doubles_below(child, gathered)
        elif self._element is not None:
            if self._element._double:
                gathered.doubles.append(array.values)
            self._element._doubles_below(array.values, gathered)

    def _contentless(self, array: pa.Array) -> pa.Array:
        """Texts of values that have no content (or none that is kept), for the sibling of a field without a column."""
        if self._hidden:
            values = [self._declared.veiled(value, self._hidden) for value in array.to_pylist()]
            if any(content(value) for value in values):
                raise ContentError
            return _empty_texts(values)
        _without_content(array)
        if pa.types.is_list(array.type) and not len(array.values):
            return pc.if_else(array.is_valid(), "[]", pa.scalar(None, pa.string()))
        if pa.types.is_struct(array.type) and not array.type.num_fields:
            return pc.if_else(array.is_valid(), "{}", pa.scalar(None, pa.string()))
        return _empty_texts(array.to_pylist())


def _empty_texts(values: list[Any]) -> pa.Array:
    return pa.array([None if value is None else empty_text(value) for value in values], pa.string())


def _encodable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False  # lone surrogates: no parser but ours takes them
    return True


def _texts(array: pa.Array, gathered: Gathered) -> pa.Array:
    """JSON texts of strings, integers or booleans, as `values.text_of` writes them."""
    if pa.types.is_int64(array.type):
        gathered.zero_texts |= bool(pc.any(pc.equal(array, 0), min_count=0).as_py())
        return array.cast(pa.string())
    if pa.types.is_boolean(array.type):
        return array.cast(pa.string())
    special = pc.match_substring_regex(array, '["\\\\\\x00-\\x1f]')
    if pc.any(special, min_count=0).as_py():
        return pa.array(
            [None if value is None else text_of(value) for value in array.to_pylist()], pa.string()
        )
    return pc.binary_join_element_wise('"', array, '"', "")


def _without_content(array: pa.Array) -> None:
    if pa.types.is_list(array.type):
        _without_content(array.values)
    elif pa.types.is_struct(array.type):
        for i in range(array.type.num_fields):
            _without_content(array.field(i))
    elif array.null_count != len(array):
        raise ContentError
