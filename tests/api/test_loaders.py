"""Loaders: registration, cursors by compare-and-set, the feed over many topics, leases, and every way to be gone."""

from __future__ import annotations

import threading
import time
from typing import Any

from sqlalchemy import update

from api.epochs import open_epoch
from api.tables import files, topics
from tests.api.conftest import World


def register(world: World, status: int = 201, name: str = "dwh", **changes: Any) -> Any:
    return world.send("PUT", f"/loaders/{name}", {"topics": ["^.*"], "from": "earliest"} | changes, status)


def cursor(world: World, topic: str = "orders", name: str = "dwh") -> Any:
    [found] = [entry for entry in world.get(f"/loaders/{name}")["cursors"] if entry["topic"] == topic]
    return found


def move(world: World, epoch: str, start: int | None, to: int, status: int = 200, **changes: Any) -> Any:
    body = {"cursors": {"orders": {"epoch": epoch, "from": start, "to": to} | changes}}
    return world.send("PUT", "/loaders/dwh/cursors", body, status)


def test_a_loader_begins_where_it_says(world: World) -> None:
    world.maker().commit()
    for start, sequence in (("earliest", 0), ("now", 1), ("snapshot", None)):
        made = register(world, name=start, **{"from": start})
        assert [(entry["topic"], entry["sequence"]) for entry in made["cursors"]] == [("orders", sequence)]
    world.clock.forward(1)
    world.maker("later").commit()
    for start in ("earliest", "now", "snapshot"):
        page = world.get(f"/loaders/{start}/batches")
        [entry] = [entry for entry in page["topics"] if entry["topic"] == "later"]
        assert (entry["after"], len(entry["commits"])) == (0, 1)


def test_patterns_and_names_choose_topics(world: World) -> None:
    for topic in ("orders", "orders.eu", "payments"):
        world.maker(topic)
    made = register(world, topics=["payments", r"^orders\..*"])
    assert [entry["topic"] for entry in made["cursors"]] == ["orders.eu", "payments"]
    again = register(world, 200, topics=["orders"], hold=True)
    assert [entry["topic"] for entry in again["cursors"]] == ["orders", "orders.eu", "payments"]
    assert (again["hold"], again["topics"]) == (True, ["orders"])
    assert register(world, 400, topics=["^("])["type"] == "/problems/request-invalid"


def test_cursors_move_forwards_by_compare_and_set(world: World) -> None:
    maker = world.maker()
    for _ in range(5):
        maker.commit(10)
        world.clock.forward(10)
    register(world)
    assert (cursor(world)["lag_commits"], cursor(world)["lag_rows"], cursor(world)["lag_seconds"]) == (
        5,
        50,
        50,
    )
    assert move(world, maker.epoch, 0, 3)["cursors"]["orders"] == {"epoch": maker.epoch, "sequence": 3}
    assert (cursor(world)["lag_commits"], cursor(world)["lag_rows"], cursor(world)["lag_seconds"]) == (
        2,
        20,
        20,
    )
    refused = move(world, maker.epoch, 0, 4, 409)
    assert refused["cursors"]["orders"]["sequence"] == 3
    move(world, maker.epoch, 3, 2, 409)
    move(world, maker.epoch, 3, 6, 422)
    move(world, maker.epoch, 3, 1, reset=True)
    move(world, maker.epoch, 1, 5)
    entry = cursor(world)
    assert (entry["lag_commits"], entry["lag_rows"], entry["lag_seconds"]) == (0, 0, None)
    world.send("PUT", "/loaders/nobody/cursors", {"cursors": {}}, 404)
    world.send("PUT", "/loaders/dwh/cursors", {"cursors": {"no": {"epoch": "x", "from": 0, "to": 0}}}, 404)


def test_one_move_that_is_refused_moves_none(world: World) -> None:
    orders, payments = world.maker("orders"), world.maker("payments")
    orders.commit()
    payments.commit()
    register(world)
    moves = {
        "orders": {"epoch": orders.epoch, "from": 0, "to": 1},
        "payments": {"epoch": payments.epoch, "from": 1, "to": 1},
    }
    refused = world.send("PUT", "/loaders/dwh/cursors", {"cursors": moves}, 409)
    assert list(refused["cursors"]) == ["payments"]
    assert cursor(world, "orders")["sequence"] == 0


