"""From an event's value to the row of a table, by the schema: record by record.

Pure. `Unplaced` says that the schema has no place for something: `ingest.learn` widens it then. The fast way for whole
pieces is `ingest.fast`; both give the same columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from ingest.columns import dropped, event_schema, table_type, type_name
from ingest.declared import MISFIT, Declared, Hidden
from ingest.learn import Limits
from ingest.names import TEXT, nameable, sibling_name
from ingest.schema import Field, TopicSchema, columns_of, leaves
from ingest.values import Broken, Doubled, Number, doubled_text, empty_text, integer_as_double, text_of

Row = dict[str, Any]
Fit = Callable[[Any], Any]  # a value that is not null, to what Arrow takes, or MISFIT
Veil = Callable[[Any], Any]


class Unplaced(Exception):
    """The schema has no place for this event: learn it, then place all again."""


class Placer:
    """Places events into rows of one schema. Compiled once for each schema."""

    def __init__(self, schema: TopicSchema, limits: Limits, declared: Declared) -> None:
        self._declared = declared
        self._full = leaves(schema.root) >= limits.max_columns
        self._limits = limits
        self._event = event_schema(schema)
        self._struct = pa.struct(list(self._event))
        self._rest = schema.root.text is not None
        self._slots = self._compiled(schema.root.fields, True, 1, declared.hidden)

    def rows(self, events: Sequence[dict[str, Any] | Doubled]) -> list[Row]:
        """A row for each event. Raises `Unplaced`."""
        return [self.row(event) for event in events]

    def row(self, event: dict[str, Any] | Doubled) -> Row:
        row, rest = _put(self._slots, event)
        if rest:
            if not self._rest or not (self._full or not all(map(nameable, rest))):
                raise Unplaced
            row[TEXT] = text_of(self._declared.veiled(_only(event, rest), self._declared.hidden))
        return row

    def row_of_text(self, event: dict[str, Any] | Doubled) -> Row:
        """The event as text alone."""
        return {TEXT: text_of(self._declared.veiled(event, self._declared.hidden))}

    def columns(self, rows: list[Row]) -> list[pa.Array]:
        """The event's columns of `rows`, as in `event_schema`."""
        if not self._event:
            return []
        arrays: list[pa.Array] = pa.array(rows, type=self._struct).flatten()
        return arrays

    def _compiled(self, fields: Mapping[str, Field], top: bool, depth: int, hidden: Hidden) -> Slots:
        slots: dict[str, Slot] = {}
        siblings = {}
        for column in columns_of(fields, top):
            if column.sibling:
                siblings[column.field.name] = sibling_name(column.name)
            else:
                name = column.field.name
                slots[name] = self._slot(column.name, column.field, depth + 1, hidden.get(name, {}))
        for name, sibling in siblings.items():
            slots[name].sibling = sibling
        return Slots(slots)

    def _slot(self, column: str, own: Field, depth: int, hidden: Hidden) -> Slot:
        kind = type_name(own)
        exact: type | None = None
        fit: Fit
        if dropped(own):
            fit = self._dropped_fit(own, depth, hidden)
        elif own.retired or (kind is not None and table_type(own) is None):
            fit = _never if own.retired else self._emptiness(own, depth, hidden)
        else:
            fit = self._fit(own, depth, hidden)
            exact = {"string": str, "boolean": bool, "integer": int, "double": float}.get(kind or "")
        unknown = kind is None and not self._full
        veil: Veil | None = (lambda value: self._declared.veiled(value, hidden)) if hidden else None
        return Slot(column, exact, fit, unknown, own, veil)

    def _fit(self, own: Field, depth: int, hidden: Hidden) -> Fit:
        """What makes a value of the field's type; raises `Unplaced` for what the schema should learn."""
        kind = type_name(own)
        type_ = own.declaration
        if type_ is not None:
            convert, veiled = self._declared.converted, self._declared.veiled
            if type_ == "json" and hidden:
                return lambda value: text_of(veiled(value, hidden))
            return lambda value: convert(value, type_)
        if kind is None:
            return _never if self._full else _unknown
        if kind == "struct":
            return self._struct_fit(own, depth, hidden)
        if kind == "list":
            return self._list_fit(own, depth, hidden)
        if kind == "json" and hidden:
            return lambda value: text_of(self._declared.veiled(value, hidden))
        return {
            "string": _string,
            "boolean": _boolean,
            "integer": _integer,
            "double": _double,
            "json": text_of,
        }[kind]

    def _dropped_fit(self, own: Field, depth: int, hidden: Hidden) -> Fit:
        """For a field that is not kept: it only learns what the fast parser must be told of its values."""
        if own.kind is None:
            return _unknown
        if own.kind != "struct" or own.retired:
            return _never
        return self._struct_fit(own, depth, hidden if isinstance(hidden, Mapping) else {})

    def _struct_fit(self, own: Field, depth: int, hidden: Hidden) -> Fit:
        slots = self._compiled(own.fields, False, depth, hidden)
        full = self._full

        def fit(value: Any) -> Any:
            if type(value) is not dict and type(value) is not Doubled:
                return MISFIT
            row, rest = _put(slots, value)
            if rest:
                if full or not all(map(nameable, rest)):
                    return MISFIT
                raise Unplaced
            return row

        return fit

    def _list_fit(self, own: Field, depth: int, hidden: Hidden) -> Fit:
        element = own.element
        fit: Fit
        if element is None:
            fit = _never if self._full else _unknown
        else:
            fit = _never if element.retired else self._fit(element, depth + 1, hidden)

        def fit_all(value: Any) -> Any:
            if type(value) is not list:
                return MISFIT
            fitted = []
            for each in value:
                if each is not None:
                    each = fit(each)
                    if each is MISFIT:
                        return MISFIT
                fitted.append(each)
            return fitted

        return fit_all

    def _emptiness(self, own: Field, depth: int, hidden: Hidden) -> Fit:
        """For a field whose values had no content so far: one that still has none goes to the sibling as text."""
        fit = self._fit(own, depth, hidden)

        def check(value: Any) -> Any:
            fit(value)  # raises Unplaced when there is content now
            return MISFIT

        return check


