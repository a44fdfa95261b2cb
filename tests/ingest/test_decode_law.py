"""The one law of decoding: every record gives exactly one row or one dead letter, in its own place; what a row holds,
put together again, is what a strict parser reads from the record; and nothing of it depends on its neighbours."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st

from ingest.declared import NOTHING_DECLARED, Declared
from ingest.decode import Decoded, DecodeRules, decode
from ingest.schema import TopicSchema, merge
from tests.ingest.declared_reference import hidden
from tests.ingest.json_reference import NotJsonError, Obj, parse
from tests.ingest.json_texts import RECORDS
from tests.ingest.row_reference import agrees, put_together
from tests.ingest.test_decode import FETCHED_US, records

RULES = st.builds(
    DecodeRules,
    numbers=st.sampled_from(["integer", "double"]),
    max_columns=st.sampled_from([1, 3, 2_000]),
    max_depth=st.sampled_from([1, 2, 3, 100]),
    map_keys=st.sampled_from([1, 3, 300]),
)


PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)


def expected(record: bytes) -> Obj | None:
    """The event, or None for what must be a dead letter."""
    try:
        value = parse(record)
    except NotJsonError:
        return None
    return value if isinstance(value, Obj) else None


def check(values: list[bytes | None], result: Decoded, declared: Declared = NOTHING_DECLARED) -> None:
    rows = {row["_offset"]: row for row in result.table.to_pylist()}
    dead = {row["_offset"]: row for row in result.dead.to_pylist()}
    assert len(rows) == result.table.num_rows
    assert sorted([*rows, *dead]) == list(range(100, 100 + len(values)))
    assert list(rows) == sorted(rows)
    assert all(decision["reason"] != "unplaced" for decision in result.schema.to_json()["decisions"])
    for offset, value in enumerate(values, 100):
        event = None if value is None else expected(value)
        if value is None:
            assert rows[offset]["_tombstone"]
        elif event is None:
            assert dead[offset]["_value"] == value
        else:
            assert offset in rows, dead[offset]
            assert agrees(
                put_together(rows[offset], result.schema), hidden(event, declared.types, declared.key)
            )


def run(values: list[bytes | None], schema: TopicSchema, rules: DecodeRules) -> Decoded:
    result = decode(records(values), 0, schema, rules, FETCHED_US)
    result.table.validate(full=True)
    return result


@pytest.mark.slow
@settings(max_examples=200, deadline=None, phases=PHASES)
@given(st.lists(st.one_of(RECORDS, st.none()), max_size=8), RULES)
def test_each_record_gives_its_row_or_its_dead_letter(values: list[bytes | None], rules: DecodeRules) -> None:
    note(f"{values} {rules}")
    hold(values, TopicSchema(), rules)


def hold(values: list[bytes | None], schema: TopicSchema, rules: DecodeRules) -> Decoded:
    """The law, for these records at once, once more and one by one."""
    first = run(values, schema, rules)
    check(values, first, rules.declared)
    # Once the schema is known, the fast way takes what it can: the rows are the same.
    known = TopicSchema.from_json(first.schema.to_json())
    assert known == first.schema
    again = run(values, known, rules)
    check(values, again, rules.declared)
    assert again.schema == known
    assert again.table.equals(first.table)
    # Alone, each record gives the same row.
    for index, value in enumerate(values):
        alone = decode(records([value]), 0, known, rules, FETCHED_US)
        check([value], alone, rules.declared)
        if alone.table.num_rows:
            row = again.table.column("_offset").to_pylist().index(100 + index)
            assert same(alone.table.to_pylist()[0], again.table.slice(row, 1).to_pylist()[0])
    return again


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return repr({**a, "_offset": 0}) == repr({**b, "_offset": 0})


@pytest.mark.slow
@settings(max_examples=80, deadline=None, phases=PHASES)
@given(st.lists(RECORDS, max_size=8), st.lists(RECORDS, max_size=8), RULES)
def test_two_workers_that_learn_at_once_agree(
    left: list[bytes], right: list[bytes], rules: DecodeRules
) -> None:
    a, b = run([*left], TopicSchema(), rules), run([*right], TopicSchema(), rules)
    agreed = TopicSchema.from_json(merge(a.schema, b.schema).to_json())
    # As workers do: what does not fit what was agreed (a limit is reached by both together) is agreed once more.
    for _ in range(3):
        results = [run([*values], agreed, rules) for values in (left, right)]
        for values, result in zip((left, right), results, strict=True):
            check([*values], result)
        wider = merge(merge(agreed, results[0].schema), results[1].schema)
        if wider == agreed:
            break
        agreed = TopicSchema.from_json(wider.to_json())
    assert all(result.schema == agreed for result in results)
