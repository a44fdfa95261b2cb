"""Hypothesis strategies: JSON text as any company may write it, and what is nearly JSON."""

from __future__ import annotations

import json

from hypothesis import strategies as st

_WHITE = st.sampled_from(["", "", "", " ", "\n", "\t", "\r\n", "  "])

_NAMES = [
    "a",
    "b",
    "c",
    "A",
    "a.b",
    "",
    "_offset",
    "a__text",
    "é",
    "日本",
    "_x0041_",
    "a b",
    "1",
    "v",
    "\ud800",
    "\0",
]

# Numbers that one column or another cannot hold, or that parsers disagree about.
_HARD = [
    "0",
    "-0",
    "-0.0",
    "0.0",
    "1.0",
    "1e2",
    "1E-2",
    "1.50",
    "9007199254740992",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "1e308",
    "1e309",
    "-1e400",
    "1e-320",
    "5e-324",
    "2e-324",
    "1e-999",
    "0e999999",
    "1e22",
    "1e23",
    "0.1",
    "0.30000000000000004",
    "0.1000000000000000055511151231257827",
    "123456789012345678",
    "1152921504606846976",
    "4.9E-324",
    "1.7976931348623157e308",
    "1.7976931348623159e308",
    "0.00000000000000000000000001",
    "2.2250738585072011e-308",
    "12345678901234567890.5",
    "1e+05",
    "1e-00000000000000000400",
]
NUMBERS = st.one_of(
    st.integers(-5, 5).map(str),
    st.integers(-(2**70), 2**70).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(_HARD),
)
_ESCAPED = st.sampled_from(
    [r"\n", r"\"", r"\\", r"\/", r"A", "\\u0000", r"\ud83d\ude00", r"\ud800", r"\udc00", r"é", r"\uD834"]
)
_RAW = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters='"\\', min_codepoint=32), max_size=6
)
STRINGS = st.lists(st.one_of(_RAW, _ESCAPED), max_size=3).map(lambda parts: f'"{"".join(parts)}"')
KEYS = st.one_of(
    st.sampled_from(_NAMES).map(json.dumps),
    st.sampled_from(_NAMES[:12]).map(lambda name: json.dumps(name, ensure_ascii=False)),
    STRINGS,
)
_SCALARS = st.one_of(NUMBERS, STRINGS, st.sampled_from(["true", "false", "null"]))


def _spaced(parts: list[str], opening: str, closing: str, white: str) -> str:
    return opening + white + f"{white},{white}".join(parts) + white + closing


def _containers(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    arrays = st.builds(_spaced, st.lists(values, max_size=4), st.just("["), st.just("]"), _WHITE)
    return st.one_of(arrays, objects(values))


def objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    members = st.builds(lambda key, value, white: f"{key}{white}:{white}{value}", KEYS, values, _WHITE)
    return st.builds(_spaced, st.lists(members, max_size=5), st.just("{"), st.just("}"), _WHITE)


VALUES = st.recursive(_SCALARS, _containers, max_leaves=12)
EVENTS = objects(VALUES)


def _damaged(text: bytes, at: int, how: str, byte: int) -> bytes:
    at %= len(text) + 1
    if how == "cut":
        return text[:at]
    if how == "insert":
        return text[:at] + bytes([byte]) + text[at:]
    if how == "twice":
        return text + text
    if how == "newline":
        return text + b"\n" + text
    return text[:at] + bytes([byte]) + text[at + 1 :]


_BYTES = EVENTS.map(lambda text: text.encode("utf-8", "surrogatepass"))
_DAMAGED = st.builds(
    _damaged,
    _BYTES,
    st.integers(0, 200),
    st.sampled_from(["cut", "insert", "twice", "newline", "replace"]),
    st.one_of(st.integers(0, 255), st.sampled_from(list(b'{}[]",:\\\0 \n-.eE0N'))),
)
_FORGED = st.sampled_from(
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b'"x"',
        b"1",
        b"NaN",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":Inf}',
        b'{"a":[1.5,NaN]}',
        b'{"a":1}}\n{"v":{"a":2}',
        b'{"a":1},"v":{"a":2}',
        b'{"a":1},"v":null',
        b'{"a":1}{"a":2}',
        b'{"a":1}\n{"a":2}',
        b'{"a":"\n"}',
        b'{"a":"\t"}',
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":1}\0',
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        b"{'a':1}",
        b'{"a":01}',
        b'{"a":1,}',
        b'{"a":[1,]}',
        b'{"a":"' + "é".encode()[:1] + b'"}',
        '{"a":1}'.encode("utf-16"),
    ]
)
# Mostly events, so that pieces also go the fast way.
RECORDS = st.one_of(_BYTES, _BYTES, _BYTES, _DAMAGED, _FORGED)

# What types that an operator declares are for, and what is nearly that.
TIMES = st.one_of(
    st.datetimes().map(lambda time: time.isoformat()),
    st.builds(
        "{}-{:02}-{:02}{}{:02}:{:02}{}{}".format,
        st.sampled_from(["0001", "1969", "1970", "2024", "2263", "9999"]),
        st.integers(1, 13),
        st.integers(1, 31),
        st.sampled_from(["T", " "]),
        st.integers(0, 24),
        st.integers(0, 60),
        st.sampled_from(["", ":00", ":60", ":01.5", ":01.123456", ":01.123456789", ":01,5"]),
        st.sampled_from(["", "Z", "+00:00", "-07:30", "+0100", "+14", "z", "+23:59:59", " "]),
    ),
    st.dates().map(str),
    st.sampled_from(
        ["2024-02-30", "20240501", "2024-W01-1", "2024-05", "1714557600", "1714557600.25", "now"]
    ),
)
_EPOCHS = st.one_of(
    st.sampled_from(
        [0, 1, 10**11, 10**14, 10**17, 253_402_300_800, 99_999_999_999_999, 2**53, 2**63 - 1]
    ).flatmap(lambda edge: st.integers(-2, 2).map(lambda step: edge + step)),
    st.integers(-(2**40), 2**60),
)
_TEXTS = st.sampled_from(
    ["12.50", "-1", "+1", ".5", "1e3", "1e-3", "0.005", "1e40", "1_0", " 1", "NaN", "-0", "\ud800"]
)
_TYPED = st.one_of(
    TIMES.map(json.dumps),
    _TEXTS.map(json.dumps),
    _EPOCHS.map(str),
    _EPOCHS.map(lambda value: f"{value}.25"),
    st.decimals(-10_000, 10_000, places=3).map(str),
    NUMBERS,
    VALUES,
)
_INNER = st.one_of(
    _TYPED, st.builds('{{"c":{}}}'.format, _TYPED), st.builds('[{{"c":{}}},{}]'.format, _TYPED, _TYPED)
)
TYPED_EVENTS = st.builds('{{"a":{},"b":{}}}'.format, _TYPED, _INNER).map(lambda text: text.encode())
