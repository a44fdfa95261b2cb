"""What a table looks like: types of columns, how two views of them become one, and one value as another type.

Pure. Types are read from what DuckDB says of Parquet files, and written as DuckDB's SQL. Names and types of a warehouse
without structs are `columns.py`.

Types that a topic's files already have change in three ways only: a new field comes, integers become doubles, and an
operator declares another type. A warehouse holds old and new rows in one column, so that the last case makes it text.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TEXT = "VARCHAR"
SIBLING = "__text"  # ends the column that holds, as JSON text, what does not fit its main column

Expression = str


@dataclass(frozen=True, slots=True)
class Struct:
    """An object: its fields in order."""

    fields: "tuple[tuple[str, Type], ...]"


@dataclass(frozen=True, slots=True)
class List:
    """An array of one type."""

    element: "Type"


Type = str | Struct | List
"""A scalar is the name that DuckDB gives it: BIGINT, DOUBLE, VARCHAR, BLOB, DATE, DECIMAL(12,2), ..."""

_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)\Z")


def read_type(type_: Any) -> Type:
    """From DuckDB's own object for a type."""
    if type_.id == "struct":
        return Struct(tuple((name, read_type(field)) for name, field in type_.children))
    if type_.id == "list":
        return List(read_type(type_.children[0][1]))
    return str(type_)


def write_type(type_: Type) -> str:
    """As DuckDB's SQL."""
    if isinstance(type_, Struct):
        return f"STRUCT({', '.join(f'{quoted(name)} {write_type(field)}' for name, field in type_.fields)})"
    return f"{write_type(type_.element)}[]" if isinstance(type_, List) else type_


def quoted(name: str) -> str:
    """A name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text in SQL."""
    return "'" + text.replace("'", "''") + "'"


def join(a: Type, b: Type) -> Type:
    """The type that holds values of both. Associative, and commutative but for the order of fields: `a`'s come first.

    Where integers meet doubles the struct gets the sibling, for integers that a double cannot hold exactly.
    """
    if a == b:
        return a
    if isinstance(a, Struct) and isinstance(b, Struct):
        joined = dict(a.fields)
        for name, type_ in b.fields:
            own = joined.get(name)
            joined[name] = type_ if own is None else join(own, type_)
            if {own, type_} == {"BIGINT", "DOUBLE"}:
                joined.setdefault(name + SIBLING, TEXT)
        return Struct(tuple(joined.items()))
    if isinstance(a, List) and isinstance(b, List):
        return List(join(a.element, b.element))
    if {a, b} == {"BIGINT", "DOUBLE"}:
        return "DOUBLE"
    return _join_decimals(str(a), str(b)) or TEXT


def _join_decimals(a: str, b: str) -> str | None:
    found = [_DECIMAL.match(each) for each in (a, b)]
    if not found[0] or not found[1]:
        return None
    scales = [int(each[2]) for each in found if each]
    whole = max(int(each[1]) - int(each[2]) for each in found if each)
    width = whole + max(scales)
    return f"DECIMAL({width},{max(scales)})" if width <= 38 else None


def convert(value: Expression, a: Type, b: Type, depth: int = 0) -> Expression:
    """`value` of type `a` as type `b`, a join of `a` and something: fails for no value. `depth`: of lists around it."""
    if a == b:
        return value
    if isinstance(a, Struct) and isinstance(b, Struct):
        packed = ", ".join(
            f"{literal(name)}: {each}"
            for name, each in fields_as(lambda name: f"struct_extract({value}, {literal(name)})", a, b, depth)
        )
        return f"CASE WHEN {value} IS NULL THEN NULL ELSE {{{packed}}} END"
    if isinstance(a, List) and isinstance(b, List):
        item = f"_tukang_{depth}"  # no field has such a name: DuckDB would prefer the column
        return f"list_transform({value}, lambda {item}: {convert(item, a.element, b.element, depth + 1)})"
    if b == TEXT:
        return f"CAST({value if isinstance(a, str) else f'to_json({value})'} AS VARCHAR)"
    return f"CAST({value} AS {write_type(b)})"


def fields_as(
    of: Callable[[str], Expression], a: Struct, b: Struct, depth: int = 0
) -> list[tuple[str, Expression]]:
    """Each field of `b` as an expression; `of` gives the expression of a field of `a`."""
    have, wanted = dict(a.fields), dict(b.fields)
    fields = []
    for name, type_ in b.fields:
        known = have.get(name)
        each = (
            f"CAST(NULL AS {write_type(type_)})" if known is None else convert(of(name), known, type_, depth)
        )
        main = name.removesuffix(SIBLING)
        if (known, type_) == ("BIGINT", "DOUBLE") and wanted.get(name + SIBLING) == TEXT:
            each = f"CASE WHEN {exact(of(name))} THEN {each} END"
        elif main != name and type_ == TEXT and (have.get(main), wanted.get(main)) == ("BIGINT", "DOUBLE"):
            each = f"coalesce({each}, CASE WHEN NOT {exact(of(main))} THEN CAST({of(main)} AS VARCHAR) END)"
        fields.append((name, each))
    return fields


def exact(value: Expression) -> Expression:
    """Whether an integer can be had back from its double."""
    return f"(CAST(CAST({value} AS DOUBLE) AS HUGEINT) = CAST({value} AS HUGEINT))"