class Slot:
    """Where one field's values go."""

    __slots__ = ("column", "dropped", "empty", "exact", "fit", "sibling", "unknown", "veil")

    def __init__(
        self, column: str, exact: type | None, fit: Fit, unknown: bool, own: Field, veil: Veil | None
    ) -> None:
        self.column = column
        self.exact = exact  # values of this very type go in as they are
        self.fit = fit
        self.unknown = unknown
        self.sibling: str | None = None
        self.veil = veil  # makes a value one that may stand in text; None: every value may
        self.dropped = dropped(own)
        self.empty = own.kind in ("struct", "list") and table_type(own) is None

    def put(self, row: Row, value: Any) -> None:
        if value is None:
            return
        fitted = self.fit(value)
        if fitted is not MISFIT:
            if not self.dropped:
                row[self.column] = fitted
            return
        if self.dropped:
            return
        if self.sibling is None:
            raise Unplaced
        if self.veil is not None:
            value = self.veil(value)
        row[self.sibling] = empty_text(value) if self.empty else text_of(value)


class Slots:
    """The slots of one object, by the names of its fields."""

    __slots__ = ("by_name", "exact", "same")

    def __init__(self, slots: dict[str, Slot]) -> None:
        self.by_name = slots
        self.exact = {name: slot.exact for name, slot in slots.items() if slot.exact is not None}
        self.same = all(slot.column == name for name, slot in slots.items())


def _put(slots: Slots, event: dict[str, Any] | Doubled) -> tuple[Row, list[str]]:
    """The row of an object, and the names that have no slot."""
    if type(event) is dict:
        return _put_all(slots, event)
    assert isinstance(event, Doubled)
    row, rest = _put_all(slots, event.last)
    for name, every in event.repeated.items():
        slot = slots.by_name.get(name)
        if slot is not None and not slot.dropped:
            if slot.sibling is None:
                raise Unplaced
            if slot.veil is not None:
                every = [slot.veil(value) for value in every]
            row[slot.sibling] = doubled_text(every)
    return row, rest


def _put_all(slots: Slots, event: dict[str, Any]) -> tuple[Row, list[str]]:
    rest: list[str] = []
    by_name, exact = slots.by_name.get, slots.exact.get
    if slots.same:
        # Nearly all values stay where they are: a copy, and a look at each type.
        row = event.copy()
        odd = []
        for name, value in event.items():
            if type(value) is not exact(name):
                del row[name]
                odd.append(name)
        for name in odd:  # after all of them are out: a field may have the name of another's sibling
            slot, value = by_name(name), event[name]
            if slot is None:
                rest.append(name)
            elif value is not None:
                slot.put(row, value)
        return row, rest
    row = {}
    for name, value in event.items():
        slot = by_name(name)
        if slot is None:
            rest.append(name)
        elif type(value) is slot.exact:
            row[slot.column] = value
        else:
            slot.put(row, value)
    return row, rest


def _only(event: dict[str, Any] | Doubled, names: list[str]) -> dict[str, Any] | Doubled:
    """The part of the event under these names."""
    if isinstance(event, Doubled):
        repeated = {name: every for name, every in event.repeated.items() if name in names}
        return Doubled({name: event.last[name] for name in names}, repeated)
    return {name: event[name] for name in names}


def _never(value: Any) -> Any:
    return MISFIT


def _unknown(value: Any) -> Any:
    """For a field that has no type yet: this value gives it one, unless it can stand in text only."""
    if type(value) is Broken or (type(value) is Number and value.alone()):
        return MISFIT
    raise Unplaced


def _string(value: Any) -> Any:
    return value if type(value) is str else MISFIT


def _boolean(value: Any) -> Any:
    return value if type(value) is bool else MISFIT


def _integer(value: Any) -> Any:
    if type(value) is int:
        return value
    if type(value) is float:
        raise Unplaced  # the column becomes double
    if type(value) is Number:
        exact = value.integer()
        if exact is not None:
            return exact
        if not value.integral and value.double() is not None:
            raise Unplaced
    return MISFIT


def _double(value: Any) -> Any:
    if type(value) is float:
        return value
    if type(value) is int:
        exact = integer_as_double(value)
        return MISFIT if exact is None else exact
    if type(value) is Number:
        exact = value.double()
        return MISFIT if exact is None else exact
    return MISFIT
