"""What the last release's worker, upkeep, loader and commands asked, asked of this API: they must not notice.

`make record` writes the recording anew, at a release.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from tests.api.conftest import World
from tests.api.recorder import RECORDING, Player


@pytest.fixture(scope="module")
def recorded() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(RECORDING.read_text())["exchanges"]
    return found


def player(world: World) -> Player:
    return Player(world.client, lambda now_us: setattr(world.clock, "now_us", now_us))


def test_clients_of_the_last_release_do_not_notice(world: World, recorded: list[dict[str, Any]]) -> None:
    playing = player(world)
    assert [text for exchange in recorded for text in playing.play(exchange)] == []


def test_the_recording_has_what_each_client_does(recorded: list[dict[str, Any]]) -> None:
    asked = {(each["method"], each["path"].rpartition("/")[2]) for each in recorded}
    assert {
        ("POST", "positions"), ("POST", "commits"), ("POST", "schemas"), ("PUT", "worker-1"), ("GET", "batches"),
        ("PUT", "cursors"), ("GET", "files"), ("GET", "periods"), ("GET", "ledger"), ("POST", "folds"), ("PUT", "dwh"),
        ("POST", "pause"), ("PATCH", "orders"),
    } <= asked  # fmt: skip


def test_a_field_that_is_gone_a_refusal_and_another_type_are_noticed(
    world: World, recorded: list[dict[str, Any]]
) -> None:
    at = next(
        n for n, each in enumerate(recorded) if each["path"] == "/v1/positions" and each["answer"]["topics"]
    )
    playing = player(world)
    assert [text for each in recorded[: at + 1] for text in playing.play(each)] == []
    for change in (
        lambda each: each["answer"]["topics"][0].update(moon=1),
        lambda each: each.update(status=201),
        lambda each: each["answer"]["topics"][0].update(sequence="0"),
        lambda each: each["answer"].update(topics=[]),
    ):
        changed = copy.deepcopy(recorded[at])
        change(changed)
        assert len(playing.play(changed)) == 1
