"""The contract at work: each request is checked against `openapi.yaml` before its view runs.

The schemas are compiled once. The validator is jsonschema-rs: one commit costs 0.02 ms with it and 5 ms with a
validator written in Python, which at 300 commits/s is more than a core.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson
import yaml
from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge

from api.problems import Problem

DOCUMENT = Path(__file__).parent / "openapi.yaml"
# More than these help nobody, and a body of rubbish has millions.
MOST_ERRORS = 10
LONGEST_ERROR = 300


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an operation, with the schema its cast value must fit."""

    name: str
    place: str  # path, query or header
    required: bool
    kind: str  # integer, boolean or string
    default: Any
    validator: Any


@dataclass(frozen=True, slots=True)
class Operation:
    """What one method of one path takes."""

    name: str
    parameters: tuple[Parameter, ...]
    body: Any | None  # validator of the JSON body
    body_required: bool
    scopes: frozenset[str] | None  # one of them is needed; None: no token at all
    all_topics: bool  # whether a token must be for all topics


@cache
def load_contract() -> "Contract":
    """The contract, read and compiled once in a process."""
    return Contract()


def document() -> dict[str, Any]:
    """The contract as it stands in the file."""
    found: dict[str, Any] = yaml.load(
        DOCUMENT.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    )
    return found


def resolved(node: Any, whole: Mapping[str, Any]) -> Any:
    """What a `$ref` of the contract stands for; anything else is itself."""
    while isinstance(node, dict) and "$ref" in node:
        target: Any = whole
        for step in node["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        node = target
    return node


def _validator(schema: Any, components: Any) -> Any:
    return jsonschema_rs.Draft202012Validator({**schema, "components": components})


def _plain(validator_error: Any) -> str:
    where = "/".join(str(step) for step in validator_error.instance_path)
    return f"{where or 'the value'}: {validator_error.message}"[:LONGEST_ERROR]


class Contract:
    """All operations of the contract, by method and path as Flask writes it (`/v1/topics/<topic>`)."""

    def __init__(self) -> None:
        self.document = document()
        components = self.document["components"]
        self.operations: dict[tuple[str, str], Operation] = {}
        for path, item in self.document["paths"].items():
            for method, described in item.items():
                if method == "parameters":
                    continue
                parameters = []
                for reference in [*item.get("parameters", ()), *described.get("parameters", ())]:
                    parameter = resolved(reference, self.document)
                    schema = resolved(parameter["schema"], self.document)
                    parameters.append(
                        Parameter(
                            parameter["name"],
                            parameter["in"],
                            parameter.get("required", False),
                            schema.get("type", "string"),
                            schema.get("default"),
                            _validator(schema, components),
                        )
                    )
                body = resolved(described.get("requestBody"), self.document)
                schema = body["content"]["application/json"]["schema"] if body else None
                rule = path.replace("{", "<").replace("}", ">")
                self.operations[method.upper(), rule] = Operation(
                    described["operationId"],
                    tuple(parameters),
                    _validator(schema, components) if body else None,
                    bool(body and body.get("required")),
                    None if described.get("security") == [] else frozenset(described["x-scopes"]),
                    described.get("x-topics") == "all",
                )

    def operation(self, request: Request) -> Operation | None:
        """What the contract says of a request's method and path; None: nothing."""
        method = "GET" if request.method == "HEAD" else request.method
        rule = request.url_rule.rule if request.url_rule is not None else ""
        return self.operations.get((method, rule))

    def check(self, request: Request) -> tuple[dict[str, Any], Any]:
        """The query (cast, with defaults) and the body of a request that is as the contract says; else Problem."""
        operation = self.operation(request)
        if operation is None:
            return {}, None
        errors: list[str] = []
        query = self._query(operation, request, errors)
        body = self._body(operation, request, errors)
        if errors:
            raise Problem("request-invalid", 400, errors[0], errors=errors[:MOST_ERRORS])
        return query, body

    def _query(self, operation: Operation, request: Request, errors: list[str]) -> dict[str, Any]:
        query: dict[str, Any] = {}
        known = {parameter.name for parameter in operation.parameters if parameter.place == "query"}
        # A mistyped `after` must not read as "from the first".
        errors.extend(f"{name}: no such parameter" for name in request.args if name not in known)
        for parameter in operation.parameters:
            value: Any
            if parameter.place == "query":
                values = request.args.getlist(parameter.name)
                if len(values) > 1:
                    errors.append(f"{parameter.name}: is given {len(values)} times")
                    continue
                value = values[0] if values else None
            elif parameter.place == "header":
                value = request.headers.get(parameter.name)
            else:
                value = (request.view_args or {}).get(parameter.name)
            if value is None:
                if parameter.required:
                    errors.append(f"{parameter.name}: is missing")
                elif parameter.default is not None:
                    query[parameter.name] = parameter.default
                continue
            if parameter.kind == "integer":
                digits = value.removeprefix("-")
                # Python's int() takes spaces, underscores and other scripts' digits; the contract does not.
                if not (digits.isascii() and digits.isdecimal() and len(digits) < 20):
                    errors.append(f"{parameter.name}: {value[:50]!r} is not an integer")
                    continue
                value = int(value)
            problems = [_plain(error) for error in parameter.validator.iter_errors(value)]
            errors.extend(f"{parameter.name}: {problem.partition(': ')[2]}" for problem in problems)
            query[parameter.name] = value
        return query

    def _body(self, operation: Operation, request: Request, errors: list[str]) -> Any:
        if operation.body is None:
            return None
        raw = request.get_data(cache=False)
        if request.content_length is None and len(raw) >= (request.max_content_length or len(raw) + 1):
            # A body without a length is cut off there, not refused.
            raise RequestEntityTooLarge
        if not raw:
            if operation.body_required:
                errors.append("the body: is missing")
            return None
        if request.mimetype != "application/json":
            raise Problem(
                "not-json",
                415,
                f"The body must be application/json, not {request.mimetype[:100] or 'untyped'}.",
            )
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            errors.append(f"the body: is not JSON: {error}")
            return None
        for found in operation.body.iter_errors(body):
            errors.append(f"the body: {_plain(found)}")
            if len(errors) >= MOST_ERRORS:
                break
        return body
