"""Tokens: every operation without one, with a wrong scope, for a foreign topic; rotation and revocation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from api import tokens
from api.access import MOST_FAILURES, SCOPES
from api.app import create_app
from api.contract import document, load_contract
from api.settings import load
from tests.api.conftest import FakeClock, World
from tests.api.maker import Maker
from tests.api.test_workers import report

CONTRACT = load_contract()
OPERATIONS = sorted(CONTRACT.operations)


@pytest.fixture
def guarded(database_url: str, clock: FakeClock) -> Iterator[World]:
    """The application as it comes: it asks for tokens."""
    app = create_app(load(database=database_url), clock, prepared=True)
    made = World(app, app.test_client(), clock, database_url)
    yield made
    made.process.heads.stop()
    made.database.dispose()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def token(
    world: World, *scopes: str, name: str = "someone", topics: list[str] | None = None
) -> dict[str, str]:
    return bearer(tokens.create(load(database=world.url), name, scopes, topics))


def path_of(rule: str) -> str:
    return rule.replace("<topic>", "orders").replace("<name>", "somebody")


def ask(client: FlaskClient, operation: tuple[str, str], headers: dict[str, str] | None = None) -> Any:
    method, rule = operation
    return client.open(path_of(rule), method=method, headers=headers, json={} if method != "GET" else None)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: " ".join(operation))
def test_no_operation_answers_without_a_good_token(guarded: World, operation: tuple[str, str]) -> None:
    for headers in (None, bearer("wrong"), {"Authorization": "Basic x"}, {"Authorization": "Bearer "}):
        found = ask(guarded.client, operation, headers)
        if CONTRACT.operations[operation].scopes is None:
            assert found.status_code == 200
        else:
            assert (found.status_code, found.get_json()["type"]) == (401, "/problems/unauthorized")
            assert found.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: " ".join(operation))
def test_no_operation_takes_a_wrong_scope_or_a_foreign_topic(
    guarded: World, operation: tuple[str, str]
) -> None:
    scopes = CONTRACT.operations[operation].scopes
    if scopes is None:
        return
    wrong = sorted(set(SCOPES) - scopes)
    if wrong:
        found = ask(guarded.client, operation, token(guarded, *wrong, name="wrong"))
        assert (found.status_code, found.get_json()["type"]) == (403, "/problems/forbidden")
    Maker(guarded.client, "orders", [0], lambda: 0)
    restricted = token(guarded, *SCOPES, name="restricted", topics=["payments", "^payments_.*"])
    if "<topic>" in operation[1]:
        missing = ask(guarded.client, operation, restricted)
        assert missing.status_code == 404
        everything = token(guarded, *SCOPES, name="everything")
        guarded.client.post("/v1/topics", json={"topic": "orders"}, headers=everything)
        foreign = ask(guarded.client, operation, restricted)
        assert (foreign.status_code, foreign.get_json()) == (404, missing.get_json())
    elif CONTRACT.operations[operation].all_topics:
        assert ask(guarded.client, operation, restricted).status_code == 403


def _bodies(operation: tuple[str, str]) -> list[Any]:
    """The contract's examples of an operation's body."""
    method, rule = operation
    path = rule.replace("<", "{").replace(">", "}")
    content = document()["paths"][path][method.lower()].get("requestBody", {}).get("content", {})
    for each in content.values():
        single = [each["example"]] if "example" in each else []
        return single + [example["value"] for example in each.get("examples", {}).values()]
    return []


@pytest.fixture
def foreign(guarded: World) -> World:
    """With a topic `orders` that is in everything: commits, a loader, a worker's report."""
    every = token(guarded, *SCOPES, name="every")
    guarded.client.environ_base.update(HTTP_AUTHORIZATION=every["Authorization"])
    maker = guarded.maker()
    maker.commit()
    guarded.send("PUT", "/loaders/somebody", {"topics": ["^.*", "orders"], "from": "earliest"}, 201)
    report(guarded, maker)
    del guarded.client.environ_base["HTTP_AUTHORIZATION"]
    return guarded


def test_no_operation_does_or_shows_anything_of_a_foreign_topic(foreign: World) -> None:
    """Also those whose path names none: bodies are the contract's examples, which speak of `orders`."""
    own = token(foreign, *SCOPES, name="own", topics=["payments"])
    before, named = foreign.everything(), 0
    for operation in OPERATIONS:
        scopes = CONTRACT.operations[operation].scopes
        if scopes is None or "<topic>" in operation[1] or CONTRACT.operations[operation].all_topics:
            continue
        method, path = operation[0], path_of(operation[1])
        if method == "GET":
            found = foreign.client.get(path, headers=own)
            assert found.status_code == 200, operation
            assert "orders" not in found.get_data(as_text=True), operation
        for body in _bodies(operation):
            if '"orders"' in json.dumps(body):
                named += 1
                status = foreign.client.open(path, method=method, json=body, headers=own).status_code
                assert status in (403, 404), operation
    assert named > 5
    assert foreign.everything() == before


