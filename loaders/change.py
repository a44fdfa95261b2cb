"""What a warehouse does next, as one transaction: the meaning of runs of commits and of the three answers of a 410.

Pure: it decides from what the feed answers and from the cursor that the warehouse keeps; it fetches no file, knows no
warehouse. Each `of_...` is one case of the contract; `next_change` asks the feed and picks the case.

A change may be loaded in parts of any size by whoever keeps its order and stores the cursor with the last part, all in
one transaction.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from loaders.feed import (
    Batches,
    Behind,
    Commit,
    EpochMoved,
    FeedError,
    File,
    Gone,
    Kept,
    LiveFiles,
    StartAnew,
)


@dataclass(frozen=True, slots=True)
class Cursor:
    """What a warehouse keeps for each topic, moved in the transaction that changes the rows.

    `deletes` is the sequence of the last commit whose `deletes` are in the table, 0 for none.
    """

    epoch: str
    sequence: int
    deletes: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """One transaction of the warehouse. Its parts, in the order in which they are to be done:

    1. `empty`: take out all rows.
    2. `kept`, unless None: delete every row whose (`_lake_partition`, `_offset`) it does not keep, and every row whose
       `_sequence` is above `newest`: a rewrite of the lost life may have restored offsets below a position.
    3. `deletes`: delete every row that is named in these files.
    4. `rows`: insert the rows of these files, except those that a file of `deletes` with a higher `sequence` than
       the row's file names; with `above`, only rows whose `_sequence` is higher (null, or no such column: all).
    5. `cursor`: store it, if the stored one is still `before`; else somebody else was here: roll back.
    """

    before: Cursor | None
    cursor: Cursor
    rows: tuple[File, ...] = ()
    deletes: tuple[File, ...] = ()
    kept: tuple[Kept, ...] | None = None
    newest: int | None = None
    empty: bool = False
    above: int | None = None

    @property
    def files(self) -> tuple[File, ...]:
        """Every object that the change needs, each once."""
        return tuple({file.id: file for file in self.deletes + self.rows}.values())


class Source(Protocol):
    """What of the API a decision needs; `loaders.feed.Feed` is one."""

    def batches(self, topic: str, after: int, *, epoch: str | None = None, wait: int = 0) -> Batches: ...

    def files(
        self,
        topic: str,
        *,
        at: int | None = None,
        after: int | None = None,
        epoch: str | None = None,
        what: str | None = None,
    ) -> LiveFiles: ...

    def place(self, topic: str) -> tuple[str, int]: ...


def next_change(
    feed: Source,
    topic: str,
    cursor: Cursor | None,
    *,
    start: str = "snapshot",
    mirror_expiry: bool = False,
    wait: int = 0,
    most_bytes: int = 10**9,
) -> Change | None:
    """What comes after `cursor` (None: nothing was ever loaded); None: there is nothing more.

    A run of commits ends before its files exceed `most_bytes`, but has one commit at least. `start` and `mirror_expiry`
    are what the loader was registered with; `wait` is the long poll's, in seconds.
    """
    if cursor is None:
        return (
            of_snapshot(feed.files(topic, what="rows"), None)
            if start == "snapshot"
            else of_start(*feed.place(topic), start)
        )
    try:
        page = feed.batches(topic, cursor.sequence, epoch=cursor.epoch, wait=wait)
        return of_run(_up_to(page.commits, most_bytes), cursor, mirror_expiry)
    except Behind as gone:
        live = feed.files(topic, at=gone.sequence, after=cursor.sequence, epoch=cursor.epoch, what="rows")
        return of_gap(live, cursor, mirror_expiry)
    except EpochMoved as moved:
        if not deleted_beyond(moved, cursor):
            return of_epoch(moved, cursor, None)
        try:
            return of_epoch(moved, cursor, feed.files(topic, at=moved.common, epoch=moved.epoch))
        except Gone:  # the objects of that state are gone as well
            return of_snapshot(feed.files(topic, what="rows"), cursor)
    except StartAnew:
        return of_snapshot(feed.files(topic, what="rows"), cursor)


def of_run(commits: Sequence[Commit], before: Cursor, mirror_expiry: bool) -> Change | None:
    """A run of commits as one change. Raises `FeedError` at a gap, and at a kind of which nobody told this loader."""
    rows: list[File] = []
    deletes: list[File] = []
    cursor = before
    for commit in commits:
        if commit.sequence != cursor.sequence + 1:
            raise FeedError(
                f"The feed has a gap: {commit.sequence} follows {cursor.sequence}. Nothing was loaded."
            )
        if commit.kind not in ("append", "replace", "rewrite", "expire", "erase"):
            if cursor is before:
                raise FeedError(
                    f"Commit {commit.sequence} is of the kind {commit.kind}, which this loader does not know. It stops "
                    "here, the table is right up to the commit before; go on with a newer version."
                )
            break  # what stands before it is loaded first
        named = () if commit.kind == "expire" and not mirror_expiry else _of(commit.add, "deletes")
        deletes += named
        if commit.kind in ("append", "rewrite"):
            rows += _of(commit.add, "rows")
        newest = commit.sequence if named else cursor.deletes
        cursor = replace(cursor, sequence=commit.sequence, deletes=newest)
    return None if cursor is before else Change(before, cursor, tuple(rows), tuple(deletes))


def of_gap(live: LiveFiles, before: Cursor, mirror_expiry: bool) -> Change:
    """Being behind: on to the live files as of a later sequence, which were asked for with `after`."""
    deletes = tuple(file for file in _of(live.files, "deletes") if mirror_expiry or file.kind != "expire")
    newest = max([before.deletes, *(file.sequence for file in deletes)])
    cursor = Cursor(before.epoch, live.sequence, newest)
    return Change(before, cursor, _of(live.files, "rows"), deletes, above=before.sequence)


def deleted_beyond(moved: EpochMoved, before: Cursor) -> bool:
    """Whether rows left the table by commits that the new life of the catalogue does not know."""
    return before.sequence > moved.common and before.deletes > moved.common


def of_epoch(moved: EpochMoved, before: Cursor, live: LiveFiles | None) -> Change:
    """Another epoch. `live`: the files as of `moved.common`, needed when `deleted_beyond` says so."""
    if live is None:
        cursor = Cursor(moved.epoch, moved.cursor, before.deletes)
        return Change(before, cursor, kept=moved.positions, newest=moved.cursor)
    named = tuple(file for file in live.files if file.what != "deletes")
    # As if something had been deleted just there: a third life that branches off earlier must not trust this table.
    cursor = Cursor(moved.epoch, moved.common, moved.common)
    rows = _of(live.files, "rows")
    return Change(before, cursor, rows, named, kept=moved.positions, newest=moved.common)


def of_snapshot(live: LiveFiles, before: Cursor | None) -> Change:
    """An empty table and all live rows."""
    # What was deleted before a snapshot is not in it: another epoch must repair that too.
    return Change(
        before, Cursor(live.epoch, live.sequence, live.sequence), _of(live.files, "rows"), empty=True
    )


def of_start(epoch: str, sequence: int, start: str) -> Change:
    """An empty table, before the first commit ("earliest") or where the loader was registered ("now")."""
    first = sequence if start == "now" else 0
    return Change(None, Cursor(epoch, first, first), empty=True)


def _of(files: Iterable[File], what: str) -> tuple[File, ...]:
    return tuple(file for file in files if file.what == what)


def _up_to(commits: Sequence[Commit], most_bytes: int) -> Sequence[Commit]:
    """The first commits whose files are within `most_bytes`, but one at least."""
    size = 0
    for index, commit in enumerate(commits):
        size += sum(file.bytes for file in commit.add)
        if index and size > most_bytes:
            return commits[:index]
    return commits
