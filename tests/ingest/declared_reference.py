"""What a column of a declared type holds of a value, in a few plain lines: the measure of `ingest.declared`."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from tests.ingest.json_reference import Num, Obj, scientific

MISFIT: Any = object()  # the value stands in the sibling
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
KEY = b"a key for hashes"

Types = Mapping[tuple[str, ...], str]


@dataclass(frozen=True)
class Held:
    """A value of a column whose type JSON has not."""

    type: str
    value: Any


def same_declared(held: Any, wanted: Any) -> bool:
    """Equal; of times that are no whole microseconds, within what a double says of them."""
    if isinstance(wanted, Fraction):
        time_us = Fraction((held - EPOCH) // dt.timedelta(microseconds=1))
        return abs(time_us - wanted) <= (0 if wanted.denominator == 1 else 1 + abs(wanted) / 2**50)
    return bool(held == wanted)


def declared_value(value: Any, type_: str) -> Any:
    """What the column holds of `value` (not null; times as microseconds), or MISFIT."""
    number = value.text if isinstance(value, Num) else None
    if type_ == "json":
        return value
    if type_ == "string":
        return value if isinstance(value, str) and not re.search("[\ud800-\udfff]", value) else MISFIT
    if type_ == "boolean":
        return value if isinstance(value, bool) else MISFIT
    if type_ == "integer":
        whole = number is not None and number.lstrip("-").isdigit() and -(2**63) <= int(number) < 2**63
        return int(number or 0) if whole else MISFIT
    if type_ == "double":
        return float(number) if number is not None and exact(number) else MISFIT
    if type_ == "timestamp":
        time = (
            _text_time(value) if isinstance(value, str) else None if number is None else _number_time(number)
        )
        in_calendar = time is not None and -62_135_596_800_000_000 <= time < 253_402_300_800_000_000
        return time if in_calendar else MISFIT
    if type_ == "date":
        if not isinstance(value, str) or not re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
            return MISFIT
        try:
            return dt.date(*map(int, value.split("-")))
        except ValueError:
            return MISFIT
    return _decimal(number if number is not None else value, *map(int, re.findall("[0-9]+", type_)))


def exact(number: str) -> bool:
    """Whether a double prints as this number."""
    double = float(number)
    return abs(double) != float("inf") and scientific(repr(double).replace("e+", "e")) == scientific(number)


def _text_time(text: str) -> Fraction | None:
    if re.fullmatch(r"-?[0-9]{9,19}(\.[0-9]+)?", text):
        return _epoch(Fraction(text))
    try:
        time = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    time = time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time
    return Fraction((time - EPOCH) // dt.timedelta(microseconds=1))


def _number_time(number: str) -> Fraction | None:
    whole = number.lstrip("-").isdigit() and len(number) <= 20 and -(2**63) <= int(number) < 2**63
    return _epoch(Fraction(number)) if whole or (exact(number) and abs(float(number)) <= 2**63) else None


def _epoch(value: Fraction) -> Fraction:
    """Seconds, milliseconds, microseconds or nanoseconds, by size."""
    for below, times in ((10**11, 1_000_000), (10**14, 1_000), (10**17, 1)):
        if abs(value) < below:
            return value * times
    return Fraction(value // 1_000)


def _decimal(text: Any, precision: int, scale: int) -> Any:
    if not isinstance(text, str) or not re.fullmatch(
        r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text
    ):
        return MISFIT
    negative, digits, power = scientific(text.removeprefix("+"))
    if digits and (power < -scale or len(digits) + power > precision - scale):
        return MISFIT
    return Decimal(f"{'-' * negative}{digits or 0}e{power}")


def hidden(value: Any, types: Types, key: bytes | None, path: tuple[str, ...] = ()) -> Any:
    """The value without what is dropped, and with hashes in place of what is hashed (`key` None: as it is)."""
    if isinstance(value, list):
        return [hidden(each, types, key, path) for each in value]
    if not isinstance(value, Obj):
        return value
    pairs = []
    for name, each in value.pairs:
        at = (*path, name)
        if types.get(at) == "hash" and key is not None and each is not None:
            pairs.append((name, hmac.new(key, _hashed(each), hashlib.sha256).hexdigest()))
        elif types.get(at) != "drop":
            pairs.append((name, hidden(each, types, key, at)))
    return Obj(tuple(pairs))


def _hashed(value: Any) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:
            return _text(value).encode()
    if isinstance(value, Num) and exact(value.text):
        number = Fraction(value.text)
        return str(number if number.denominator == 1 else float(number)).encode()
    return _text(value).encode()


def _text(value: Any) -> str:
    """JSON without white space; of a repeated key all values stand where the first stood."""
    if isinstance(value, Num):
        return value.text
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, Obj):
        pairs = [(n, v) for name in dict(value.pairs) for n, v in value.pairs if n == name]
        return f"{{{','.join(f'{_text(name)}:{_text(each)}' for name, each in pairs)}}}"
    text = json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode()
