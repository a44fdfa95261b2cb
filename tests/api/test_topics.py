"""Topics, positions, settings, defaults, schemas and the ledger as operators and workers use them."""

from __future__ import annotations

import threading

import numpy as np

from ingest.chunk import Records
from ingest.decode import DecodeRules, decode
from ingest.schema import TopicSchema
from tests.api.conftest import World


def test_positions_make_topics_and_partitions(world: World) -> None:
    asked = {
        "topics": [{"topic": "a", "topic_id": "abc", "partitions": [1, 0]}, {"topic": "b", "partitions": []}]
    }
    first, second = world.send("POST", "/positions", asked)["topics"]
    assert [(p["lake_partition"], p["broker_partition"], p["next"]) for p in first["positions"]] == [
        (0, 0, None),
        (1, 1, None),
    ]
    assert (second["topic"], second["positions"], second["sequence"]) == ("b", [], 0)
    assert first["epoch"] != second["epoch"]
    again = world.send("POST", "/positions", asked)["topics"]
    assert [topic["epoch"] for topic in again] == [first["epoch"], second["epoch"]]


def test_a_null_topic_id_is_filled_by_a_commit_and_then_stays(world: World) -> None:
    maker = world.maker()
    assert maker.positions[0]["topic_id"] is None
    maker.send(maker.append(maker.line(0, 1, position={"topic_id": "first"})))
    maker.send(maker.append(maker.line(0, 1, position={"topic_id": "second"})))
    said = world.send(
        "POST", "/positions", {"topics": [{"topic": "orders", "topic_id": "x", "partitions": [0]}]}
    )
    assert said["topics"][0]["positions"][0]["topic_id"] == "first"


def test_partitions_asked_for_at_once_by_many_workers_are_made_once(world: World) -> None:
    answers = []

    def ask() -> None:
        body = {"topics": [{"topic": name, "partitions": list(range(8))} for name in ("x", "y")]}
        answers.append(world.app.test_client().post("/v1/positions", json=body).get_json())

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(answer == answers[0] for answer in answers)
    assert [p["lake_partition"] for p in answers[0]["topics"][1]["positions"]] == list(range(8))


def test_a_registered_topic_keeps_its_settings_when_a_worker_comes(world: World) -> None:
    made = world.send("POST", "/topics", {"topic": "orders", "settings": {"lateness": "5s"}}, 201)
    assert (made["settings"]["lateness"], made["settings_own"]) == ("5s", ["lateness"])
    assert world.maker().begin()["settings"]["lateness"] == "5s"
    assert world.send("POST", "/topics", {"topic": "orders"}, 409)["type"] == "/problems/topic-exists"


def test_settings_are_checked_by_name(world: World) -> None:
    world.maker()
    wrong = {
        "lateness": "5 parsecs",
        "flush_rows": 0,
        "flush_bytes": 128,
        "event_id": "id",
        "retention": "soon",
        "nothing": 1,
        "max_columns": True,
        "on_differing": "perhaps",
    }
    refused = world.send("PATCH", "/topics/orders", {"settings": wrong | {"grace": "1h"}}, 422)
    assert set(refused["errors"]) == set(wrong)
    assert world.get("/topics/orders")["settings_own"] == []
    right = {
        "retention": "90d from commit",
        "event_id": ["metadata.eid", "header:ce_id"],
        "flush_bytes": "64MiB",
        "max_retention": "1000d",
    }
    assert world.send("PATCH", "/topics/orders", {"settings": right, "confirm": True})[
        "settings_own"
    ] == sorted(right)


def test_settings_change_only_under_the_version_named(world: World) -> None:
    world.maker()
    answer = world.client.get("/v1/topics/orders")
    etag = answer.headers["ETag"]
    changed = world.client.patch(
        "/v1/topics/orders", json={"settings": {"lateness": "2s"}}, headers={"If-Match": etag}
    )
    assert changed.status_code == 200
    assert changed.headers["ETag"] != etag
    refused = world.send(
        "PATCH", "/topics/orders", {"settings": {"lateness": "3s"}}, 412, headers={"If-Match": etag}
    )
    assert refused["settings_version"] == changed.get_json()["settings_version"]
    taken_away = world.send("PATCH", "/topics/orders", {"settings": {"lateness": None}})
    assert (taken_away["settings"]["lateness"], taken_away["settings_own"]) == ("1min", [])


