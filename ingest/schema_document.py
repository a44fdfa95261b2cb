"""A topic's schema as the document that the API keeps, and back.

Pure. Its shape stands in the contract (`api/openapi.yaml`); what it means is `ingest.schema`. The place of a column in
the list is its registered order: what a document says is older than all that it does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ingest.names import TEXT, field_name, sibling_name, storable
from ingest.schema import COLUMNLESS, Claim, Field, TopicSchema, columnless, columns_of

REASONS: Mapping[str, str] = {
    "type": "a value of another type than the column's came",
    "range": "a number came that 64 bits or a double cannot hold exactly",
    "fraction": "a number with a fraction or exponent came",
    "widened": "integers of older rows that a double cannot hold exactly",
    "numbers": "the topic's numbers are doubles",
    "surrogate": "a string came that UTF-8 cannot hold",
    "duplicate": "a key stood more than once in one object",
    "empty": "only values without content came so far",
    "map": "more different keys than map_keys: kept as JSON text",
    "depth": "deeper than max_depth: kept as JSON text",
    "columns": "no column is left under max_columns",
    "unplaced": "a value came that no rule has a place for: please report it",
    "declared": "the type that an operator declared",
}


def document(schema: TopicSchema) -> dict[str, Any]:
    columns = _columns(schema.root, True)
    if schema.root.text is not None:
        columns.append(_column("", TEXT, "json", schema.root.text))
    return {"version": schema.version, "columns": columns, "decisions": list(_decisions(columns, ""))}


def _columns(own: Field, top: bool) -> list[dict[str, Any]]:
    columns = []
    for column in columns_of(own.fields, top):
        each = column.field
        name = each.name
        if not storable(name):
            name = column.name  # no database keeps such a name: its column says it too
        if column.sibling:
            reason = "widened" if column.claim is each.double else column.claim.reason
            columns.append(_column(name, sibling_name(column.name), "json", column.claim, reason or "type"))
            continue
        kind = each.kind
        # (The claim of a column may be that of something below it, whose reason is not the column's.)
        reason = column.claim.reason if kind is None else each.kinds[kind].reason
        if kind == "number" and each.double is not None:
            reason = each.double.reason
        if each.retired:
            reason = "map"
        entry = _column(name, column.name, _type(each), column.claim, reason)
        if each.declared is not None:
            version, type_ = each.declared
            entry |= {"declared": type_, "declared_at": version}
            if each.declaration is not None:
                entry |= {
                    "type": {"drop": "null", "hash": "string"}.get(type_, type_),
                    "reason": "declared",
                    "source": _type(each),
                }
        columns.append(entry)
    return columns


def _column(name: str, column: str, type_: Any, claim: Claim, reason: str | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "column": column,
        "type": type_,
        "reason": (claim.reason if reason is None else reason) or None,
        "first": {"lake_partition": claim.lake_partition, "offset": claim.offset},
    }


def _type(own: Field) -> Any:
    kind = own.kind
    if kind is None:
        return "null"
    if kind == "struct":
        return {"struct": _columns(own, False)}
    if kind == "list":
        return {"list": "null" if own.element is None else _type(own.element)}
    return ("integer" if own.double is None else "double") if kind == "number" else kind


def _decisions(columns: list[dict[str, Any]], path: str) -> Any:
    for column in columns:
        if column["reason"]:
            yield {
                "column": path + column["column"],
                "reason": column["reason"],
                "text": REASONS.get(column["reason"], ""),
                "first": column["first"],
            }
        type_ = column["type"]
        while isinstance(type_, dict):
            if "struct" in type_:
                yield from _decisions(type_["struct"], f"{path}{column['column']}.")
            type_ = type_.get("list")


def parsed(document: Mapping[str, Any]) -> TopicSchema:
    columns = list(document.get("columns") or ())
    text = None
    if columns and columns[-1]["column"] == TEXT:
        text = _claim(len(columns) - 1, columns.pop())
    fields = _fields(columns)
    return TopicSchema(
        int(document["version"]), Field("", kinds={"struct": Claim(0)}, text=text, fields=fields)
    )


def _fields(columns: list[Mapping[str, Any]]) -> dict[str, Field]:
    siblings = {
        each["column"]: _claim(index, each)
        for index, each in enumerate(columns)
        if _is_sibling(each["column"])
    }
    fields = {}
    for index, each in enumerate(columns):
        column = each["column"]
        if _is_sibling(column):
            continue
        name = each["name"]
        if name == column:
            name = field_name(column)
        text = siblings.get(sibling_name(column))
        declared = (int(each["declared_at"]), each["declared"]) if "declared" in each else None
        source = each.get("source", each["type"])
        fields[name] = _field(name, column, source, _claim(index, each), text, declared)
    return fields


def _is_sibling(column: str) -> bool:
    return column.lower().endswith(TEXT)


def _claim(index: int, column: Mapping[str, Any]) -> Claim:
    first = column.get("first") or {"lake_partition": 0, "offset": 0}
    return Claim(index, first["lake_partition"], first["offset"], 0, column.get("reason") or "")


def _field(
    name: str, column: str, type_: Any, claim: Claim, text: Claim | None, declared: tuple[int, str] | None
) -> Field:
    kinds: dict[str, Claim] = {}
    fields: dict[str, Field] = {}
    element = double = None
    plain = claim._replace(reason="")
    if isinstance(type_, Mapping):
        if "struct" in type_:
            kinds["struct"] = plain
            fields = _fields(type_["struct"])
            if claim.reason == "map" and text is not None:
                kinds["json"] = max(text, claim._replace(at=claim.at + 1))
        elif "list" in type_:
            kinds["list"] = plain
            element = None if type_["list"] == "null" else _field("", "", type_["list"], plain, None, None)
        else:
            raise ValueError(f"column {column!r} has a type that this version does not know: {type_!r}")
    elif type_ in ("integer", "double"):
        kinds["number"] = plain
        double = claim if type_ == "double" else None
    elif type_ != "null":
        if type_ not in ("boolean", "string", "json"):
            raise ValueError(f"column {column!r} has a type that this version does not know: {type_!r}")
        kinds[type_] = claim if type_ == "json" else plain
    own = Field(name, column, claim, kinds, double, text, declared, fields, element)
    if columnless(own):
        return replace(own, kinds={kind: each._replace(at=COLUMNLESS) for kind, each in kinds.items()})
    return own
