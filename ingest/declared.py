"""Types that an operator declares for a path: which values fit, and what they become.

Pure. A value that does not fit goes to the sibling, as any other.
"""

from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa

from ingest.columns import simple_type
from ingest.times import event_time_us
from ingest.values import Broken, Number, integer_as_double, text_of

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}\Z", re.ASCII)
_DECIMAL = re.compile(r"-?\d{1,76}(\.\d{1,76})?\Z", re.ASCII)

MISFIT: Any = object()


def fits(value: Any, type_: str) -> bool:
    return converted(value, type_) is not MISFIT


def converted(value: Any, type_: str) -> Any:
    """`value` (not null) as the Python value that Arrow takes for `type_`, or MISFIT."""
    if type_ == "json":
        return text_of(value)
    if type_ == "string":
        return value if type(value) is str else MISFIT
    if type_ == "boolean":
        return value if type(value) is bool else MISFIT
    if type_ == "integer":
        if type(value) is int:
            return value
        exact = value.integer() if isinstance(value, Number) else None
        return MISFIT if exact is None else exact
    if type_ == "double":
        return _double(value)
    if type_ == "timestamp":
        if type(value) not in (str, int, float, Number):
            return MISFIT
        time_us = event_time_us(value)
        return MISFIT if time_us is None else time_us
    if type_ == "date":
        if type(value) is str and _DATE.match(value):
            try:
                return dt.date.fromisoformat(value)
            except ValueError:
                return MISFIT
        return MISFIT
    return _decimal(value, simple_type(type_))


def _double(value: Any) -> Any:
    if type(value) is float:
        return value
    exact = None
    if type(value) is int:
        exact = integer_as_double(value)
    elif isinstance(value, Number):
        exact = value.double()
    return MISFIT if exact is None else exact


def _decimal(value: Any, type_: pa.DataType) -> Any:
    if isinstance(value, (bool, Broken)):
        return MISFIT
    text = value.text if isinstance(value, Number) else value if type(value) is str else None
    if type(value) in (int, float):
        text = repr(value)
    if text is None or (type(value) is str and not _DECIMAL.match(text)):
        return MISFIT
    try:
        number = Decimal(text)
        scaled = number.quantize(Decimal(1).scaleb(-type_.scale))
    except InvalidOperation:
        return MISFIT
    if scaled != number or len(scaled.as_tuple().digits) > type_.precision:
        return MISFIT
    return scaled
