"""Laws of commits over HTTP, on both databases: each breach is named and changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.conftest import World
from tests.api.maker import bitmap, file_entry

BROKEN: dict[str, dict[str, Any]] = {
    "sum": {"consumed": 9},
    "carried_in": {"carried_in": 1, "duplicates": 1},
    "carried_out": {"carried_out": 1, "consumed": 10, "written": 9},
    "offsets": {"position": {"next": 11}},
    "consumed": {"consumed": 11, "duplicates": 1},
    "differing": {"differing": 1},
    "late": {"late": 11},
    "early": {"early": 11},
    "tombstones": {"tombstones": 11},
    "lost": {"lost": 1, "written": 9},
    "lost_ranges": {"lost_ranges": [[5, 3]]},
    "carried_within": {"position": {"carried": bitmap([11])}, "carried_out": 1, "written": 9},
    "carried": {"position": {"carried": "AAAA"}},
}


@pytest.mark.parametrize("law", BROKEN)
def test_a_broken_law_of_a_line_is_named_and_changes_nothing(world: World, law: str) -> None:
    maker = world.maker()
    changes = dict(BROKEN[law])
    body = maker.append(maker.line(0, 10))
    line = body["lines"][0]
    line["position"] |= changes.pop("position", {})
    line |= changes
    before = world.everything()
    refused = maker.send(body, 422)
    assert (refused["type"], refused["law"]) == ("/problems/law-broken", law)
    assert refused["lake_partition"] == 0
    assert world.everything() == before


@pytest.mark.parametrize("name", ["highest", "watermark", "published_to"])
def test_no_time_of_a_position_goes_back(world: World, name: str) -> None:
    maker = world.maker()
    maker.send(maker.append(maker.line(0, 10, position={name: "2026-01-01T10:00:00Z"})))
    for lower in ("2026-01-01T09:59:59.999999Z", None):
        body = maker.append(maker.line(0, 10, position={name: lower}))
        refused = maker.send(body, 422)
        assert (refused["type"], refused["law"]) == ("/problems/law-broken", name)


def test_a_line_starts_where_the_last_one_ended(world: World) -> None:
    maker = world.maker()
    maker.commit(10)
    body = maker.append(maker.line(0, 5))
    body["lines"][0] |= {"from_offset": 11, "to_offset": 16}
    body["lines"][0]["position"]["next"] = 16
    refused = maker.send(body, 422)
    assert (refused["law"], refused["expected"], refused["got"]) == ("chain", 10, 11)


def test_the_first_line_of_a_partition_starts_anywhere(world: World) -> None:
    maker = world.maker()
    body = maker.append(maker.line(0, 10))
    body["lines"][0] |= {"from_offset": 1000, "to_offset": 1010}
    body["lines"][0]["position"]["next"] = 1010
    assert maker.send(body)["positions"][0]["next"] == 1010


def test_carried_offsets_stay_carried_until_published(world: World) -> None:
    maker = world.maker()
    maker.send(maker.append(maker.line(0, 10, carried=[1, 10])))  # offsets 9 and 0
    maker.send(maker.append(maker.line(0, 5, carried=[15, 2])))  # offset 0 still, 13 now; 9 is published
    body = maker.append(maker.line(0, 5, carried=[11]))  # offset 9 again
    refused = maker.send(body, 422)
    assert (refused["law"], refused["got"]) == ("carried_within", 9)
    maker.send(maker.append(maker.line(0, 5, carried=[20])))


FILES: dict[str, dict[str, Any]] = {
    "written": {"rows": 9, "periods": [{"start": "2026-01-01T00:00:00Z", "rows": 9}]},
    "periods": {"periods": [{"start": "2026-01-01T00:00:00Z", "rows": 9}]},
    "folder": {"url": "s3://lake/fresh/payments/1-rows.parquet"},
    "schema_version": {"schema_version": 1},
    "times": {"lowest": "2026-01-02T00:00:00Z", "highest": "2026-01-01T00:00:00Z"},
    "files": {"what": "deletes"},
}


@pytest.mark.parametrize("law", FILES)
def test_a_broken_law_of_files_is_named_and_changes_nothing(world: World, law: str) -> None:
    maker = world.maker()
    body = maker.append()
    body["files"][0] |= FILES[law]
    before = world.everything()
    assert maker.send(body, 422)["law"] == law
    assert world.everything() == before


def test_two_files_of_one_kind_are_refused(world: World) -> None:
    maker = world.maker()
    body = maker.append()
    body["files"] = [file_entry("orders", maker.now(), 5), file_entry("orders", maker.now(), 5)]
    assert maker.send(body, 422)["law"] == "files"
    body["files"][1]["late"] = True
    maker.send(body)


def test_an_object_is_entered_once_in_all_topics(world: World) -> None:
    maker = world.maker()
    body = maker.append()
    maker.send(body)
    again = maker.append()
    again["files"][0]["url"] = body["files"][0]["url"]
    before = world.everything()
    assert maker.send(again, 422)["law"] == "url"
    assert world.everything() == before


def test_dead_letters_match_their_file(world: World) -> None:
    maker = world.maker()
    line = maker.line(0, 10, dead_letters=2, written=8)
    body = maker.append(line)
    body["files"][1]["rows"] = 3
    assert maker.send(body, 422)["law"] == "dead_letters"
    body["files"][1]["rows"] = 2
    maker.send(body)
    assert world.get("/topics/orders")["dead_letters"] == 2