def test_two_that_move_one_cursor_at_once_agree_on_one(world: World) -> None:
    maker = world.maker()
    maker.commit()
    register(world)
    statuses = []
    barrier = threading.Barrier(4)

    def go() -> None:
        barrier.wait()
        body = {"cursors": {"orders": {"epoch": maker.epoch, "from": 0, "to": 1}}}
        statuses.append(world.app.test_client().put("/v1/loaders/dwh/cursors", json=body).status_code)

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 409, 409, 409]


def test_the_feed_of_a_loader_is_fair_between_its_topics(world: World) -> None:
    busy, quiet = world.maker("busy"), world.maker("quiet")
    for _ in range(25):
        busy.commit(1)
        world.clock.forward(1)
    quiet.commit(1)
    register(world)
    page = world.get("/loaders/dwh/batches")
    assert [(entry["topic"], len(entry["commits"])) for entry in page["topics"]] == [
        ("busy", 20),
        ("quiet", 1),
    ]
    assert page["more"]
    body = {"cursors": {"busy": {"epoch": busy.epoch, "from": 0, "to": 20}}}
    world.send("PUT", "/loaders/dwh/cursors", body)
    world.clock.forward(1)
    quiet.commit(1)
    page = world.get("/loaders/dwh/batches")
    assert [(entry["topic"], len(entry["commits"])) for entry in page["topics"]] == [
        ("busy", 5),
        ("quiet", 2),
    ]
    body = {
        "cursors": {
            "busy": {"epoch": busy.epoch, "from": 20, "to": 25},
            "quiet": {"epoch": quiet.epoch, "from": 0, "to": 1},
        }
    }
    world.send("PUT", "/loaders/dwh/cursors", body)
    world.clock.forward(1)
    busy.commit(1)
    page = world.get("/loaders/dwh/batches")
    assert [entry["topic"] for entry in page["topics"]] == ["quiet", "busy"]


def test_the_feed_of_a_loader_wakes_for_any_of_its_topics(world: World) -> None:
    makers = [world.maker(name) for name in ("a", "b", "c")]
    register(world)
    assert world.get("/loaders/dwh/batches", wait=1)["topics"] == []
    pages: list[Any] = []
    thread = threading.Thread(target=lambda: pages.append(world.get("/loaders/dwh/batches", wait=30)))
    thread.start()
    while not world.process.heads.waiters():
        time.sleep(0.01)
    makers[1].commit()
    thread.join(10)
    assert [entry["topic"] for entry in pages[0]["topics"]] == ["b"]


def test_loaders_are_listed_and_removed(world: World) -> None:
    maker = world.maker()
    maker.commit(7)
    register(world, name="b")
    register(world, name="a", **{"from": "now"})
    page = world.get("/loaders", limit=1)
    [first] = page["loaders"]
    assert (first["name"], first["behind"], first["lag_rows"], first["cursors"]) == ("a", 0, 0, 1)
    [second] = world.get("/loaders", limit=1, page=page["next_page"])["loaders"]
    assert (second["name"], second["behind"], second["lag_rows"], second["lag_commits"]) == ("b", 1, 7, 1)
    world.send("DELETE", "/loaders/a", status=204)
    world.get("/loaders/a", 404)
    world.send("DELETE", "/loaders/a", status=404)
    assert [loader["name"] for loader in world.get("/loaders")["loaders"]] == ["b"]


def test_a_lease_has_one_holder_until_it_expires(world: World) -> None:
    maker = world.maker()
    maker.commit()
    register(world)

    def lease(holder: str, seconds: int, status: int = 200) -> Any:
        return world.send("POST", "/loaders/dwh/lease", {"holder": holder, "seconds": seconds}, status)

    lease("one", 60)
    assert lease("two", 60, 409)["holder"] == "one"
    body = {"cursors": {"orders": {"epoch": maker.epoch, "from": 0, "to": 1}}}
    assert world.send("PUT", "/loaders/dwh/cursors", body, 409)["type"] == "/problems/lease-held"
    world.send("PUT", "/loaders/dwh/cursors", body | {"holder": "one"})
    world.clock.forward(61)
    lease("two", 60)
    assert world.get("/loaders/dwh")["lease"]["holder"] == "two"
    lease("two", 0)
    assert world.get("/loaders/dwh")["lease"] is None
    lease("one", 60)


