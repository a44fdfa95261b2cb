"""What a topic's columns are: fields with their kinds, how two views of them become one, and their JSON document.

Pure. A schema is a join-semilattice: everything it knows is a set of claims, and of two claims the smaller stands, so
that `merge` is commutative, associative and idempotent, and workers that see a new field in the same second agree.
What has been registered is smaller than what has not: a type that files already have never changes, but for integer
to double. Reading values is `ingest.learn`, types of Arrow are `ingest.columns`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ingest.names import column_names, sibling_name

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["boolean", "number", "string", "struct", "list", "json"]
RANK: Mapping[str, int] = {"json": 0, "struct": 1, "list": 2, "number": 3, "string": 4, "boolean": 5}

NEW = 1 << 30  # `at` of what is in no registered schema yet: greater than that of everything that is
NATURAL = "natural"  # stands for the type of a field whose declaration was taken back
COLUMNLESS = NEW - 1  # `at` of what is registered and has no column yet


class Claim(NamedTuple):
    """Who says so first. Of two claims of the same thing the smaller stands.

    `at`: place in the registered list of columns, else NEW; then the record, and the place in its object.
    """

    at: int = NEW
    lake_partition: int = 0
    offset: int = 0
    place: int = 0
    reason: str = ""


UNSEEN = Claim()


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an object, or the element of a list (`name` is then empty)."""

    name: str
    column: str = ""  # as registered; a new one is named when it is (`columns_of`)
    seen: Claim = UNSEEN
    kinds: Mapping[str, Claim] = field(default_factory=dict)
    double: Claim | None = None  # the number is a double
    text: Claim | None = None  # some value did not fit: there is a sibling
    declared: tuple[int, str] | None = None  # version of the settings that declared a type last, and the type
    fields: Mapping[str, Field] = field(default_factory=dict)  # of the struct
    element: Field | None = None  # of the list

    @property
    def declaration(self) -> str | None:
        """The type that an operator declared; None: never, or taken back."""
        return None if self.declared is None or self.declared[1] == NATURAL else self.declared[1]

    @property
    def kind(self) -> str | None:
        """The kind that the column has; None while only null was seen.

        JSON text by a limit wins over what was learnt since the last registration, not over a registered type: files
        have that one already, and the text goes to the sibling then (`retired`).
        """
        kinds = self.kinds
        if len(kinds) > 1:
            json = kinds.get("json")
            if json is not None and json.at <= min(claim.at for claim in kinds.values()):
                return "json"
            return min((claim, RANK[kind], kind) for kind, claim in kinds.items() if kind != "json")[2]
        return next(iter(kinds), None)

    @property
    def retired(self) -> bool:
        """The object turned out to be a map after its struct was registered: all its values go to the sibling."""
        return "json" in self.kinds and self.kind != "json"

    @property
    def sibling(self) -> Claim | None:
        """The claim that made the sibling, if there is one."""
        claims = [claim for claim in self._misfits() if claim is not None]
        return min(claims) if claims else None

    def _misfits(self) -> Iterator[Claim | None]:
        yield self.text
        if self.double is not None and self.double.at > self.kinds.get("number", self.double).at:
            # Rows written as integers may hold some that no double does: `ingest.conform` puts their text there.
            yield self.double
        if len(self.kinds) > 1:
            kind = self.kind
            if kind != "json":
                yield from (claim for other, claim in self.kinds.items() if other != kind)
        if self.kind == "list" and self.element is not None:
            yield from self.element._misfits()


def _first(a: Claim | None, b: Claim | None) -> Claim | None:
    return b if a is None else a if b is None else min(a, b)


def _joined(a: Field, b: Field) -> Field:
    if a is b:
        return a
    kinds = dict(a.kinds)
    for kind, claim in b.kinds.items():
        kinds[kind] = min(claim, kinds.get(kind, claim))
    element = (
        a.element if b.element is None else b.element if a.element is None else _joined(a.element, b.element)
    )
    return Field(
        name=a.name,
        column=min(a.column or b.column, b.column or a.column),
        seen=min(a.seen, b.seen),
        kinds=kinds,
        double=_first(a.double, b.double),
        text=_first(a.text, b.text),
        declared=max((d for d in (a.declared, b.declared) if d is not None), default=None),
        fields=_joined_fields(a.fields, b.fields),
        element=element,
    )


def _joined_fields(a: Mapping[str, Field], b: Mapping[str, Field]) -> Mapping[str, Field]:
    if a is b or not b:
        return a
    if not a:
        return b
    joined = dict(a)
    for name, other in b.items():
        own = joined.get(name)
        joined[name] = other if own is None else _joined(own, other)
    return joined


def _appears(own: Field) -> Claim | None:
    """Since when the field has a column: since its type is known, and something below an object or list has one."""
    kind = own.kind
    if kind is None or own.declaration == "drop":
        return None
    claim = own.kinds[kind]
    if own.declaration is not None or kind not in ("struct", "list"):
        return claim
    if kind == "list":
        below = [_appears(own.element)] if own.element is not None else []
    else:
        kept = [each for each in own.fields.values() if each.declaration != "drop"]
        below = [found for each in kept for found in (_appears(each), each.sibling)]
    first = min((each for each in below if each is not None), default=None)
    # Places in lists of different objects cannot be compared: only whether something was registered.
    return None if first is None else claim if first.at != NEW else max(claim, first)


class Column(NamedTuple):
    """One column of a table or struct: a field's own, or its sibling."""

    name: str  # of its main column; the sibling's ends in `__text`
    field: Field
    sibling: bool
    claim: Claim

    @property
    def sibling_name(self) -> str:
        return sibling_name(self.name)