def test_a_token_for_some_topics_sees_and_does_only_those(guarded: World) -> None:
    everything = token(guarded, *SCOPES, name="everything")
    some = token(guarded, *SCOPES, name="some", topics=["b", "^c.*"])
    for name in ("a", "b", "c1", "d"):
        guarded.client.post("/v1/topics", json={"topic": name}, headers=everything)
    page = guarded.client.get("/v1/topics?limit=1", headers=some).get_json()
    rest = guarded.client.get(f"/v1/topics?limit=5&page={page['next_page']}", headers=some).get_json()
    assert [topic["topic"] for topic in page["topics"] + rest["topics"]] == ["b", "c1"]
    for path, body in (
        ("/v1/positions", {"topics": [{"topic": "a", "partitions": [0]}]}),
        ("/v1/positions", {"topics": [{"topic": "unheard-of", "partitions": [0]}]}),
        ("/v1/topics", {"topic": "unheard-of"}),
    ):
        assert guarded.client.post(path, json=body, headers=some).status_code == 403
    guarded.client.put("/v1/loaders/l", json={"topics": ["^.*"], "from": "now"}, headers=everything)
    mine = guarded.client.get("/v1/loaders/l", headers=some).get_json()
    assert [entry["topic"] for entry in mine["cursors"]] == ["b", "c1"]
    move = {"cursors": {"a": {"epoch": "x", "from": 0, "to": 0}}}
    assert guarded.client.put("/v1/loaders/l/cursors", json=move, headers=some).status_code == 404
    assert guarded.client.put("/v1/loaders/m", json={"topics": ["a"]}, headers=some).status_code == 403


def test_a_worker_only_appends(guarded: World) -> None:
    ingest = token(guarded, "ingest", name="ingest")
    guarded.client.post("/v1/topics", json={"topic": "orders"}, headers=token(guarded, "operate", name="o"))
    body = {"id": "0" * 8 + "-0000-0000-0000-" + "0" * 12, "kind": "replace", "epoch": "x", "lines": []}
    found = guarded.client.post("/v1/topics/orders/commits", json=body, headers=ingest)
    assert found.status_code == 403
    found = guarded.client.post("/v1/commits", json={"commits": [body | {"topic": "orders"}]}, headers=ingest)
    assert found.status_code == 403
    upkeep = token(guarded, "upkeep", name="upkeep")
    found = guarded.client.post("/v1/topics/orders/commits", json=body, headers=upkeep)
    assert (found.status_code, found.get_json()["type"]) == (409, "/problems/epoch-moved")


def test_presigned_urls_are_only_for_those_who_may_load(guarded: World) -> None:
    headers = token(guarded, "read", "operate", name="reader")
    guarded.client.post("/v1/topics", json={"topic": "orders"}, headers=headers)
    for path in ("batches", "files"):
        assert guarded.client.get(f"/v1/topics/orders/{path}", headers=headers).status_code == 200
        found = guarded.client.get(f"/v1/topics/orders/{path}?urls=presigned", headers=headers)
        assert found.status_code == 403


def test_tokens_are_made_shown_once_rotated_and_revoked(guarded: World) -> None:
    operate = token(guarded, "operate", name="first")

    def works(text: str) -> bool:
        return bool(guarded.client.get("/v1/topics", headers=bearer(text)).status_code == 200)

    made = guarded.send(
        "POST",
        "/tokens",
        {"name": "dwh", "scopes": ["load"], "expires_at": "2026-01-02T00:00:00Z"},
        201,
        headers=operate,
    )
    assert works(made["token"])
    listed = guarded.client.get("/v1/tokens", headers=operate).get_json()["tokens"]
    assert [entry["name"] for entry in listed] == ["dwh", "first"]
    assert "token" not in listed[0]
    guarded.send("POST", "/tokens", {"name": "dwh", "scopes": ["load"]}, 409, headers=operate)
    rotated = guarded.send("POST", "/tokens/dwh/rotate", {"overlap_seconds": 60}, headers=operate)
    assert works(made["token"])
    assert works(rotated["token"])
    guarded.clock.forward(61)
    assert not works(made["token"])
    guarded.send("DELETE", "/tokens/dwh", status=204, headers=operate)
    assert not works(rotated["token"])
    guarded.send("DELETE", "/tokens/nobody", status=404, headers=operate)
    again = guarded.send("POST", "/tokens", {"name": "dwh", "scopes": ["load"]}, 201, headers=operate)
    assert works(again["token"])
    assert not works(made["token"])
    short = guarded.send(
        "POST", "/tokens", {"name": "short", "scopes": ["read"], "expires_at": "2026-01-01T10:00:00Z"}, 201,
        headers=operate,
    )["token"]  # fmt: skip
    assert works(short)
    guarded.clock.forward(3600)
    assert not works(short)
    actions = [
        line["action"] for line in guarded.client.get("/v1/audit", headers=operate).get_json()["audit"]
    ]
    assert actions == [
        "create_token",
        "create_token",
        "revoke_token",
        "rotate_token",
        "create_token",
        "create_token",
    ]
    stored = guarded.client.get("/v1/audit", headers=operate).get_data(as_text=True)
    assert made["token"] not in stored
    assert again["token"] not in stored


