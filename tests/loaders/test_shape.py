"""Types of columns: how they join, and that a value of one is a value of the join."""

from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loaders.columns import Table, grown, leaves
from loaders.shape import List, Struct, Type, convert, fields_as, join, quoted, read_type, write_type

NAMES = ("a", "b", "a__text", 'quo"te', "spa ce")
SCALARS = (
    "BOOLEAN",
    "BIGINT",
    "DOUBLE",
    "VARCHAR",
    "DATE",
    "TIMESTAMP WITH TIME ZONE",
    "DECIMAL(12,2)",
    "DECIMAL(20,8)",
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "BOOLEAN": st.booleans(),
    "BIGINT": st.integers(-(2**63), 2**63 - 1),
    "DOUBLE": st.floats(allow_nan=False, allow_infinity=False),
    "VARCHAR": st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    "DATE": st.dates(),
    "TIMESTAMP WITH TIME ZONE": st.datetimes().map(lambda at: at.isoformat() + "Z"),
    "DECIMAL(12,2)": st.integers(-(10**9), 10**9).map(lambda cents: f"{cents / 100:.2f}"),
    "DECIMAL(20,8)": st.integers(-(10**9), 10**9).map(str),
}


def structs(types: st.SearchStrategy[Type]) -> st.SearchStrategy[Struct]:
    fields = st.dictionaries(st.sampled_from(NAMES), types, min_size=1, max_size=3)
    return fields.map(lambda found: Struct(tuple(found.items())))


TYPES: st.SearchStrategy[Type] = st.recursive(
    st.sampled_from(SCALARS), lambda inner: st.builds(List, inner) | structs(inner), max_leaves=6
)


def values(type_: Type) -> st.SearchStrategy[Any]:
    """Values of a type as DuckDB's Python takes them."""
    if isinstance(type_, Struct):
        return st.none() | st.fixed_dictionaries({name: values(field) for name, field in type_.fields})
    if isinstance(type_, List):
        return st.none() | st.lists(values(type_.element), max_size=3)
    return st.none() | VALUES[type_]


def unordered(type_: Type) -> Any:
    """A type without the order of fields."""
    if isinstance(type_, Struct):
        return frozenset((name, unordered(field)) for name, field in type_.fields)
    return ("list", unordered(type_.element)) if isinstance(type_, List) else type_


@given(TYPES, TYPES)
def test_a_join_is_commutative_but_for_the_order_of_fields_and_holds_both(a: Type, b: Type) -> None:
    both = join(a, b)
    assert unordered(both) == unordered(join(b, a))
    assert join(both, a) == join(both, b) == both


@given(structs(TYPES), structs(TYPES), structs(TYPES))
def test_a_table_that_has_grown_knows_a_shape_when_it_comes_again(a: Struct, b: Struct, c: Struct) -> None:
    table = grown(grown(grown(Table("t", (), ()), a), b), c)
    assert grown(grown(table, b), a) == table
    names = [column.name for column in table.columns]
    assert len(set(names)) == len(names)
    assert {path for path, _ in leaves(a)} <= {column.path for column in table.columns}


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_value_of_a_type_is_one_of_its_join_and_comes_back(data: st.DataObject) -> None:
    a, b = data.draw(structs(TYPES)), data.draw(structs(TYPES))
    value = data.draw(values(a))
    both = join(a, b)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"CREATE TABLE t AS SELECT CAST(? AS {write_type(a)}) AS v", [value])
        assert read_type(connection.table("t").types[0]) == a
        relation = connection.sql(f"SELECT {convert('v', a, both)} AS v FROM t")
        assert read_type(relation.types[0]) == both
        before = connection.execute("SELECT v FROM t").fetchall()[0][0]
        after = relation.fetchall()[0][0]
    assert (before is None) == (after is None)
    if before is not None:
        _same(before, after, a, both)


def _same(before: Any, after: Any, a: Type, b: Type) -> None:
    """Nothing was lost on the way from `a` to `b`."""
    if isinstance(a, Struct) and isinstance(b, Struct):
        for name, type_ in a.fields:
            wider = dict(b.fields)[name]
            if (type_, wider) == ("BIGINT", "DOUBLE") and after[name] is None and before[name] is not None:
                assert str(before[name]) in str(after[name + "__text"])
            elif before[name] is None:
                continue  # its own sibling may have filled it
            else:
                _same(before[name], after[name], type_, wider)
    elif isinstance(a, List) and isinstance(b, List):
        for old, new in zip(before, after, strict=True):
            assert (old is None) == (new is None)
            if old is not None:
                _same(old, new, a.element, b.element)
    elif a == b:
        assert before == after
    else:
        assert after is not None


def test_the_top_of_a_table_is_converted_like_a_struct() -> None:
    a, b = Struct((("n", "BIGINT"),)), Struct((("n", "DOUBLE"), ("n__text", "VARCHAR"), ("new", "DATE")))
    assert [name for name, _ in fields_as(quoted, a, b)] == ["n", "n__text", "new"]
