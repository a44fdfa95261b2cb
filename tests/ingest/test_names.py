"""Names of columns: reversible, and never two that some reader takes for one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.names import LONGEST_COLUMN, SYSTEM_COLUMNS, TEXT, column_name, column_names, field_name, folded

NAMES = st.one_of(
    st.text(st.characters(), max_size=12),
    st.text("aAbBxX_0159.EF", max_size=14),
    st.sampled_from(
        [*SYSTEM_COLUMNS, "_x_", "_x002E_", "a__text", "A__TEXT", "event_date", "_PARTITIONTIME"]
    ),
)


@settings(deadline=None)
@given(NAMES, st.booleans(), st.booleans())
def test_the_field_can_be_told_from_its_column(name: str, top: bool, strict: bool) -> None:
    assert field_name(column_name(name, top, strict=strict)) == name


@settings(deadline=None)
@given(st.lists(NAMES, max_size=8, unique=True), st.booleans())
def test_no_two_fields_of_an_object_share_a_column_in_any_reader(names: list[str], top: bool) -> None:
    columns = column_names([(name, "") for name in names], top)
    taken = {folded(column) for column in columns} | {folded(column + TEXT) for column in columns}
    assert len(taken) == 2 * len(names)
    if top:
        assert not taken & set(SYSTEM_COLUMNS)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("plain", "plain"),
        ("camelCase", "camelCase"),
        ("a.b", "a_x002E_b"),
        ("", "_x_"),
        ("_offset", "_x005F_offset"),
        ("a__text", "a__x005F_text"),
        ("1st", "_x0031_st"),
        ("é", "é"),
        ("日本", "日本"),
        ("pos_x", "pos_x"),
    ],
)
def test_columns_of_some_names(name: str, column: str) -> None:
    assert column_name(name, True) == column


def test_the_first_of_names_that_differ_in_case_keeps_its_name() -> None:
    first, second = column_names([("name", ""), ("Name", "")], True)
    assert (first, second) == ("name", "_x004E_ame")


def test_a_registered_column_never_changes_its_name() -> None:
    assert column_names([("Name", "Name"), ("name", "")], True) == ["Name", "_x006E_ame"]


@settings(deadline=None)
@given(st.lists(st.text("aAbB", min_size=1, max_size=3), max_size=8, unique=True), st.booleans())
def test_names_that_differ_in_case_only_have_columns_that_differ_in_more(names: list[str], top: bool) -> None:
    columns = column_names([(name, "") for name in names], top)
    assert len({column.lower() for column in columns}) == len(names)
    assert [field_name(column) for column in columns] == names


def test_a_long_name_is_cut_to_what_bigquery_takes() -> None:
    one, other = column_name("a" * 500, True), column_name("a" * 501, True)
    assert one != other
    assert len(one) + len(TEXT) <= LONGEST_COLUMN
    assert re.fullmatch("a+_x_[0-9a-f]{32}", one)
