"""Reports of workers: state, lag, what they are told by return, and when a period is complete."""

from __future__ import annotations

from typing import Any

from api.times import format_time
from tests.api.conftest import World
from tests.api.maker import Maker


def report(world: World, maker: Maker, status: int = 200, **changes: Any) -> Any:
    """A report of worker-1: at the end of both partitions with nothing carried, unless told otherwise."""
    partition = changes.pop("partition", {})
    versions = changes.pop("settings_version", 0)
    topic = {
        "topic": maker.topic,
        "epoch": maker.epoch,
        "state": "running",
        "settings_version": versions,
        "broker_partitions": [0, 1],
        "broker_partitions_at": format_time(world.clock.now_us),
        "partitions": [
            {
                "lake_partition": position["lake_partition"],
                "version": position["version"],
                "next": position["next"],
                "end": position["next"],
                "stable_end": position["next"],
                "watermark": position["watermark"],
                "carried": position["carried_count"],
                "at_end": True,
            }
            | partition
            for position in maker.positions.values()
        ],
    } | changes
    body = {"version": "0.1.0", "sent_at": format_time(world.clock.now_us), "topics": [topic]}
    return world.send("PUT", "/workers/worker-1", body, status)


def test_a_report_sets_state_and_lag_until_it_is_stale(world: World) -> None:
    maker = world.maker()
    maker.send(maker.append(maker.line(0, 10, carried=[1]), maker.line(1, 5)))
    report(
        world,
        maker,
        partition={"end": 25},
        state="waiting",
        reason="store",
        detail="The store does not answer.",
    )
    topic = world.get("/topics/orders")
    assert (topic["state"], topic["reason"]) == ("waiting", "The store does not answer.")
    assert topic["lag"] == (25 - 10 + 1) + (25 - 5)
    assert [partition["worker"] for partition in topic["partitions"]] == ["worker-1", "worker-1"]
    since = topic["since"]
    world.clock.forward(30)
    report(world, maker, partition={"end": 25}, state="waiting")
    assert world.get("/topics/orders")["since"] == since
    world.clock.forward(61)
    topic = world.get("/topics/orders")
    assert (topic["state"], topic["lag"]) == ("unknown", None)
    [worker] = world.get("/workers")["workers"]
    assert (worker["name"], worker["state"], worker["topics"][0]["state"]) == (
        "worker-1",
        "unknown",
        "unknown",
    )


def test_lag_is_unknown_while_a_partition_is_in_no_report(world: World) -> None:
    maker = world.maker()
    maker.commit()
    del maker.positions[1]
    report(world, maker)
    assert world.get("/topics/orders")["lag"] is None


def test_the_worst_state_of_all_workers_shows(world: World) -> None:
    maker = world.maker()
    for name, state in (("w1", "running"), ("w2", "refused"), ("w3", "starting")):
        topic = {
            "topic": "orders",
            "epoch": maker.epoch,
            "state": state,
            "settings_version": 0,
            "partitions": [],
        }
        body = {"version": "1", "sent_at": format_time(world.clock.now_us), "topics": [topic]}
        world.send("PUT", f"/workers/{name}", body)
    assert world.get("/topics/orders")["state"] == "refused"
    world.send(
        "PUT", "/workers/w2", {"version": "1", "sent_at": format_time(world.clock.now_us), "topics": []}
    )
    world.clock.forward(1)
    assert world.get("/topics/orders")["state"] == "starting"


def test_a_topic_is_suspended_and_resumed_at_once_whatever_its_worker_reported_before(world: World) -> None:
    maker = world.maker()
    world.send("PATCH", "/topics/orders", {"settings": {"error_mode": "suspend"}})
    report(world, maker)
    maker.send(maker.append(maker.line(0, 2, dead_letters=1, written=1)))
    assert world.get("/topics/orders")["state"] == "suspended"
    report(world, maker, state="suspended")
    assert world.send("POST", "/topics/orders/resume")["state"] == "starting"
    report(world, maker)
    assert world.get("/topics/orders")["state"] == "running"
    world.send("POST", "/topics/orders/pause")
    report(world, maker, state="paused")
    assert world.get("/topics/orders")["state"] == "paused"
    assert world.send("POST", "/topics/orders/resume")["state"] == "starting"


