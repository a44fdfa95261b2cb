"""A lake and its feed in memory: all kinds of commits, objects that were swept, catalogues that were restored.

The model makes what upkeep and workers make, as small as it can be, and knows at any moment which rows are live. Its
choices come from numbers that it is given, so that a test can repeat them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from loaders.change import Change, Cursor, next_change
from loaders.feed import (
    Batches,
    Behind,
    Commit,
    EpochMoved,
    File,
    Kept,
    LiveFiles,
    StartAnew,
)

KINDS = ("append", "replace", "rewrite", "expire", "erase")

Key = tuple[int, int]  # lake partition, offset
PARTITIONS = (0, 1)


@dataclass(frozen=True)
class Row:
    """A row's content. `sequence`: what its `_sequence` is, whether the file says so or not."""

    value: str
    sequence: int


@dataclass(frozen=True)
class Object:
    """One Parquet object. `own_sequence`: whether it has the column `_sequence`."""

    file: File
    rows: Mapping[Key, Row]
    own_sequence: bool = False


@dataclass(frozen=True)
class State:
    """The topic as of one sequence."""

    sequence: int = 0
    live: Mapping[int, Object] = field(default_factory=dict)
    next: Mapping[int, int] = field(default_factory=lambda: dict.fromkeys(PARTITIONS, 0))
    carried: frozenset[Key] = frozenset()
    expired: Mapping[Key, Row] = field(default_factory=dict)  # rows that a loader may have kept
    twins: Mapping[Key, Row] = field(default_factory=dict)  # rows that a replace dropped as duplicates

    def rows(self) -> dict[Key, Row]:
        """The live rows."""
        found: dict[Key, Row] = {}
        for each in self.live.values():
            if each.file.what == "rows":
                assert not found.keys() & each.rows.keys(), "the model has a row twice"
                found.update(each.rows)
        return found

    def kept(self) -> tuple[Kept, ...]:
        """The positions, as another epoch's 410 gives them."""
        return tuple(
            Kept(number, end, frozenset(offset for each, offset in self.carried if each == number))
            for number, end in self.next.items()
        )


@dataclass(frozen=True)
class Lake:
    """A topic with its history. Immutable, so that a search can go on from any moment of it."""

    epoch: str = "e0"
    states: tuple[State, ...] = (State(),)
    commits: tuple[Commit, ...] = ()
    ids: int = 0
    swept: frozenset[int] = frozenset()  # ids of objects that are gone
    mirror: bool = True  # a registered loader asked to mirror expiry
    forks: Mapping[str, int] = field(
        default_factory=dict
    )  # epoch -> the last sequence it shares with this one
    objects: Mapping[int, Object] = field(default_factory=dict)
    oldest: int = 1

    @property
    def head(self) -> State:
        return self.states[-1]

    def commit(self, kind: str, choice: int = 0) -> Lake:
        """The lake after one more commit; `choice` decides what of the live rows it touches."""
        return _MAKERS[kind](self, choice)

    def sweep(self) -> Lake:
        """All objects that are not live now are gone; `deletes` files stay."""
        stay = set(self.head.live)
        gone = {each for each, kept in self.objects.items() if kept.file.what != "deletes"} - stay
        return replace(self, swept=self.swept | gone)

    def fold(self) -> Lake:
        """History up to the head is gone."""
        return replace(self, oldest=self.head.sequence + 1)

    def restore(self, common: int) -> Lake:
        """Another life of the catalogue, which knows nothing after `common`; its objects are all there again."""
        forks = {epoch: min(shared, common) for epoch, shared in self.forks.items()} | {self.epoch: common}
        return replace(
            self,
            epoch=f"e{len(forks)}",
            states=self.states[: common + 1],
            commits=self.commits[:common],
            forks=forks,
            swept=self.swept - set(self.states[common].live),
            oldest=min(self.oldest, common + 1),
        )

    def add(
        self,
        kind: str,
        made: Iterable[tuple[str, Mapping[Key, Row], bool]],
        removed: Iterable[int] = (),
        **after: object,
    ) -> Lake:
        """A commit with files of (what, rows, own_sequence)."""
        sequence = self.head.sequence + 1
        added, number = [], self.ids
        for what, rows, own in made:
            if rows:
                number += 1
                url = f"s3://lake/{number}.parquet"
                file = File(number, sequence, kind, url, what, 1, len(rows), "0" * 64, 0)
                added.append(Object(file, dict(rows), own))
        leaving = tuple(removed)
        live = {each: kept for each, kept in self.head.live.items() if each not in leaving}
        live |= {each.file.id: each for each in added if each.file.what != "deletes"}
        state = replace(self.head, sequence=sequence, live=live, **after)  # type: ignore[arg-type]
        return replace(
            self,
            states=(*self.states, state),
            commits=(*self.commits, Commit(sequence, kind, tuple(each.file for each in added), leaving)),
            ids=number,
            objects={**self.objects, **{each.file.id: each for each in added}},
        )


