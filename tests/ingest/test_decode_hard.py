"""Records that other decoders stop at, or get wrong without a word."""

from __future__ import annotations

import pytest

from ingest.schema import TopicSchema
from tests.ingest.test_decode import decoded, event


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"", "empty"),
        (b" \n\t", "empty"),
        (b"null", "not_object"),
        (b"[]", "not_object"),
        (b"1", "not_object"),
        (b'"x"', "not_object"),
        (b'{"a":1', "not_json"),
        (b'{"a":1}{"a":2}', "not_json"),
        (b'{"a":1}}\n{"a":2}', "not_json"),
        (b'{"a":1}\n{"a":2}', "not_json"),
        (b'\xef\xbb\xbf{"a":1}', "not_json"),
        (b'{"a":1}\0', "not_json"),
        (b'{"a":"\0"}', "not_json"),
        (b'{"a":"\n"}', "not_json"),
        (b'{"a":NaN}', "not_json"),
        (b'{"a":-Infinity}', "not_json"),
        (b'{"a":01}', "not_json"),
        (b'{"a":1.}', "not_json"),
        (b'{"a":+1}', "not_json"),
        (b"{'a':1}", "not_json"),
        (b'{"a":1,}', "not_json"),
        (b'{"a":1}//', "not_json"),
        (b'{"a":"\\x"}', "not_json"),
        (b'{"a":"\\u12"}', "not_json"),
        (b'{"a":"\xff"}', "not_utf8"),
        (b'{"a":"\xed\xa0\x80"}', "not_utf8"),
        (b'{"a":"\xc0\x80"}', "not_utf8"),
    ],
)
def test_what_is_no_event_is_a_dead_letter_alone_and_among_others(record: bytes, reason: str) -> None:
    good = b'{"a":1}'
    for around in ([], [good] * 3):
        result = decoded(*around, record, *around)
        assert result.dead.column("_reason").to_pylist() == [reason]
        assert result.dead.column("_value").to_pylist() == [record]
        assert result.table.num_rows == 2 * len(around)


def test_a_dead_letter_says_what_is_wrong_and_where() -> None:
    letter = decoded('{"ä":nope}'.encode()).dead.to_pylist()[0]
    assert letter["_reason_text"] == "no value begins with 'n'"
    assert letter["_reason_at"] == 6


@pytest.mark.parametrize(
    ("record", "said", "at"),
    [
        (b'{"a":"\t"}', "a control character stands in a string as it is", 6),
        (b'{"a":"x', "a string begins here that does not end", 5),
        (b'{"a":"\\x"}', "a backslash stands before something that it cannot escape", 6),
        (b'{"a":"\\u12"}', "\\u is not followed by four hexadecimal digits", 7),
        (b'{"a":1,b}', "a key in double quotes should stand here", 7),
        (b'{"a" 1}', "a colon should stand here", 5),
        (b'{"a":1 "b":2}', "a comma or the end should stand here", 7),
    ],
)
def test_a_dead_letter_says_it_in_words_that_no_version_of_python_changes(
    record: bytes, said: str, at: int
) -> None:
    letter = decoded(record).dead.to_pylist()[0]
    assert (letter["_reason_text"], letter["_reason_at"]) == (said, at)


def test_a_record_above_the_limit_is_a_dead_letter() -> None:
    result = decoded(b'{"a":"xxxxxxxx"}', b'{"a":"x"}', max_record_bytes=10)
    assert result.dead.column("_reason").to_pylist() == ["too_large"]
    assert result.table.num_rows == 1


def test_tombstones_are_dead_letters_in_a_topic_that_says_so() -> None:
    result = decoded(None, b"{}", tombstones="dead_letter")
    assert result.dead.column("_reason").to_pylist() == ["no_value"]
    assert result.table.column("_tombstone").to_pylist() == [False]


def test_a_hundred_thousand_levels_are_text() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    result = decoded(b'{"a":' + deep + b"}")
    assert result.dead.num_rows == 0
    assert "[" * 1_000 in str(event(result))
    assert decoded(deep).dead.column("_reason").to_pylist() == ["not_object"]
    assert decoded(b'{"a":' + b"[" * 100_000).dead.column("_reason").to_pylist() == ["not_json"]


