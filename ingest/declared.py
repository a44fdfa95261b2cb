"""Types that an operator declares for a path: which values fit, and what they become, one by one and as columns.

Pure. Both ways give the same. A value that does not fit goes to the sibling, as any other; `drop` takes the column
away, `hash` puts a keyed hash in its place.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Context, Decimal, InvalidOperation
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingest.columns import SIMPLE, TIME, simple_type
from ingest.schema import Field
from ingest.times import NO_TIME, event_time_us, times_of
from ingest.values import Deep, Doubled, Number, id_text, integer_as_double, text_of

_DATE = re.compile(r"\d{4}-\d\d-\d\d\Z", re.ASCII)
# As Arrow reads a decimal, its taste for "e+-1" included.
_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE]\+?-?\d+)?\Z", re.ASCII)
_EXACT = Context(prec=100)

MISFIT: Any = object()

# Types that JSON has itself: nothing is converted.
NATURAL: Mapping[str, pa.DataType] = {
    name: SIMPLE[name] for name in ("string", "boolean", "integer", "double")
}


Hidden: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Declared:
    """What is declared for one topic: a type for each path, the key of hashes, and the version of the settings."""

    types: Mapping[tuple[str, ...], str] = field(default_factory=dict)
    key: bytes = b""
    version: int = 0

    def __hash__(self) -> int:
        return hash((tuple(self.types.items()), self.key, self.version))

    @cached_property
    def hidden(self) -> Hidden:
        """What is dropped or hashed, as a tree of names with `drop` or `hash` at its ends."""
        tree: dict[str, Any] = {}
        for path, type_ in self.types.items():
            if type_ in ("drop", "hash"):
                below = tree
                for name in path[:-1]:
                    below = below.setdefault(name, {})
                    if not isinstance(below, dict):
                        break  # a part of what is hidden as a whole
                else:
                    below[path[-1]] = type_
        return tree

    def veiled(self, value: Any, hidden: Hidden | str) -> Any:
        """The value as it may stand in text: without what is dropped in it, and hashes in place of what is hashed."""
        if not hidden or value is None:
            return value
        if hidden == "hash":
            return self.hashed(value)
        if not isinstance(hidden, Mapping):
            return None
        if isinstance(value, dict):
            return {
                name: self.veiled(each, hidden.get(name, ""))
                for name, each in value.items()
                if hidden.get(name) != "drop"
            }
        if isinstance(value, Doubled):
            repeated = {
                name: [self.veiled(each, hidden.get(name, "")) for each in every]
                for name, every in value.repeated.items()
                if hidden.get(name) != "drop"
            }
            return Doubled(self.veiled(value.last, hidden), repeated)
        if isinstance(value, list):
            return [self.veiled(each, hidden) for each in value]
        return None if isinstance(value, Deep) else value  # what is only text cannot be searched

    def converted(self, value: Any, type_: str) -> Any:
        """`value` (not null) as what Arrow takes for `type_`; MISFIT if it does not fit; None for `drop`."""
        if type_ == "drop":
            return None
        if type_ == "hash":
            return self.hashed(value)
        if type_ == "json":
            return text_of(value)
        if type_ == "string":
            return value if type(value) is str else MISFIT
        if type_ == "boolean":
            return value if type(value) is bool else MISFIT
        if type_ == "integer":
            exact = value.integer() if isinstance(value, Number) else value if type(value) is int else None
            return MISFIT if exact is None else exact
        if type_ == "double":
            return _double(value)
        if type_ == "timestamp":
            time_us = event_time_us(value)
            return MISFIT if time_us is None else time_us
        return _date(value) if type_ == "date" else _decimal(value, simple_type(type_))

    def hashed(self, value: Any) -> str:
        """HMAC-SHA256 in hexadecimal: of a string's UTF-8, of a number's digits, of other values' JSON text."""
        text = None if isinstance(value, (dict, list, Doubled, Deep)) else id_text(value)
        data = (text_of(value) if text is None else text).encode()
        return hmac.digest(self.key, data, hashlib.sha256).hex()

    def parsed_type(self, own: Field) -> pa.DataType:
        """The type that the fast parser is told for a declared field, by the kind of the values that came first; null:
        it takes none of its values."""
        type_ = own.declaration or ""
        if type_ in NATURAL:
            return NATURAL[type_]
        if type_.startswith("decimal"):
            return simple_type(type_)
        if type_ == "json" or (type_ == "date" and own.kind != "string"):
            return pa.null()
        if own.kind == "number":
            return pa.int64() if own.double is None else pa.float64()
        if own.kind == "boolean" and type_ in ("hash", "drop"):
            return pa.bool_()
        return pa.string() if own.kind == "string" else pa.null()

    def shaped(self, array: pa.Array, type_: str) -> tuple[pa.Array | None, pa.Array | None]:
        """A parsed column as the declared one, and the texts of what does not fit."""
        if type_ == "drop":
            return None, None
        if type_ == "timestamp":
            times = times_of(array)
            return _with_texts(array, times == NO_TIME, pa.array(times).cast(TIME))
        if type_.startswith("decimal"):
            decimals = simple_type(type_)
            limit = pa.scalar(Decimal(1).scaleb(decimals.precision - decimals.scale))
            if pc.any(pc.greater_equal(pc.abs(array), limit), min_count=0).as_py():
                raise UnsureError
            return array, None
        if type_ == "hash":
            values = [None if value is None else self.hashed(value) for value in array.to_pylist()]
            return pa.array(values, pa.string()), None
        if type_ == "date":
            days = [None if value is None else _date(value) for value in array.to_pylist()]
            misfit = np.fromiter((day is MISFIT for day in days), bool, len(days))
            return _with_texts(
                array, misfit, pa.array([None if day is MISFIT else day for day in days], pa.date32())
            )
        return array, None


