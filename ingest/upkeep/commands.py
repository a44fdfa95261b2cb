"""`tukang expire` and `tukang sweep`: what upkeep does by itself, now and by hand, or said only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from ingest.catalog import CatalogRefused
from ingest.parties import catalog_of, lake_of
from ingest.scratch import remove_left
from ingest.settings import LakeSettings
from ingest.upkeep.run import Pace, Upkeep
from ingest.upkeep.sweep import CatalogueStrange, ClocksApart

SHOWN = 20


async def expire_now(settings: LakeSettings, topics: Sequence[str], *, dry: bool) -> list[str]:
    """A line for each topic: what expired, or would."""
    said = []
    async with by_hand(settings) as upkeep:
        for name in topics or await upkeep.names():
            async with upkeep.claims.topic(name) as ours:
                if not ours and not dry:
                    said.append(f"{name}: another process is at it; try again")
                    continue
                files = await upkeep.expire(name, dry=dry)
                if files and not dry:
                    await upkeep.write_live(name)
            rows = sum(file["rows"] for file in files)
            size = sum(file["bytes"] for file in files)
            verb = "would expire" if dry else "expired"
            said.append(f"{name}: {len(files)} files with {rows} rows, {size} bytes {verb}")
    return said


async def sweep_now(settings: LakeSettings, topics: Sequence[str], *, dry: bool) -> list[str]:
    """A line for each topic, and the first addresses: what was deleted, or would be."""
    said = []
    async with by_hand(settings) as upkeep:
        if await asyncio.to_thread(upkeep.lake.versioned):
            said.append(
                f"the bucket {settings.bucket} keeps versions: what is deleted stays as an older version, until a "
                "lifecycle rule of the bucket ends it (NoncurrentVersionExpiration)"
            )
        for name in topics or await upkeep.names():
            async with upkeep.claims.topic(name) as ours:
                if not ours and not dry:
                    said.append(f"{name}: another process is at it; try again")
                    continue
                try:
                    swept = await upkeep.sweep(name, dry=dry)
                except (ClocksApart, CatalogueStrange) as reason:
                    raise CatalogRefused(str(reason)) from reason
            verb = "would be deleted" if dry else "deleted"
            said.append(
                f"{name}: {len(swept.removed)} objects that left the lake, {len(swept.orphans)} that no commit names "
                f"({swept.bytes} bytes), {len(swept.uploads)} unfinished uploads {verb}"
            )
            urls = [*swept.removed, *swept.orphans, *swept.uploads] if dry else []
            said += [f"  {url}" for url in urls[:SHOWN]]
            said += [f"  and {len(urls) - SHOWN} more"] if len(urls) > SHOWN else []
    return said


@asynccontextmanager
async def by_hand(settings: LakeSettings) -> AsyncIterator[Upkeep]:
    """An upkeep that goes no rounds. Raises what `ingest.service.REFUSALS` says."""
    await asyncio.to_thread(remove_left)
    upkeep = Upkeep(settings, lake_of(settings), catalog_of(settings), Pace())
    try:
        await asyncio.to_thread(upkeep.lake.check)
        await upkeep.catalog.check()
        yield upkeep
    finally:
        await upkeep.catalog.close()
