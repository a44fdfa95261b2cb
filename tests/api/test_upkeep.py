"""Commits of upkeep: their laws, the live set they leave, periods sealed and reopened."""

from __future__ import annotations

from typing import Any

import pytest

from api.times import format_time
from tests.api.conftest import World
from tests.api.maker import Maker


def ids(files: list[dict[str, Any]]) -> list[int]:
    return [file["id"] for file in files]


def two_files(world: World) -> tuple[Maker, list[int]]:
    """A topic with two files of 10 rows each of partition 0."""
    maker = world.maker()
    maker.commit(10)
    maker.commit(10)
    return maker, ids(maker.live())


def test_a_replace_takes_files_out_and_puts_the_same_rows_in(world: World) -> None:
    maker, old = two_files(world)
    said = maker.send(maker.upkeep("replace", {"rows_in": 20, "rows_out": 20}, [maker.file(20)], old))
    assert (said["sequence"], said["positions"]) == (3, [])
    [new] = maker.live()
    assert (new["rows"], new["kind"], new["sequence"]) == (20, "replace", 3)
    assert ids(maker.live(at=2)) == old
    commit = world.get("/topics/orders/batches", after=2)["commits"][0]
    assert (commit["kind"], commit["remove"], ids(commit["add"])) == ("replace", old, [new["id"]])
    topic = world.get("/topics/orders")
    assert (topic["files"], topic["rows"], topic["bytes"]) == (1, 20, 200)
    maker.commit(5)  # positions did not move


def test_the_same_upkeep_commit_again_gets_the_first_answer(world: World) -> None:
    maker, old = two_files(world)
    body = maker.upkeep("replace", {"rows_in": 20, "rows_out": 20}, [maker.file(20)], old)
    assert maker.send(body) == maker.send(body, 200)


def test_duplicates_dropped_by_a_replace_are_named_in_deletes(world: World) -> None:
    maker, old = two_files(world)
    line = {"rows_in": 20, "rows_out": 17, "duplicates": 3}
    body = maker.upkeep("replace", line, [maker.file(17)], old)
    assert maker.send(body, 422)["law"] == "deletes"
    body["files"].append(maker.file(3, what="deletes"))
    maker.send(body)
    assert [file["what"] for file in maker.live()] == ["rows"]
    assert [file["what"] for file in maker.live(after=2)] == ["deletes"]
    assert maker.live(after=3) == []
    commit = world.get("/topics/orders/batches", after=2, what="dead_letters")["commits"][0]
    assert [file["what"] for file in commit["add"]] == ["deletes"]


def test_a_replace_keeps_the_age_of_its_rows(world: World) -> None:
    maker, old = two_files(world)
    replaced = maker.file(10, newest_sequence=1)
    rest = maker.file(10)
    maker.send(maker.upkeep("replace", {"rows_in": 20, "rows_out": 20}, [replaced, rest], old))
    # Only the file that has rows of commit 2 is of interest after commit 1.
    assert [file["url"] for file in maker.live(after=1)] == [rest["url"]]
    assert maker.live(after=2) == []
    body = maker.upkeep(
        "replace", {"rows_in": 10, "rows_out": 10}, [maker.file(10, newest_sequence=3)], ids(maker.live())[:1]
    )
    assert maker.send(body, 422)["law"] == "newest_sequence"


def test_the_rows_of_a_rewrite_are_new_content(world: World) -> None:
    maker, old = two_files(world)
    files = [maker.file(20), maker.file(20, what="deletes")]
    maker.send(maker.upkeep("rewrite", {"rows_in": 20, "rows_out": 20}, files, old))
    assert [(file["what"], file["sequence"]) for file in maker.live(after=2)] == [("rows", 3), ("deletes", 3)]


def test_a_rewrite_turns_dead_letters_into_rows(world: World) -> None:
    maker = world.maker()
    maker.send(maker.append(maker.line(0, 10, dead_letters=4, written=6)))
    [dead] = [file["id"] for file in maker.live() if file["what"] == "dead_letters"]
    line = {"dead_in": 4, "rows_out": 3, "dead_out": 1}
    files = [maker.file(3), maker.file(1, what="dead_letters"), maker.file(3, what="deletes")]
    maker.send(maker.upkeep("rewrite", line, files, [dead]))
    topic = world.get("/topics/orders")
    assert (topic["rows"], topic["dead_letters"], topic["files"]) == (9, 1, 3)


def test_an_erase_and_an_expire_account_for_every_row(world: World) -> None:
    maker, old = two_files(world)
    erase = maker.upkeep(
        "erase",
        {"rows_in": 10, "rows_out": 9, "erased": 1},
        [maker.file(9), maker.file(1, what="deletes")],
        old[:1],
    )
    maker.send(erase)
    [line] = world.get("/topics/orders/ledger", after=2)["lines"]
    assert (line["kind"], line["rows_in"], line["rows_out"], line["erased"]) == ("erase", 10, 9, 1)
    assert (line["position"], line["to_offset"]) == (None, None)


