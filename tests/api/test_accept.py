"""What operators accept: a gap ends by their word, a reset opens new lake partitions and closes the old ones."""

from __future__ import annotations

import pytest

from tests.api.conftest import World


def positions(world: World, partitions: int = 2) -> list[dict[str, object]]:
    asked = {"topics": [{"topic": "orders", "partitions": list(range(partitions))}]}
    found: list[dict[str, object]] = world.send("POST", "/positions", asked)["topics"][0]["positions"]
    return found


def test_a_gap_lasts_until_it_is_accepted_and_stays_in_the_ledger(world: World) -> None:
    maker = world.maker()
    maker.send(maker.append(maker.line(0, 10, lost=4, written=6, lost_ranges=[[0, 4]])))
    assert world.send("GET", "/topics/orders")["state"] == "gap"
    assert world.send("POST", "/topics/orders/accept-gap")["state"] != "gap"
    [line] = world.send("GET", "/topics/orders/ledger")["lines"]
    assert line["lost_ranges"] == [[0, 4]]


def test_a_reset_gives_new_numbers_and_says_where_to_begin(world: World) -> None:
    maker = world.maker()
    maker.send(maker.append(maker.line(0, 10), maker.line(1, 10)))
    world.send("POST", "/topics/orders/accept-reset", {"from": "2026-01-01T00:00:00Z"})
    after = positions(world)
    assert [(p["lake_partition"], p["broker_partition"], p["next"], p["version"]) for p in after] == [
        (2, 0, None, None),
        (3, 1, None, None),
    ]
    assert {p["start_from"] for p in after} == {"2026-01-01T00:00:00Z"}


def test_what_a_closed_life_carried_is_a_gap_and_it_takes_no_append(world: World) -> None:
    maker = world.maker()
    maker.send(maker.append(maker.line(0, 10, carried=[1, 2])))
    old = maker.append(maker.line(0, 5))
    world.send("POST", "/topics/orders/accept-reset", {"from": "earliest"})
    assert world.send("GET", "/topics/orders")["state"] == "gap"
    line = world.send("GET", "/topics/orders/ledger")["lines"][-1]
    assert (line["sequence"], line["carried_in"], line["lost"], line["carried_out"]) == (2, 2, 2, 0)
    assert line["lost_ranges"] == [[8, 10]]
    refused = world.client.post("/v1/topics/orders/commits", json=old)
    assert refused.status_code in (409, 422)


@pytest.mark.parametrize("text", ["yesterday", "-5", "", "2026-13-01T00:00:00Z"])
def test_a_start_that_means_nothing_is_refused_and_changes_nothing(world: World, text: str) -> None:
    world.maker()
    before = positions(world)
    assert world.client.post("/v1/topics/orders/accept-reset", json={"from": text}).status_code == 400
    assert positions(world) == before


def test_a_topic_that_nobody_read_has_nothing_to_reset(world: World) -> None:
    world.send("POST", "/topics", {"topic": "orders"}, 201)
    assert world.client.post("/v1/topics/orders/accept-reset", json={"from": "end"}).status_code == 409
