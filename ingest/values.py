"""A JSON value as the record-by-record way holds it, and its text.

Plain `str`, `int` (64 bits), `float` (exactly as written), `bool`, `None`, `list` and `dict`; beside them four kinds of
values that Python's own would lose something of. No parser and no type of a column lives here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
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
    """A value of which only the text is kept, such as an object or array too deep in its record. `kind`: which."""

    __slots__ = ("kind", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.kind = "struct" if text[0] == "{" else "list"


class Doubled:
    """An object with a key that stands in it more than once.

    `last`: each key with its last value; `repeated`: all values, in order, of the keys that stand there more than once.
    """

    __slots__ = ("last", "repeated")

    def __init__(self, last: dict[str, Any], repeated: dict[str, list[Any]]) -> None:
        self.last = last
        self.repeated = repeated

    def pairs(self) -> Iterator[tuple[str, Any]]:
        """All keys and values; those of equal keys one after the other."""
        for name, value in self.last.items():
            every = self.repeated.get(name)
            if every is None:
                yield name, value
            else:
                for each in every:
                    yield name, each


def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any] | Doubled:
    """The object with these pairs."""
    last = dict(pairs)
    if len(last) == len(pairs):
        return last
    seen: dict[str, Any] = {}
    repeated: dict[str, list[Any]] = {}
    for name, value in pairs:
        if name not in seen:
            seen[name] = value
        elif name in repeated:
            repeated[name].append(value)
        else:
            repeated[name] = [seen[name], value]
    return Doubled(last, repeated)


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


def id_text(value: Any) -> str | None:
    """The text by which a value is compared: strings as they are, numbers by their value in plain digits."""
    if value is None or type(value) is str:
        return value
    if type(value) is bool:
        return "true" if value else "false"
    if isinstance(value, Number):
        double = value.double()
        if double is None:
            return value.text
        value = double
    if type(value) is float:
        return str(int(Decimal(repr(value)))) if value.is_integer() else repr(value)
    return str(value) if type(value) is int else None


_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False)
_encode = _encoder.encode
_quoted: Callable[[str], str] = json.encoder.encode_basestring


def _escaped(text: str) -> str:
    """Lone surrogates, which alone UTF-8 cannot hold, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


# By type, without the encoder's detours: these are nearly all that siblings hold.
_SIMPLE: Mapping[type, Callable[[Any], str]] = {
    str: _quoted,
    int: str,
    float: repr,
    bool: lambda value: "true" if value else "false",
    Number: lambda value: value.text,
    Broken: lambda value: _escaped(_quoted(value.text)),
}


def text_of(value: Any) -> str:
    """JSON text without white space, numbers as they were written, all of equal keys, lone surrogates escaped."""
    simple = _SIMPLE.get(type(value))
    if simple is not None:
        return simple(value)
    try:
        text = _encode(value)
    except TypeError:  # one of the four above is in it
        text = "".join(_pieces(value))
    return text if text.isascii() else _escaped(text)


def doubled_text(values: Iterable[Any]) -> str:
    """All values of one key as a JSON array. The space after a comma tells it from one value that is an array."""
    return f"[{', '.join([text_of(value) for value in values])}]"


def empty_text(value: Any) -> str:
    """The text of a value without any content (empty objects and arrays, nulls): null and absent are the same."""
    return text_of(_without_nulls(value))


def content(value: Any) -> bool:
    """Whether something stands in the value that is no null, no object and no array (of plain ones)."""
    if isinstance(value, dict):
        return any(map(content, value.values()))
    return any(map(content, value)) if isinstance(value, list) else value is not None


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(each) for name, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


def _pieces(value: Any) -> Iterable[str]:
    if isinstance(value, (Number, Deep)):
        yield value.text
    elif isinstance(value, Broken):
        yield _encode(value.text)
    elif isinstance(value, (dict, Doubled)):
        lead = "{"
        for name, each in value.items() if isinstance(value, dict) else value.pairs():
            yield f"{lead}{_encode(name)}:"
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
