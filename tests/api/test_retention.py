"""Retention as properties, with the time as an argument: never early, never twice; and expire commits over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.retention import Policy, expires_us, held_until_us, shortened_by_half
from tests.api.conftest import World

SPANS = st.integers(0, 10**14)
MOMENTS = st.integers(-(10**15), 2 * 10**15)
POLICIES = st.builds(
    Policy,
    keep_us=st.none() | SPANS,
    from_commit=st.booleans(),
    least_us=SPANS,
    most_us=st.none() | SPANS,
    hold_us=SPANS,
)


@given(POLICIES, st.none() | MOMENTS, MOMENTS)
def test_nothing_expires_before_its_least_time(policy: Policy, highest: int | None, committed: int) -> None:
    found = expires_us(policy, highest, committed)
    assert found is None or found >= committed + policy.least_us


@given(POLICIES, st.none() | MOMENTS, MOMENTS)
def test_only_what_has_no_policy_and_no_limit_lives_for_ever(
    policy: Policy, highest: int | None, committed: int
) -> None:
    never = expires_us(policy, highest, committed) is None
    assert never == (policy.keep_us is None and policy.most_us is None)


@given(POLICIES, MOMENTS, MOMENTS, st.integers(1, 100), st.lists(st.integers(0, 100), max_size=3))
def test_a_hold_delays_within_its_limits(
    policy: Policy, highest: int, committed: int, newest: int, cursors: list[int]
) -> None:
    expires = expires_us(policy, highest, committed)
    held = held_until_us(policy, highest, committed, newest, cursors)
    if held is None:
        assert expires is None or all(cursor >= newest for cursor in cursors)
        return
    assert expires is not None
    assert expires <= held <= expires + policy.hold_us
    if policy.most_us is not None:
        base = committed if policy.from_commit else highest
        assert held <= max(base + policy.most_us, committed + policy.least_us)


def test_a_row_that_was_a_year_late_is_not_born_expired() -> None:
    day = 86_400_000_000
    policy = Policy(30 * day, False, day, None, 0)
    assert expires_us(policy, 0, 365 * day) == 366 * day


@pytest.mark.parametrize(
    ("before", "after", "shortened"),
    [
        ("for ever", "90d", True),
        ("90d", "45d", False),
        ("90d", "44d from commit", True),
        ("90d", "for ever", False),
    ],
)
def test_a_policy_cut_by_more_than_half_is_noticed(before: str, after: str, shortened: bool) -> None:
    other = {"dead_letter_retention": "for ever", "max_retention": None}
    found = shortened_by_half({"retention": before} | other, {"retention": after} | other)
    assert found == (["retention"] if shortened else [])


def expiring(world: World, **settings: Any) -> tuple[Any, list[int]]:
    """A topic whose rows live two days from their commit, with two files of an hour's distance."""
    world.send(
        "POST", "/topics", {"topic": "orders", "settings": {"retention": "2d from commit"} | settings}, 201
    )
    maker = world.maker()
    maker.commit(10)
    world.clock.forward(3600)
    maker.commit(10)
    return maker, [file["id"] for file in maker.live()]


def test_expires_at_is_computed_when_read(world: World) -> None:
    maker, _ = expiring(world)
    assert [file["expires_at"] for file in maker.live()] == ["2026-01-03T09:00:00Z", "2026-01-03T10:00:00Z"]
    world.send("PATCH", "/topics/orders", {"settings": {"retention": "3d from commit"}})
    assert maker.live()[0]["expires_at"] == "2026-01-04T09:00:00Z"
    world.send("PATCH", "/topics/orders", {"settings": {"retention": None}})
    [commit] = world.get("/topics/orders/batches", limit=1)["commits"]
    assert commit["add"][0]["expires_at"] is None


