"""Declared types, dropped and hashed paths: the same one by one and at once."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest

from ingest.declared import Declared
from ingest.decode import DecodeRules
from ingest.schema import TopicSchema
from tests.ingest.test_decode import decoded, event

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
