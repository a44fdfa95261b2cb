"""Audit: every call by which an operator changes something leaves one line, and the same again leaves none."""

from __future__ import annotations

from typing import Any

from api.contract import load_contract
from tests.api.conftest import World

# In this order each changes something. A new operation of operators is to be added: the contract knows which there are.
CALLS: tuple[tuple[str, str, Any], ...] = (
    ("POST", "/v1/topics", {"topic": "payments"}),
    ("PATCH", "/v1/topics/<topic>", {"settings": {"lateness": "2s"}}),
    ("POST", "/v1/topics/<topic>/pause", None),
    ("POST", "/v1/topics/<topic>/resume", None),
    ("POST", "/v1/topics/<topic>/accept-gap", None),
    ("POST", "/v1/topics/<topic>/accept-reset", {"from": "end"}),
    ("POST", "/v1/topics/<topic>/erasures", {"field": "customer_id", "values": ["42"]}),
    ("PUT", "/v1/defaults/<name>", {"pattern": ".*", "settings": {"grace": "1h"}}),
    ("DELETE", "/v1/defaults/<name>", None),
    ("PUT", "/v1/loaders/<name>", {"topics": ["orders"]}),
    ("PUT", "/v1/loaders/<name>", {"topics": ["orders"], "hold": True}),
    ("DELETE", "/v1/loaders/<name>", None),
    ("PUT", "/v1/holds/<name>", {"topics": ["orders"], "reason": "a court asks"}),
    ("DELETE", "/v1/holds/<name>", None),
    ("POST", "/v1/tokens", {"name": "somebody", "scopes": ["read"]}),
    ("POST", "/v1/tokens/<name>/rotate", {"overlap_seconds": 0}),
    ("DELETE", "/v1/tokens/<name>", None),
)


def test_the_calls_are_all_that_operators_have() -> None:
    changing = {
        place
        for place, operation in load_contract().operations.items()
        if operation.scopes and "operate" in operation.scopes and place[0] != "GET"
    }
    assert {(method, path) for method, path, _ in CALLS} == changing


def test_every_change_by_an_operator_leaves_one_line(world: World) -> None:
    maker = world.maker()
    line = maker.line(0, 10, lost=1)
    start = line["from_offset"]
    maker.send(maker.append(line | {"lost_ranges": [[start, start + 1]], "written": line["written"] - 1}))
    before = 0
    for method, rule, body in CALLS:
        operation = load_contract().operations[method, rule].name
        path = rule.replace("<topic>", "orders").replace("<name>", "somebody")
        answer = world.client.open(path, method=method, json=body)
        assert answer.status_code < 300, (operation, answer.get_data(as_text=True))
        lines = world.get("/audit", limit=1000)["audit"]
        assert len(lines) == before + 1, operation
        assert lines[0]["action"] == {"delete_token": "revoke_token"}.get(operation, operation)
        assert lines[0]["who"] == "nobody"  # this application asks for no tokens
        assert lines[0]["topic"] is not None or lines[0]["target"] is not None
        before = len(lines)
        if method == "PUT":
            world.client.open(path, method=method, json=body)
            assert len(world.get("/audit", limit=1000)["audit"]) == before, f"{operation}: nothing changed"