BROKEN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "sum": ({"rows_in": 20, "rows_out": 19}, {}),
    "erased": ({"rows_in": 20, "rows_out": 19, "erased": 1}, {}),
    "rows_in": ({"rows_in": 19, "rows_out": 19}, {}),
    "rows_out": ({"rows_in": 20, "rows_out": 20}, {"files": []}),
    "dead_in": ({"rows_in": 20, "rows_out": 20, "dead_in": 1, "dead_out": 1}, {}),
    "lines": ({"rows_in": 20, "rows_out": 20, "lake_partition": 7}, {}),
}


@pytest.mark.parametrize("law", BROKEN)
def test_a_broken_law_of_upkeep_is_named_and_changes_nothing(world: World, law: str) -> None:
    maker, old = two_files(world)
    line, changes = BROKEN[law]
    body = maker.upkeep("replace", line, [maker.file(line["rows_out"])], old) | changes
    before = world.everything()
    assert maker.send(body, 422)["law"] == law
    assert world.everything() == before


def test_an_expire_adds_no_rows(world: World) -> None:
    maker, old = two_files(world)
    line = {"rows_in": 20, "expired": 20}
    assert maker.send(maker.upkeep("expire", line, [maker.file(1)], old), 422)["law"] == "files"
    body = maker.upkeep("expire", line, [maker.file(19, what="deletes")], old)
    assert maker.send(body, 422)["law"] == "deletes"


@pytest.mark.parametrize("role", ["remove", "beside"])
def test_a_file_that_is_not_live_any_more_is_a_conflict(world: World, role: str) -> None:
    maker, old = two_files(world)
    maker.send(maker.upkeep("replace", {"rows_in": 10, "rows_out": 10}, [maker.file(10)], old[:1]))
    if role == "remove":
        body = maker.upkeep("replace", {"rows_in": 20, "rows_out": 20}, [maker.file(20)], old)
    else:
        body = maker.upkeep(
            "replace", {"rows_in": 10, "rows_out": 10}, [maker.file(10)], old[1:], beside=[*old[:1], 99]
        )
    before = world.everything()
    refused = maker.send(body, 409)
    assert refused["type"] == "/problems/file-not-live"
    assert refused["files"] == (old[:1] if role == "remove" else [old[0], 99])
    assert world.everything() == before


def test_files_of_another_topic_are_not_live_here(world: World) -> None:
    _, old = two_files(world)
    other = world.maker("payments")
    body = other.upkeep("replace", {"rows_in": 20, "rows_out": 20}, [other.file(20)], old)
    assert other.send(body, 409)["type"] == "/problems/file-not-live"


def test_a_file_stands_once_in_remove_and_beside(world: World) -> None:
    maker, old = two_files(world)
    body = maker.upkeep("replace", {"rows_in": 10, "rows_out": 10}, [maker.file(10)], old[:1], beside=old[:1])
    assert maker.send(body, 422)["law"] == "remove"


def test_only_upkeep_seals_and_only_into_the_folder_of_the_period(world: World) -> None:
    maker, old = two_files(world)
    sealed = maker.sealed(20)
    append = maker.append(maker.line(0, 20))
    append["files"] = [sealed]
    assert maker.send(append, 422)["law"] == "folder"
    for changes in (
        {"url": sealed["url"].replace("event_date=2026-01-01", "event_date=2026-01-02")},
        {"lowest": "2025-12-31T23:59:59Z"},
        {"periods": [*sealed["periods"], {"start": "2026-01-02T00:00:00Z", "rows": 0}]},
    ):
        body = maker.upkeep("replace", {"rows_in": 20, "rows_out": 20}, [sealed | changes], old)
        assert maker.send(body, 422)["law"] == "sealed"
    maker.send(maker.upkeep("replace", {"rows_in": 20, "rows_out": 20}, [sealed], old))


# Periods


def complete_first_january(world: World) -> tuple[Maker, list[int]]:
    """A topic whose first of January is complete, with two fresh files of it."""
    maker = world.maker(partitions=1)
    time = "2026-01-02T00:00:00Z"
    maker.commit(10)
    maker.send(maker.append(maker.line(0, 10, position={"watermark": time, "highest": time})))
    old = ids(maker.live())
    world.clock.forward(86400)
    report = {
        "version": "1",
        "sent_at": format_time(world.clock.now_us),
        "topics": [
            {"topic": "orders", "epoch": maker.epoch, "state": "running", "settings_version": 0, "partitions": [],
             "broker_partitions": [0], "broker_partitions_at": format_time(world.clock.now_us)}
        ],
    }  # fmt: skip
    world.send("PUT", "/workers/w", report)
    return maker, old


