"""One record's bytes to a JSON value, strictly: nothing is repaired, rounded or dropped.

Number text and every duplicate key are kept (`ingest.values`). What is no JSON raises `Unreadable` with a reason, a
text and the byte where it went wrong. Types of columns are unknown here.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from ingest.dead_letters import Unreadable
from ingest.deep import CUT, read_deep
from ingest.values import Broken, Deep, Doubled, Number, doubled_text, object_of

_SPACE = " \t\n\r"
_WHITE = re.compile(r"[ \t\n\r]*")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # an escape that may be half of a pair
# One whose other half does not stand beside it; of use where no backslash is escaped itself.
_LONE = re.compile(r"\\u[dD](?:[89abAB](?!..\\u[dD][c-fC-F])|[c-fC-F](?<!\\u[dD][89abAB]..\\u[dD].))")
_CONTAINERS = frozenset((dict, list, Doubled))
_HALF = re.compile("[\ud800-\udfff]")
_LONGEST_INT = 18  # digits that surely have 64 bits


def _integer(text: str) -> int | Number:
    if len(text) <= _LONGEST_INT and text != "-0":
        return int(text)
    number = Number(text)
    if text == "-0":
        return number
    value = number.integer()
    return number if value is None else value


def _fraction(text: str) -> float | Number:
    value = float(text)
    return value if repr(value) == text else Number(text)


def number(text: str) -> int | float | Number:
    """The number that `text` is."""
    return _fraction(text) if "." in text or "e" in text or "E" in text else _integer(text)


class _ConstantError(ValueError):
    """NaN or Infinity, which are not JSON."""


def _constant(name: str) -> NoReturn:
    raise _ConstantError(name)


class Reader:
    """Reads records one by one. One for each thread: it keeps the names of keys."""

    def __init__(self) -> None:
        decoder = json.JSONDecoder(
            object_pairs_hook=object_of, parse_int=_integer, parse_float=_fraction, parse_constant=_constant
        )
        self.scan = decoder.scan_once  # type: ignore[attr-defined]

    def read(self, record: bytes) -> dict[str, Any] | Doubled:
        """The event in `record`. Raises `Unreadable`."""
        try:
            text = record.decode()
        except UnicodeDecodeError as error:
            raise Unreadable(
                "not_utf8", f"byte 0x{record[error.start]:02x}: {error.reason}", error.start
            ) from None
        start = 0 if text[:1] == "{" else _WHITE.match(text).end()  # type: ignore[union-attr]
        try:
            value, end = self.scan(text, start)
        except StopIteration as stop:
            raise _wrong(text, stop.value, start) from None
        except json.JSONDecodeError as error:
            raise Unreadable("not_json", _said(error), _bytes(text, error.pos)) from None
        except _ConstantError as error:
            at = _outside_strings(text, str(error))
            raise Unreadable("not_json", f"{error} is not JSON", _bytes(text, at)) from None
        except RecursionError:
            value, end = read_deep(text, start)
        else:
            if len(text) > 2 * CUT and text.count("{") + text.count("[") > CUT and _too_deep(value):
                value, end = read_deep(text, start)
        if end != len(text) and _WHITE.match(text, end).end() != len(text):  # type: ignore[union-attr]
            at = _WHITE.match(text, end).end()  # type: ignore[union-attr]
            raise Unreadable("not_json", "more text after the end of the value", _bytes(text, at))
        if not isinstance(value, (dict, Doubled)):
            raise Unreadable("not_object", f"{_kind(value)}, not an object", _bytes(text, start))
        if "\\u" in text and (_SURROGATE if "\\\\" in text else _LONE).search(text):
            _mend(value)
        return value


def values_of_sibling(text: str) -> list[Any]:
    """The values that the text of a sibling holds: several for a repeated key."""
    try:
        value, _ = Reader().scan(text, 0)
        repeated = type(value) is list and len(value) > 1 and doubled_text(value) == text
    except RecursionError:
        return [Deep(text)]
    return list(value) if repeated else [value]


# What the parser says, which differs between versions of Python, in words that say what is wrong.
_SAID = {
    "Invalid control character": "a control character stands in a string as it is",
    "Unterminated string": "a string begins here that does not end",
    "Invalid \\escape": "a backslash stands before something that it cannot escape",
    "Invalid \\uXXXX": "\\u is not followed by four hexadecimal digits",
    "Expecting property name": "a key in double quotes should stand here",
    "Expecting ':'": "a colon should stand here",
    "Expecting ','": "a comma or the end should stand here",
    "Illegal trailing comma": "after this comma something should follow",
}


def _said(error: json.JSONDecodeError) -> str:
    return next((said for begins, said in _SAID.items() if error.msg.startswith(begins)), error.msg)


def _wrong(text: str, at: int, start: int) -> Unreadable:
    if start == len(text):
        return Unreadable("empty", "no bytes" if not text else "only white space", start)
    if text[start] == "\ufeff":
        return Unreadable("not_json", "begins with a byte order mark", 0)
    if at >= len(text):
        return Unreadable("not_json", "the text ends in the middle of a value", _bytes(text, at))
    return Unreadable("not_json", f"no value begins with {text[at]!r}", _bytes(text, at))


def _bytes(text: str, at: int) -> int:
    return len(text[:at].encode())


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?Infinity|NaN', re.DOTALL)


def _outside_strings(text: str, constant: str) -> int:
    for found in _TOKEN.finditer(text):
        if found[0] == constant:
            return found.start()
    return 0


def _too_deep(value: Any) -> bool:
    """Whether some container stands deeper than the cut: values below are walked by recursion."""
    level = [value]
    for _ in range(CUT):
        below: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                below += [child for child in each.values() if isinstance(child, (dict, list, Doubled))]
            elif isinstance(each, Doubled):
                below += [child for _, child in each.pairs() if isinstance(child, (dict, list, Doubled))]
            elif isinstance(each, list):
                below += [child for child in each if isinstance(child, (dict, list, Doubled))]
        if not below:
            return False
        level = below
    return True


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, list):
        return "an array"
    return "a string" if isinstance(value, (str, Broken)) else "a number"


def _mend(value: Any) -> None:
    """Marks the broken strings in an object or array."""
    kind = type(value)
    if kind is dict:
        for name, each in value.items():
            if type(each) is str:
                if not each.isascii() and _HALF.search(each):
                    value[name] = Broken(each)
            elif type(each) in _CONTAINERS:
                _mend(each)
    elif kind is list:
        for place, each in enumerate(value):
            if type(each) is str:
                if not each.isascii() and _HALF.search(each):
                    value[place] = Broken(each)
            elif type(each) in _CONTAINERS:
                _mend(each)
    else:
        _mend(value.last)
        for every in value.repeated.values():
            _mend(every)
