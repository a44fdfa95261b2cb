"""Declared types, dropped and hashed paths: the same one by one and at once."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
from decimal import Decimal
from pathlib import Path

import pytest

from ingest.conform import conform
from ingest.declared import Declared
from ingest.decode import Decoded, DecodeRules, decode
from ingest.schema import TopicSchema
from ingest.settings import Settings
from ingest.topic_settings import topic_settings
from tests.ingest.test_decode import FETCHED_US, decoded, event, records

UTC = dt.UTC


def declared(**types: str) -> Declared:
    return Declared({(name,): type_ for name, type_ in types.items()}, b"key")


@pytest.mark.parametrize(
    ("type_", "record", "value"),
    [
        ("timestamp", b'{"a":"2024-05-01T10:00:00Z"}', dt.datetime(2024, 5, 1, 10, tzinfo=UTC)),
        ("timestamp", b'{"a":1714557600000}', dt.datetime(2024, 5, 1, 10, tzinfo=UTC)),
        ("date", b'{"a":"2024-05-01"}', dt.date(2024, 5, 1)),
        ("decimal(12,2)", b'{"a":12.5}', Decimal("12.50")),
        ("decimal(12,2)", b'{"a":"12.50"}', Decimal("12.50")),
        ("double", b'{"a":1}', 1.0),
        ("json", b'{"a":{"b": 1.50}}', '{"b":1.50}'),
    ],
)
def test_a_declared_type_holds_what_fits_and_the_sibling_the_rest(
    type_: str, record: bytes, value: object
) -> None:
    rules = declared(a=type_)
    records = [record] * 3 + ([] if type_ == "json" else [b'{"a":"n/a"}'])
    first = decoded(*records, declared=rules)
    again = decoded(*records, schema=TopicSchema.from_json(first.schema.to_json()), declared=rules)
    assert again.schema == first.schema
    assert again.table.equals(first.table)
    for result in (first, again):
        assert event(result, 0) == {"a": value}
        if type_ != "json":
            assert event(result, 3) == {"a__text": '"n/a"'}


def test_a_decimal_with_more_digits_than_declared_goes_to_the_sibling() -> None:
    rules = declared(a="decimal(4,2)")
    records = [b'{"a":1.25}', b'{"a":123456}', b'{"a":1.255}']
    first = decoded(*records, declared=rules)
    for result in (first, decoded(*records, schema=first.schema, declared=rules)):
        assert [event(result, i) for i in range(3)] == [
            {"a": Decimal("1.25")},
            {"a__text": "123456"},
            {"a__text": "1.255"},
        ]


def test_a_dropped_path_leaves_no_trace_of_its_values() -> None:
    rules = declared(secret="drop")
    records = [b'{"a":1,"secret":"x"}', b'{"a":2,"secret":{"b":"x"}}', b'{"a":3,"secret":[1]}']
    first = decoded(*records, declared=rules)
    for result in (first, decoded(*records, schema=first.schema, declared=rules)):
        assert result.table.schema.names[10:] == ["a"]
        assert result.table.column("a").to_pylist() == [1, 2, 3]


def test_a_hashed_path_holds_a_keyed_hash_that_is_the_same_for_the_same_value() -> None:
    rules = declared(user="hash")
    records = [b'{"user":"u1"}', b'{"user":"u2"}', b'{"user":"u1"}', b'{"user":7}']
    first = decoded(*records, declared=rules)
    again = decoded(*records, schema=first.schema, declared=rules)
    assert again.table.equals(first.table)
    one, two, three, four = first.table.column("user").to_pylist()
    assert one == three != two
    assert len(one) == len(four) == 64
    assert (
        one
        != decoded(b'{"user":"u1"}', declared=Declared({("user",): "hash"}, b"other"))
        .table.column("user")
        .to_pylist()
    )


def test_a_hash_without_a_key_is_refused() -> None:
    with pytest.raises(ValueError, match="key"):
        DecodeRules.from_settings({"hash": ["a"]})


def test_an_unknown_type_is_refused_with_what_would_be_known() -> None:
    with pytest.raises(ValueError, match="timestamp"):
        DecodeRules.from_settings({"types": {"a": "datetime"}})


def settings(version: int, **values: object) -> DecodeRules:
    return DecodeRules.from_settings(values, b"a key for hashes", version)


def stored(result: Decoded) -> TopicSchema:
    return TopicSchema.from_json({**result.schema.to_json(), "version": result.schema.version + 1})


def test_a_declaration_that_is_taken_back_or_changed_holds_from_then_on() -> None:
    record = b'{"a":"2024-05-01","b":{"c":"x"},"d":[{"e":1}]}'
    types = {"types": {"a": "date"}, "drop": ["b.c"], "hash": ["d.e"]}
    first = decode(records([record]), 0, TopicSchema(), settings(1, **types), FETCHED_US)
    one = event(first)
    assert one["a"] == dt.date(2024, 5, 1)
    assert "b" not in one
    back = decode(records([record]), 0, stored(first), settings(2), FETCHED_US)
    natural = {"b": {"c": "x", "c__text": None}, "d": [{"e": 1, "e__text": None}]}
    assert event(back) == {"a": "2024-05-01"} | natural
    changed = decode(records([record]), 0, stored(back), settings(3, types={"a": "timestamp"}), FETCHED_US)
    assert event(changed)["a"] == dt.datetime(2024, 5, 1, tzinfo=UTC)
    # Rows of all versions stay readable by the newest: what does not fit is text.
    newest = stored(changed)
    rows = [conform(each.table, newest).to_pylist()[0] for each in (first, back, changed)]
    assert [row["a"] for row in rows] == [dt.datetime(2024, 5, 1, tzinfo=UTC)] * 3
    assert [row["b"] for row in rows] == [None, natural["b"], natural["b"]]
    assert [row["d"] for row in rows[1:]] == [natural["d"]] * 2
    hashed = one["d"][0]["e"]  # type: ignore[index]
    assert rows[0]["d"] == [{"e": None, "e__text": f'"{hashed}"'}]


def test_a_struct_of_which_all_is_dropped_after_it_was_registered_leaves_the_row_whole() -> None:
    record = b'{"a":{"b":7},"c":"1.5"}'
    schema = stored(decode(records([record]), 0, TopicSchema(), settings(0), FETCHED_US))
    rules = settings(1, drop=["a.b"], types={"c": "decimal(4,2)"})
    first = decode(records([record]), 0, schema, rules, FETCHED_US)
    assert event(first) == {"a__text": "{}", "c": Decimal("1.50")}
    again = decode(records([record]), 0, stored(first), rules, FETCHED_US)
    assert (again.schema, event(again)) == (first.schema, event(first))


def test_a_worker_with_older_settings_does_not_undo_what_newer_ones_declared() -> None:
    new = decode(records([b'{"a":"x","b":1}']), 0, TopicSchema(), settings(5, hash=["a"]), FETCHED_US)
    old = DecodeRules.from_settings({}, None, 4)
    after = decode(records([b'{"a":"x","b":1}']), 0, stored(new), old, FETCHED_US)
    assert after.schema == new.schema
    hashed = event(after)["a"]
    # It has no key: what it writes can be guessed no more than what the others write, and is never the value.
    assert hashed not in ("x", hmac.digest(b"", b"x", hashlib.sha256).hex())
    assert len(str(hashed)) == 64


def test_settings_that_cannot_be_followed_say_why() -> None:
    environment = Settings(broker="b:1", bucket="lake", api="http://127.0.0.1:1")
    assert topic_settings(1, {"types": {"a": "date"}}, [], environment).wrong is None
    assert "TUKANG_HASH_KEY_FILE" in str(topic_settings(1, {"hash": ["a"]}, [], environment).wrong)
    assert "uuid" in str(topic_settings(1, {"types": {"a": "uuid"}}, [], environment).wrong)


def test_a_key_of_hashes_that_is_too_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"short\n")
    with pytest.raises(ValueError, match="TUKANG_HASH_KEY_FILE"):
        Settings(broker="b:1", bucket="lake", api="http://127.0.0.1:1", hash_key_file=tmp_path / "key")


@pytest.mark.parametrize(
    "record",
    [
        b'{"a":{"b":"secret","c":1}}',
        b'{"a":{"b":"secret"}}',
        b'{"a":{"b":"secret"},"a":7}',
        b'{"a":{"b":"secret","b":"secret"}}',
        b'{"a":[{"b":"secret"},"x"]}',
        b'{"a":{"b":{"d":"secret"}},"e":1e999}',
        b'{"x":1,"a":{"\\ud800":[],"b":"secret"}}',
    ],
)
@pytest.mark.parametrize("told", [{"drop": ["a.b"]}, {"hash": ["a.b"]}])
def test_what_is_dropped_or_hashed_stands_in_no_text_either(
    record: bytes, told: dict[str, list[str]]
) -> None:
    schema = TopicSchema()
    for before in (b'{"a":{"b":"y","c":2}}', b'{"a":"n/a"}', b'{"a":[1]}'):
        for limits in ({}, {"map_keys": 1}, {"max_depth": 1}, {"max_columns": 1}):
            settings = {"event_id": ["a.b"]} | limits | told
            rules = DecodeRules.from_settings(settings, b"a key for hashes", 1)
            first = decode(records([before]), 0, schema, rules, FETCHED_US)
            for known in (first.schema, TopicSchema()):
                result = decode(records([record]), 0, known, rules, FETCHED_US)
                assert result.table.num_rows == 1
                assert "secret" not in str(result.table.to_pylist())  # nor as the id that it is here
                assert "unplaced" not in {each["reason"] for each in result.schema.to_json()["decisions"]}
