"""Records become typed rows or dead letters, each in its own place."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ingest.chunk import Headers, Records
from ingest.decode import Decoded, DecodeRules, decode
from ingest.schema import TopicSchema

FETCHED_US = 1_714_550_000_000_000


def records(values: list[bytes | None], headers: list[Headers] | None = None, stamp_ms: int = 0) -> Records:
    count = len(values)
    stamps = np.full(count, stamp_ms or FETCHED_US // 1000, np.int64)
    return Records(np.arange(100, 100 + count), stamps, [b"k"] * count, values, headers)


def decoded(*values: bytes | None, schema: TopicSchema | None = None, **rules: object) -> Decoded:
    return decode(records(list(values)), 3, schema or TopicSchema(), DecodeRules(**rules), FETCHED_US)  # type: ignore[arg-type]


def event(result: Decoded, row: int = 0) -> dict[str, object]:
    """The event's columns of one row, without nulls."""
    full = result.table.slice(row, 1).drop_columns(result.table.schema.names[:10]).to_pylist()[0]
    return {name: value for name, value in full.items() if value is not None}


def test_an_event_becomes_a_row_with_typed_columns() -> None:
    result = decoded(b'{"a":1,"b":1.5,"c":"x","d":true,"e":[1,2],"f":{"g":"y"}}')
    assert event(result) == {"a": 1, "b": 1.5, "c": "x", "d": True, "e": [1, 2], "f": {"g": "y"}}
    assert result.table.column("_offset").to_pylist() == [100]
    assert result.table.column("_lake_partition").to_pylist() == [3]
    assert result.dead.num_rows == 0


def test_rows_and_dead_letters_keep_the_order_of_their_offsets() -> None:
    result = decoded(b'{"a":1}', b"nope", None, b'{"a":"x"}', b"", b"[1]", b'{"a":2}')
    assert result.table.column("_offset").to_pylist() == [100, 102, 103, 106]
    assert result.table.column("_tombstone").to_pylist() == [False, True, False, False]
    assert result.dead.column("_offset").to_pylist() == [101, 104, 105]
    assert result.dead.column("_reason").to_pylist() == ["not_json", "empty", "not_object"]
    assert result.dead.column("_value").to_pylist() == [b"nope", b"", b"[1]"]


def test_a_tombstone_beside_one_dead_letter_is_still_flagged() -> None:
    result = decoded(b'{"a":1}', None, b"nope", b'{"a":2}')
    assert result.table.column("_tombstone").to_pylist() == [False, True, False]
    assert result.dead.num_rows == 1


def test_decoding_again_with_the_schema_that_came_out_gives_the_same() -> None:
    values = [
        b'{"a":1}',
        b'{"a":1.5,"b":"x"}',
        b'{"a":"s"}',
        b'{"b":{"c":[]}}',
        b'{"t":[]}',
        b'{"t":[{"x":1}]}',
    ]
    first = decoded(*values)
    schema = TopicSchema.from_json(first.schema.to_json())
    assert schema == first.schema
    again = decoded(*values, schema=schema)
    assert again.schema is schema
    assert again.table.equals(first.table)


@pytest.mark.parametrize(
    ("record", "column", "text"),
    [
        (b'{"a":"x"}', "a__text", '"x"'),
        (b'{"a":9223372036854775808}', "a__text", "9223372036854775808"),
        (b'{"a":[1, 2]}', "a__text", "[1,2]"),
        (b'{"a":"\\ud800"}', "a__text", '"\\ud800"'),
    ],
)
def test_what_does_not_fit_goes_to_the_sibling_as_json_text(record: bytes, column: str, text: str) -> None:
    result = decoded(b'{"a":1}', record)
    assert event(result, 1) == {column: text}
    assert event(result, 0) == {"a": 1}


def test_of_duplicate_keys_the_last_is_the_value_and_the_sibling_holds_all() -> None:
    assert event(decoded(b'{"a":1,"b":2,"a":3}')) == {"a": 3, "a__text": "[1, 3]", "b": 2}


def test_an_integer_that_a_double_cannot_hold_goes_to_the_sibling_of_a_double_column() -> None:
    result = decoded(b'{"a":1.5}', b'{"a":9007199254740993}', b'{"a":9007199254740992}')
    assert event(result, 1) == {"a__text": "9007199254740993"}
    assert event(result, 2) == {"a": 9007199254740992.0}


def test_a_first_fraction_makes_the_column_a_double() -> None:
    result = decoded(b'{"a":1}', b'{"a":1.0}')
    assert event(result, 0) == {"a": 1.0}
    assert str(result.table.schema.field("a").type) == "double"


@pytest.mark.parametrize(
    ("text", "lone"),
    [
        (r"\ud83d\ude00", False),
        (r"x\uD83D\uDE00\ud83d\ude00", False),
        (r"\\ud800", False),
        (r"\ud83d", True),
        (r"\ude00", True),
        (r"\ude00\ud83d", True),
        (r"\ud83d\ud83d\ude00", True),
        (r"\ud83d\ude00\ude00", True),
        (r"\\ud83d\ude00", True),
        (r"\ud83d\\ude00", True),
        (r"\ud83dx\ude00", True),
        (r"\ud83d\u0041\ude00", True),
    ],
)
def test_half_of_a_surrogate_pair_is_told_from_a_whole_one(text: str, lone: bool) -> None:
    record = b'{"n":1,"a":"%s","b":["%s"],"b":{"c":["%s"]}}' % ((text.encode(),) * 3)
    known = decoded(b'{"n":1,"a":"x","b":{"c":["y"]}}').schema
    found = event(decoded(record, schema=known))
    assert ("a__text" in found) == lone
    value = json.loads(f'"{text}"')
    assert json.loads(str(found["a__text"])) == value if lone else found["a"] == value
    assert json.loads(str(found["b__text"])) == [[value], {"c": [value]}]