def _append(lake: Lake, choice: int) -> Lake:
    """Two offsets in each lake partition; one is carried, what was carried is published, now and then a dead letter."""
    state, sequence = lake.head, lake.head.sequence + 1
    ends = {number: end + 2 for number, end in state.next.items()}
    read = {(number, offset) for number, end in ends.items() for offset in (end - 2, end - 1)}
    held = {
        (number, end - 1 - (choice + number) % 2) for number, end in ends.items() if (choice + number) % 3
    }
    out = sorted((read | state.carried) - held)
    dead = {key for key in out if (key[1] + sequence + choice) % 5 == 0}

    def row(key: Key) -> Row:
        return Row(f"{lake.epoch}/{sequence}/{key}", sequence)

    return lake.add(
        "append",
        [
            ("rows", {key: row(key) for key in out if key not in dead}, False),
            ("dead_letters", {key: row(key) for key in dead}, False),
        ],
        next=ends,
        carried=frozenset(held),
    )


def _some(lake: Lake, choice: int, what: str = "rows") -> list[Object]:
    """About two of three of the live objects, at least one if there is one."""
    found = [each for each in lake.head.live.values() if each.file.what == what]
    return [each for place, each in enumerate(found) if (place + choice) % 3] or found[:1]


def _united(objects: Iterable[Object]) -> dict[Key, Row]:
    rows: dict[Key, Row] = {}
    for each in objects:
        rows.update(each.rows)
    return rows


def _split(rows: Mapping[Key, Row], leave: Callable[[int], bool]) -> tuple[dict[Key, Row], dict[Key, Row]]:
    left = {key: row for place, (key, row) in enumerate(sorted(rows.items())) if leave(place)}
    return {key: row for key, row in rows.items() if key not in left}, left


def _replace(lake: Lake, choice: int) -> Lake:
    taken = _some(lake, choice)
    stay, twins = _split(_united(taken), lambda place: choice % 2 == 0 and place % 4 == 1)
    return lake.add(
        "replace",
        [("rows", stay, True), ("deletes", twins, False)],
        [each.file.id for each in taken],
        twins={**lake.head.twins, **twins},
    )


def _rewrite(lake: Lake, choice: int) -> Lake:
    """Rows change, one in five becomes a dead letter, dead letters become rows, now and then a twin is restored."""
    sequence = lake.head.sequence + 1
    rows, dead = _some(lake, choice), _some(lake, choice + 1, "dead_letters")
    before = _united(rows)
    twins, restored = _split(lake.head.twins, lambda place: choice % 3 != 1 and place % 2 == 0)
    stay, fell = _split(before, lambda place: place % 5 == choice % 5)
    after = {key: Row(f"{lake.epoch}/{sequence}/{key}", sequence) for key in stay | _united(dead) | restored}
    fallen = {key: Row("broken", sequence) for key in fell}
    return lake.add(
        "rewrite",
        [("rows", after, False), ("dead_letters", fallen, False), ("deletes", before | after, False)],
        [each.file.id for each in rows + dead],
        twins=twins,
    )


def _expire(lake: Lake, choice: int) -> Lake:
    taken = _some(lake, choice)[: 1 + choice % 2]
    rows = _united(taken)
    return lake.add(
        "expire",
        [("deletes", rows if lake.mirror else {}, False)],
        [each.file.id for each in taken],
        expired={**lake.head.expired, **rows},
    )


def _erase(lake: Lake, choice: int) -> Lake:
    taken = _some(lake, choice)
    stay, erased = _split(_united(taken), lambda place: place % 3 == choice % 3)
    return lake.add(
        "erase", [("rows", stay, True), ("deletes", erased, False)], [each.file.id for each in taken]
    )


