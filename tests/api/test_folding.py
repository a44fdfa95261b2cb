"""Folding of history: both laws of the ledger hold over what is left, and nothing goes that somebody still needs."""

from __future__ import annotations

from collections import Counter
from typing import Any

from api.epochs import open_epoch, positions_at
from tests.api.conftest import World
from tests.api.maker import Maker

DAY = 86_400
UPKEEP_IN, UPKEEP_OUT = ("rows_in", "dead_in", "restored"), ("rows_out", "dead_out", "erased", "expired")
CAME = ("consumed", "carried_in", *UPKEEP_IN)
WENT = ("written", "dead_letters", "carried_out", *UPKEEP_OUT, "duplicates", "lost")


def add_up(lines: list[dict[str, Any]]) -> Counter[str]:
    """What lines say in all, but for what is carried from one into the next."""
    total: Counter[str] = Counter()
    for line in lines:
        total.update({name: line[name] for name in {*CAME, *WENT} - {"carried_in", "carried_out"}})
    return total


def hold_laws(lines: list[dict[str, Any]]) -> None:
    """Sum and chain, lake partition by lake partition, over folded lines and others."""
    places: dict[int, Any] = {}
    for line in lines:
        assert sum(line[name] for name in CAME) == sum(line[name] for name in WENT), line
        if line["position"] is None:
            continue
        start = (line["from_version"], line["from_offset"], line["carried_in"])
        before = places.get(line["lake_partition"], (None, 0, 0))
        assert start == before, (start, before)
        places[line["lake_partition"]] = (line["id"], line["to_offset"], line["carried_out"])


def ledger(world: World, **query: Any) -> list[dict[str, Any]]:
    """All lines, by pages of three."""
    lines: list[dict[str, Any]] = []
    page = world.get("/topics/orders/ledger", limit=3, **query)
    while True:
        lines += page["lines"]
        if page["next_page"] is None:
            return lines
        page = world.get("/topics/orders/ledger", limit=3, page=page["next_page"], **query)


def days(world: World, count: int = 4) -> Maker:
    """Days of appends to two lake partitions, each with carried, lost and duplicate records and an erasure."""
    maker = world.maker()
    for day in range(count):
        for _ in range(3):
            maker.send(maker.append(maker.line(0, 10, carried=[1, 3]), maker.line(1, 5)))
            world.clock.forward(60)
        line = maker.line(0, 10, carried=[2], duplicates=2, lost=1)
        start = line["from_offset"]
        maker.send(maker.append(line | {"lost_ranges": [[start, start + 2]], "written": line["written"] - 3}))
        live = next(file for file in maker.live() if file["rows"] > 2)
        rows = live["rows"]
        body = maker.upkeep(
            "erase",
            {"rows_in": rows, "rows_out": rows - 1, "erased": 1},
            [maker.file(rows - 1, newest_sequence=live["sequence"]), maker.file(1, what="deletes")],
            [live["id"]],
        )
        maker.send(body)
        if day < count - 1:
            world.clock.forward(DAY)
    return maker


def sweep(world: World) -> None:
    removed = [entry["id"] for entry in world.get("/topics/orders/removed", limit=1000)["removed"]]
    if removed:
        world.send("POST", "/topics/orders/swept", {"files": removed})


def fold(world: World) -> dict[str, Any]:
    said: dict[str, Any] = world.send("POST", "/topics/orders/folds")
    return said


