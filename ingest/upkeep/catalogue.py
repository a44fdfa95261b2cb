"""The catalogue's copy in the lake: `catalog/TOPIC/EPOCH/`, from which `tukang rebuild` makes a lost database again.

`state.json.gz` says what stands beside the commits (schemas, settings, lake partitions), and is written first; then
come the commits, as objects named by the sequences in them, so that the order of a listing is theirs. What the objects
say is the API's own; here it is only carried.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ingest.catalog import Answer, Catalog
from ingest.lake import Lake, patiently
from ingest.lake_object import got

log = logging.getLogger(__name__)

STATE = "state.json.gz"
COMMITS = 1_000  # of one object, at most
FEW = 50  # small objects that are left as they are
_CHUNK = re.compile(r"catalog/(?P<topic>[^/]+)/(?P<epoch>[^/]+)/(?P<first>\d{18})-(?P<last>\d{18})\.json\.gz")
_STATE = re.compile(r"catalog/(?P<topic>[^/]+)/(?P<epoch>[^/]+)/state\.json\.gz")


@dataclass(frozen=True, slots=True)
class Copied:
    """How far the copy of a topic goes."""

    epoch: str
    sequence: int


@dataclass(slots=True)
class Copy:
    """Keeps the copies of topics. What it remembers may be behind what another process wrote: then it writes again."""

    lake: Lake
    catalog: Catalog
    known: dict[str, Copied] = field(default_factory=dict)
    _one: asyncio.Lock = field(default_factory=asyncio.Lock)  # the rounds and the copying meet here

    async def keep(self, topic: str, *, state: bool = False) -> int:
        """Brings the copy of a topic up to its head; returns the sequence that it holds now. `state`: what stands
        beside the commits is written also when there is no new one."""
        async with self._one:
            return await self._keep(topic, state)

    async def _keep(self, topic: str, state: bool) -> int:
        answer = await self._more(topic)
        head, epoch = answer["head"], answer["epoch"]
        if self.known[topic].sequence >= head:
            if state:
                await self._write(f"catalog/{topic}/{epoch}/{STATE}", answer["state"])
            return int(head)
        folder = f"catalog/{topic}/{epoch}"
        await self._write(f"{folder}/{STATE}", answer["state"])
        while commits := [each for each in answer["commits"] if each["sequence"] <= head]:
            first, last = commits[0]["sequence"], commits[-1]["sequence"]
            await self._write(f"{folder}/{first:018d}-{last:018d}.json.gz", commits)
            self.known[topic] = Copied(epoch, last)
            more = await self.catalog.copy(topic, last)
            if last >= head or more is None or more["epoch"] != epoch:
                break
            answer = more
        return self.known[topic].sequence

    async def merge(self, topic: str, epoch: str) -> int:
        """Makes one object of many small ones that follow each other; how many went. Killed anywhere, nothing is lost:
        what says the same twice is read once."""
        chunks = [
            (int(each["first"]), int(each["last"]), each[0])
            for each in await asyncio.to_thread(lambda: list(_chunks(self.lake, topic, epoch)))
        ]
        gone = 0
        for some in mergeable(chunks):
            entries: dict[int, Any] = {}
            for _, _, key in some:
                content = await asyncio.to_thread(got, self.lake, self.lake.url(key))
                entries |= {each["sequence"]: each for each in json.loads(gzip.decompress(content))}
            first, last = some[0][0], some[-1][1]
            if list(entries) != list(range(first, last + 1)):
                log.warning("topic %s: the copy of its catalogue has not all of %d to %d", topic, first, last)
                continue
            merged = f"catalog/{topic}/{epoch}/{first:018d}-{last:018d}.json.gz"
            await self._write(merged, list(entries.values()))
            await asyncio.to_thread(self.lake.delete, [self.lake.url(key) for _, _, key in some])
            gone += len(some)
        return gone

    async def _more(self, topic: str) -> Answer:
        """What is to be written: the state, and commits behind those that the copy has."""
        known = self.known.get(topic)
        if known is not None:
            answer = await self.catalog.copy(topic, known.sequence, state=True)
            if answer is not None and answer["epoch"] == known.epoch:
                return answer
        # Another life is written whole, under its own name: one folder alone is enough for a rebuild.
        while True:
            answer = await self.catalog.copy(topic, 0)
            assert answer is not None, "no head is below 0"
            epoch = answer["epoch"]
            reached = await asyncio.to_thread(self._reaches, topic, epoch, answer["head"])
            self.known[topic] = Copied(epoch, reached)
            answer = await self.catalog.copy(topic, reached, state=True)
            if answer is not None and answer["epoch"] == epoch:
                return answer

    def _reaches(self, topic: str, epoch: str, head: int) -> int:
        """How far the copy of an epoch goes without a gap, by its listing."""
        reached = 0
        for chunk in _chunks(self.lake, topic, epoch):
            # What was folded before the first chunk is in the state.
            if reached == 0 or int(chunk["first"]) <= reached + 1:
                reached = max(reached, int(chunk["last"]))
        return min(reached, head)

    async def _write(self, key: str, content: Any) -> None:
        def write() -> None:
            data = gzip.compress(json.dumps(content, separators=(",", ":")).encode(), 6, mtime=0)
            for attempt in patiently():
                with attempt:
                    self.lake.write(key, data, "application/gzip")

        await asyncio.to_thread(write)


def copies_of(lake: Lake, topic: str, epoch: str, head: int) -> dict[str, int]:
    """Epochs of which the lake has a copy of a topic's catalogue: the sequence that it goes to of the one given, if it
    is near `head` or beyond, else 0. Whatever the copy's size, a page or two of its listing are asked for."""
    found = dict.fromkeys(lake.folders(f"catalog/{topic}/"), 0)
    if epoch in found:
        near = f"catalog/{topic}/{epoch}/{max(0, head - COMMITS):018d}"
        found[epoch] = max((int(each["last"]) for each in _chunks(lake, topic, epoch, near)), default=0)
    return found


