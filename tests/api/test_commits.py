"""Commits over HTTP, on both databases: the order of checks, repeats, conflicts, and that a refusal changes nothing."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

from sqlalchemy import text

from api.app import create_app
from api.commits import enter
from api.process import EXTENSION
from api.requests import read_commit
from api.settings import load
from tests.api.conftest import World
from tests.api.maker import Maker, file_entry


def test_an_append_moves_positions_and_enters_files(world: World) -> None:
    maker = world.maker()
    said = maker.send(maker.append(maker.line(0, 10, carried=[1, 3]), maker.line(1, 5)))
    assert said["sequence"] == 1
    first, second = said["positions"]
    assert (first["next"], first["carried_count"], first["version"]) == (10, 2, said["version"])
    assert (second["next"], second["carried_count"]) == (5, 0)
    [stored] = world.send("POST", "/positions", {"topics": [{"topic": "orders", "partitions": [0, 1]}]})[
        "topics"
    ]
    assert stored["positions"] == said["positions"]
    assert stored["sequence"] == 1
    [file] = world.get("/topics/orders/files")["files"]
    assert (file["rows"], file["sequence"], file["kind"]) == (13, 1, "append")


def test_the_same_commit_again_gets_the_first_answer(world: World) -> None:
    maker = world.maker()
    body = maker.append(maker.line(0, 10, carried=[2]))
    first = maker.send(body)
    maker.commit()
    before = world.everything()
    assert maker.send(body, 200) == first
    assert world.everything() == before


def test_an_id_with_other_content_is_refused(world: World) -> None:
    maker = world.maker()
    body = maker.append()
    maker.send(body)
    before = world.everything()
    assert maker.send(body | {"worker": "somebody else"}, 422)["type"] == "/problems/commit-id-reused"
    other = world.maker("payments")
    before = world.everything()
    assert other.send(other.append(id=body["id"]), 422)["type"] == "/problems/commit-id-reused"
    assert world.everything() == before


def test_an_id_that_another_topic_takes_at_the_same_moment_is_refused(world: World) -> None:
    """No topic's lock stands between the two: the database says which was first."""
    maker, other = world.maker(), world.maker("payments")
    first = maker.append()
    second = other.append(id=first["id"])
    refused: list[dict[str, Any]] = []
    with world.database.write() as connection:
        enter(connection, world.database.clock, "orders", read_commit("orders", first))
        thread = threading.Thread(target=lambda: refused.append(other.send(second, 422)))
        thread.start()
        time.sleep(0.2)
        assert refused == []  # it waits
    thread.join()
    assert refused[0]["type"] == "/problems/commit-id-reused"
    other.commit()
    assert world.get("/topics/payments")["sequence"] == 1


def test_a_stale_version_is_a_conflict_with_the_stored_positions(world: World) -> None:
    maker, other = world.maker(), world.maker()
    maker.commit(10)
    before = world.everything()
    refused = other.send(other.append(other.line(0, 10), other.line(1, 10)), 409)
    assert refused["type"] == "/problems/position-moved"
    assert [position["next"] for position in refused["positions"]] == [10, None]
    assert world.everything() == before


def test_equal_contents_of_another_version_are_a_conflict(world: World) -> None:
    maker, other = world.maker(), world.maker()
    maker.commit(0)
    # The position's contents are what the other one expects: nothing but the version tells the histories apart.
    line = other.line(0, 0, from_version=str(uuid.uuid4()))
    assert other.send(other.append(line), 409)["type"] == "/problems/position-moved"


def test_a_lake_partition_that_nobody_opened_is_a_conflict(world: World) -> None:
    maker = world.maker()
    maker.positions[7] = maker.positions[0] | {"lake_partition": 7}
    assert maker.send(maker.append(maker.line(7, 1)), 409)["type"] == "/problems/position-moved"


def test_another_epoch_is_a_conflict(world: World) -> None:
    maker = world.maker()
    before = world.everything()
    refused = maker.send(maker.append(epoch="f" * 32), 409)
    assert (refused["type"], refused["epoch"]) == ("/problems/epoch-moved", maker.epoch)
    assert world.everything() == before


def test_older_rules_are_a_conflict(world: World) -> None:
    maker = world.maker()
    with world.database.write() as connection:
        connection.execute(text("UPDATE topics SET rule_version = 2"))
    refused = maker.send(maker.append(rule_version=1), 409)
    assert (refused["type"], refused["rule_version"]) == ("/problems/rule-version-old", 2)
    maker.send(maker.append(rule_version=2))


def test_an_unknown_topic_is_not_found(world: World) -> None:
    maker = world.maker()
    maker.topic = "nobody"
    assert maker.send(maker.append(), 404)["type"] == "/problems/not-found"


