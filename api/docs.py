"""The contract for people (`/docs`) and programs (`/openapi.json`): made here, no other host is asked."""

from functools import cache
from typing import Any

import yaml
from flask import Blueprint, Response, render_template, send_from_directory

from api.contract import load_contract, resolved
from api.problems import answer

blueprint = Blueprint("docs", __name__, template_folder="templates")


def _text(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110)


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "enum" in schema:
        return " | ".join(str(value) or '""' for value in schema["enum"])
    found = schema.get("type", "any")
    return " | ".join(found) if isinstance(found, list) else str(found)


def _operation(path: str, method: str, item: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    described = item[method]
    parameters = [
        resolved(each, whole) for each in [*item.get("parameters", ()), *described.get("parameters", ())]
    ]
    content = described.get("requestBody", {}).get("content", {}).get("application/json", {})
    examples = [content["example"]] if "example" in content else []
    examples += [each["value"] for each in content.get("examples", {}).values()]
    responses = []
    for status, reference in described["responses"].items():
        response = resolved(reference, whole)
        schemas = [kind.get("schema") for kind in response.get("content", {}).values() if kind.get("schema")]
        responses.append(
            {
                "status": status,
                "description": response["description"],
                "schema": _text(schemas[0]) if schemas else None,
            }
        )
    return {
        "id": described["operationId"],
        "method": method.upper(),
        "path": path,
        "tag": described["tags"][0],
        "summary": described["summary"],
        "description": described.get("description"),
        "scopes": described.get("x-scopes"),
        "parameters": [
            {
                "name": each["name"],
                "place": each["in"],
                "required": each.get("required", False),
                "type": _type(each["schema"]),
                "description": each.get("description", ""),
            }
            for each in parameters
        ],
        "body": _text(content["schema"]) if "schema" in content else None,
        "examples": [_text(each) for each in examples],
        "responses": responses,
    }


@cache
def _page() -> dict[str, Any]:
    """What the page shows; the contract of a running process does not change."""
    whole = load_contract().document
    operations = [
        _operation(path, method, item, whole)
        for path, item in whole["paths"].items()
        for method in item
        if method != "parameters"
    ]
    groups = [
        (tag["name"], [operation for operation in operations if operation["tag"] == tag["name"]])
        for tag in whole["tags"]
    ]
    schemas = [(name, _text(schema)) for name, schema in whole["components"]["schemas"].items()]
    return {"contract": whole, "groups": groups, "schemas": schemas}


@blueprint.get("/docs")
def docs() -> str:
    return render_template("docs.html", **_page())


@blueprint.get("/docs/style.css")
def style() -> Response:
    return send_from_directory(blueprint.root_path, "templates/docs.css", mimetype="text/css")


@blueprint.get("/openapi.json")
def openapi() -> Response:
    return answer(load_contract().document)
