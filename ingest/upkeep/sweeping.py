"""The sweep at work: asks the store, the API and the clocks, and deletes what `sweep.py` lets go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from ingest.catalog import Catalog
from ingest.lake import Lake, LakeRefused, LakeUnavailable, Upload
from ingest.position import time_from_text
from ingest.settings import duration_us
from ingest.upkeep.catalogue import Copy, copies_of
from ingest.upkeep.sweep import (
    CatalogueStrange,
    Clocks,
    check_catalogue,
    left_uploads,
    orphans,
    ours,
    sweepable,
)

log = logging.getLogger(__name__)

AT_ONCE = 1_000
_FOLDERS = ("fresh", "sealed", "dead_letters", "deletes")


@dataclass(slots=True)
class Swept:
    """What went, or in a dry run would go."""

    removed: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)
    bytes: int = 0  # of the orphans


@dataclass(frozen=True, slots=True)
class Sweeper:
    """Sweeps one topic at a time, under its claim."""

    lake: Lake
    catalog: Catalog
    copy: Copy
    now_us: Callable[[], int]
    holder: str
    _from: dict[str, int] = field(default_factory=dict)  # topic -> below which all removed files are swept
    _known: dict[str, tuple[str, set[str]]] = field(
        default_factory=dict
    )  # topic -> its epoch, and all before it

    async def sweep(self, topic: Mapping[str, Any], *, dry: bool = False, listing: bool = True) -> Swept:
        """Deletes what may go; without `listing` only removed files, and nothing of the topic is listed. Raises
        ClocksApart, CatalogueStrange: then nothing was deleted."""
        name, safe_age_us = topic["topic"], duration_us(topic["settings"]["safe_age"])
        clocks = await self._clocks(name)
        clocks.check()
        await self._check_catalogue(topic)
        copied = topic["sequence"] if dry else await self.copy.keep(name)
        swept = Swept()
        await self._removed(name, copied, clocks, swept, dry)
        for folder in _FOLDERS if listing else ():
            await self._listed(name, folder, clocks, safe_age_us, swept, dry)
        if not dry and (swept.removed or swept.orphans or swept.uploads):
            log.info(
                "topic %s: swept %d removed objects, %d that no commit names, %d uploads",
                name, len(swept.removed), len(swept.orphans), len(swept.uploads),
            )  # fmt: skip
        return swept

    async def _clocks(self, topic: str) -> Clocks:
        seconds = 60
        claimed = await self.catalog.claim(f"clock/{self.holder}", self.holder, seconds, topic)
        assert claimed is not None, "the piece has our own name"
        database_us = (time_from_text(claimed["expires_at"]) or 0) - seconds * 1_000_000
        return Clocks(await asyncio.to_thread(self.lake.now_us), database_us, self.now_us())

    async def _check_catalogue(self, topic: Mapping[str, Any]) -> None:
        name, epoch, head = topic["topic"], topic["epoch"], topic["sequence"]
        copies = await asyncio.to_thread(copies_of, self.lake, name, epoch, head)
        known = self._known.get(name)
        if known is None or known[0] != epoch or not copies.keys() <= known[1]:
            answer = await self.catalog.copy(name, head, state=True)
            if answer is None or answer["epoch"] != epoch:
                raise CatalogueStrange(
                    f"topic {name}: its epoch changes just now. Nothing is swept this time"
                )
            self._known[name] = known = (epoch, {each["epoch"] for each in answer["state"]["epochs"]})
        check_catalogue(name, copies, known[1], epoch, head)

    async def _removed(self, name: str, copied: int, clocks: Clocks, swept: Swept, dry: bool) -> None:
        """Sweeps removed files, a page at a time."""
        prefix, first = self.lake.url(""), None
        async for removed in self.catalog.removed(name, self._from.get(name, 0)):
            left = [file for file in removed if file["swept_at"] is None]
            first = min((file["removed_sequence"] for file in left), default=None) if first is None else first
            chosen = sweepable(left, prefix, name, copied, clocks)
            if dry:
                swept.removed += [file["url"] for file in chosen]
            elif chosen:
                # Marked first: the feed answers 410 from then on, and a reader never meets what is half gone.
                urls = await self.catalog.swept(name, [file["id"] for file in chosen])
                if urls is None:
                    break
                await asyncio.to_thread(self.lake.delete, urls)
                swept.removed += urls
        if first is not None:
            self._from[name] = first - 1

    async def _listed(
        self, name: str, folder: str, clocks: Clocks, safe_age_us: int, swept: Swept, dry: bool
    ) -> None:
        """Goes through what the store has, some at a time: objects that no commit names, those of which a process that
        died had said that they go, and uploads."""
        prefix, key = self.lake.url(""), f"{folder}/{name}/"
        listing = self.lake.objects(key)
        while some := await asyncio.to_thread(lambda: list(islice(listing, AT_ONCE))):
            own = [each for each in some if ours(prefix, name, each.url)]
            told = await self.catalog.named(name, [each.url for each in own])
            old = [
                each for each in orphans(own, prefix, name, clocks, safe_age_us) if each.url not in told.named
            ]
            halves = [each.url for each in own if each.url in told.swept]
            swept.orphans += [each.url for each in old]
            swept.bytes += sum(each.bytes for each in old)
            swept.removed += halves
            if not dry:
                await asyncio.to_thread(self.lake.delete, [*(each.url for each in old), *halves])
        for upload in left_uploads(await self._uploads(key), prefix, name, clocks, safe_age_us):
            swept.uploads.append(upload.url)
            if not dry:
                await asyncio.to_thread(self.lake.abort, upload)

    async def _uploads(self, key: str) -> list[Upload]:
        try:
            return await asyncio.to_thread(list, self.lake.uploads(key))
        except (LakeRefused, LakeUnavailable) as error:
            log.warning("multipart uploads are not looked at: %s", error)
            return []
