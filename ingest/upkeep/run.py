"""`tukang upkeep`: goes round the topics and does what is due. Any number of such processes may run beside each other:
who comes second finds that a file is not live any more, and plans anew.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import time
from typing import Any

from ingest.catalog import Catalog, CatalogUnavailable, CommitRefused
from ingest.encode import PERIOD_US
from ingest.lake import Lake, LakeUnavailable
from ingest.position import time_from_text
from ingest.schema import TopicSchema
from ingest.service import catalog_of, lake_of, wait_for
from ingest.settings import Settings, duration_us, size_bytes
from ingest.upkeep.plan import LiveFile, PeriodState, SealRules, plan
from ingest.upkeep.seal import Sealer

log = logging.getLogger(__name__)

ROUND_S = 15.0
MOST_FRESH = 200  # fresh files of a topic before those of open periods are merged too
FOLD_S = 3600.0  # between two looks at what of a topic's history is to be folded
MOST_FILES = 16  # times the size of a file: what one merge takes


class Upkeep:
    """One upkeep process."""

    def __init__(self, settings: Settings, lake: Lake, catalog: Catalog) -> None:
        self.catalog = catalog
        self.refused: dict[str, str] = {}  # topic -> why its work was refused: a defect, not tried again
        self.folded_at: dict[str, float] = {}  # topic -> when this process asked last
        self.sealer = Sealer(
            catalog,
            lake,
            now_us,
            secrets.randbits,
            settings.name,
            memory=int(settings.memory) // 2,
            threads=os.cpu_count() or 1,
        )

    async def round(self) -> int:
        """Once over all topics; returns how many commits it made."""
        done = 0
        async for topic in self.catalog.topics():
            name = topic["topic"]
            await self.fold(name)
            if name in self.refused or not topic["files"]:
                continue
            try:
                while await self.seal(name):
                    done += 1
            except CommitRefused as refused:
                self.refused[name] = str(refused)
                log.error(
                    "topic %s: upkeep made a commit that breaks a law, and leaves it alone: %s", name, refused
                )
        return done

    async def fold(self, name: str) -> None:
        """History that is old enough becomes a line a day; what that is, the API decides."""
        now = time.monotonic()
        if now - self.folded_at.get(name, -FOLD_S) < FOLD_S:
            return
        self.folded_at[name] = now
        if folded := await self.catalog.fold(name):
            log.info("topic %s: %d commits are folded", name, folded)

    async def seal(self, name: str) -> bool:
        """One replace of a topic, if one is due."""
        topic = await self.catalog.topic(name)
        values = topic["settings"]
        period_us = PERIOD_US[values["period"]]
        file_bytes = size_bytes(values["file_bytes"])
        rules = SealRules(period_us, duration_us(values["grace"]), file_bytes * MOST_FILES, MOST_FRESH)
        periods = [
            PeriodState(start, each["state"], time_from_text(each.get("reopened_at")))
            for each in await self.catalog.periods(name)
            if (start := time_from_text(each["start"])) is not None
        ]
        listed = await self.catalog.files(name, topic["sequence"], None)
        files = [LiveFile.from_json(name, file, period_us) for file in listed]
        work = plan(files, periods, rules, now_us())
        if work is None:
            return False
        schema = (
            TopicSchema.from_json(await self.catalog.schema(name))
            if topic["schema_version"]
            else TopicSchema()
        )
        return await self.sealer.replace(
            name, topic["epoch"], work, schema, period_us=period_us, file_bytes=file_bytes
        )


def now_us() -> int:
    """This process's clock: for waiting only; what is due is the API's to say."""
    return time.time_ns() // 1000


async def serve(settings: Settings, *, once: bool = False) -> None:
    """Goes round until SIGTERM; `once`: until nothing is due. Raises one of `service.REFUSALS`."""
    lake, catalog = lake_of(settings), catalog_of(settings)
    await wait_for("the object store", lambda: asyncio.to_thread(lake.check), LakeUnavailable)
    await wait_for("the API", catalog.check, CatalogUnavailable)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    upkeep = Upkeep(settings, lake, catalog)
    going = asyncio.ensure_future(_rounds(upkeep, once))
    ending = asyncio.ensure_future(stopped.wait())
    await asyncio.wait({going, ending}, return_when=asyncio.FIRST_COMPLETED)
    ending.cancel()
    if not going.done():
        going.cancel()  # what was put and not committed is nobody's, and swept later
        await asyncio.wait({going})
    await catalog.close()
    if not going.cancelled():
        going.result()


async def _rounds(upkeep: Upkeep, once: bool) -> None:
    while True:
        done: Any = await upkeep.round()
        if once and not done:
            return
        if not done:
            await asyncio.sleep(ROUND_S)
