"""What the sweep may delete and when; and claims."""

from __future__ import annotations

import threading
from typing import Any

from tests.api.conftest import World


def test_a_replaced_object_waits_for_holding_loaders_up_to_its_grace(world: World) -> None:
    maker = world.maker()
    maker.commit(10)
    [old] = [file["id"] for file in maker.live()]
    world.send("PUT", "/loaders/dwh", {"topics": ["orders"], "from": "earliest", "hold": True}, 201)
    maker.send(maker.upkeep("replace", {"rows_in": 10, "rows_out": 10}, [maker.file(10)], [old]))
    [live] = [file["id"] for file in maker.live()]

    def sweep(number: int, status: int = 200) -> Any:
        return world.send("POST", "/topics/orders/swept", {"files": [number]}, status)

    [shown] = world.get("/topics/orders/removed")["removed"]
    assert (shown["id"], shown["removed_by"], shown["swept_at"]) == (old, "replace", None)
    assert shown["sweepable_at"] == "2026-01-08T09:00:00Z"
    world.clock.forward(3600)
    assert sweep(old, 409)["files"] == [old]
    assert sweep(live, 409)["files"] == [live]
    assert sweep(99, 409)["files"] == [99]
    world.send(
        "PUT", "/loaders/dwh/cursors", {"cursors": {"orders": {"epoch": maker.epoch, "from": 0, "to": 2}}}
    )
    assert sweep(old)["files"][0]["id"] == old
    assert world.get("/topics/orders/removed")["removed"][0]["swept_at"] == "2026-01-01T10:00:00Z"
    gone = world.get("/topics/orders/batches", 410)
    assert (gone["type"], gone["sequence"]) == ("/problems/behind", 2)
    assert sweep(old)["files"][0]["id"] == old
    assert world.get("/topics/orders/removed", after=2)["removed"] == []


def test_an_erased_object_goes_after_the_read_grace_whoever_holds(world: World) -> None:
    maker = world.maker()
    maker.commit(10)
    [old] = [file["id"] for file in maker.live()]
    world.send("PUT", "/loaders/dwh", {"topics": ["orders"], "from": "earliest", "hold": True}, 201)
    maker.send(maker.upkeep("erase", {"rows_in": 10, "erased": 10}, [maker.file(10, what="deletes")], [old]))
    world.clock.forward(3599)
    world.send("POST", "/topics/orders/swept", {"files": [old]}, 409)
    world.clock.forward(1)
    world.send("POST", "/topics/orders/swept", {"files": [old]})


def test_what_the_store_has_lost_is_marked_at_once_but_never_while_it_is_live(world: World) -> None:
    maker = world.maker()
    maker.commit(10)
    [old] = [file["id"] for file in maker.live()]
    lost = {"files": [old], "lost": True}
    assert world.send("POST", "/topics/orders/swept", lost, 409)["files"] == [old]
    maker.send(maker.upkeep("replace", {"rows_in": 10, "rows_out": 10}, [maker.file(10)], [old]))
    world.send("POST", "/topics/orders/swept", {"files": [old]}, 409)
    world.send("POST", "/topics/orders/swept", lost)
    assert world.get("/topics/orders/batches", 410)["sequence"] == 2


def test_a_claim_has_one_holder_until_it_expires(world: World) -> None:
    def claim(holder: str, status: int = 200, seconds: int = 60) -> Any:
        body = {"piece": "seal/orders/2026-01-01", "topic": "orders", "holder": holder, "seconds": seconds}
        return world.send("POST", "/claims", body, status)

    claim("one")
    assert claim("two", 409)["holder"] == "one"
    world.clock.forward(30)
    assert claim("one")["expires_at"] == "2026-01-01T09:01:30Z"
    world.clock.forward(60)
    claim("two")
    claim("two", seconds=0)
    claim("one")


def test_of_many_that_claim_at_once_one_does(world: World) -> None:
    statuses: list[int] = []
    barrier = threading.Barrier(6)

    def go(number: int) -> None:
        barrier.wait()
        body = {"piece": "x", "holder": f"holder-{number}", "seconds": 60}
        statuses.append(world.app.test_client().post("/v1/claims", json=body).status_code)

    threads = [threading.Thread(target=go, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 409, 409, 409, 409, 409]
