"""A JSON value as the record-by-record way holds it, and its text.

Plain `str`, `int` (64 bits), `float` (exactly as written), `bool`, `None`, `list` and `dict`; beside them four kinds of
values that Python's own would lose something of. No parser and no type of a column lives here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from typing import Any

INT64 = range(-(1 << 63), 1 << 63)
_SAFE = 10**15  # integers up to here are exact in a double, in their shortest text too


class Number:
    """A number that is kept as its text: not canonical, beyond 64 bits, or finer than a double."""

    __slots__ = ("integral", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.integral = not ("." in text or "e" in text or "E" in text)

    def integer(self) -> int | None:
        """Its value if it is written as an integer and has 64 bits."""
        if not self.integral or len(self.text) > 20:
            return None
        value = int(self.text)
        return value if value in INT64 else None

    def double(self) -> float | None:
        """The double that means exactly this number (whose shortest decimal text has the same value)."""
        return exact_double(self.text)

    def alone(self) -> bool:
        """No column of numbers can hold it, neither of integers nor of doubles."""
        return self.integer() is None if self.integral else self.double() is None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Number) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Number({self.text!r})"


class Broken:
    """A string with lone surrogates, which UTF-8 cannot hold: only its JSON text can."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Broken) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Broken({self.text!r})"


class Deep:
    """An object or array so deep in its record that only its text was kept. `kind`: struct or list."""

    __slots__ = ("kind", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.kind = "struct" if text[0] == "{" else "list"


class Doubled:
    """An object with a key that stands in it more than once; `pairs` are all, in order."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self.pairs = pairs

    def last(self) -> dict[str, Any]:
        return dict(self.pairs)

    def all(self) -> dict[str, list[Any]]:
        """Every key's values in order."""
        every: dict[str, list[Any]] = {}
        for name, value in self.pairs:
            every.setdefault(name, []).append(value)
        return every


def exact_double(text: str) -> float | None:
    """The double whose shortest decimal text has the value of `text`, if there is one.

    So a double column means the decimal number that it prints: 0.1 fits, 0.1000000000000000055 does not, nor does
    9007199254740993, nor 1e-999.
    """
    value = float(text)
    if value - value != 0.0:
        return None  # infinite
    if repr(value) == text:
        return value
    if value == 0.0:
        mantissa = text.replace("E", "e").partition("e")[0]
        return None if mantissa.strip("-0.") else value
    try:
        return value if Decimal(repr(value)) == Decimal(text) else None
    except InvalidOperation:  # an exponent or length beyond what Decimal takes
        return None


def integer_as_double(value: int) -> float | None:
    if -_SAFE <= value <= _SAFE:
        return float(value)
    return exact_double(str(value))


_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False
).encode


def text_of(value: Any) -> str:
    """JSON text without white space, numbers as they were written, all of equal keys, lone surrogates escaped."""
    try:
        return _encode(value)
    except TypeError:  # one of the four above is in it
        return "".join(_pieces(value))


def doubled_text(values: Iterable[Any]) -> str:
    """All values of one key as a JSON array. The space after a comma tells it from one value that is an array."""
    return f"[{', '.join([text_of(value) for value in values])}]"


def empty_text(value: Any) -> str:
    """The text of a value without any content (empty objects and arrays, nulls), absent and null being the same."""
    if isinstance(value, dict):
        return (
            "{" + ",".join([f"{_encode(k)}:{empty_text(v)}" for k, v in value.items() if v is not None]) + "}"
        )
    if isinstance(value, list):
        return f"[{','.join([empty_text(each) for each in value])}]"
    return text_of(value)


def _pieces(value: Any) -> Iterable[str]:
    if isinstance(value, (Number, Deep)):
        yield value.text
    elif isinstance(value, Broken):
        yield _string(value.text)
    elif isinstance(value, (dict, Doubled)):
        lead = "{"
        for name, each in value.items() if isinstance(value, dict) else value.pairs:
            yield f"{lead}{_string(name)}:"
            yield from _pieces(each)
            lead = ","
        yield "{}" if lead == "{" else "}"
    elif isinstance(value, list):
        lead = "["
        for each in value:
            yield lead
            yield from _pieces(each)
            lead = ","
        yield "[]" if lead == "[" else "]"
    else:
        yield _encode(value)


def _string(text: str) -> str:
    written = _encode(text)
    if written.isascii():
        return written
    return "".join([f"\\u{ord(c):04x}" if "\ud800" <= c <= "\udfff" else c for c in written])