def test_a_folded_day_is_one_line_per_lake_partition_and_keeps_both_laws(world: World) -> None:
    maker = days(world)
    before, live, head = ledger(world), maker.live(), world.get("/topics/orders")["sequence"]
    hold_laws(before)
    with world.database.read() as connection:
        kept = {at: positions_at(connection, 1, at) for at in range(10, head + 1)}
    assert fold(world)["commits"] == 0  # not old enough
    world.clock.forward(399 * DAY)
    sweep(world)
    said = fold(world)
    assert (said["commits"], said["oldest"], said["more"]) == (10, 11, False)  # two days of five commits
    after = ledger(world)
    hold_laws(after)
    assert [line["kind"] for line in after].count("fold") == 4
    assert [(line["sequence"], line["lake_partition"]) for line in after] == sorted(
        (line["sequence"], line["lake_partition"]) for line in after
    )
    assert add_up(after) == add_up(before)
    first = after[1]
    assert (first["first_sequence"], first["sequence"], first["folded"]) == (1, 5, 5)
    assert (first["lost_ranges"], first["lake_partition"]) == ([[30, 32]], 0)
    assert ledger(world, lake_partition=1) == [line for line in after if line["lake_partition"] == 1]
    assert ledger(world, after=said["oldest"] - 1) == [line for line in before if line["sequence"] > 10]
    # Everything else stands as it stood.
    assert maker.live() == live
    with world.database.read() as connection:
        assert {at: positions_at(connection, 1, at) for at in kept} == kept
    gone = world.get("/topics/orders/batches", 410, after=9)
    assert (gone["type"], gone["oldest"]) == ("/problems/snapshot", 11)
    assert world.get("/topics/orders/files", 410, after=9)["type"] == "/problems/snapshot"
    assert world.get("/topics/orders/batches", after=10, swept="")["commits"][0]["sequence"] == 11
    assert world.get("/topics/orders/files", at=10, swept="")["sequence"] == 10
    maker.begin()
    maker.commit()
    hold_laws(ledger(world))


def test_all_of_a_silent_topic_is_folded_and_it_goes_on(world: World) -> None:
    maker = days(world, 1)
    world.clock.forward(500 * DAY)
    sweep(world)
    head = world.get("/topics/orders")["sequence"]
    assert fold(world)["oldest"] == head + 1
    assert world.get("/topics/orders/batches", after=head)["commits"] == []
    world.send("PUT", "/loaders/late", {"topics": ["orders"], "from": "earliest"}, 201)
    [entry] = world.get("/loaders/late/batches")["topics"]
    assert entry["problem"]["type"] == "/problems/snapshot"
    maker.begin()
    assert maker.commit()["sequence"] == head + 1
    hold_laws(ledger(world))


def test_the_objects_of_deletes_files_may_go_when_their_commit_is_folded(world: World) -> None:
    maker = days(world, 1)
    maker.commit()
    world.clock.forward(500 * DAY)
    sweep(world)
    fold(world)
    [entry] = world.get("/topics/orders/removed")["removed"]  # rows of swept objects are gone
    assert entry["removed_by"] == "fold"
    world.send("POST", "/topics/orders/swept", {"files": [entry["id"]]}, 409)
    world.clock.forward(3600)
    sweep(world)
    assert world.get("/topics/orders/batches", after=6)["commits"] == []
    assert len(maker.live()) == 5


def test_a_day_stays_while_an_object_that_it_removed_is_not_swept(world: World) -> None:
    days(world, 1)
    world.clock.forward(500 * DAY)
    assert fold(world)["commits"] == 0
    sweep(world)
    assert fold(world)["commits"] == 5


def test_a_day_waits_for_a_holding_loader_up_to_the_limit(world: World) -> None:
    world.send("PUT", "/loaders/dwh", {"topics": ["orders"], "from": "earliest", "hold": True}, 201)
    days(world, 1)
    world.clock.forward(402 * DAY)
    sweep(world)
    assert fold(world)["commits"] == 0
    world.clock.forward(6 * DAY)
    assert fold(world)["commits"] == 5


def test_a_restored_life_goes_on_from_folded_history(world: World) -> None:
    """Positions as of the last common sequence come from folded lines where nothing newer is left."""
    maker = days(world)
    world.clock.forward(399 * DAY)
    sweep(world)
    fold(world)
    with world.database.write() as connection:
        open_epoch(connection, 1, 10, world.clock(connection))
    moved = world.get("/topics/orders/batches", 410, after=12, epoch=maker.epoch)
    assert (moved["type"], moved["cursor"]) == ("/problems/epoch-moved", 10)
    assert [(entry["lake_partition"], entry["next"]) for entry in moved["positions"]] == [(0, 80), (1, 30)]
    old = world.get("/topics/orders/batches", 410, after=8, epoch=maker.epoch)
    assert old["type"] == "/problems/snapshot"
