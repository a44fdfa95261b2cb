"""A strict JSON parser of our own, slow and plain, that keeps number text and every duplicate key, and what is the
same value. What decoding is measured by; the way back from a row is `row_reference`.

Values here: None, True, False, str, `Num` (its text), list, and `Obj` (pairs in order).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class NotJsonError(Exception):
    pass


@dataclass(frozen=True)
class Num:
    text: str


@dataclass(frozen=True)
class Obj:
    pairs: tuple[tuple[str, Any], ...]


def parse(data: bytes) -> Any:
    try:
        text = data.decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        raise NotJsonError from error
    value, at = _value(text, _white(text, 0))
    if _white(text, at) != len(text):
        raise NotJsonError
    return value


def _white(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\n\r":
        at += 1
    return at


def _value(text: str, at: int) -> tuple[Any, int]:
    for word, value in (("true", True), ("false", False), ("null", None)):
        if text.startswith(word, at):
            return value, at + len(word)
    if text.startswith('"', at):
        return _string(text, at + 1)
    if text.startswith("[", at):
        return _array(text, at + 1)
    if text.startswith("{", at):
        return _object(text, at + 1)
    found = _NUMBER.match(text, at)
    if found is None:
        raise NotJsonError
    return Num(found[0]), found.end()


def _array(text: str, at: int) -> tuple[list[Any], int]:
    values: list[Any] = []
    at = _white(text, at)
    if text.startswith("]", at):
        return values, at + 1
    while True:
        value, at = _value(text, _white(text, at))
        values.append(value)
        at = _white(text, at)
        if text.startswith("]", at):
            return values, at + 1
        if not text.startswith(",", at):
            raise NotJsonError
        at += 1


def _object(text: str, at: int) -> tuple[Obj, int]:
    pairs: list[tuple[str, Any]] = []
    at = _white(text, at)
    if text.startswith("}", at):
        return Obj(()), at + 1
    while True:
        at = _white(text, at)
        if not text.startswith('"', at):
            raise NotJsonError
        name, at = _string(text, at + 1)
        at = _white(text, at)
        if not text.startswith(":", at):
            raise NotJsonError
        value, at = _value(text, _white(text, at + 1))
        pairs.append((name, value))
        at = _white(text, at)
        if text.startswith("}", at):
            return Obj(tuple(pairs)), at + 1
        if not text.startswith(",", at):
            raise NotJsonError
        at += 1


def _string(text: str, at: int) -> tuple[str, int]:
    units = []
    while True:
        if at >= len(text):
            raise NotJsonError
        c = text[at]
        if c == '"':
            # Escaped halves of a pair that stand together are one character, others stay halves.
            joined = "".join(units).encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
            return joined, at + 1
        if c < " ":
            raise NotJsonError
        if c != "\\":
            units.append(c)
            at += 1
            continue
        e = text[at + 1 : at + 2]
        if e == "u":
            digits = text[at + 2 : at + 6]
            if not re.fullmatch("[0-9a-fA-F]{4}", digits):
                raise NotJsonError
            units.append(chr(int(digits, 16)))
            at += 6
        elif e in _ESCAPES and e:
            units.append(_ESCAPES[e])
            at += 2
        else:
            raise NotJsonError


# -- what two readers must agree on -------------------------------------------------------------------------------


def normal(value: Any) -> Any:
    """A value so that equal means: the same to a reader. Null and absent are; numbers are compared by value."""
    if isinstance(value, Num):
        return ("number", *scientific(value.text))
    if isinstance(value, list):
        return ("array", tuple(normal(each) for each in value))
    if isinstance(value, Obj):
        every: dict[str, list[Any]] = {}
        for name, each in value.pairs:
            every.setdefault(name, []).append(normal(each))
        return ("object", frozenset((n, tuple(vs)) for n, vs in every.items() if vs != [None]))
    if isinstance(value, str):
        return ("string", value)
    return value


def scientific(text: str) -> tuple[bool, str, int]:
    mantissa, _, exponent = text.replace("E", "e").partition("e")
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    stripped = digits.rstrip("0")
    if not stripped:
        return False, "", 0
    power = int(exponent or "0") - len(fraction) + len(digits) - len(stripped)
    return mantissa.startswith("-"), stripped, power