def test_what_lies_deeper_than_the_limit_is_json_text() -> None:
    result = decoded(b'{"a":{"b":{"c":1.50}}}', max_depth=2)
    assert event(result) == {"a": {"b": '{"c":1.50}'}}
    (column,) = result.schema.to_json()["columns"]
    assert column["type"]["struct"][0]["reason"] == "depth"


def test_an_object_used_as_a_map_becomes_one_column_of_text() -> None:
    records = [b'{"m":{"k%d":%d}}' % (i, i) for i in range(10)]
    result = decoded(*records, map_keys=5)
    assert event(result, 7) == {"m": '{"k7":7}'}
    # The event itself never does.
    wide = decoded(*[b'{"k%d":1}' % i for i in range(10)], map_keys=5)
    assert len(event(wide)) == 1
    assert wide.table.num_columns == 20


def test_a_map_found_late_goes_to_the_sibling_and_leaves_its_struct() -> None:
    first = decoded(b'{"m":{"a":1}}', map_keys=2)
    known = TopicSchema.from_json(first.schema.to_json() | {"version": 1})
    later = decoded(b'{"m":{"b":1}}', b'{"m":{"c":1,"a":2}}', schema=known, map_keys=2)
    assert event(later, 1) == {"m__text": '{"c":1,"a":2}'}
    assert later.table.schema.field("m").type.get_field_index("a") == 0


def test_fields_beyond_max_columns_stand_in_one_text() -> None:
    result = decoded(b'{"a":1,"b":2,"c":3,"d":4}', max_columns=2)
    assert event(result) == {"a": 1, "b": 2, "__text": '{"c":3,"d":4}'}


def test_ten_thousand_keys_keep_their_values() -> None:
    record = b"{" + b",".join(b'"k%d":%d' % (i, i) for i in range(10_000)) + b"}"
    result = decoded(record)
    row = event(result)
    assert len(row) == 2_001
    assert row["k1999"] == 1_999
    assert '"k9999":9999' in str(row["__text"])


@pytest.mark.slow
def test_a_record_of_ten_megabytes_is_a_row() -> None:
    text = b"x" * 9_900_000
    assert event(decoded(b'{"a":"' + text + b'"}')) == {"a": text.decode()}


def test_empty_values_keep_that_they_were_there() -> None:
    result = decoded(b'{"a":[],"b":{},"c":[null],"d":[{}],"e":null}')
    assert event(result) == {"a__text": "[]", "b__text": "{}", "c__text": "[null]", "d__text": "[{}]"}


def test_strings_that_look_like_something_else_stay_strings() -> None:
    result = decoded(b'{"a":"2024-01-01","b":"12.50","c":"true","d":"NaN"}')
    assert event(result) == {"a": "2024-01-01", "b": "12.50", "c": "true", "d": "NaN"}


@pytest.mark.parametrize("known_first", [False, True])
def test_numbers_that_a_double_would_change_are_kept_as_text(known_first: bool) -> None:
    texts = ["0.1000000000000000055", "1e-999", "1e999", "12345678901234567890.5", "9" * 400]
    records = [b'{"a":0.5}', *(b'{"a":%s}' % text.encode() for text in texts), b'{"a":0.25}']
    schema = decoded(*records).schema if known_first else TopicSchema()
    result = decoded(*records, schema=schema)
    assert [event(result, i).get("a__text") for i in range(7)] == [None, *texts, None]
    assert result.table.column("a").to_pylist() == [0.5, None, None, None, None, None, 0.25]


def test_a_topic_that_flips_types_per_record_keeps_one_schema_and_all_values() -> None:
    records = [b'{"a":%d}' % i if i % 2 else b'{"a":"%d"}' % i for i in range(2_000)]
    first = decoded(*records)
    again = decoded(*records, schema=first.schema)
    assert again.schema is first.schema
    assert again.table.equals(first.table)
    kept = zip(again.table.column("a").to_pylist(), again.table.column("a__text").to_pylist(), strict=True)
    assert {(n is None, t is None) for n, t in kept} == {(True, False), (False, True)}