def mergeable(chunks: Iterable[tuple[int, int, str]]) -> Iterator[list[tuple[int, int, str]]]:
    """Runs of objects (first sequence, last, key; in order) that follow each other and would make one of at most
    COMMITS commits. Short runs wait for more."""
    run: list[tuple[int, int, str]] = []
    for chunk in chunks:
        if run and (chunk[0] != run[-1][1] + 1 or chunk[1] - run[0][0] >= COMMITS):
            if len(run) > FEW or run[-1][1] - run[0][0] >= COMMITS // 2:
                yield from [run] if len(run) > 1 else []
            run = []
        run.append(chunk)
    if len(run) > FEW:
        yield run


@dataclass(frozen=True, slots=True)
class Kept:
    """The copy of a topic: its state, and its commits in order from the first that was not folded."""

    topic: str
    epoch: str
    state: Mapping[str, Any]
    commits: list[Mapping[str, Any]]


def read_copies(lake: Lake) -> Iterator[Kept]:
    """The copies of all topics, each of the epoch whose copy goes furthest, the newest if several do."""
    states: dict[str, dict[str, int]] = {}
    for found in lake.objects("catalog/"):
        if match := _STATE.search(found.url.removeprefix(lake.url(""))):
            states.setdefault(match["topic"], {})[match["epoch"]] = found.modified_us
    for topic, epochs in sorted(states.items()):
        kept = [(_read(lake, topic, epoch), modified_us) for epoch, modified_us in epochs.items()]
        yield max(kept, key=lambda each: (_life(each[0]), each[1]))[0]


def _life(kept: Kept) -> int:
    """How many epochs the state knows: the newest life knows all that were before it."""
    return len(kept.state["epochs"])


def _read(lake: Lake, topic: str, epoch: str) -> Kept:
    state = json.loads(gzip.decompress(got(lake, lake.url(f"catalog/{topic}/{epoch}/{STATE}"))))
    commits: list[Mapping[str, Any]] = []
    for chunk in _chunks(lake, topic, epoch):
        reached = commits[-1]["sequence"] if commits else 0
        if int(chunk["last"]) <= reached:
            continue
        if reached and int(chunk["first"]) > reached + 1:
            break
        entries = json.loads(gzip.decompress(got(lake, lake.url(chunk[0]))))
        commits += [entry for entry in entries if entry["sequence"] > reached]
    return Kept(topic, epoch, state, commits)


def _chunks(lake: Lake, topic: str, epoch: str, after: str = "") -> Iterator[re.Match[str]]:
    for found in lake.objects(f"catalog/{topic}/{epoch}/", after):
        if match := _CHUNK.fullmatch(found.url.removeprefix(lake.url(""))):
            yield match
