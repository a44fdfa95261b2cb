"""From values that the schema has no place for to a wider schema.

Pure, value by value: used for the few records that show something new. Rows are made in `ingest.place`, by the same
rules: what is learnt here has a place there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from ingest.declared import MISFIT, Declared
from ingest.names import nameable
from ingest.schema import NEW, Claim, Field, TopicSchema, leaves
from ingest.values import Broken, Deep, Doubled, Number, integer_as_double


@dataclass(frozen=True, slots=True)
class Limits:
    """Where columns end and JSON text begins."""

    max_columns: int = 2_000
    max_depth: int = 100
    map_keys: int = 300
    numbers: Literal["integer", "double"] = "integer"


def learn(
    schema: TopicSchema,
    records: Iterable[tuple[int, dict[str, Any] | Doubled]],
    lake_partition: int,
    limits: Limits,
    declared: Declared,
) -> TopicSchema:
    """`schema` widened so that each of `records` (offset, event) has a place; the same object if it had already."""
    root = _Node(schema.root)
    room = _Room(limits, limits.max_columns - leaves(schema.root), declared)
    records = list(records)
    root.poll = _Poll()
    for _, event in records:
        root.poll.count(event)
    for offset, event in records:
        room.record = (NEW, lake_partition, offset)
        if not _object(root, event, room, 1, True) and root.text is None:
            root.text = Claim(*room.record, 0, "columns")
            room.changed = True
    return replace(schema, root=root.frozen()) if room.changed else schema


def kind_of(value: Any) -> str:
    """The kind of a value that is not null."""
    type_ = type(value)
    if type_ is str or type_ is Broken:
        return "string"
    if type_ is bool:
        return "boolean"
    if type_ is int or type_ is float or type_ is Number:
        return "number"
    if type_ is list:
        return "list"
    return "struct" if type_ is dict or type_ is Doubled else value.kind


class _Room:
    """What is left under the limits, and which record is looked at."""

    def __init__(self, limits: Limits, columns: int, declared: Declared) -> None:
        self.limits = limits
        self.declared = declared
        self.columns = columns
        self.record = (NEW, 0, 0)
        self.changed = False


class _Poll:
    """How many values of each kind a field has in the records to learn from: the first may be the odd one out."""

    __slots__ = ("element", "fields", "kinds")

    def __init__(self) -> None:
        self.kinds: dict[str, int] = {}
        self.fields: dict[str, _Poll] = {}
        self.element: _Poll | None = None

    def count(self, value: Any) -> None:
        if value is None or isinstance(value, Broken) or (isinstance(value, Number) and value.alone()):
            return  # these have no say: they stand in text anyway
        kind = kind_of(value)
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        if isinstance(value, Doubled):
            value = value.last
        if isinstance(value, dict):
            for name, each in value.items():
                if name not in self.fields:
                    self.fields[name] = _Poll()
                self.fields[name].count(each)
        elif isinstance(value, list):
            self.element = self.element or _Poll()
            for each in value:
                self.element.count(each)

    def winner(self) -> str | None:
        """The most frequent kind, of several the first seen."""
        return max(self.kinds, key=self.kinds.__getitem__, default=None)


class _Node:
    """A field while it is being learnt."""

    __slots__ = (
        "double",
        "element",
        "fields",
        "kinds",
        "main",
        "name",
        "old",
        "path",
        "poll",
        "seen",
        "text",
    )

    def __init__(self, old: Field, path: tuple[str, ...] = ()) -> None:
        self.old = old
        self.path = path  # of names, as types are declared for
        self.poll: _Poll | None = None
        self.name = old.name
        self.seen = old.seen
        self.kinds = dict(old.kinds)
        self.main = old.kind
        self.double = old.double
        self.text = old.sibling
        self.fields: dict[str, _Node] = {
            name: _Node(each, (*path, name)) for name, each in old.fields.items()
        }
        self.element = None if old.element is None else _Node(old.element, path)

    def frozen(self) -> Field:
        return Field(
            self.name,
            self.old.column,
            self.seen,
            self.kinds,
            self.double,
            self.text,
            self.old.declared,
            {name: each.frozen() for name, each in self.fields.items()},
            None if self.element is None else self.element.frozen(),
        )

    def writable(self) -> bool:
        """It has a column: some type below it is known, and kept."""
        if self.old.declaration == "drop":
            return False
        if self.main == "struct":
            kept = [each for each in self.fields.values() if each.old.declaration != "drop"]
            return any(each.text is not None or each.writable() for each in kept)
        if self.main == "list":
            return self.element is not None and self.element.writable()
        return self.main is not None or self.old.declaration is not None


def _named(node: _Node, value: Any, room: _Room, depth: int, place: int) -> None:
    """`value` stands under a name of its own: what does not fit goes to that name's sibling."""
    if value is None:
        return
    reason = _misfit(node, value, room, depth, place)
    if not reason and not node.writable():
        reason = "empty"
    dropped = node.old.declaration == "drop"
    if reason and node.text is None and not dropped:
        node.text = Claim(*room.record, place, reason)
        room.changed = True