def columns_of(fields: Mapping[str, Field], top: bool) -> list[Column]:
    """The columns of one object in order: as registered, then as first seen. Fields without a type are among them."""
    order = sorted(fields.values(), key=lambda each: (not each.column, each.seen, each.name))
    columns = []
    for own, name in zip(order, column_names([(each.name, each.column) for each in order], top), strict=True):
        columns.append(Column(name, own, False, _appears(own) or own.seen))
        misfit = own.sibling
        if misfit is not None:
            columns.append(Column(name, own, True, misfit))
    columns.sort(key=lambda column: (*column.claim[:4], column.sibling, column.name))
    return columns


@dataclass(frozen=True, eq=False)
class TopicSchema:
    """The columns of one topic's events as of `version` (0: none registered). Equal: the same columns and types."""

    version: int = 0
    root: Field = Field("", kinds={"struct": UNSEEN})

    @cached_property
    def memo(self) -> dict[Any, Any]:
        """What others compiled from this schema, kept as long as it is."""
        return {}

    @cached_property
    def columns(self) -> list[Column]:
        return columns_of(self.root.fields, True)

    @cached_property
    def shape(self) -> Any:
        """All that makes a difference to a table, as a hashable value."""
        return (_shape(self.root, True), self.root.text is not None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TopicSchema) and (self is other or self.shape == other.shape)

    def __hash__(self) -> int:
        return hash(self.shape)

    def to_json(self) -> dict[str, Any]:
        """`version`, `columns` and `decisions`, as the API keeps them."""
        from ingest.schema_document import document

        return document(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> TopicSchema:
        """From the API's answer; raises `ValueError` for a document that no worker of this version wrote."""
        from ingest.schema_document import parsed

        return parsed(document)

    def arrow(self) -> pa.Schema:
        """The schema of a full row: system columns, then the event's."""
        from ingest.columns import table_schema

        return table_schema(self)

    def declare(self, types: Mapping[tuple[str, ...], str], version: int) -> TopicSchema:
        """This schema with the types that an operator declared in this version of the topic's settings, and without
        those that older ones did. What newer settings declared stays: workers hear of them one after the other.
        """
        key = ("declared", version, tuple(types.items()))
        known: TopicSchema | None = self.memo.get(key)
        if known is None:
            root = _taken_back(self.root, (), types, version)
            for path, type_ in types.items():
                root = _declared(root, path, type_, version)
            known = self.memo[key] = self if root is self.root else replace(self, root=root)
        return known


def columnless(own: Field) -> bool:
    """The field has a kind and no column: only values without content came."""
    return own.kind is not None and _appears(own) is None


def _redeclared(own: Field, type_: str, version: int) -> Field:
    if own.declared is not None and (own.declared[1] == type_ or own.declared[0] > version):
        return own
    # Rows with the older type may be brought to the new one: what does not fit needs the sibling.
    claim = own.seen._replace(at=NEW, reason="declared")
    return replace(
        own,
        declared=(version, type_),
        text=_first(own.text, claim) if own.column and own.kind is not None else own.text,
    )


def _declared(own: Field, path: tuple[str, ...], type_: str, version: int) -> Field:
    if not path:
        return _redeclared(own, type_, version)
    if own.element is not None and own.kind == "list":
        element = _declared(own.element, path, type_, version)
        return own if element is own.element else _kept(own, replace(own, element=element))
    below = own.fields.get(path[0])
    if below is None:
        return own  # not seen yet: it is declared when it comes
    changed = _declared(below, path[1:], type_, version)
    return own if changed is below else _kept(own, replace(own, fields={**own.fields, path[0]: changed}))


def _kept(before: Field, after: Field) -> Field:
    """A registered field that loses its column, as all below it is dropped, needs the sibling for what rows have."""
    if before.column and after.text is None and _appears(before) is not None and _appears(after) is None:
        return replace(after, text=before.seen._replace(at=NEW, reason="declared"))
    return after


def _taken_back(
    own: Field, path: tuple[str, ...], types: Mapping[tuple[str, ...], str], version: int
) -> Field:
    if own.declaration is not None and path not in types:
        own = _redeclared(own, NATURAL, version)
    if own.element is not None:
        element = _taken_back(own.element, path, types, version)
        own = own if element is own.element else replace(own, element=element)
    changed = {
        name: after
        for name, each in own.fields.items()
        if (after := _taken_back(each, (*path, name), types, version)) is not each
    }
    return replace(own, fields={**own.fields, **changed}) if changed else own


def _shape(own: Field, top: bool) -> Any:
    kind = own.kind
    below: Any = None
    if kind == "struct":
        below = tuple(
            (column.name, column.sibling, None if column.sibling else _shape(column.field, False))
            for column in columns_of(own.fields, top)
        )
    elif kind == "list" and own.element is not None and own.element.kind is not None:
        below = _shape(own.element, False)
    return (own.name, kind, own.double is not None, own.declared and own.declared[1], own.retired, below)


def merge(a: TopicSchema, b: TopicSchema) -> TopicSchema:
    """All that both know, with the higher version. Commutative, associative, idempotent."""
    if a is b:
        return a
    root = _joined(a.root, b.root)
    return TopicSchema(max(a.version, b.version), root)


def with_text(own: Field, reason: str) -> Field:
    """The field with a sibling."""
    return own if own.text is not None else replace(own, text=Claim(reason=reason))


def leaves(own: Field) -> int:
    """How many columns of values this field stands for (siblings and fields without a type not counted)."""
    kind = own.kind
    if own.declaration not in (None, "drop"):
        return 0 if kind is None else 1
    if kind == "struct":
        return sum(leaves(each) for each in own.fields.values())
    if kind == "list":
        return leaves(own.element) if own.element is not None else 0
    return 0 if kind is None else 1
