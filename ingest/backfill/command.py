"""`tukang topics backfill`: from words on the command line to what is read again, with the report of what differs."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from ingest.backfill.again import Source, reading
from ingest.backfill.run import Backfill, BackfillRefused, Filled
from ingest.broker import TopicIds
from ingest.inquiry import Inquiry
from ingest.lake import LakeMissing
from ingest.letters.command import time_of
from ingest.letters.find import Wanted
from ingest.letters.replay import Outcome, Replay
from ingest.parties import broker_of
from ingest.settings import Settings
from ingest.upkeep.commands import by_hand
from ingest.upkeep.run import Upkeep, now_us

COLUMNS = 20  # of a report
WAIT_S = 60  # for upkeep that is at the topic


async def backfill(
    settings: Settings, topic: str, start: str, end: str, *, dry_run: bool, say: Callable[[str], None]
) -> None:
    """Says what differs, then puts it into the lake. Raises what `letters.command.REFUSALS` and `service.REFUSALS` say,
    `BackfillRefused`, `KafkaSilent` and `BrokerAway`."""
    start_us, end_us = time_of(start), time_of(end)
    if start_us is None or end_us is None or start_us >= end_us:
        raise ValueError(f"there is no time between {start} and {end}")
    wanted = Wanted(start_us=start_us, end_us=end_us)
    async with by_hand(settings) as upkeep, _sources(settings, upkeep, topic) as (tools, source):
        filling = Backfill(tools, topic, start_us, end_us, source)
        foreseen = await filling.run(dry_run=True)
        for line in report(topic, foreseen):
            say(line)
        try:
            letters = await tools.run(topic, wanted, dry_run=True)
        except LakeMissing:  # one of the files that would come back
            letters = Outcome()
        say(f"{topic}: dead letters that would be rows: {letters.rows}, duplicates: {letters.duplicates}")
        if dry_run or not (foreseen.difference.any or letters.rows or letters.duplicates):
            return
        async with _claimed(upkeep, topic):
            filled = await filling.run(dry_run=False)
            done = await tools.run(topic, wanted)
            await upkeep.write_live(topic)
        sequences = [*filled.sequences, *done.sequences]
        changed = filled.difference
        say(
            f"{topic}: {changed.changed} rows changed, {changed.duplicates + done.duplicates} duplicates gone, "
            f"{changed.dead} rows are dead letters, {done.rows} dead letters are rows, {changed.restored} came back "
            f"(commits {', '.join(map(str, sequences)) or 'none'})"
        )


def report(topic: str, filled: Filled) -> list[str]:
    """What differs, in words."""
    found = filled.difference
    first = (
        f"{topic}: {found.read} rows of {filled.files} files were read again: {found.changed} would change, "
        f"{found.duplicates} would be duplicates, {found.dead} would be dead letters"
    )
    lines = [first]
    if found.restored:
        lines.append(
            f"  {found.restored} rows and dead letters of {filled.gone} files that are gone would come back"
        )
    if found.kept:
        lines.append(f"  {found.kept} rows stay as they are: Kafka no longer has their records")
    for name, count in found.columns.most_common(COLUMNS):
        lines.append(f"  {name}: {count} rows")
    if len(found.columns) > COLUMNS:
        lines.append(f"  and {len(found.columns) - COLUMNS} more columns")
    return lines


@asynccontextmanager
async def _claimed(upkeep: Upkeep, topic: str) -> AsyncIterator[None]:
    """Keeps upkeep away from the topic; waits a while for what it is at."""
    deadline = time.monotonic() + WAIT_S
    while True:
        async with upkeep.claims.topic(topic) as ours:
            if ours:
                yield
                return
        if time.monotonic() > deadline:
            raise BackfillRefused(f"{topic}: upkeep has been at it for long; nothing was written, try again")
        await asyncio.sleep(1)


@asynccontextmanager
async def _sources(settings: Settings, upkeep: Upkeep, topic: str) -> AsyncIterator[tuple[Replay, Source]]:
    """The lake and the API as `Replay` has them, Kafka, and the broker partition of each lake partition it has."""
    inquiry = Inquiry.of(settings)
    try:
        tools = Replay(
            inquiry, upkeep.catalog, upkeep.lake, settings, now_us, secrets.randbits, f"backfill-{settings.name}"
        )  # fmt: skip
        broker = broker_of(settings)
        ids = TopicIds(broker)
        here = await ids.ask([topic])

        async def same() -> bool:
            return await ids.ask([topic]) == here

        partitions = {
            each["lake_partition"]: each["broker_partition"]
            for each in inquiry.topic(topic)["partitions"]
            if each["open"]
            and topic in here
            and (None in (here[topic], each["topic_id"]) or here[topic] == each["topic_id"])
        }
        if not partitions:
            yield tools, Source(None, {}, same)
            return
        async with reading(broker, topic, sorted(partitions.values())) as again:
            yield tools, Source(again, partitions, same)
    finally:
        inquiry.close()
