"""`tukang dead-letters`: from words on the command line to what is done with the letters of a topic."""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from ingest.catalog import CatalogRefused, CatalogUnavailable, CommitRefused
from ingest.inquiry import Inquiry, TopicUnknown
from ingest.lake import LakeRefused, LakeUnavailable
from ingest.letters import show
from ingest.letters.find import Wanted, files_of, found, offsets_of
from ingest.letters.replay import Outcome, Replay, ReplayRefused
from ingest.parties import catalog_of, lake_of
from ingest.position import time_from_text
from ingest.settings import LakeSettings

REFUSALS = (
    CatalogRefused, CatalogUnavailable, CommitRefused, LakeRefused, LakeUnavailable, OSError, ReplayRefused,
    TopicUnknown, ValueError,
)  # fmt: skip


def wanted_of(
    reasons: tuple[str, ...],
    start: str | None,
    end: str | None,
    offsets: str | None,
    lake_partition: int | None,
) -> Wanted:
    """What the options mean. Raises `ValueError`, in one line."""
    first, last = offsets_of(offsets)
    start_us, end_us = time_of(start), time_of(end)
    if start_us is not None and end_us is not None and end_us <= start_us:
        raise ValueError(f"--to {end} is not after --from {start}: nothing lies between")
    return Wanted(frozenset(reasons), start_us, end_us, first, last, lake_partition)


def time_of(text: str | None) -> int | None:
    """ISO 8601; without a zone it is UTC."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is no time: write 2026-01-31 or 2026-01-31T12:00:00Z (UTC without a zone)"
        ) from None
    return time_from_text((at if at.tzinfo else at.replace(tzinfo=UTC)).isoformat())


@contextmanager
def _inquiry(settings: LakeSettings) -> Iterator[Inquiry]:
    inquiry = Inquiry.of(settings)
    try:
        yield inquiry
    finally:
        inquiry.close()


def list_(settings: LakeSettings, topic: str, wanted: Wanted, *, limit: int, form: show.Form) -> None:
    """Prints the letters, oldest commit first."""
    with _inquiry(settings) as inquiry:
        files = files_of(inquiry, topic)
    show.listed(found(lake_of(settings), files, wanted), limit, form, sys.stdout)


def show_one(settings: LakeSettings, topic: str, wanted: Wanted) -> bool:
    """Prints the letters of one offset whole; False: there is none."""
    with _inquiry(settings) as inquiry:
        files = files_of(inquiry, topic)
    any_shown = False
    for table in found(lake_of(settings), files, wanted):
        for letter in table.to_pylist():
            if any_shown:
                sys.stdout.write("\n")
            show.whole(letter, sys.stdout)
            any_shown = True
    return any_shown


def export(settings: LakeSettings, topic: str, wanted: Wanted, folder: Path, form: show.ExportForm) -> int:
    """Writes the letters' bytes below a folder; how many."""
    with _inquiry(settings) as inquiry:
        files = files_of(inquiry, topic)
    return show.exported(found(lake_of(settings), files, wanted), folder, form)


def replay(settings: LakeSettings, topic: str, wanted: Wanted, *, dry_run: bool) -> Outcome:
    """Puts the letters that are events now through the steps."""

    async def run() -> Outcome:
        catalog = catalog_of(settings)
        try:
            with _inquiry(settings) as inquiry:
                replaying = Replay(
                    inquiry, catalog, lake_of(settings), settings, lambda: time.time_ns() // 1_000,
                    secrets.randbits, f"replay-{settings.name}",
                )  # fmt: skip
                return await replaying.run(topic, wanted, dry_run=dry_run)
        finally:
            await catalog.close()

    return asyncio.run(run())


def sentence(outcome: Outcome, *, dry_run: bool) -> str:
    """What was done, in one line."""
    if dry_run:
        return f"would be rows: {outcome.rows}, duplicates: {outcome.duplicates}, still dead letters: {outcome.dead}"
    if not outcome.sequences:
        return f"nothing to replay, still dead letters: {outcome.dead}"
    commits = ", ".join(map(str, outcome.sequences))
    return (
        f"rows: {outcome.rows}, duplicates: {outcome.duplicates}, still dead letters: {outcome.dead}"
        f" (commit {commits})"
    )
