"""`tukang erase` and `tukang verify --erased`: from the rule to the signed record, and the proof by looking."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from ingest.catalog import Answer, CommitConflict
from ingest.encode import PERIOD_US
from ingest.parties import lake_of
from ingest.settings import LakeSettings
from ingest.upkeep.commands import by_hand
from ingest.upkeep.erase import Erased, Eraser, Hits, holding, portions
from ingest.upkeep.matching import Wanted, WhereWrong, not_a_column, parse_where
from ingest.upkeep.run import Upkeep

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 1.0


class NotFinished(Exception):
    """Not all that Kafka had is in the lake yet; what was there is erased, and the same command goes on later."""


def wanted_of(where: str | None, field: str | None, keys: Path | None) -> Wanted:
    """What the command line asks for. Raises WhereWrong."""
    if where is not None and field is None and keys is None:
        return parse_where(where)
    if where is not None or field is None or keys is None:
        raise WhereWrong("say --where FIELD=VALUE, or --field FIELD with --keys FILE")
    values = tuple(dict.fromkeys(line for line in keys.read_text().splitlines() if line))
    if not values:
        raise WhereWrong(f"{keys} has no values")
    return Wanted(tuple(field.split(".")), values)


async def erase_now(
    settings: LakeSettings, topic: str, wanted: Wanted, *, dry: bool, wait_s: float
) -> list[str]:
    """Lines to print. Raises NotFinished, and what `ingest.service.REFUSALS` says."""
    async with by_hand(settings) as upkeep:
        eraser = Eraser(upkeep.lake, upkeep.expirer.now_us, upkeep.expirer.randbits, settings.name)
        columns = (await upkeep.catalog.schema(topic))["columns"]
        if warning := not_a_column(columns, wanted):
            log.warning("%s: %s", topic, warning)
        if dry:
            _, files = await upkeep.catalog.live(topic)
            return _foreseen(topic, await asyncio.to_thread(eraser.scan, files, wanted))
        deadline = time.monotonic() + wait_s
        while True:
            async with upkeep.claims.topic(topic) as ours:
                if ours:
                    return await _Erasing(upkeep, eraser, topic, wanted, deadline).run()
            if time.monotonic() > deadline:
                raise NotFinished(f"{topic}: another process is at it; nothing was erased, try again")
            await asyncio.sleep(LOOK_AGAIN_S)


def _foreseen(topic: str, found: Sequence[Hits]) -> list[str]:
    rows = sum(each.rows for each in found if each.file["what"] == "rows")
    dead = sum(each.rows for each in found if each.file["what"] != "rows")
    size = sum(each.file["bytes"] for each in found)
    return [
        f"{topic}: {rows} rows and {dead} dead letters in {len(found)} files ({size} bytes) would be erased"
    ]


class _Erasing:
    """One erasure of one topic, under its claim."""

    def __init__(self, upkeep: Upkeep, eraser: Eraser, topic: str, wanted: Wanted, deadline: float) -> None:
        self._upkeep, self._eraser = upkeep, eraser
        self._topic, self._wanted, self._deadline = topic, wanted, deadline
        self._clean: set[int] = set()
        self._done: list[Erased] = []
        self._sequences: list[int] = []

    async def run(self) -> list[str]:
        catalog = self._upkeep.catalog
        begun = await catalog.begin_erasure(self._topic, self._wanted.field, self._wanted.values)
        await self._upkeep.copy.keep(self._topic, state=True)  # a rebuild keeps the rule
        while True:
            # Asked before the scan: what is covered now is in the files that are listed afterwards.
            covered = not (await catalog.erasure(self._topic, begun["id"]))["uncovered"]
            page, files = await catalog.live(self._topic)
            left = [file for file in files if file["id"] not in self._clean]
            found = await asyncio.to_thread(self._eraser.scan, left, self._wanted)
            hit = {each.file["id"] for each in found}
            self._clean |= {file["id"] for file in left} - hit
            for some in portions(found):
                await self._commit(page["epoch"], some)
            if found:
                await self._upkeep.write_live(self._topic)
            elif covered:
                ended = await self._finish(begun["id"], page["sequence"])
                # A rebuild must not bring back what is erased, and it keeps the record.
                await self._upkeep.copy.keep(self._topic, state=True)
                return self._said(ended)
            elif time.monotonic() > self._deadline:
                raise NotFinished(
                    f"{self._topic}: {self._rows()} rows are erased, but some of what Kafka had is not in the lake yet "
                    "(held back, or not read). Run the same command again when the topic has caught up"
                )
            else:
                await asyncio.sleep(LOOK_AGAIN_S)

    async def _commit(self, epoch: str, found: Sequence[Hits]) -> None:
        topic = await self._upkeep.catalog.topic(self._topic)
        erased = await asyncio.to_thread(
            lambda: self._eraser.commit_of(
                self._topic, epoch, found, self._wanted,
                period_us=PERIOD_US[topic["settings"]["period"]], schema_version=topic["schema_version"],
            )
        )  # fmt: skip
        try:
            answer = await self._upkeep.catalog.commit(self._topic, erased.commit)
        except CommitConflict:
            return  # a file is not live any more: scanned anew
        self._done.append(erased)
        self._sequences.append(answer["sequence"])

    async def _finish(self, number: int, scanned: int) -> Answer:
        done = {
            "scanned": scanned,
            "commits": self._sequences,
            "files": [url for each in self._done for url in each.files],
            "rows": self._rows(),
            "dead_letters": sum(each.dead_letters for each in self._done),
        }
        return await self._upkeep.catalog.finish_erasure(self._topic, number, done)

    def _rows(self) -> int:
        return sum(each.rows for each in self._done)

    def _said(self, ended: Answer) -> list[str]:
        record = ended["record"]
        behind = [each["name"] for each in record["loaders"]]
        files = len(record["files"])
        return [
            f"{self._topic}: {record['rows']} rows and {record['dead_letters']} dead letters erased from {files} files",
            "the old objects go with the sweep, after read_grace",
            f"loaders that have not passed it, or keep rows beyond expiry: {', '.join(behind) or 'none'}",
            json.dumps(
                {"record": record, "signature": ended["signature"], "public_key": ended["public_key"]},
                sort_keys=True,
            ),
        ]


def verify_erased(settings: LakeSettings, topic: str | None, where: str) -> tuple[list[str], int]:
    """Lines and exit code: 0 no object of the topic that the store lists, nor version of one, holds the value."""
    if topic is None:
        raise WhereWrong("--erased needs a topic")
    lake = lake_of(settings)
    lake.check()
    found = list(holding(lake, topic, parse_where(where)))
    lines = [f"{url}{f' version {version}' if version else ''} holds it" for url, version in found]
    if found:
        lines.append(
            f"{len(found)} objects of {topic} still hold it: live ones want `tukang erase`, the others go with the "
            "sweep (after read_grace), versions with a lifecycle rule of the bucket"
        )
    else:
        lines.append(
            f"erased: no object of {topic}, nor a version that the store lists, holds it in a column or in text"
        )
    return lines, 1 if found else 0
