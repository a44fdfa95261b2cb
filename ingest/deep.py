"""The strict reader for records nested deeper than the usual one may recurse: a loop instead of recursion.

Pure. Objects and arrays below `CUT` are checked but kept as text only (`values.Deep`): no column reaches that deep.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from ingest.dead_letters import Unreadable
from ingest.values import Broken, Deep, object_of, text_of

CUT = 150  # containers at this depth are text; the event itself has depth 1

_TOKEN = re.compile(
    r'[ \t\n\r]*(?:(?P<punctuation>[{}\[\]:,])|(?P<string>"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9A-Fa-f]{4})*")'
    r"|(?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)|(?P<word>true|false|null))"
)
_WORDS = {"true": True, "false": False, "null": None}
_WHITE = re.compile(r"[ \t\n\r]*")


def read_deep(text: str, start: int) -> tuple[Any, int]:
    """The value at `start`, and where it ends. Raises `Unreadable`."""
    from ingest.strict import number

    stack: list[tuple[str, list[Any]]] = []  # open containers above the cut: kind, and pairs or elements
    key: list[str] = []  # of each open object above the cut
    deep: list[str] = []  # brackets open below the cut
    written: list[str] = []  # the text there
    expected = "value"  # value, first (value or end), key, first_key, colon, more
    at = start
    while True:
        found = _TOKEN.match(text, at)
        if found is None:
            _refuse(text, at, expected)
        kind, token = found.lastgroup, found[found.lastgroup or 0]
        begin, at = found.start(found.lastgroup or 0), found.end()
        done: Any = None
        closed = False
        if token in ("}", "]") and kind == "punctuation":
            opener = deep[-1] if deep else stack[-1][0] if stack else ""
            if (
                expected not in ("more", "first_key" if token == "}" else "first")
                or opener != "{["["}]".index(token)]
            ):
                _refuse(text, begin, expected)
            closed = True
        elif expected in ("key", "first_key"):
            if kind != "string":
                _refuse(text, begin, expected)
        elif expected == "colon":
            if token != ":" or kind != "punctuation":
                _refuse(text, begin, expected)
        elif expected == "more":
            if token != "," or kind != "punctuation":
                _refuse(text, begin, expected)
        elif kind == "punctuation" and token not in "{[":
            _refuse(text, begin, expected)

        if deep or (
            not closed and expected in ("value", "first") and len(stack) >= CUT - 1 and token in ("{", "[")
        ):
            # Below the cut: only the shape is followed.
            if token in ("{", "[") and kind == "punctuation":
                deep.append(token)
                expected = "first_key" if token == "{" else "first"
            elif closed:
                deep.pop()
                expected = "more"
            else:
                expected = _next(expected, deep[-1])
            written.append(_compact(token) if kind == "string" else token)
            if deep:
                continue
            done = Deep("".join(written))
            written = []
        elif closed:
            opener, items = stack.pop()
            if opener == "{":
                key.pop()
                done = object_of(items)
            else:
                done = items
        elif expected in ("key", "first_key"):
            key[-1] = json.loads(token)
            expected = "colon"
            continue
        elif expected == "colon":
            expected = "value"
            continue
        elif expected == "more":
            expected = "key" if stack[-1][0] == "{" else "value"
            continue
        elif kind == "punctuation":
            stack.append((token, []))
            if token == "{":
                key.append("")
                expected = "first_key"
            else:
                expected = "first"
            continue
        elif kind == "string":
            done = json.loads(token)
        elif kind == "number":
            done = number(token)
        else:
            done = _WORDS[token]
        # A whole value stands here.
        if not stack:
            return done, at
        stack[-1][1].append((key[-1], done) if stack[-1][0] == "{" else done)
        expected = "more"


def _next(expected: str, opener: str) -> str:
    if expected in ("key", "first_key"):
        return "colon"
    if expected == "colon":
        return "value"
    if expected == "more":
        return "key" if opener == "{" else "value"
    return "more"


def _compact(token: str) -> str:
    """A string as all our texts write it."""
    text = json.loads(token)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text_of(Broken(text))
    return text_of(text)


def _refuse(text: str, at: int, expected: str) -> NoReturn:
    at = _WHITE.match(text, at).end()  # type: ignore[union-attr]
    wanted = {
        "value": "a value",
        "first": "a value or ]",
        "key": "a key",
        "first_key": "a key or }",
        "colon": "a colon",
        "more": "a comma or the end",
    }[expected]
    where = len(text[:at].encode())
    if at >= len(text):
        raise Unreadable("not_json", f"the text ends where {wanted} should stand", where)
    raise Unreadable("not_json", f"{text[at]!r} stands where {wanted} should", where)
