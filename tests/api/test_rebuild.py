"""A database made again from what `catalog` gave out: the same history, another epoch, and nobody's positions moved."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from api.app import create_app
from api.process import EXTENSION
from api.rebuild import RebuildRefused, rebuild
from api.settings import load
from api.times import format_time
from tests.api.conftest import World
from tests.api.maker import Maker

ALIKE = ("rows", "bytes", "files", "dead_letters", "sequence", "partitions", "settings", "schema_version")


@pytest.fixture
def other_url(world: World, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """An empty database of the kind that the world has."""
    if world.database.sqlite:
        return f"sqlite:///{tmp_path / 'other.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


def kept(world: World, topic: str, appends: list[dict[str, Any]]) -> dict[str, Any]:
    """What upkeep would have written to the lake, page by page."""
    commits: list[Any] = []
    while True:
        page = world.get(f"/topics/{topic}/catalog", after=len(commits), limit=2, state="")
        commits += page["commits"]
        if not page["more"]:
            return {"topic": topic, "state": page["state"], "commits": commits, "appends": appends}


def history(client: FlaskClient, topic: str) -> list[Any]:
    def get(path: str) -> Any:
        answer = client.get(f"/v1/topics/{topic}{path}")
        assert answer.status_code == 200, answer.get_data(as_text=True)
        return answer.get_json()

    described = get("")
    periods = [{**each, "state": None} for each in get("/periods")["periods"]]
    return [
        {name: described[name] for name in ALIKE},
        get("/batches?limit=1000&swept")["commits"],
        get("/files?limit=1000")["files"],
        get("/ledger?limit=1000")["lines"],
        get("/schema"),
        periods,
    ]


def erasure(world: World, maker: Maker, *, done: bool) -> Any:
    """An erasure that found nothing, with its record if it is `done`; the rule holds from then on."""
    made = world.send("POST", f"/topics/{maker.topic}/erasures", {"field": "a", "values": ["1"]}, 201)
    maker.rule_version = made["rule_version"]
    if not done:
        return made
    what = {"scanned": 1, "commits": [], "files": [], "rows": 0, "dead_letters": 0}
    return world.send("POST", f"/topics/{maker.topic}/erasures/{made['id']}/record", what)


def test_the_history_is_the_same_in_another_epoch(world: World, other_url: str) -> None:
    makers = [world.maker("orders"), world.maker("returns")]
    erasures = {}
    for maker in makers:
        maker.commit(10)
        erasures[maker.topic] = [erasure(world, maker, done=done) for done in (True, False)]
        maker.send(maker.append(maker.line(0, 5, carried=[1, 3], dead_letters=0), maker.line(1, 4)))
        [first, *_] = maker.live()
        line = {"rows_in": 10, "rows_out": 10}
        maker.send(maker.upkeep("replace", line, [maker.file(10, newest_sequence=1)], [first["id"]]))
    column = {"name": "a", "column": "a", "type": "integer", "reason": None, "first": None}
    world.send("POST", "/topics/orders/schemas", {"base_version": 0, "columns": [column]}, 201)
    world.send("PUT", "/loaders/dwh", {"topics": ["orders"], "from": "now", "hold": True}, 201)
    world.send("PUT", "/holds/case", {"topics": ["orders"], "reason": "17"})
    world.send("PUT", "/defaults/all", {"pattern": ".*", "priority": 1, "settings": {"lateness": "7s"}})
    before = {topic: history(world.client, topic) for topic in ("orders", "returns")}
    known = [kept(world, topic, []) for topic in ("orders", "returns")]

    # What comes after the copy, in the old life: a chain of two, and one that somebody else was faster than.
    orders = makers[0]
    lost = orders.append(orders.line(0, 3))
    orders.send(orders.append(orders.line(0, 7)))
    next_one = orders.append(orders.line(0, 2))
    for file in lost["files"]:
        file["modified_at"] = format_time(
            time.time_ns() // 1000
        )  # its age counts from when it is named again
    known[0]["appends"] = [next_one, lost]
    epoch, sequence = orders.epoch, before["orders"][0]["sequence"]

    said = list(rebuild(load(database=other_url), known))
    assert len(said) == 2
    assert "1 appends entered again" in said[0]
    assert "dwh" in said[0]
    with pytest.raises(RebuildRefused, match="not lost"):
        list(rebuild(load(database=other_url), known))

    app = create_app(load(database=other_url, auth="none"), world.clock)
    client = app.test_client()
    try:
        assert history(client, "returns") == before["returns"]
        commits = history(client, "orders")[1]
        assert commits[:-1] == before["orders"][1]
        assert commits[-1]["id"] == lost["id"]
        gone = client.get(f"/v1/topics/orders/batches?after={sequence + 1}&epoch={epoch}")
        assert gone.status_code == 410
        assert (gone.get_json()["common"], gone.get_json()["cursor"]) == (sequence, sequence)
        assert gone.get_json()["positions"][0]["next"] == 15
        assert [each["name"] for each in client.get("/v1/holds").get_json()["holds"]] == ["case"]
        told = client.get("/v1/topics/orders/erasures").get_json()["erasures"]
        same = ("id", "record", "signature", "public_key", "value_hash", "rule_version", "finished_at")
        assert [[each[name] for name in same] for each in told] == [
            [each[name] for name in same] for each in erasures["orders"]
        ]
        assert [each["signature"] is None for each in told] == [False, True]
        told = client.get("/v1/loaders/dwh").get_json()
        assert (told["hold"], told["cursors"][0]["sequence"]) == (True, sequence)
        again = Maker(client, "orders", [0, 1], lambda: world.clock.now_us)
        again.begin()
        assert again.epoch != epoch
        assert again.commit(4)["sequence"] == sequence + 2
        files = [file["id"] for file in again.live()]
        assert len(set(files)) == len(files)
        # A worker of the old life asks once more: it is told to begin anew.
        stale = client.post("/v1/topics/orders/commits", json=next_one)
        assert (stale.status_code, stale.get_json()["type"]) == (409, "/problems/epoch-moved")
    finally:
        app.extensions[EXTENSION].heads.stop()
        app.extensions[EXTENSION].database.dispose()


def test_an_erasure_whose_commits_are_lost_is_open_again_and_its_rule_holds(
    world: World, other_url: str
) -> None:
    maker = world.maker()
    maker.commit(10)
    made = world.send("POST", "/topics/orders/erasures", {"field": "a", "values": ["1"]}, 201)
    [old] = [file["id"] for file in maker.live()]
    maker.send(maker.upkeep("erase", {"rows_in": 10, "erased": 10}, [maker.file(10, what="deletes")], [old]))
    what = {"scanned": 2, "commits": [2], "files": [], "rows": 10, "dead_letters": 0}
    world.send("POST", f"/topics/orders/erasures/{made['id']}/record", what)
    known = kept(world, "orders", [])
    known["commits"] = known["commits"][:1]
    list(rebuild(load(database=other_url), [known]))
    app = create_app(load(database=other_url, auth="none"), world.clock)
    try:
        [told] = app.test_client().get("/v1/topics/orders/erasures").get_json()["erasures"]
        assert (told["record"], told["signature"], told["finished_at"]) == (None, None, None)
        assert told["value_hash"] == made["value_hash"]
        again = Maker(app.test_client(), "orders", [0, 1], lambda: world.clock.now_us)
        again.begin()
        refused = again.append(again.line(0, 5)) | {"rule_version": 0}
        answer = app.test_client().post("/v1/topics/orders/commits", json=refused)
        assert answer.get_json()["type"] == "/problems/rule-version-old"
    finally:
        app.extensions[EXTENSION].heads.stop()
        app.extensions[EXTENSION].database.dispose()


def test_a_state_newer_than_the_last_commit_that_is_left_promises_nothing(
    world: World, other_url: str
) -> None:
    maker = world.maker()
    maker.commit(10)
    maker.commit(20)
    known = kept(world, "orders", [])
    known["commits"] = known["commits"][:1]
    list(rebuild(load(database=other_url), [known]))
    app = create_app(load(database=other_url, auth="none"), world.clock)
    try:
        told = app.test_client().get("/v1/topics/orders").get_json()
        assert (told["sequence"], told["rows"], told["partitions"][0]["next"]) == (1, 10, 10)
        assert told["complete_until"] is None
    finally:
        app.extensions[EXTENSION].heads.stop()
        app.extensions[EXTENSION].database.dispose()
