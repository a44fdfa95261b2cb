"""Schemas: two views become one whatever the order, and the document says all of it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.declared import NOTHING_DECLARED
from ingest.decode import DecodeRules
from ingest.learn import learn
from ingest.schema import TopicSchema, merge
from ingest.strict import Reader

_NAMES = st.sampled_from(["a", "A", "b", "c"])
_VALUES = st.recursive(
    st.sampled_from([None, True, 1, 1.5, 2**70, "x", [], {}]),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_NAMES, inner, max_size=3)),
    max_leaves=5,
)
_EVENTS = st.lists(st.dictionaries(_NAMES, _VALUES, max_size=3), max_size=3)


def learnt(events: list[dict[str, object]], partition: int, base: TopicSchema | None = None) -> TopicSchema:
    import json

    read = Reader().read
    values = [(offset, read(json.dumps(event).encode())) for offset, event in enumerate(events)]
    return learn(base or TopicSchema(), values, partition, DecodeRules().limits, NOTHING_DECLARED)


def registered(schema: TopicSchema, version: int) -> TopicSchema:
    return TopicSchema.from_json({**schema.to_json(), "version": version})


@st.composite
def schemas(draw: st.DrawFn) -> TopicSchema:
    schema = learnt(draw(_EVENTS), draw(st.integers(0, 2)))
    if draw(st.booleans()):
        schema = registered(schema, draw(st.integers(1, 3)))
        schema = learnt(draw(_EVENTS), draw(st.integers(0, 2)), schema)
    return schema


def known(schema: TopicSchema) -> object:
    return schema.to_json()


@settings(deadline=None)
@given(schemas(), schemas(), schemas())
def test_merging_is_commutative_associative_and_idempotent(
    a: TopicSchema, b: TopicSchema, c: TopicSchema
) -> None:
    assert known(merge(a, b)) == known(merge(b, a))
    assert known(merge(merge(a, b), c)) == known(merge(a, merge(b, c)))
    assert known(merge(a, a)) == known(a)
    assert merge(a, b).arrow() == merge(b, a).arrow()


@settings(deadline=None)
@given(schemas())
def test_the_document_says_all_that_makes_a_difference_to_a_table(schema: TopicSchema) -> None:
    again = registered(schema, 4)
    assert again == schema
    assert again.arrow() == schema.arrow()
    assert again.version == 4
    assert registered(again, 4).to_json() == again.to_json()


@settings(deadline=None)
@given(schemas(), _EVENTS)
def test_new_columns_go_to_the_end_and_old_ones_keep_type_and_order(
    schema: TopicSchema, events: list[dict[str, object]]
) -> None:
    old = registered(schema, 1)
    new = learnt(events, 0, old)
    before = [(f.name, f.type) for f in old.arrow()]
    after = [(f.name, f.type) for f in new.arrow()]
    assert [name for name, _ in after][: len(before)] == [name for name, _ in before]


def test_a_registered_type_wins_over_one_that_is_only_proposed() -> None:
    theirs = registered(learnt([{"a": 1}], 1), 1)
    mine = learnt([{"a": "x"}], 0)
    agreed = merge(theirs, mine)
    assert str(agreed.arrow().field("a").type) == "int64"
    assert "a__text" in agreed.arrow().names


def test_of_two_workers_that_see_a_field_at_once_both_end_with_one_schema() -> None:
    base = registered(learnt([{"a": 1}], 0), 1)
    one, other = learnt([{"b": 1}], 0, base), learnt([{"c": 1}], 1, base)
    first = registered(one, 2)
    second = registered(merge(first, other), 3)
    assert second.arrow().names[-3:] == ["a", "b", "c"]
    assert merge(first, second) == second


def test_the_kind_that_most_values_have_becomes_the_type() -> None:
    schema = learnt([{"a": "n/a"}, {"a": 1}, {"a": 2}], 0)
    assert str(schema.arrow().field("a").type) == "int64"
    assert "a__text" in schema.arrow().names


def test_null_alone_makes_no_column_and_takes_its_name_all_the_same() -> None:
    schema = learnt([{"a": None}], 0)
    assert "a" not in schema.arrow().names
    assert [column["column"] for column in schema.to_json()["columns"]] == ["a"]


@pytest.mark.parametrize("type_", ["wonder", {"map": "string"}])
def test_a_type_of_a_later_version_is_refused(type_: object) -> None:
    column = {"name": "a", "column": "a", "type": type_, "reason": None, "first": None}
    with pytest.raises(ValueError, match="does not know"):
        TopicSchema.from_json({"version": 1, "columns": [column]})
