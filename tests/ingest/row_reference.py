"""The way back from a row to the event it was made from, by its columns and the schema's document alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ingest.names import TEXT, field_name
from ingest.schema import TopicSchema
from tests.ingest.declared_reference import MISFIT, Held, declared_value, same_declared
from tests.ingest.json_reference import NotJsonError, Num, Obj, normal, parse


def put_together(row: Mapping[str, Any], schema: TopicSchema, older: bool = False) -> Obj:
    """The event that a row was made from, by its columns and the schema's document alone.

    `older`: than what is declared, so that siblings may hold what would fit by now.
    """
    columns = schema.to_json()["columns"]
    pairs = list(_fields(row, [c for c in columns if c["column"] != TEXT], older))
    if row.get(TEXT) is not None:
        rest = parse(row[TEXT].encode())
        assert isinstance(rest, Obj)
        pairs += rest.pairs
    return Obj(tuple(pairs))


def _fields(row: Mapping[str, Any], columns: list[dict[str, Any]], older: bool) -> Any:
    names = {c["column"]: _name(c) for c in columns}
    siblings = {column for column in names if column.endswith(TEXT)}
    for column in columns:
        own = column["column"]
        if own in siblings:
            continue
        text = row.get(own + TEXT)
        held = None if row.get(own) is None else _held(row[own], column, older)
        if text is not None:
            assert own + TEXT in siblings
            values = _listed(text)
            # Of a key that is repeated the last is the value; any other value that has a text has no place.
            assert held is None or (len(values) > 1 and agrees(held, values[-1]))
            declared = column["declared"] if "source" in column else "hash"
            if held is None and not older and declared not in ("drop", "hash"):
                assert values[-1] is None or declared_value(values[-1], declared) is MISFIT
            for value in values:
                yield names[own], value
        elif held is not None:
            yield names[own], held


def _name(column: dict[str, Any]) -> str:
    return field_name(column["column"]) if column["name"] == column["column"] else column["name"]


def _listed(text: str) -> list[Any]:
    """The values that a sibling holds: several, when a space follows the comma."""
    value = parse(text.encode())
    if isinstance(value, list) and ", " in re.sub(r'"(?:[^"\\]|\\.)*"', '""', text):
        return value
    return [value]


def _held(value: Any, column: dict[str, Any], older: bool) -> Any:
    if column["type"] in ("timestamp", "date") or str(column["type"]).startswith("decimal"):
        return Held(column["type"], value)
    return _typed(value, column["type"], older)


def agrees(got: Any, want: Any) -> bool:
    """Whether a value from a row is the event's."""
    if isinstance(got, Held):
        return same_declared(got.value, declared_value(want, got.type))
    if isinstance(got, list) and isinstance(want, list):
        return len(got) == len(want) and all(map(agrees, got, want))
    if isinstance(got, Obj) and isinstance(want, Obj):
        mine, theirs = _every(got), _every(want)
        return mine.keys() == theirs.keys() and all(
            len(mine[name]) == len(theirs[name]) and all(map(agrees, mine[name], theirs[name]))
            for name in mine
        )
    return bool(normal(got) == normal(want))


def _every(value: Obj) -> dict[str, list[Any]]:
    every: dict[str, list[Any]] = {}
    for name, each in value.pairs:
        every.setdefault(name, []).append(each)
    return {name: values for name, values in every.items() if values != [None]}


def _typed(value: Any, type_: Any, older: bool) -> Any:
    if isinstance(type_, dict) and "struct" in type_:
        return Obj(tuple(_fields(value, type_["struct"], older)))
    if isinstance(type_, dict) and "list" in type_:
        return [None if each is None else _typed(each, type_["list"], older) for each in value]
    if type_ == "json":
        try:
            return parse(value.encode())
        except NotJsonError:
            assert older  # a string of before, which stays what it is
            return value
    if type_ == "integer":
        assert type(value) is int
        return Num(str(value))
    if type_ == "double":
        assert type(value) is float
        return Num(repr(value).replace("e+", "e"))
    return value