def test_a_dry_run_answers_like_the_change_and_changes_nothing(world: World) -> None:
    world.maker()
    dry = {"query_string": {"dry_run": ""}}
    before = world.get("/topics/orders")
    told = world.send("PATCH", "/topics/orders", {"settings": {"lateness": "2s"}}, **dry)
    assert told["settings"]["lateness"] == "2s"
    world.send("PATCH", "/topics/orders", {"settings": {"lateness": "soon"}}, 422, **dry)
    assert world.get("/topics/orders")["settings_version"] == before["settings_version"]
    assert world.get("/topics/orders")["settings"] == before["settings"]
    new = {"topic": "new", "settings": {"lateness": "2s"}}
    assert world.send("POST", "/topics", new, **dry)["settings_own"] == ["lateness"]
    world.get("/topics/new", 404)
    world.send("POST", "/topics", new, 201)
    world.send("POST", "/topics", new, 409, **dry)


def test_defaults_by_pattern_hold_by_priority_and_are_explained(world: World) -> None:
    world.maker("orders.eu")
    before = world.get("/topics/orders.eu")["settings_version"]
    world.send("PUT", "/defaults/all", {"pattern": ".*", "settings": {"lateness": "2s", "grace": "1s"}})
    world.send(
        "PUT", "/defaults/orders", {"pattern": r"orders\..*", "priority": 5, "settings": {"lateness": "3s"}}
    )
    world.send("PUT", "/defaults/other", {"pattern": "orders", "priority": 9, "settings": {"lateness": "4s"}})
    world.send("PATCH", "/topics/orders.eu", {"settings": {"flush_age": "1s"}})
    topic = world.get("/topics/orders.eu", explain="")
    assert [topic["settings"][name] for name in ("lateness", "grace", "flush_age")] == ["3s", "1s", "1s"]
    assert topic["explained"]["lateness"] == {"value": "3s", "origin": "defaults", "defaults": "orders"}
    assert topic["explained"]["flush_age"]["origin"] == "topic"
    assert topic["explained"]["dedup_window"]["origin"] == "built in"
    assert topic["settings_version"] > before
    assert [rule["name"] for rule in world.get("/defaults")["defaults"]] == ["all", "orders", "other"]
    world.send("DELETE", "/defaults/orders", status=204)
    assert world.get("/topics/orders.eu")["settings"]["lateness"] == "2s"
    world.send("DELETE", "/defaults/orders", status=404)
    refused = world.send("PUT", "/defaults/bad", {"pattern": "(", "settings": {"x": 1}}, 422)
    assert refused["errors"] == {"x": "there is no such setting"}
    assert "pattern" in world.send("PUT", "/defaults/bad", {"pattern": "(", "settings": {}}, 422)["errors"]


def test_the_period_is_fixed_by_the_first_rows(world: World) -> None:
    maker = world.maker()
    assert (
        world.send("PATCH", "/topics/orders", {"settings": {"period": "hour"}})["settings"]["period"]
        == "hour"
    )
    maker.commit()
    assert "period" in world.send("PATCH", "/topics/orders", {"settings": {"period": "day"}}, 422)["errors"]
    world.send("PATCH", "/topics/orders", {"settings": {"period": "hour"}})


def test_topics_are_listed_by_name_in_pages(world: World) -> None:
    for name in ("c", "a", "b"):
        world.send("POST", "/topics", {"topic": name}, 201)
    page = world.get("/topics", limit=2)
    assert [topic["topic"] for topic in page["topics"]] == ["a", "b"]
    page = world.get("/topics", limit=2, page=page["next_page"])
    assert ([topic["topic"] for topic in page["topics"]], page["next_page"]) == (["c"], None)


