"""A store and a database whose clocks are a day ahead: what was put before the jump is old, what came since is new."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from ingest.lake import Found, Lake
from ingest.parties import catalog_of
from ingest.settings import Settings
from ingest.upkeep.catalogue import Copy
from ingest.upkeep.sweeping import Sweeper, Swept

AHEAD_US = 25 * 3_600_000_000


def now_us() -> int:
    return time.time_ns() // 1000 + AHEAD_US


class StoreOfTomorrow(Lake):
    """The store; objects named (by their UUIDv7) since the jump have tomorrow's age."""

    jump_us = 0

    def now_us(self) -> int:
        return super().now_us() + AHEAD_US

    def objects(self, key: str, after: str = "") -> Iterator[Found]:
        for found in super().objects(key, after):
            stem = found.url.rpartition("/")[2][:36].replace("-", "")
            named_us = int(stem[:12], 16) * 1000 if len(stem) == 32 and stem.isalnum() else 0
            ahead = AHEAD_US if named_us >= self.jump_us else 0
            yield Found(found.url, found.bytes, found.modified_us + ahead)


async def sweep_once(settings: Settings, topic: str, jump_us: int, *, dry: bool = False) -> Swept:
    """One sweep of a topic, by the clocks of tomorrow."""
    lake = StoreOfTomorrow(settings.bucket, settings.prefix, endpoint=settings.s3_endpoint)
    lake.jump_us = jump_us
    catalog = catalog_of(settings)
    try:
        sweeper = Sweeper(lake, catalog, Copy(lake, catalog), now_us, "sweep")
        return await sweeper.sweep(await catalog.topic(topic), dry=dry)
    finally:
        await catalog.close()


def sweep_for_ever(settings: dict[str, Any], topic: str, jump_us: int) -> None:
    """In a process of its own, until it is killed."""

    async def run() -> None:
        while True:
            await sweep_once(Settings(**settings), topic, jump_us)

    asyncio.run(run())
