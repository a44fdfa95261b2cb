"""Rules of the protocol, switched off one at a time, to show that the simulation bites.

A mutant takes one rule away and leaves all others; where the ledger's laws alone would notice, they are made to look
away, so that it is the proof over the records that has to find it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

from pyroaring import BitMap

from api import commits, laws
from ingest import lake_object, opening, part, publish, reorder, topic
from ingest.held import Held
from ingest.position import Position, no_offsets
from tests.simulation.process import SimulatedWorker
from tests.simulation.store import Store


@contextmanager
def _replaced(*places: tuple[Any, str, Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for owner, name, value in places:
            stack.enter_context(patch.object(owner, name, value))
        yield


def no_comparison() -> AbstractContextManager[None]:
    """Positions are not compared at all: whoever comes is taken."""
    return _replaced((commits, "_compare", lambda *_: None), (laws, "check_line", lambda *_: None))


def contents_compared() -> AbstractContextManager[None]:
    """Positions are compared by what they say, not by the commit that made them."""
    compare = commits._compare

    def by_contents(row: Any, request: Any, stored: Any) -> None:
        same = {
            line.lake_partition: line.from_version
            for line in request.lines
            for at in [stored.get(line.lake_partition)]
            if at is not None and (at.next, at.carried_count) == (line.from_offset, line.carried_in)
        }
        seen = {number: _WithVersion(at, same.get(number, at.version)) for number, at in stored.items()}
        compare(row, request, seen)

    return _replaced((commits, "_compare", by_contents))


class _WithVersion:
    """A row of the database that claims another version."""

    def __init__(self, row: Any, version: Any) -> None:
        self._row = row
        self.version = version
        self._mapping = {**row._mapping, "version": version}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._row, name)


def id_not_first() -> AbstractContextManager[None]:
    """A commit's id is not looked up before the versions are compared."""
    return _replaced((commits, "_first_answer", lambda *_: None))


def no_carried_set() -> AbstractContextManager[None]:
    """A worker that opens a partition goes on at `next` and knows of no carried offsets; nobody counts them."""
    from_json, check_line = Position.from_json, laws.check_line

    def forgetful(data: Any) -> Position:
        return dataclasses.replace(from_json(data), carried=no_offsets())

    def lenient(line: Any, stored: Any) -> None:
        if line.carried_in == 0:
            stored = dataclasses.replace(stored, carried=BitMap())
        check_line(line, stored)

    return _replaced((Position, "from_json", staticmethod(forgetful)), (laws, "check_line", lenient))


def memory_kept_at_conflict() -> AbstractContextManager[None]:
    """What is held is dropped at a 409, the memory of ids is not."""
    forget = topic.Topic._forget

    def keep(self: Any, parts: Any) -> Any:
        for each in parts.values():
            self.means.catalog.kept[self.name, each.held.base.lake_partition] = each.held.seen
        return forget(self, parts)

    def held(worker: Any, base: Position, start: int, seen: Any, now_us: int) -> Held:
        return Held(base, start, worker.get(base.lake_partition, seen), now_us)

    opened = opening._open

    async def open_with_memory(known: Any, sequence: int, positions: Any, *rest: Any) -> None:
        kept = known.means.catalog.kept
        memory = {
            p.lake_partition: kept[known.name, p.lake_partition]
            for p in positions
            if (known.name, p.lake_partition) in kept
        }
        with patch.object(opening, "Held", partial(held, memory)):
            await opened(known, sequence, positions, *rest)

    return _replaced((topic.Topic, "_forget", keep), (opening, "_open", open_with_memory))


def watermark_not_lowered() -> AbstractContextManager[None]:
    """A cut that leaves ready rows behind stores the computed watermark all the same."""
    return _replaced((reorder, "lowered", lambda watermark_us, stored_us, left_behind: watermark_us))


def start_not_checked() -> AbstractContextManager[None]:
    """A chunk is taken wherever it starts."""
    accept = SimulatedWorker._accept

    def blindly(self: Any, chunk: Any) -> None:
        part = self.part(chunk.topic, chunk.partition)
        if part is not None and chunk.error is None and chunk.positioning == part.positioning:
            part.expected = chunk.start
        accept(self, chunk)

    return _replaced((SimulatedWorker, "_accept", blindly))


def log_start_not_watched() -> AbstractContextManager[None]:
    """Carried rows stay carried, however near the log's start comes."""
    return _replaced((part, "endangered", lambda *_: False))


def names_used_again() -> AbstractContextManager[None]:
    """An object is named after its first row, and put over the one that has the name."""

    def put_one(self: Any, name: str, file: Any) -> dict[str, Any]:
        first = min(file.data.rows)
        key = publish.object_key(name, f"{first[0]:05d}-{first[1]:012d}", file.what, file.late)
        for attempt in lake_object.patiently():
            with attempt:
                put = self.lake.put(key, file.data, file.sha256)
        return dict(file.entry(put.url, put.modified_at))

    return _replaced((publish.Press, "_put_one", put_one), (Store, "overwrites", True))


MUTANTS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    each.__name__.replace("_", "-"): each
    for each in (
        no_comparison, contents_compared, id_not_first, no_carried_set, memory_kept_at_conflict,
        watermark_not_lowered, start_not_checked, log_start_not_watched, names_used_again,
    )
}  # fmt: skip