_MAKERS: dict[str, Callable[[Lake, int], Lake]] = {
    "append": _append,
    "replace": _replace,
    "rewrite": _rewrite,
    "expire": _expire,
    "erase": _erase,
}


class ModelFeed:
    """The API as a loader sees it, without HTTP."""

    def __init__(self, lake: Lake, *, mirror_expiry: bool = True, start: str = "snapshot") -> None:
        self.lake = lake
        self.mirror_expiry = mirror_expiry
        self.start = start

    def change(self, cursor: Cursor | None, *, most_bytes: int = 10**9) -> Change | None:
        """What a loader does next."""
        return next_change(
            self, "orders", cursor, start=self.start, mirror_expiry=self.mirror_expiry, most_bytes=most_bytes
        )

    def batches(self, topic: str, after: int, *, epoch: str | None = None, wait: int = 0) -> Batches:
        lake = self.lake
        self._check_epoch(after, epoch)
        if after < lake.oldest - 1:
            raise StartAnew("folded")
        commits = lake.commits[after : after + 100]
        if any(file.id in lake.swept for commit in commits for file in commit.add if file.what != "deletes"):
            raise Behind(lake.head.sequence)
        return Batches(lake.epoch, lake.oldest, lake.head.sequence, False, commits)

    def place(self, topic: str) -> tuple[str, int]:
        return self.lake.epoch, self.lake.head.sequence

    def files(
        self,
        topic: str,
        *,
        at: int | None = None,
        after: int | None = None,
        epoch: str | None = None,
        what: str | None = None,
    ) -> LiveFiles:
        lake = self.lake
        at = lake.head.sequence if at is None else at
        self._check_epoch(at, epoch)
        live = [each.file for each in lake.states[at].live.values() if what in (None, each.file.what)]
        if any(file.id in lake.swept for file in live):
            raise StartAnew("objects are gone")
        if after is None:
            return LiveFiles(lake.epoch, at, tuple(live))
        newer = [
            file for file in live if max(row.sequence for row in lake.objects[file.id].rows.values()) > after
        ]
        named = [file for commit in lake.commits[after:at] for file in commit.add if file.what == "deletes"]
        return LiveFiles(lake.epoch, at, tuple(newer + named))

    def _check_epoch(self, after: int, epoch: str | None) -> None:
        lake = self.lake
        if epoch is None or epoch == lake.epoch:
            return
        if epoch not in lake.forks:
            raise StartAnew("an epoch nobody knows")
        common = lake.forks[epoch]
        cursor = min(common, after)
        raise EpochMoved(lake.epoch, common, cursor, lake.states[cursor].kept())


@dataclass
class Table:
    """A warehouse in memory: what a `Change` says, done word by word."""

    rows: dict[Key, Row] = field(default_factory=dict)
    cursor: Cursor | None = None

    def apply(self, lake: Lake, change: Change) -> None:
        assert change.before == self.cursor
        objects = lake.objects
        if change.empty:
            self.rows = {}
        if change.kept is not None:
            kept = {each.lake_partition: each for each in change.kept}
            self.rows = {
                key: row
                for key, row in self.rows.items()
                if key[0] in kept and key[1] < kept[key[0]].next and key[1] not in kept[key[0]].carried
                if change.newest is None or row.sequence <= change.newest
            }
        gone: dict[Key, int] = {}
        for file in change.deletes:
            for key in objects[file.id].rows:
                gone[key] = max(file.sequence, gone.get(key, 0))
        self.rows = {key: row for key, row in self.rows.items() if key not in gone}
        for file in change.rows:
            each = objects[file.id]
            assert file.id not in lake.swept, "the loader was sent to an object that is gone"
            for key, row in each.rows.items():
                if gone.get(key, 0) > file.sequence:
                    continue
                if change.above is not None and each.own_sequence and row.sequence <= change.above:
                    continue
                assert key not in self.rows, f"{key} would stand twice"
                self.rows[key] = row
        self.cursor = change.cursor

    def follow(self, feed: ModelFeed) -> None:
        """Loads until there is nothing more."""
        while change := feed.change(self.cursor):
            self.apply(feed.lake, change)
