"""The law of decoding where types are declared: what a column of a declared type holds is what it should, the rest
stands in the sibling, what is dropped or hashed stands nowhere; and a declaration may come later than the rows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from ingest.conform import conform
from ingest.declared import Declared
from ingest.decode import DecodeRules
from ingest.schema import Field, TopicSchema
from tests.ingest.declared_reference import KEY, Types, hidden
from tests.ingest.json_reference import Obj
from tests.ingest.json_texts import RECORDS, TYPED_EVENTS
from tests.ingest.row_reference import agrees, put_together
from tests.ingest.test_decode_law import PHASES, RULES, expected, hold

PATHS = [("a",), ("b",), ("b", "c"), ("a", "a"), ("",)]
TYPES = [
    "timestamp",
    "date",
    "decimal(12,2)",
    "decimal(38,0)",
    "double",
    "integer",
    "string",
    "boolean",
    "json",
]
DECLARATIONS = st.dictionaries(
    st.sampled_from(PATHS), st.sampled_from([*TYPES, "drop", "hash"]), min_size=1, max_size=3
)
EVENTS = st.lists(st.one_of(TYPED_EVENTS, TYPED_EVENTS, RECORDS), max_size=6)


def declaring(types: Types, rules: DecodeRules, version: int = 0) -> DecodeRules:
    return replace(rules, declared=Declared(types, KEY, version))


@pytest.mark.slow
@settings(max_examples=150, deadline=None, phases=PHASES)
@given(EVENTS, DECLARATIONS, RULES)
def test_a_declared_type_holds_what_it_should_whatever_came(
    values: list[bytes], types: Types, rules: DecodeRules
) -> None:
    note(f"{values} {types} {rules}")
    hold([*values], TopicSchema(), declaring(types, rules))


def were_strings(own: Field, path: tuple[str, ...]) -> bool:
    """Rows of before `json` was declared hold them bare: nothing in a file tells one from JSON text."""
    while own.kind == "list" and own.element is not None:
        own = own.element
    if not path:
        return own.kind == "string"
    return path[0] in own.fields and were_strings(own.fields[path[0]], path[1:])


@pytest.mark.slow
@settings(max_examples=60, deadline=None, phases=PHASES)
@given(EVENTS, EVENTS, st.one_of(DECLARATIONS, st.just({})), DECLARATIONS, RULES)
def test_a_declaration_that_comes_later_holds_from_then_on_and_older_rows_can_be_brought_to_it(
    before: list[bytes], after: list[bytes], first: Types, types: Types, rules: DecodeRules
) -> None:
    note(f"{before} {after} {first} {types} {rules}")
    old = hold([*before], TopicSchema(), declaring(first, rules, 1))
    stored = TopicSchema.from_json({**old.schema.to_json(), "version": 1})
    new = hold([*after], stored, declaring(types, rules, 2))
    if first:
        conform(old.table, new.schema)
        return
    gone: Types = {
        path: "drop"
        for path, type_ in types.items()
        if type_ == "drop" or (type_ == "json" and were_strings(old.schema.root, path))
    }
    for row in conform(old.table, new.schema).to_pylist():
        event = expected(before[row["_offset"] - 100])
        assert isinstance(event, Obj)
        assert agrees(
            hidden(put_together(row, new.schema, older=True), gone, None), hidden(event, gone, None)
        )