def first_january(world: World) -> tuple[str, int, int | None]:
    page = world.get(
        "/topics/orders/periods", **{"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}
    )
    [period] = page["periods"]
    return period["state"], period["rows"], period["sealed_sequence"]


DAY = ["2026-01-01T00:00:00Z"]


def test_a_period_is_sealed_when_all_its_rows_lie_in_sealed_files(world: World) -> None:
    maker, old = complete_first_january(world)
    assert first_january(world) == ("complete", 20, None)
    maker.send(maker.upkeep("replace", {"rows_in": 20, "rows_out": 20}, [maker.sealed(20)], old, periods=DAY))
    assert first_january(world) == ("sealed", 20, 3)


def test_a_period_with_rows_elsewhere_is_reopened_not_refused(world: World) -> None:
    maker, old = complete_first_january(world)
    body = maker.upkeep("replace", {"rows_in": 10, "rows_out": 10}, [maker.sealed(10)], old[:1], periods=DAY)
    maker.send(body)
    assert first_january(world) == ("reopened", 20, None)
    sealed = ids(maker.live())[1:]
    body = maker.upkeep("replace", {"rows_in": 10, "rows_out": 10}, [maker.sealed(10)], old[1:], periods=DAY)
    assert first_january(world)[0] == "reopened"
    maker.send(body | {"beside": sealed})
    assert first_january(world) == ("sealed", 20, 4)


def test_a_late_row_reopens_its_period_and_a_replace_with_only_beside_seals_it_again(world: World) -> None:
    maker, old = complete_first_january(world)
    maker.send(maker.upkeep("replace", {"rows_in": 20, "rows_out": 20}, [maker.sealed(20)], old, periods=DAY))
    [sealed] = ids(maker.live())
    late = maker.append(maker.line(0, 1, late=1, position={"watermark": "2026-01-02T00:00:00Z"}))
    late["files"][0] |= {"periods": [{"start": DAY[0], "rows": 1}], "lowest": DAY[0], "highest": DAY[0]}
    maker.send(late)
    assert first_january(world) == ("reopened", 21, 3)
    fresh = ids(maker.live())[1:]
    # The sealing that does not know of the late file changes nothing about that.
    maker.send(maker.upkeep("replace", {}, periods=DAY, beside=[sealed]))
    assert first_january(world) == ("reopened", 21, 3)
    maker.send(
        maker.upkeep(
            "replace", {"rows_in": 1, "rows_out": 1}, [maker.sealed(1)], fresh, periods=DAY, beside=[sealed]
        )
    )
    assert first_january(world) == ("sealed", 21, 6)


def test_a_range_of_periods_reopens_all_that_are_sealed_in_it(world: World) -> None:
    maker, old = complete_first_january(world)
    maker.send(maker.upkeep("replace", {"rows_in": 20, "rows_out": 20}, [maker.sealed(20)], old, periods=DAY))
    late = maker.append(maker.line(0, 7, position={"watermark": "2026-01-02T00:00:00Z"}))
    late["files"][0] |= {
        "periods": [{"start": "2025-06-01T00:00:00Z", "end": "2026-01-02T00:00:00Z", "rows": 7}],
        "lowest": "2025-06-01T00:00:00Z",
        "highest": "2026-01-01T23:00:00Z",
    }
    maker.send(late)
    assert first_january(world) == ("reopened", 20, 3)
    # And a replace that does not take that file along leaves it so.
    sealed = [file["id"] for file in maker.live() if file["rows"] == 20]
    maker.send(maker.upkeep("replace", {}, periods=DAY, beside=sealed))
    assert first_january(world)[0] == "reopened"


def test_a_rewrite_reopens_and_an_erase_does_not(world: World) -> None:
    maker, old = complete_first_january(world)
    maker.send(maker.upkeep("replace", {"rows_in": 20, "rows_out": 20}, [maker.sealed(20)], old, periods=DAY))
    [sealed] = ids(maker.live())
    files = [maker.sealed(19), maker.file(1, what="deletes")]
    maker.send(maker.upkeep("erase", {"rows_in": 20, "rows_out": 19, "erased": 1}, files, [sealed]))
    assert first_january(world) == ("sealed", 19, 3)
    [sealed] = ids(maker.live())
    fresh = maker.file(19, periods=[{"start": DAY[0], "rows": 19}], lowest=DAY[0], highest=DAY[0])
    files = [fresh, maker.file(19, what="deletes")]
    maker.send(maker.upkeep("rewrite", {"rows_in": 19, "rows_out": 19}, files, [sealed]))
    assert first_january(world) == ("reopened", 19, 3)


def test_only_complete_periods_are_sealed(world: World) -> None:
    maker, old = complete_first_january(world)
    body = maker.upkeep("replace", {"rows_in": 20, "rows_out": 20}, [maker.sealed(20)], old)
    for periods in (["2026-01-02T00:00:00Z"], ["2026-01-01T01:00:00Z"]):
        assert maker.send(body | {"periods": periods}, 422)["law"] == "periods"
    maker.send(body | {"periods": [*DAY, "2025-12-31T00:00:00Z"]})
    page = world.get("/topics/orders/periods", **{"from": "2025-12-31T00:00:00Z"})
    assert [(period["state"], period["rows"]) for period in page["periods"]] == [
        ("sealed", 0),
        ("sealed", 20),
    ]