def test_a_report_is_answered_with_what_changed(world: World) -> None:
    maker = world.maker()
    assert report(world, maker)["topics"] == []
    version = world.send("PATCH", "/topics/orders", {"settings": {"lateness": "7s"}})["settings_version"]
    [change] = report(world, maker)["topics"]
    assert (change["settings"]["lateness"], change["settings_version"]) == ("7s", version)
    assert report(world, maker, settings_version=version)["topics"] == []
    world.send("PUT", "/defaults/all", {"pattern": ".*", "settings": {"grace": "1s"}})
    [change] = report(world, maker, settings_version=version)["topics"]
    world.send("POST", "/topics/orders/pause")
    [change] = report(world, maker, settings_version=change["settings_version"])["topics"]
    assert change["paused"]
    assert report(world, maker, settings_version=change["settings_version"], state="paused")["topics"] == []
    [change] = report(world, maker, settings_version=change["settings_version"], epoch="0" * 32)["topics"]
    assert change["epoch"] == maker.epoch


DAY = {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}


def complete_until(world: World) -> str | None:
    found: str | None = world.get("/topics/orders/periods")["complete_until"]
    assert world.get("/topics/orders")["complete_until"] == found
    return found


def test_a_period_is_complete_when_every_watermark_passed_its_end(world: World) -> None:
    maker = world.maker()
    for number, time in ((0, "2026-01-02T00:00:00Z"), (1, "2026-01-01T23:59:59.999999Z")):
        maker.send(maker.append(maker.line(number, 10, position={"watermark": time, "highest": time})))
    world.clock.forward(86400)
    report(world, maker, partition={"at_end": False})
    assert complete_until(world) == "2026-01-01T00:00:00Z"
    [period] = world.get("/topics/orders/periods", **DAY)["periods"]
    assert (period["state"], period["rows"]) == ("open", 20)
    time = "2026-01-02T00:00:00Z"
    maker.send(maker.append(maker.line(1, 10, position={"watermark": time, "highest": time})))
    assert complete_until(world) == "2026-01-02T00:00:00Z"
    [period] = world.get("/topics/orders/periods", **DAY)["periods"]
    assert period["state"] == "complete"


def test_no_period_is_complete_before_the_broker_was_asked_for_its_partitions(world: World) -> None:
    maker = world.maker()
    time = "2026-01-05T00:00:00Z"
    maker.send(
        maker.append(*(maker.line(n, 10, position={"watermark": time, "highest": time}) for n in (0, 1)))
    )
    assert complete_until(world) is None
    report(world, maker, broker_partitions=[0, 1, 2])  # nobody reads partition 2 yet
    assert complete_until(world) is None
    world.clock.forward(1)
    report(world, maker)  # asked on the first of January: before the end of its period
    assert complete_until(world) == "2026-01-01T00:00:00Z"
    world.clock.forward(2 * 86400)
    report(world, maker)
    assert complete_until(world) == "2026-01-03T00:00:00Z"


def test_a_quiet_partition_completes_a_period_by_a_look_at_the_logs_end(world: World) -> None:
    maker = world.maker()
    maker.send(maker.append(maker.line(0, 10), maker.line(1, 10)))
    world.clock.now_us += 15 * 3600 * 1_000_000  # 2026-01-02T00:00:00Z
    world.clock.forward(16 * 60)  # lateness and grace
    report(world, maker)
    assert complete_until(world) == "2026-01-01T00:00:00Z"
    world.clock.forward(0.000001)
    report(world, maker, partition={"carried": 1})
    assert complete_until(world) == "2026-01-01T00:00:00Z"
    report(world, maker, epoch="0" * 32)
    assert complete_until(world) == "2026-01-01T00:00:00Z"
    report(world, maker)
    assert complete_until(world) == "2026-01-02T00:00:00Z"


def test_a_look_at_the_end_counts_only_for_the_stored_version(world: World) -> None:
    maker = world.maker()
    maker.send(maker.append(maker.line(0, 10), maker.line(1, 10)))
    stale = dict(maker.positions)
    maker.send(maker.append(maker.line(0, 10), maker.line(1, 10)))
    maker.positions = stale
    world.clock.forward(2 * 86400)
    report(world, maker)
    assert complete_until(world) == "2026-01-01T00:00:00Z"
    assert [p["caught_up_at"] for p in world.get("/topics/orders")["partitions"]] == [None, None]


