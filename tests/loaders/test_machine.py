"""A loader and a lake as a state machine: any commits, sweeps, folds and restores between any two steps of a loader."""

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.strategies import integers, sampled_from

from loaders.change import Change
from tests.loaders.model import KINDS, Lake, ModelFeed, Table


class LoaderMachine(RuleBasedStateMachine):
    """Processes under one name: `plan` asks the feed, `load` brings in what was planned, perhaps long ago."""

    def __init__(self) -> None:
        super().__init__()
        self.lake = Lake()
        self.table = Table()
        self.plans: list[tuple[Lake, Change]] = []

    @rule(kind=sampled_from(KINDS), choice=integers(0, 11))
    def commit(self, kind: str, choice: int) -> None:
        self.lake = self.lake.commit(kind, choice)

    @rule()
    def sweep(self) -> None:
        self.lake = self.lake.sweep()

    @rule()
    def fold(self) -> None:
        self.lake = self.lake.fold()

    @rule(back=integers(0, 4))
    def restore(self, back: int) -> None:
        self.lake = self.lake.restore(max(0, self.lake.head.sequence - back))

    @rule(most=integers(1, 3))
    def plan(self, most: int) -> None:
        """A run of at most so many files' bytes: the model's files have one byte each."""
        change = ModelFeed(self.lake).change(self.table.cursor, most_bytes=most)
        if change is not None:
            self.plans.append((self.lake, change))

    @precondition(lambda self: self.plans)
    @rule(which=integers(0, 3))
    def load(self, which: int) -> None:
        lake, change = self.plans[which % len(self.plans)]
        if change.before == self.table.cursor:  # else the warehouse refuses: another process was here
            self.table.apply(lake, change)

    @rule()
    def follow(self) -> None:
        self.table.follow(ModelFeed(self.lake))
        assert self.table.rows == self.lake.head.rows()

    @invariant()
    def the_table_is_what_its_cursor_says(self) -> None:
        cursor = self.table.cursor
        if cursor is not None and cursor.epoch == self.lake.epoch:
            assert self.table.rows == self.lake.states[cursor.sequence].rows()

    def teardown(self) -> None:
        self.follow()


TestLoaderMachine = pytest.mark.slow(LoaderMachine.TestCase)
TestLoaderMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