def test_a_paused_topic_says_so_and_still_takes_commits(world: World) -> None:
    maker = world.maker()
    assert world.send("POST", "/topics/orders/pause")["paused"]
    since = world.get("/topics/orders")["since"]
    world.clock.forward(10)
    assert world.send("POST", "/topics/orders/pause")["since"] == since
    maker.commit()
    assert maker.begin()["paused"]
    assert world.get("/topics/orders")["state"] == "paused"
    assert not world.send("POST", "/topics/orders/resume")["paused"]


def test_lost_records_are_a_gap_until_somebody_accepts_it(world: World) -> None:
    maker = world.maker()
    line = maker.line(0, 10, lost=4, written=6, lost_ranges=[[2, 6]])
    maker.send(maker.append(line))
    maker.commit()
    topic = world.get("/topics/orders")
    assert (topic["state"], topic["reason"]) == ("gap", "records were lost at the source, first in commit 1")
    assert "accept-gap" in topic["todo"]


def test_schemas_change_by_compare_and_set(world: World) -> None:
    world.maker()
    assert world.get("/topics/orders/schema") == {"version": 0, "columns": [], "decisions": []}
    column = {"name": "price", "column": "price", "type": "double", "reason": "integer met float"}
    struct = {"struct": [{"name": "id", "column": "id", "type": {"list": "integer"}}]}
    columns = [
        column | {"first": {"lake_partition": 0, "offset": 7}},
        {"name": "who", "column": "who", "type": struct},
    ]
    made = world.send("POST", "/topics/orders/schemas", {"base_version": 0, "columns": columns}, 201)
    assert made == {"version": 1, "columns": columns, "decisions": []}
    moved = world.send("POST", "/topics/orders/schemas", {"base_version": 0, "columns": []}, 409)
    assert (moved["type"], moved["current"]) == ("/problems/schema-moved", made)
    assert world.get("/topics/orders/schema", version=0)["columns"] == []
    assert world.get("/topics/orders/schema") == made
    world.get("/topics/orders/schema", 404, version=2)
    maker = world.maker()
    body = maker.append(schema_version=1)
    body["files"][0]["schema_version"] = 1
    maker.send(body)


def test_the_ledger_shows_every_line_in_order(world: World) -> None:
    maker = world.maker()
    first = maker.append(maker.line(0, 10, carried=[1]), maker.line(1, 4))
    maker.send(first)
    maker.commit(3)
    page = world.get("/topics/orders/ledger", limit=2)
    assert [(line["sequence"], line["lake_partition"]) for line in page["lines"]] == [(1, 0), (1, 1)]
    assert page["lines"][0]["position"] == first["lines"][0]["position"]
    assert page["lines"][0]["id"] == first["id"]
    maker.commit(3)  # the pages stay as of the first one
    rest = world.get("/topics/orders/ledger", limit=2, page=page["next_page"])
    assert [(line["sequence"], line["lake_partition"]) for line in rest["lines"]] == [(2, 0)]
    assert (rest["lines"][0]["from_version"], rest["next_page"]) == (first["id"], None)
    only = world.get("/topics/orders/ledger", lake_partition=0, after=1)["lines"]
    assert [line["sequence"] for line in only] == [2, 3]


def test_unknown_topics_are_not_found(world: World) -> None:
    for path in ("", "/batches", "/files", "/schema", "/periods", "/ledger"):
        assert world.get(f"/topics/nobody{path}", 404)["type"] == "/problems/not-found"
    assert world.client.get("/v1/nothing").get_json()["type"] == "/problems/not-found"
    answer = world.client.delete("/v1/topics")
    assert (answer.status_code, answer.get_json()["type"]) == (405, "/problems/method-not-allowed")
    assert "GET" in answer.headers["Allow"]


def test_a_zero_byte_in_a_text_is_no_defect_of_the_server(world: World) -> None:
    body = {"name": "x", "scopes": ["read"], "topics": ["a\x00b"]}
    assert world.client.post("/v1/tokens", json=body).status_code in (201, 400)
    world.maker().commit()
    world.send("PUT", "/loaders/dwh", {"topics": ["orders"]}, 201)
    found = world.client.post("/v1/loaders/dwh/lease", json={"holder": "a\x00b", "seconds": 1})
    assert found.status_code in (200, 400)