def test_many_bad_tokens_are_slowed_down_and_good_ones_are_not(guarded: World) -> None:
    good = token(guarded, "read")
    statuses = [
        guarded.client.get("/v1/topics", headers=bearer(f"guess-{number}")).status_code
        for number in range(MOST_FAILURES + 2)
    ]
    assert statuses == [401] * MOST_FAILURES + [429] * 2
    assert guarded.client.get("/v1/topics", headers=good).status_code == 200


def test_the_command_line_makes_lists_and_revokes(tmp_path: Path) -> None:
    settings = load(database=f"sqlite:///{tmp_path / 'x.db'}")
    text = tokens.create(settings, "first", ["operate", "read"])
    assert len(text) > 43
    with pytest.raises(tokens.TokenError, match="exists"):
        tokens.create(settings, "first", ["read"])
    with pytest.raises(tokens.TokenError, match="perhaps"):
        tokens.create(settings, "second", ["perhaps"])
    [entry] = tokens.list_all(settings)
    assert (entry["name"], entry["scopes"], entry["topics"]) == ("first", ["operate", "read"], None)
    assert tokens.rotate(settings, "first", "1h") != text
    with pytest.raises(tokens.TokenError, match="no token"):
        tokens.rotate(settings, "nobody", "1h")
    tokens.revoke(settings, "first")
    assert tokens.list_all(settings)[0]["revoked_at"] is not None
    with pytest.raises(tokens.TokenError, match="no token"):
        tokens.revoke(settings, "nobody")


def test_operators_leave_a_trace(world: World) -> None:
    world.maker()
    world.send("PATCH", "/topics/orders", {"settings": {"lateness": "2s"}})
    world.send("PATCH", "/topics/orders", {"settings": {"lateness": "2s"}})  # changes nothing
    world.clock.forward(10)
    world.send("POST", "/topics/orders/pause")
    world.send("PUT", "/defaults/all", {"pattern": ".*", "settings": {"grace": "1s"}})
    lines = world.get("/audit")["audit"]
    assert [(line["action"], line["topic"], line["target"]) for line in lines] == [
        ("put_defaults", None, "all"),
        ("pause_topic", "orders", None),
        ("patch_topic", "orders", None),
    ]
    assert (lines[2]["who"], lines[2]["before"], lines[2]["after"]) == (
        "nobody",
        {"lateness": None},
        {"lateness": "2s"},
    )
    page = world.get("/audit", limit=1, topic="orders")
    assert page["audit"][0]["action"] == "pause_topic"
    assert world.get("/audit", page=page["next_page"], topic="orders")["audit"][0]["action"] == "patch_topic"
    assert world.get("/audit", **{"from": "2026-01-01T09:00:05Z"})["audit"] == lines[:2]


def test_answers_carry_headers_that_keep_browsers_and_caches_out(world: World) -> None:
    world.maker()
    found = world.client.get("/v1/topics/orders", headers={"Accept-Encoding": "gzip"})
    assert found.headers["Content-Encoding"] == "gzip"
    plain = world.client.get("/v1/topics/orders")
    assert "Content-Encoding" not in plain.headers
    for name in ("X-Content-Type-Options", "Content-Security-Policy", "Referrer-Policy", "X-Frame-Options"):
        assert name in plain.headers
    assert plain.headers["Cache-Control"] == "no-store"


def test_a_body_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    app = create_app(load(database=f"sqlite:///{tmp_path / 'x.db'}", auth="none", api_body_limit="1kB"))
    found = app.test_client().post("/v1/topics", json={"topic": "x" * 2000})
    assert (found.status_code, found.get_json()["type"]) == (413, "/problems/too-large")


@pytest.mark.parametrize("proxies", [0, 1])
def test_the_address_of_a_client_is_what_trusted_proxies_say_and_nobody_else(
    tmp_path: Path, proxies: int
) -> None:
    client = create_app(load(database=f"sqlite:///{tmp_path / 'x.db'}", api_proxies=proxies)).test_client()

    def guess(address: str) -> int:
        said = {**bearer("guess"), "X-Forwarded-For": f"6.6.6.6, {address}"}
        return client.get("/v1/topics", headers=said).status_code

    assert [guess("10.0.0.1") for _ in range(MOST_FAILURES + 1)][-1] == 429
    assert guess("10.0.0.2") == (401 if proxies else 429)