def _misfit(node: _Node, value: Any, room: _Room, depth: int, place: int) -> str:
    """Widens `node` for `value`; the reason why it still does not fit, or ""."""
    kind = kind_of(value)
    declared = node.old.declaration
    if declared is not None and (declared != "drop" or kind not in ("struct", "list")):
        if node.main is None:
            _claim_source(node, kind, value, room, place)
        return "declared" if room.declared.converted(value, declared) is MISFIT else ""
    if node.main is None:
        reason = _claim(node, kind, value, room, depth, place)
        if reason:
            return reason
    if node.main == "json":
        return ""
    if node.main != kind or "json" in node.kinds:
        return "type" if node.main != kind else "map"
    if kind == "number":
        return _number(node, value, room, place)
    if kind == "struct":
        if isinstance(value, Deep):
            return "depth"
        if _object(node, value, room, depth, False):
            return ""
        return "" if node.main == "json" else "map" if "json" in node.kinds else "columns"
    if kind == "list":
        if isinstance(value, Deep):
            return "depth"
        reason = ""
        for each in value:
            if each is not None:
                if node.element is None:
                    node.element = _Node(Field("", seen=Claim(*room.record, place)), node.path)
                if node.poll is not None:
                    node.element.poll = node.poll.element
                reason = _misfit(node.element, each, room, depth + 1, place) or reason
        return reason
    return "surrogate" if isinstance(value, Broken) else ""


def _claim_source(node: _Node, kind: str, value: Any, room: _Room, place: int) -> None:
    """What kind the values of a declared field have, for those who parse them."""
    claim = Claim(*room.record, place)
    node.kinds[kind] = claim
    node.main = kind
    room.columns -= 1
    if kind == "number" and (type(value) is float or (isinstance(value, Number) and not value.integral)):
        node.double = claim
    room.changed = True


def _claim(node: _Node, kind: str, value: Any, room: _Room, depth: int, place: int) -> str:
    """A field gets the kind that most of its values have, unless this one could not stand there."""
    if node.poll is not None and node.poll.winner() not in (kind, None):
        return "type"
    container = kind in ("struct", "list")
    reason = ""
    if container and depth > room.limits.max_depth:
        kind, reason = "json", "depth"
    elif isinstance(value, Broken):
        return "surrogate"
    elif isinstance(value, Number) and value.alone():
        return "range"
    if not container or kind == "json":
        if room.columns <= 0:
            return "columns"
        room.columns -= 1
    claim = Claim(*room.record, place, reason)
    node.kinds[kind] = claim
    node.main = kind
    if kind == "number" and room.limits.numbers == "double":
        node.double = claim._replace(reason="numbers")
    room.changed = True
    return ""


def _number(node: _Node, value: Any, room: _Room, place: int) -> str:
    if node.double is None:
        if isinstance(value, Number) and value.alone():
            return "range"
        if type(value) is int or (isinstance(value, Number) and value.integral):
            return ""
        node.double = Claim(*room.record, place, "fraction")
        room.changed = True
        return ""
    if type(value) is int:
        return "range" if integer_as_double(value) is None else ""
    return "range" if isinstance(value, Number) and value.double() is None else ""


def _object(node: _Node, value: Any, room: _Room, depth: int, top: bool) -> bool:
    """Widens the struct; False if a key has no column in it (of the event itself: the others do)."""
    pairs = value.last if isinstance(value, Doubled) else value
    complete = True
    for place, (name, each) in enumerate(pairs.items()):
        child = node.fields.get(name)
        if child is None:
            if room.columns <= 0 or not nameable(name):
                complete = False
                continue
            if not top and len(node.fields) >= room.limits.map_keys:
                return _close(node, room, place)
            path = (*node.path, name)
            type_ = room.declared.types.get(path)
            declared = None if type_ is None else (room.declared.version, type_)
            new = Field(name, seen=Claim(*room.record, place), declared=declared)
            child = node.fields[name] = _Node(new, path)
            room.changed = True
        if node.poll is not None:
            child.poll = node.poll.fields.get(name)
        _named(child, each, room, depth + 1, place)
    if isinstance(value, Doubled):
        again = value.repeated
        for place, name in enumerate(pairs):
            child = node.fields.get(name)
            if name in again and child is not None and child.text is None and child.old.declaration != "drop":
                child.text = Claim(*room.record, place, "duplicate")
                room.changed = True
    return complete


def _close(node: _Node, room: _Room, place: int) -> bool:
    """Too many different keys: a map. Its struct stays in the schema only if files may have it already."""
    node.kinds["json"] = Claim(*room.record, place, "map")
    room.changed = True
    if node.kinds["struct"].at == NEW:
        node.main = "json"
        room.columns += sum(leaves(each.frozen()) for each in node.fields.values()) - 1
        node.fields = {}
    return node.main == "json"