def test_a_number_of_a_partition_has_room_above_it(world: World) -> None:
    asked = {"topics": [{"topic": "orders", "partitions": [2**31 - 1]}]}
    assert world.send("POST", "/positions", asked, 400)["type"] == "/problems/request-invalid"


def test_declared_types_and_paths_are_checked_and_explained(world: World) -> None:
    world.maker()
    for wrong in (
        {"types": {"a": "datetime"}},
        {"types": {"a": "decimal(4,5)"}},
        {"types": {"": "date"}},
        {"types": ["a"]},
        {"types": {"a": 1}},
        {"drop": "a"},
        {"drop": ["a\\b"]},
        {"hash": [""]},
        {"max_depth": 151},
        {"dead_letter_alarm": 0},
        {"dead_letter_alarm": "1%"},
    ):
        refused = world.send("PATCH", "/topics/orders", {"settings": wrong}, 422)
        assert set(refused["errors"]) == set(wrong), wrong
    right = {
        "types": {"order.total": "decimal(12,2)", "at": "timestamp", "a\\.b": "json"},
        "drop": ["card.number"],
        "hash": ["customer.name"],
        "dead_letter_alarm": 0.2,
    }
    world.send("PUT", "/defaults/every", {"pattern": ".*", "settings": {"hash": ["name"]}})
    shown = world.send("PATCH", "/topics/orders", {"settings": right})
    assert {name: shown["settings"][name] for name in right} == right
    explained = world.get("/topics/orders", explain="1")["explained"]
    assert explained["types"] == {"value": right["types"], "origin": "topic", "defaults": None}
    world.send("PATCH", "/topics/orders", {"settings": {"hash": None}})
    explained = world.get("/topics/orders", explain="1")["explained"]
    assert explained["hash"] == {"value": ["name"], "origin": "defaults", "defaults": "every"}


def test_a_commit_with_dead_letters_suspends_a_topic_that_asks_for_it_until_it_is_resumed(
    world: World,
) -> None:
    maker = world.maker()

    def commit(dead_letters: int = 0) -> dict[str, object]:
        maker.send(maker.append(maker.line(0, 2, dead_letters=dead_letters, written=2 - dead_letters)))
        found: dict[str, object] = world.get("/topics/orders")
        return found

    assert commit(dead_letters=1)["state"] == "unknown"  # error_mode is keep
    world.send("PATCH", "/topics/orders", {"settings": {"error_mode": "suspend"}})
    assert commit()["state"] == "unknown"
    suspended = commit(dead_letters=1)
    assert (suspended["state"], suspended["paused"]) == ("suspended", True)
    assert "commit 3" in str(suspended["reason"])
    assert commit(dead_letters=1)["reason"] == suspended["reason"]
    said = maker.begin()
    assert (said["state"], said["paused"]) == ("suspended", True)
    resumed = world.send("POST", "/topics/orders/resume")
    assert (resumed["state"], resumed["paused"]) == ("unknown", False)
    assert commit(dead_letters=1)["state"] == "suspended"


def test_every_schema_that_a_worker_makes_can_be_registered(world: World) -> None:
    world.maker()
    records = [
        b'{"a":[],"b":null,"c":{"d":[[]]},"e":[null],"f":{}}',
        b'{"secret":{"x":1},"g":"x","amount":"1.5"}',
    ]
    rules = DecodeRules.from_settings(
        {"drop": ["secret.x", "g"], "hash": ["b"], "types": {"amount": "decimal(12,2)"}}, b"key", 3
    )
    chunk = Records(np.arange(2), np.zeros(2, np.int64), [None, None], list(records), None)
    made = decode(chunk, 0, TopicSchema(), rules, 0).schema.to_json()
    body = {"base_version": 0, "columns": made["columns"], "decisions": made["decisions"]}
    world.send("POST", "/topics/orders/schemas", body, 201)
    assert TopicSchema.from_json(world.get("/topics/orders/schema")).to_json()["columns"] == made["columns"]