def test_a_report_from_the_future_counts_at_its_receipt(world: World) -> None:
    maker = world.maker()
    maker.send(maker.append(maker.line(0, 10), maker.line(1, 10)))
    world.clock.forward(60)
    now = world.clock.now_us
    world.clock.forward(10 * 86400)
    body_time = world.clock.now_us
    world.clock.now_us = now
    topic = {
        "topic": "orders",
        "epoch": maker.epoch,
        "state": "running",
        "settings_version": 0,
        "partitions": [
            {"lake_partition": n, "version": p["version"], "next": 10, "end": 10, "stable_end": 10,
             "watermark": None, "carried": 0, "at_end": True}
            for n, p in maker.positions.items()
        ],
    }  # fmt: skip
    body = {"version": "1", "sent_at": format_time(body_time), "topics": [topic]}
    world.send("PUT", "/workers/w", body)
    assert {p["caught_up_at"] for p in world.get("/topics/orders")["partitions"]} == {format_time(now)}


def test_what_was_complete_stays_complete_when_a_partition_is_added(world: World) -> None:
    maker = world.maker()
    time = "2026-01-02T00:00:00Z"
    maker.send(
        maker.append(*(maker.line(n, 10, position={"watermark": time, "highest": time}) for n in (0, 1)))
    )
    world.clock.forward(86400)
    report(world, maker)
    assert complete_until(world) == time
    world.send("POST", "/positions", {"topics": [{"topic": "orders", "partitions": [2]}]})
    assert complete_until(world) == time


def test_periods_are_listed_empty_ones_too_in_pages(world: World) -> None:
    maker = world.maker()
    body = maker.append()
    body["files"][0]["periods"] = [
        {"start": "2025-12-30T00:00:00Z", "rows": 4},
        {"start": "2026-01-01T00:00:00Z", "rows": 6},
    ]
    maker.send(body)
    page = world.get("/topics/orders/periods", limit=2)
    assert [(period["start"], period["rows"]) for period in page["periods"]] == [
        ("2025-12-30T00:00:00Z", 4),
        ("2025-12-31T00:00:00Z", 0),
    ]
    page = world.get("/topics/orders/periods", limit=2, page=page["next_page"])
    assert [(period["start"], period["rows"]) for period in page["periods"]] == [("2026-01-01T00:00:00Z", 6)]
    assert page["next_page"] is None
    old = {"from": "1969-12-30T12:00:00Z", "to": "1970-01-01T00:00:00Z"}
    first = world.get("/topics/orders/periods", limit=1, **old)
    second = world.get("/topics/orders/periods", limit=1, page=first["next_page"], **old)
    assert [p["start"] for p in first["periods"] + second["periods"]] == [
        "1969-12-30T00:00:00Z",
        "1969-12-31T00:00:00Z",
    ]


def test_periods_with_rows_are_listed_alone_when_millions_lie_between_them(world: World) -> None:
    maker = world.maker()
    body = maker.append()
    body["files"][0] |= {"lowest": "0001-01-01T00:00:00Z", "highest": "9999-12-31T23:59:59.999999Z"}
    starts = ["0001-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "9999-12-31T00:00:00Z"]
    body["files"][0]["periods"] = [{"start": start, "rows": 4 if start < "1" else 3} for start in starts]
    maker.send(body)
    first = world.get("/topics/orders/periods", limit=2, only="rows")
    assert [(period["start"], period["rows"]) for period in first["periods"]] == [
        (starts[0], 4),
        (starts[1], 3),
    ]
    second = world.get("/topics/orders/periods", limit=2, only="rows", page=first["next_page"])
    assert [(period["start"], period["rows"]) for period in second["periods"]] == [(starts[2], 3)]
    assert second["next_page"] is None
    assert len(world.get("/topics/orders/periods", limit=1000)["periods"]) == 1000


def test_a_worker_that_reads_a_closed_lake_partition_is_told(world: World) -> None:
    maker = world.maker()
    maker.send(maker.append(maker.line(0, 10)))
    assert report(world, maker)["topics"] == []
    world.send("POST", "/topics/orders/accept-reset", {"from": "earliest"})
    assert [topic["topic"] for topic in report(world, maker)["topics"]] == ["orders"]
