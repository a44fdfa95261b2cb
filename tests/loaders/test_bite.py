"""That the proofs of `test_change.py` bite: with any one rule of a loader left out they find it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

import loaders.change as change
from loaders.change import Change
from loaders.feed import FeedError
from tests.loaders import test_change

pytestmark = pytest.mark.slow


def _without(**parts: object) -> Callable[[Change], Change]:
    return lambda made: replace(made, **parts)  # type: ignore[arg-type]


LEFT_OUT = {
    "the deletes of a run": ("of_run", _without(deletes=())),
    "the rows of a rewrite": (
        "of_run",
        lambda made: replace(made, rows=tuple(each for each in made.rows if each.kind != "rewrite")),
    ),
    "that a file of deletes names only rows of earlier commits": (
        "of_run",
        lambda made: replace(made, deletes=tuple(replace(each, sequence=10**6) for each in made.deletes)),
    ),
    "that later deletes take rows out of a run": (
        "of_run",
        lambda made: replace(made, deletes=tuple(replace(each, sequence=0) for each in made.deletes)),
    ),
    "the sequence above which rows are new": ("of_gap", _without(above=None)),
    "the deletes of a gap": ("of_gap", _without(deletes=())),
    "the positions of another epoch": ("of_epoch", _without(kept=None)),
    "what the lost life restored": ("of_epoch", _without(newest=None)),
    "the rows that another epoch has again": ("of_epoch", _without(rows=())),
    "the sequence of the last deletes": (
        "of_run",
        lambda made: replace(made, cursor=replace(made.cursor, deletes=0)),
    ),
    "what a snapshot knows of deletes": (
        "of_snapshot",
        lambda made: replace(made, cursor=replace(made.cursor, deletes=0)),
    ),
    "that a snapshot empties the table": ("of_snapshot", _without(empty=False)),
}

PROOFS = (
    test_change.test_from_any_stop_in_any_order_of_kinds_the_rest_makes_the_table_the_live_rows,
    test_change.test_a_loader_that_is_behind_for_long_catches_up_in_one_change,
    test_change.test_after_another_epoch_the_table_is_that_life_alone,
    test_change.test_a_third_life_that_branches_off_earlier_does_not_trust_what_the_second_repaired,
    test_change.test_a_snapshot_before_the_fork_that_holds_what_was_deleted_is_repaired,
    test_change.test_folded_history_and_an_unknown_epoch_start_with_an_empty_table,
)


@pytest.mark.parametrize("rule", LEFT_OUT)
def test_a_loader_without_one_of_its_rules_is_found_out(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, spoil = LEFT_OUT[rule]
    whole = getattr(change, name)

    def spoiled(*given: object) -> Change | None:
        made = whole(*given)
        return None if made is None else spoil(made)

    monkeypatch.setattr(change, name, spoiled)
    monkeypatch.setattr(test_change, "DEPTH", 4)
    assert any(_bites(proof) for proof in PROOFS), f"nothing notices that {rule} is missing"


def _bites(proof: Callable[[], None]) -> bool:
    try:
        proof()
    except (AssertionError, FeedError):
        return True
    return False
