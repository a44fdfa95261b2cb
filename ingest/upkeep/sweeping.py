"""The sweep at work: asks the store, the API and the clocks, and deletes what `sweep.py` lets go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ingest.catalog import Catalog
from ingest.lake import Lake, LakeRefused, LakeUnavailable, Upload
from ingest.position import time_from_text
from ingest.settings import duration_us
from ingest.upkeep.catalogue import Copy, copies_of
from ingest.upkeep.sweep import Clocks, check_catalogue, left_uploads, orphans, sweepable

log = logging.getLogger(__name__)

MARKED_AT_ONCE = 1_000
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

    async def sweep(self, topic: Mapping[str, Any], *, dry: bool = False) -> Swept:
        """Deletes what may go. Raises ClocksApart, CatalogueStrange: then nothing was deleted."""
        name, safe_age_us = topic["topic"], duration_us(topic["settings"]["safe_age"])
        clocks = await self._clocks(name)
        clocks.check()
        await self._check_catalogue(topic)
        copied = topic["sequence"] if dry else await self.copy.keep(name)
        swept = Swept()
        marked = await self._removed(name, copied, clocks, swept, dry)
        await self._orphans(name, marked, clocks, safe_age_us, swept, dry)
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
        name = topic["topic"]
        copies = await asyncio.to_thread(copies_of, self.lake, name)
        answer = await self.catalog.copy(name, topic["sequence"], state=True)
        if answer is not None:
            known = {each["epoch"] for each in answer["state"]["epochs"]}
            check_catalogue(name, copies, known, answer["epoch"], answer["head"])

    async def _removed(self, name: str, copied: int, clocks: Clocks, swept: Swept, dry: bool) -> set[str]:
        """Sweeps removed files; returns those marked before, whose objects may still be there: a process died."""
        prefix = self.lake.url("")
        removed = await self.catalog.removed(name, self._from.get(name, 0))
        left = [file for file in removed if file["swept_at"] is None]
        first = min((file["removed_sequence"] for file in left), default=None)
        if first is not None:
            self._from[name] = first - 1
        chosen = sweepable(left, prefix, name, copied, clocks)
        if dry:
            swept.removed += [file["url"] for file in chosen]
        for begin in range(0, 0 if dry else len(chosen), MARKED_AT_ONCE):
            some = chosen[begin : begin + MARKED_AT_ONCE]
            # Marked first: the feed answers 410 from then on, and a reader never meets an object that is half gone.
            urls = await self.catalog.swept(name, [file["id"] for file in some])
            if urls is None:
                break
            await asyncio.to_thread(self.lake.delete, urls)
            swept.removed += urls
        return {file["url"] for file in removed if file["swept_at"] is not None}

    async def _orphans(
        self, name: str, marked: set[str], clocks: Clocks, safe_age_us: int, swept: Swept, dry: bool
    ) -> None:
        prefix = self.lake.url("")
        for folder in _FOLDERS:
            key = f"{folder}/{name}/"
            found = await asyncio.to_thread(list, self.lake.objects(key))
            old = list(orphans(found, prefix, name, clocks, safe_age_us))
            named = await self.catalog.named(name, [each.url for each in old]) if old else set()
            chosen = [each for each in old if each.url not in named]
            halves = [each.url for each in found if each.url in marked]
            begun = left_uploads(await self._uploads(key), prefix, name, clocks, safe_age_us)
            swept.orphans += [each.url for each in chosen]
            swept.bytes += sum(each.bytes for each in chosen)
            swept.removed += halves
            for upload in begun:
                swept.uploads.append(upload.url)
                if not dry:
                    await asyncio.to_thread(self.lake.abort, upload)
            if not dry:
                await asyncio.to_thread(self.lake.delete, [*(each.url for each in chosen), *halves])

    async def _uploads(self, key: str) -> list[Upload]:
        try:
            return await asyncio.to_thread(list, self.lake.uploads(key))
        except (LakeRefused, LakeUnavailable) as error:
            log.warning("multipart uploads are not looked at: %s", error)
            return []
