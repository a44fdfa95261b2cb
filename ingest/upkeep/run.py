"""`tukang upkeep`: goes round the topics and does what is due. Any number of such processes share the topics by claims:
who comes second finds that a file is not live any more, and plans anew.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import time
from dataclasses import dataclass
from typing import Any

import duckdb

from ingest.catalog import Answer, Catalog, CommitConflict, CommitRefused
from ingest.encode import PERIOD_US
from ingest.lake import Lake, LakeDamaged, LakeMissing
from ingest.parties import both_there, catalog_of, lake_of
from ingest.position import time_from_text, time_to_text
from ingest.schema import TopicSchema
from ingest.scratch import remove_left
from ingest.settings import LakeSettings, duration_us, size_bytes
from ingest.upkeep.catalogue import Copy
from ingest.upkeep.claims import CLAIM_S, Claims
from ingest.upkeep.expire import Expirer, covers, portions
from ingest.upkeep.live import live_document, write_live
from ingest.upkeep.merge import most_files
from ingest.upkeep.plan import LiveFile, PeriodState, SealRules, plan
from ingest.upkeep.seal import Sealer
from ingest.upkeep.sweep import CatalogueStrange, ClocksApart
from ingest.upkeep.sweeping import Sweeper, Swept

log = logging.getLogger(__name__)

MOST_FRESH = 200  # small fresh files of a topic before those of open periods are merged too
SMALL_PART = 256  # of a file's size: 1 MB by default
EXPIRE_S = 300.0  # the API looks at every live file for it
REST_S = 300.0  # of a topic that cannot be sealed
FOLD_S = 3600.0  # between two looks at what of a topic's history is to be folded
MOST_TIMES = 16  # the size of a file: what one merge takes


@dataclass(frozen=True, slots=True)
class Pace:
    """How often it looks and does what, and how long a claim outlives the process that held it. All in seconds."""

    round_s: float = 15.0
    claim_s: int = CLAIM_S
    copy_s: float = 120.0  # the lake's copy of the catalogue is at most five minutes behind
    sweep_s: float = 900.0
    list_s: float = 21_600.0  # what no commit names is a day old before it may go


class Upkeep:
    """One upkeep process."""

    def __init__(self, settings: LakeSettings, lake: Lake, catalog: Catalog, pace: Pace) -> None:
        self.catalog = catalog
        self.lake = lake
        self.pace = pace
        self._last: dict[tuple[str, str], float] = {}  # (what, topic) -> when, by the monotonic clock
        self._rests: dict[str, float] = {}  # topic -> until when it is not sealed, by the monotonic clock
        self.refused: dict[str, str] = {}  # topic -> why its work was refused: a defect, not tried again
        self.claims = Claims(catalog, f"{settings.name}/{secrets.token_hex(6)}", pace.claim_s)
        self.sealer = Sealer(
            catalog,
            lake,
            now_us,
            secrets.randbits,
            settings.name,
            memory=int(settings.memory) // 2,
            threads=os.cpu_count() or 1,
        )
        self.expirer = Expirer(lake, now_us, secrets.randbits, settings.name)
        self.copy = Copy(lake, catalog)
        self.sweeper = Sweeper(lake, catalog, self.copy, now_us, self.claims.holder)

    async def round(self) -> int:
        """Once over all topics; returns how many commits it made."""
        done = 0
        async for topic in self.catalog.topics():
            name = topic["topic"]
            if name in self.refused or not topic["sequence"]:
                continue
            try:
                async with self.claims.topic(name) as ours:
                    done += await self.tend(name) if ours else 0
            except CommitRefused as refused:
                self.refused[name] = str(refused)
                log.error(
                    "topic %s: upkeep made a commit that breaks a law, and leaves it alone: %s", name, refused
                )
        return done

    async def names(self) -> list[str]:
        """All topics that have commits."""
        return [topic["topic"] async for topic in self.catalog.topics() if topic["sequence"]]

    async def tend(self, name: str) -> int:
        """All that is due for one topic; returns how many commits it made."""
        done = await self.seal_all(name)
        if self._due("expire", name, EXPIRE_S):
            done += len(await self.expire(name))
        if done:
            await self.write_live(name)
        if self._due("copy", name, self.pace.copy_s):
            await self.copy.keep(name)
        if self._due("sweep", name, self.pace.sweep_s):
            try:
                await self.sweep(name, listing=self._due("list", name, self.pace.list_s))
            except (ClocksApart, CatalogueStrange) as reason:
                log.error("%s", reason)
        if self._due("fold", name, FOLD_S):
            await self.fold(name)
        return done

    async def seal_all(self, name: str) -> int:
        """Makes every replace of a topic that is due; how many. What cannot be done here and now keeps nobody from the
        rest: it is said, and tried again later."""
        done = 0
        if time.monotonic() < self._rests.get(name, 0.0):
            return done
        try:
            while await self.seal(name):
                done += 1
        except (LakeMissing, LakeDamaged) as error:
            self._rest(name, f"{error}; `tukang verify {name}` says all that is gone or damaged; what is gone, or was "
                       "taken away by you, `tukang topics backfill` brings back from Kafka")  # fmt: skip
        except duckdb.OutOfMemoryException as error:
            self._rest(name, f"{str(error).splitlines()[0]}; TUKANG_MEMORY is too small for it")
        except OSError as error:
            self._rest(name, f"{error}; the temp folder (TMPDIR) wants room for twice a period's files")
        return done

    def _rest(self, name: str, why: str) -> None:
        self._rests[name] = time.monotonic() + REST_S
        log.error("topic %s: it cannot be sealed now, and is tried again in %.0f s: %s", name, REST_S, why)

    async def keep_copies(self) -> None:
        """Brings the copies of all topics up to date; beside the rounds, since a seal may take longer than a copy may
        be behind."""
        async for topic in self.catalog.topics():
            name = topic["topic"]
            if topic["sequence"] and self._due("copy", name, self.pace.copy_s):
                async with self.claims.topic(name, "copy") as ours:
                    if ours:
                        await self.copy.keep(name)

    def _due(self, what: str, topic: str, every_s: float) -> bool:
        now = time.monotonic()
        if now - self._last.get((what, topic), -every_s) < every_s:
            return False
        self._last[what, topic] = now
        return True

    async def expire(self, name: str, *, dry: bool = False) -> list[Answer]:
        """The files of a topic that expire now: taken out of the live set, unless it is a dry run."""
        page, files = await self.catalog.expired(name)
        if dry or not files:
            return files
        mirrored = any(
            loader["mirror_expiry"] and covers(loader["topics"], name)
            for loader in await self.catalog.loaders()
        )
        gone: list[Answer] = []
        for some in portions(files):
            commit = await asyncio.to_thread(
                self.expirer.commit_of, name, page["epoch"], some, mirrored=mirrored
            )
            try:
                answer = await self.catalog.commit(name, commit)
            except CommitConflict as conflict:
                log.info("topic %s: nothing expired: %s", name, conflict)
                break
            gone += some
            log.info("topic %s: sequence %d, %d files expired", name, answer["sequence"], len(some))
        return gone

    async def write_live(self, name: str) -> None:
        """Brings `live/TOPIC.json` up to the live files as they are now."""
        topic = await self.catalog.topic(name)
        page, files = await self.catalog.live(name)
        schema = await self.catalog.schema(name)
        written_at = time_to_text(now_us()) or ""
        document = live_document(
            name, page["epoch"], page["sequence"], files, schema, topic["complete_until"], written_at
        )
        await asyncio.to_thread(write_live, self.lake, document)

    async def sweep(self, name: str, *, dry: bool = False, listing: bool = True) -> Swept:
        """Deletes the objects of a topic that may go. What readers are told is live comes before it. `listing`: also
        looks for those that no commit names."""
        topic = await self.catalog.topic(name)
        if not dry:
            await self.write_live(name)
        return await self.sweeper.sweep(topic, dry=dry, listing=listing)

    async def fold(self, name: str) -> None:
        """History that is old enough becomes a line a day, once the lake has its copy. The API decides what."""
        await self.copy.keep(name)
        await self.copy.merge(name, (await self.catalog.topic(name))["epoch"])
        if folded := await self.catalog.fold(name):
            log.info("topic %s: %d commits are folded", name, folded)

    async def seal(self, name: str) -> bool:
        """One replace of a topic, if one is due."""
        topic = await self.catalog.topic(name)
        values = topic["settings"]
        period_us = PERIOD_US[values["period"]]
        file_bytes = size_bytes(values["file_bytes"])
        rules = SealRules(
            period_us=period_us,
            grace_us=duration_us(values["grace"]),
            most_bytes=file_bytes * MOST_TIMES,
            most_files=most_files(self.sealer.memory),
            full_bytes=file_bytes // 2,
            most_fresh=MOST_FRESH,
            small_bytes=file_bytes // SMALL_PART,
        )
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
        known = schema.arrow().names
        return await self.sealer.replace(
            name,
            topic["epoch"],
            work,
            schema,
            period_us=period_us,
            file_bytes=file_bytes,
            order_by=[column for column in values["sort_by"] if column in known],
        )


def now_us() -> int:
    """This process's clock: for waiting only; what is due is the API's to say."""
    return time.time_ns() // 1000


async def serve(settings: LakeSettings, *, once: bool = False, pace: Pace | None = None) -> None:
    """Goes round until SIGTERM; `once`: until nothing is due. Raises one of `service.REFUSALS`."""
    await asyncio.to_thread(remove_left)
    lake, catalog = lake_of(settings), catalog_of(settings)
    await both_there(lake, catalog)
    if await asyncio.to_thread(lake.versioned):
        log.warning("the bucket keeps versions: what is swept stays there, until a lifecycle rule ends it")
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    pace = pace or Pace()
    upkeep = Upkeep(settings, lake, catalog, pace)
    going = asyncio.ensure_future(_rounds(upkeep, once, pace.round_s))
    copying = asyncio.ensure_future(_copies(upkeep, pace.round_s))
    ending = asyncio.ensure_future(stopped.wait())
    await asyncio.wait({going, copying, ending}, return_when=asyncio.FIRST_COMPLETED)
    ending.cancel()
    working = {going, copying}
    left = working
    while left:  # one that just gives back its claim takes no notice of the first word
        for each in left:
            each.cancel()  # what was put and not committed is nobody's, and swept later
        _, left = await asyncio.wait(left, timeout=1)
    await catalog.close()
    for each in working:
        if not each.cancelled():
            each.result()


async def _copies(upkeep: Upkeep, round_s: float) -> None:
    while True:
        await upkeep.keep_copies()
        await asyncio.sleep(round_s)


async def _rounds(upkeep: Upkeep, once: bool, round_s: float) -> None:
    while True:
        done: Any = await upkeep.round()
        if once and not done:
            return
        if not done:
            await asyncio.sleep(round_s)