def test_an_expire_is_refused_until_the_policy_says_so(world: World) -> None:
    maker, files = expiring(world)
    world.clock.forward(2 * 86400 - 3600 - 1)
    body = maker.upkeep("expire", {"rows_in": 10, "expired": 10}, (), files[:1])
    refused = maker.send(body, 409)
    assert (refused["type"], refused["files"]) == ("/problems/not-expired", files[:1])
    assert world.get("/topics/orders/expired")["files"] == []
    world.clock.forward(1)
    assert [file["id"] for file in world.get("/topics/orders/expired")["files"]] == files[:1]
    ahead = world.get("/topics/orders/expired", as_of="2026-01-03T10:00:00Z")
    assert [file["id"] for file in ahead["files"]] == files
    maker.send(body)
    assert [file["id"] for file in maker.live()] == files[1:]
    again = maker.upkeep("expire", {"rows_in": 10, "expired": 10}, (), files[:1])
    assert maker.send(again, 409)["type"] == "/problems/file-not-live"


def test_a_holding_loader_delays_expiry_up_to_the_limit(world: World) -> None:
    maker, files = expiring(world, hold_limit="1d")
    world.send("PUT", "/loaders/dwh", {"topics": ["orders"], "from": "earliest", "hold": True}, 201)
    world.clock.forward(2 * 86400)
    assert world.get("/topics/orders/expired")["files"] == []
    body = maker.upkeep("expire", {"rows_in": 10, "expired": 10}, (), files[:1])
    assert maker.send(body, 409)["type"] == "/problems/not-expired"
    move = {"cursors": {"orders": {"epoch": maker.epoch, "from": 0, "to": 1}}}
    world.send("PUT", "/loaders/dwh/cursors", move)
    assert [file["id"] for file in world.get("/topics/orders/expired")["files"]] == files[:1]
    world.clock.forward(86400)
    assert [file["id"] for file in world.get("/topics/orders/expired")["files"]] == files


def test_a_legal_hold_beats_expiry_until_it_is_taken_away(world: World) -> None:
    maker, files = expiring(world, max_retention="2d")
    hold = {"topics": ["^ord.*"], "reason": "case 17"}
    assert world.send("PUT", "/holds/case-17", hold)["reason"] == "case 17"
    world.clock.forward(30 * 86400)
    assert world.get("/topics/orders/expired")["files"] == []
    assert maker.live()[0]["expires_at"] is None
    body = maker.upkeep("expire", {"rows_in": 20, "expired": 20}, (), files)
    assert maker.send(body, 409)["type"] == "/problems/not-expired"
    assert [entry["name"] for entry in world.get("/holds")["holds"]] == ["case-17"]
    world.send("DELETE", "/holds/case-17", status=204)
    world.send("DELETE", "/holds/case-17", status=404)
    maker.send(body)
    actions = [line["action"] for line in world.get("/audit")["audit"]]
    assert actions == ["delete_hold", "put_hold", "create_topic"]


def test_a_policy_cut_by_more_than_half_needs_a_second_word(world: World) -> None:
    maker, _ = expiring(world)
    change = {"settings": {"retention": "20h from commit"}}
    refused = world.send("PATCH", "/topics/orders", change, 409)
    assert refused["type"] == "/problems/confirm-needed"
    assert maker.live()[0]["expires_at"] == "2026-01-03T09:00:00Z"
    world.send("PATCH", "/topics/orders", change | {"confirm": True})
    assert maker.live()[0]["expires_at"] == "2026-01-02T09:00:00Z"  # min_retention


def test_a_policy_below_what_a_holding_loader_has_not_read_needs_a_second_word(world: World) -> None:
    maker, _ = expiring(world)
    world.send("PUT", "/loaders/dwh", {"topics": ["orders"], "from": "earliest", "hold": True}, 201)
    world.clock.forward(30 * 3600)
    change = {"settings": {"retention": "25h from commit"}}
    assert "holding loader" in world.send("PATCH", "/topics/orders", change, 409)["reasons"][0]
    move = {"cursors": {"orders": {"epoch": maker.epoch, "from": 0, "to": 2}}}
    world.send("PUT", "/loaders/dwh/cursors", move)
    world.send("PATCH", "/topics/orders", change)


def test_defaults_that_cut_a_topics_retention_need_a_second_word(world: World) -> None:
    world.maker("payments").commit()
    rule = {"pattern": "pay.*", "settings": {"retention": "30d"}}
    assert world.send("PUT", "/defaults/pay", rule, 409)["topic"] == "payments"
    world.send("PUT", "/defaults/pay", rule | {"confirm": True})
    world.send("PUT", "/defaults/pay", rule | {"settings": {"retention": "29d"}})
