"""The rule of duplicates against a model of it in plain dictionaries, over arbitrary histories of calls."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ingest import dedup, id_table
from ingest.dedup import HOUR_US, OnDiffering, Seen

FEW = 4  # copies of one id in an hour that are no flood yet, in place of a thousand
QUARTER = HOUR_US // 4

ids = st.one_of(st.none(), st.sampled_from(["", "a", "b", "A", "ab", "é", "e\u0301", "0" * 40]))
times = st.integers(-2, 20).map(lambda quarters: quarters * QUARTER)
rows = st.tuples(ids, times, st.booleans(), st.integers(0, 2))
calls = st.lists(rows, max_size=30)


@dataclass
class Entry:
    time: int
    stood_in: bool
    content: int | None
    witness: int | None = None


@dataclass
class Model:
    """The rule at the head of ingest/dedup.py, word for word."""

    window: int
    entries: dict[str, list[Entry]] = field(default_factory=dict)
    copies: dict[tuple[str, int], int] = field(default_factory=dict)

    def count(self, text: str, time: int) -> bool:
        key = (text, time // HOUR_US)
        self.copies[key] = self.copies.get(key, 0) + 1
        return self.copies[key] > FEW

    def judge(self, text: str | None, time: int, stood_in: bool, content: int, mode: OnDiffering) -> str:
        if text is None:
            return "kept"
        known = self.entries.setdefault(text, [])
        if not known:
            known.append(Entry(time, stood_in, content))
            return "kept"
        if self.copies.get((text, time // HOUR_US), 0) > FEW:
            return "flood"
        near = [e for e in known if e.stood_in or stood_in or abs(e.time - time) <= self.window]
        if any(e.content == content for e in near):
            return "duplicate"
        unknown = [e for e in near if e.content is None]
        if unknown and unknown[0].witness in (None, content):
            unknown[0].witness = content
            return "duplicate"
        if self.count(text, time):
            return "flood"
        if not near:
            known.append(Entry(time, stood_in, content))
            return "kept"
        if unknown:
            return "duplicate"
        if mode == "keep":
            known.append(Entry(time, stood_in, content))
            return "kept_differing"
        return "differing"

    def load(self, text: str | None, time: int, stood_in: bool) -> None:
        if text is None:
            return
        known = self.entries.setdefault(text, [])
        if not known or not self.count(text, time):
            known.append(Entry(time, stood_in, None))

    def forget(self, before: int) -> None:
        horizon = before // HOUR_US * HOUR_US
        self.entries = {text: [e for e in es if e.time >= horizon] for text, es in self.entries.items()}
        self.copies = {key: n for key, n in self.copies.items() if key[1] * HOUR_US >= horizon}


class Histories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.seen = Seen(HOUR_US)
        self.model = Model(HOUR_US)
        self.forgotten = -(10**18)

    @initialize(window=st.sampled_from([0, QUARTER, HOUR_US, 3 * HOUR_US]), ballast=st.sampled_from([0, 90]))
    def begin(self, window: int, ballast: int) -> None:
        """Ballast: rows that are never forgotten. With them, forgotten rows are cleared away late."""
        self.seen, self.model = Seen(window), Model(window)
        for i in range(ballast):
            self.model.load(f"ballast {i}", 1_000 * HOUR_US, False)
        far = np.full(ballast, 1_000 * HOUR_US)
        self.seen.load(pa.array([f"ballast {i}" for i in range(ballast)]), far, np.zeros(ballast, np.bool_))

    @rule(call=calls, mode=st.sampled_from(["drop", "drop", "keep"]))
    def sift(self, call: list[tuple[str | None, int, bool, int]], mode: OnDiffering) -> None:
        verdict = self.seen.sift(
            pa.array([row[0] for row in call], pa.string()),
            np.array([row[1] for row in call], np.int64),
            np.array([row[2] for row in call], np.bool_),
            np.array([row[3] for row in call], np.int64),
            on_differing=mode,
        )
        said = [self.model.judge(*row, mode) for row in call]
        assert verdict.keep.tolist() == [word in ("kept", "flood", "kept_differing") for word in said]
        assert verdict.duplicates == said.count("duplicate") + said.count("differing")
        assert verdict.differing == said.count("differing")
        assert verdict.kept_differing == said.count("kept_differing") + said.count("flood")
        flooding = {row[0] for row, word in zip(call, said, strict=True) if word == "flood"}
        assert verdict.flooding == sorted(text for text in flooding if text is not None)

    @rule(call=calls)
    def load(self, call: list[tuple[str | None, int, bool, int]]) -> None:
        self.seen.load(
            pa.chunked_array([[row[0] for row in call]], pa.string()),
            np.array([row[1] for row in call], np.int64),
            np.array([row[2] for row in call], np.bool_),
        )
        for text, time, stood_in, _ in call:
            self.model.load(text, time, stood_in)

    @rule(before=times, beside=st.integers(-1, 1))
    def forget(self, before: int, beside: int) -> None:
        self.seen.forget(before + beside)
        if before + beside >= self.forgotten // HOUR_US * HOUR_US:
            self.forgotten = before + beside
            self.model.forget(before + beside)

    @rule(alive=st.just(True))
    def shed_nothing(self, alive: bool) -> None:
        self.seen.shed(self.seen.nbytes)
        assert self.seen.window_from_us is None

    @invariant()
    def memory_holds_every_remembered_row(self) -> None:
        assert len(self.seen) >= sum(len(entries) for entries in self.model.entries.values())


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedup, "FLOOD", FEW)
    monkeypatch.setattr(dedup, "PIECE", 11)
    monkeypatch.setattr(id_table, "PIECE", 5)


@pytest.mark.slow
@pytest.mark.parametrize("hashing", ["sound", "colliding"])
def test_any_history_of_calls_agrees_with_the_model(hashing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if hashing == "colliding":  # the index is only a hint: with three hashes for all ids nothing changes
        monkeypatch.setattr(id_table, "hash", lambda text: len(text) % 3, raising=False)
        monkeypatch.setattr(dedup, "hash", lambda text: len(text) % 3, raising=False)
    Histories.TestCase.settings = settings(max_examples=150, stateful_step_count=15, deadline=None)
    case = Histories.TestCase()
    case.runTest()