NOTHING_DECLARED = Declared()


class UnsureError(Exception):
    """The parsed column does not say what the records do: a decimal with more digits than declared, which Arrow takes
    all the same, or a double that does not fit, whose text was another."""


def _with_texts(array: pa.Array, misfit: Any, column: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    present = array.is_valid().to_numpy(zero_copy_only=False)
    wrong = misfit & present
    if not misfit.any():
        return column, None
    column = pc.if_else(pa.array(~misfit), column, pa.scalar(None, column.type))
    if not wrong.any():
        return column, None
    if pa.types.is_floating(array.type):
        raise UnsureError
    texts: list[str | None] = [None] * len(array)
    for row in np.flatnonzero(wrong).tolist():
        texts[row] = text_of(array[row].as_py())
    return column, pa.array(texts, pa.string())


def _double(value: Any) -> Any:
    if type(value) is float:
        return value
    exact = None
    if type(value) is int:
        exact = integer_as_double(value)
    elif isinstance(value, Number):
        exact = value.double()
    return MISFIT if exact is None else exact


def _date(value: Any) -> Any:
    if type(value) is str and _DATE.match(value):
        try:
            return dt.date.fromisoformat(value)
        except ValueError:
            return MISFIT
    return MISFIT


def _decimal(value: Any, type_: pa.DataType) -> Any:
    kind = type(value)
    text = (
        value
        if kind is str
        else value.text
        if kind is Number
        else repr(value)
        if kind in (int, float)
        else ""
    )
    if not _DECIMAL.match(text):
        return MISFIT
    try:
        number = Decimal(text.replace("+-", "-"))
        scaled = number.quantize(Decimal(1).scaleb(-type_.scale), context=_EXACT)
    except InvalidOperation:
        return MISFIT
    if scaled != number or abs(scaled) >= Decimal(1).scaleb(type_.precision - type_.scale):
        return MISFIT
    return scaled + 0