def test_an_object_that_is_too_old_is_a_conflict_and_the_last_check(world: World) -> None:
    maker = world.maker()
    body = maker.append()
    world.clock.forward(12 * 3600 + 1)
    before = world.everything()
    refused = maker.send(body, 409)
    assert (refused["type"], refused["files"]) == ("/problems/object-too-old", [body["files"][0]["url"]])
    assert world.everything() == before
    body["lines"][0]["consumed"] += 1
    assert maker.send(body, 422)["type"] == "/problems/law-broken"


def test_safe_age_is_a_setting_of_the_topic(world: World) -> None:
    maker = world.maker()
    world.send("PATCH", "/topics/orders", {"settings": {"safe_age": "2h"}})
    body = maker.append()
    world.clock.forward(3601)
    assert maker.send(body, 409)["type"] == "/problems/object-too-old"


def test_a_commit_may_have_no_file(world: World) -> None:
    maker = world.maker()
    assert maker.send(maker.append(maker.line(0, 0)))["sequence"] == 1
    [commit] = world.get("/topics/orders/batches")["commits"]
    assert (commit["add"], commit["remove"]) == ([], [])


def test_commit_times_never_go_back(world: World) -> None:
    maker = world.maker()
    first = maker.commit()
    body = maker.append()
    world.clock.forward(-3600)
    assert maker.send(body)["committed_at"] == first["committed_at"]


def test_several_topics_in_one_request_each_get_their_result(world: World) -> None:
    orders, payments = world.maker("orders"), world.maker("payments")
    good = orders.append() | {"topic": "orders"}
    bad = payments.append(payments.line(0, 10, consumed=9)) | {"topic": "payments"}
    results = world.send("POST", "/commits", {"commits": [good, bad]}, 207)["results"]
    assert [(result["topic"], result["status"]) for result in results] == [("orders", 201), ("payments", 422)]
    assert results[1]["body"]["law"] == "sum"
    again = world.send("POST", "/commits", {"commits": [good]}, 207)["results"]
    assert (again[0]["status"], again[0]["body"]) == (200, results[0]["body"])
    twice = world.send("POST", "/commits", {"commits": [good, good]}, 400)
    assert twice["type"] == "/problems/request-invalid"


def test_a_broken_body_is_refused_with_the_place(world: World) -> None:
    maker = world.maker()
    body = maker.append()
    body["lines"][0]["written"] = -1
    del body["epoch"]
    refused = maker.send(body, 400)
    assert refused["type"] == "/problems/request-invalid"
    assert any("lines/0/written" in error for error in refused["errors"])
    assert any("epoch" in error for error in refused["errors"])


def test_two_connections_that_meet_in_a_commit_are_one_commit(world: World) -> None:
    """Many threads, two applications, one position: one commit is taken, the others are conflicts or its repeats."""
    other_app = create_app(load(database=world.url, auth="none"), world.clock)
    maker = world.maker()
    for _round in range(5):
        same, rival = maker.append(), maker.append(maker.line(0, 7))
        statuses: list[tuple[str, int, Any]] = []
        barrier = threading.Barrier(8)

        def meet(
            number: int,
            same: Any = same,
            rival: Any = rival,
            barrier: Any = barrier,
            statuses: Any = statuses,
        ) -> None:
            client = (world.app if number % 2 else other_app).test_client()
            body = same if number < 4 else rival | {"id": str(uuid.uuid4())}
            if number >= 4:
                body["files"] = [file_entry("orders", maker.now(), 7)]
            barrier.wait()
            answer = client.post("/v1/topics/orders/commits", json=body)
            statuses.append((body["id"], answer.status_code, answer.get_json()))

        threads = [threading.Thread(target=meet, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        taken = [entry for entry in statuses if entry[1] == 201]
        assert len(taken) == 1
        for commit_id, status, said in statuses:
            if status == 200:
                assert (commit_id, said) == (taken[0][0], taken[0][2])
            elif status != 201:
                assert (status, said["type"]) == (409, "/problems/position-moved")
        maker.begin()
    assert world.get("/topics/orders")["sequence"] == 5
    other_app.extensions[EXTENSION].heads.stop()
    other_app.extensions[EXTENSION].database.dispose()


def test_sequences_have_no_gap_under_parallel_commits(world: World) -> None:
    """Parallel commits of many partitions: the feed read meanwhile never shows a commit below one already shown."""
    world.maker(partitions=8)
    seen: list[int] = []
    done = threading.Event()

    def follow() -> None:
        client = world.app.test_client()
        while not done.is_set() or seen[-1:] != [40]:
            page = client.get("/v1/topics/orders/batches", query_string={"after": seen[-1] if seen else 0})
            seen.extend(commit["sequence"] for commit in page.get_json()["commits"])

    def work(partition: int) -> None:
        maker = Maker(world.app.test_client(), "orders", [partition], lambda: world.clock.now_us)
        maker.begin()
        for _ in range(5):
            maker.commit(3, partition)

    reader = threading.Thread(target=follow)
    reader.start()
    threads = [threading.Thread(target=work, args=(partition,)) for partition in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    reader.join()
    assert seen == list(range(1, 41))