# 410


def sweep(world: World, *ids: int) -> None:
    with world.database.write() as connection:
        connection.execute(update(files).where(files.c.id.in_(ids)).values(swept_us=world.clock.now_us))


def test_behind_for_long_is_told_where_to_go_on(world: World) -> None:
    maker = world.maker()
    for _ in range(4):
        maker.commit(10)
    old = [file["id"] for file in maker.live()]
    body = maker.upkeep("replace", {"rows_in": 20, "rows_out": 20}, [maker.file(20)], old[1:3])
    maker.send(body)
    register(world)
    sweep(world, *old[1:3])
    page = world.get("/topics/orders/batches")
    assert ([commit["sequence"] for commit in page["commits"]], page["more"]) == ([1], True)
    gone = world.get("/topics/orders/batches", 410, after=1)
    assert (gone["type"], gone["sequence"]) == ("/problems/behind", 5)
    history = world.get("/topics/orders/batches", swept="1")  # for who fetches nothing
    assert [commit["sequence"] for commit in history["commits"]] == [1, 2, 3, 4, 5]
    assert world.get("/topics/orders/files", 410, at=4)["type"] == "/problems/behind"
    found = world.get("/topics/orders/files", at=5, after=1)["files"]
    assert [file["rows"] for file in found] == [10, 20]
    move(world, maker.epoch, 0, 1)
    [entry] = world.get("/loaders/dwh/batches")["topics"]
    assert (entry["commits"], entry["problem"]["type"]) == ([], "/problems/behind")
    assert [commit["sequence"] for commit in world.get("/topics/orders/batches", after=3)["commits"]] == [
        4,
        5,
    ]


def test_history_that_is_folded_needs_a_snapshot(world: World) -> None:
    maker = world.maker()
    for _ in range(4):
        maker.commit(10)
    register(world)
    with world.database.write() as connection:
        connection.execute(update(topics).values(oldest=3))
    gone = world.get("/topics/orders/batches", 410, after=1)
    assert (gone["type"], gone["oldest"], gone["sequence"]) == ("/problems/snapshot", 3, 4)
    assert world.get("/topics/orders/batches", after=2)["commits"][0]["sequence"] == 3
    assert world.get("/topics/orders/files", 410, at=1)["type"] == "/problems/snapshot"
    [entry] = world.get("/loaders/dwh/batches")["topics"]
    assert entry["problem"]["type"] == "/problems/snapshot"
    assert register(world, name="late")["cursors"][0]["sequence"] is None


def test_another_epoch_names_the_common_sequence_and_its_positions(world: World) -> None:
    maker = world.maker()
    maker.send(maker.append(maker.line(0, 10, carried=[2])))
    maker.send(maker.append(maker.line(1, 5)))
    maker.send(maker.append(maker.line(0, 10, carried=[3, 12])))
    register(world)
    old = maker.epoch
    with world.database.write() as connection:
        new = open_epoch(connection, 1, 2, world.clock.now_us)
    for after, reached in ((3, 2), (1, 1), (0, 0)):
        gone = world.get("/topics/orders/batches", 410, after=after, epoch=old)
        assert (gone["type"], gone["epoch"], gone["common"], gone["cursor"]) == (
            "/problems/epoch-moved", new, 2, reached,
        )  # fmt: skip
        nexts = {position["lake_partition"]: position["next"] for position in gone["positions"]}
        assert nexts == {2: {0: 10, 1: 5}, 1: {0: 10}, 0: {}}[reached]
    assert world.get("/topics/orders/files", 410, at=2, epoch=old)["common"] == 2
    assert world.get("/topics/orders/batches", 410, after=1, epoch="f" * 32)["type"] == "/problems/snapshot"
    assert move(world, old, 0, 1, 410)["common"] == 2
    [entry] = world.get("/loaders/dwh/batches")["topics"]
    assert entry["problem"]["type"] == "/problems/epoch-moved"
    assert move(world, new, 0, 2, 409)["cursors"]["orders"]["epoch"] == old
    move(world, new, 0, 2, reset=True)
    with world.database.write() as connection:
        open_epoch(connection, 1, 1, world.clock.now_us)
    assert world.get("/topics/orders/batches", 410, after=3, epoch=old)["common"] == 1
    assert maker.send(maker.append(), 409)["type"] == "/problems/epoch-moved"
