"""What operators say from the command line: `tukang topics ...` and `tukang loaders ...`. The API does the work.

Programs are imported when their command runs, so that one does not wait for the dependencies of another.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click


@contextmanager
def one_line(*refusals: type[BaseException]) -> Iterator[None]:
    """What went wrong and what to do, in words; exit code 2. Everything else is a defect and shows where it is."""
    try:
        yield
    except refusals as refused:
        click.echo(str(refused), err=True)
        sys.exit(2)


@contextmanager
def operator() -> Iterator[Any]:
    """The API for an operator's command; refusals in one line."""
    from ingest.catalog import CatalogRefused, CatalogUnavailable
    from ingest.operate import Operator
    from ingest.settings import ApiSettings, SettingsWrong, load_settings

    with one_line(SettingsWrong, CatalogRefused, CatalogUnavailable, OSError, ValueError):
        yield Operator(load_settings(ApiSettings))


def show(what: str, headings: Sequence[str], rows: Iterable[Sequence[str | int | None]]) -> None:
    """A list on stdout; that there is nothing to list is said on stderr, so that a program reads an empty list."""
    from ingest.printer import listed

    found = list(listed(headings, rows))
    click.echo("\n".join(found) if found else f"No {what} yet.", err=not found)


@click.group()
def topics() -> None:
    """Topics: settings, pause, resume, accept a gap or a reset."""


@topics.command("list")
def topics_list() -> None:
    """Name, state and rows of each topic."""
    with operator() as api:
        found = ((topic["topic"], topic["state"], topic["rows"]) for topic in api.topics())
        show("topics", ("topic", "state", "rows"), found)


@topics.command("settings")
@click.argument("topic")
def topics_settings(topic: str) -> None:
    """Each setting of a topic, and what set it."""
    with operator() as api:
        for name, found in api.settings(topic).items():
            value = "none" if found["value"] is None else found["value"]
            click.echo(f"{name} = {value}\t({found['defaults'] or found['origin']})")


@topics.command("pause")
@click.argument("topic")
def topics_pause(topic: str) -> None:
    """Workers stop reading the topic."""
    with operator() as api:
        click.echo(f"{topic}: {api.act(topic, 'pause')['state']}")


@topics.command("resume")
@click.argument("topic")
def topics_resume(topic: str) -> None:
    """Workers read the topic again."""
    with operator() as api:
        click.echo(f"{topic}: {api.act(topic, 'resume')['state']}")


@topics.command("accept-gap")
@click.argument("topic")
def topics_accept_gap(topic: str) -> None:
    """Take note of what Kafka deleted before it was read."""
    with operator() as api:
        click.echo(f"{topic}: {api.act(topic, 'accept-gap')['state']}")


@topics.command("accept-reset")
@click.argument("topic")
@click.option(
    "--from", "start", required=True, metavar="earliest|end|OFFSET|TIME", help="Where reading begins."
)
def topics_accept_reset(topic: str, start: str) -> None:
    """Begin anew with a topic that was made again or truncated."""
    with operator() as api:
        click.echo(f"{topic}: {api.act(topic, 'accept-reset', {'from': start})['state']}")


@topics.command("apply")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Say what would change.")
@click.option(
    "--confirm", is_flag=True, help="Also cut retention by more than half, or what a loader waits for."
)
def topics_apply(file: Path, dry_run: bool, confirm: bool) -> None:
    """Settings as code: bring topics to those of a TOML file, or change nothing and say why."""
    with operator() as api:
        for line in api.apply(file, dry_run=dry_run, confirm=confirm):
            click.echo(line)


@topics.command("backfill")
@click.argument("topic")
@click.option(
    "--from", "start", required=True, metavar="TIME", help="Rows with an event time at or after this."
)
@click.option("--to", "end", required=True, metavar="TIME", help="And before this.")
@click.option("--dry-run", is_flag=True, help="Only say what differs.")
def topics_backfill(topic: str, start: str, end: str, dry_run: bool) -> None:
    """Read a time range from Kafka again as the topic is told now: what differs is said, then put into the lake."""
    import asyncio

    from ingest.backfill.again import KafkaSilent
    from ingest.backfill.command import backfill
    from ingest.backfill.run import BackfillRefused
    from ingest.broker import BrokerAway
    from ingest.letters.command import REFUSALS
    from ingest.service import REFUSALS as REFUSED
    from ingest.settings import SettingsWrong, load_settings

    with one_line(SettingsWrong, BackfillRefused, KafkaSilent, BrokerAway, *REFUSALS, *REFUSED):
        settings = load_settings()
        asyncio.run(backfill(settings, topic, start, end, dry_run=dry_run, say=click.echo))


@click.group()
def loaders() -> None:
    """Loaders: list, lag, hold, removal."""


@loaders.command("list")
def loaders_list() -> None:
    """Each loader in a line. How far it is behind, and whether retention waits for it."""
    with operator() as api:
        found = (
            (
                each["name"],
                each["behind"] + each["unstarted"],
                each["lag_commits"],
                each["lag_rows"],
                "waits" if each["hold"] else "-",
            )
            for each in api.loaders()
        )
        show("loaders", ("loader", "topics behind", "commits behind", "rows behind", "retention"), found)


@loaders.command("show")
@click.argument("loader")
def loaders_show(loader: str) -> None:
    """Each topic of a loader in a line. Its cursor, the head, and since when the next commit waits."""
    with operator() as api:
        found = (
            (each["topic"], each["sequence"], each["head"], each["lag_rows"], each["waiting_since"])
            for each in api.cursors(loader)
        )
        show("topics", ("topic", "cursor", "head", "rows behind", "waiting since"), found)


@loaders.command("hold")
@click.argument("loader")
def loaders_hold(loader: str) -> None:
    """Retention and the sweep wait for the loader, up to `hold_limit`."""
    with operator() as api:
        api.hold(loader, True)
        click.echo(f"{loader}: hold")


@loaders.command("release")
@click.argument("loader")
def loaders_release(loader: str) -> None:
    """Nothing waits for the loader; its cursors stay."""
    with operator() as api:
        api.hold(loader, False)
        click.echo(f"{loader}: -")


@loaders.command("remove")
@click.argument("loader")
def loaders_remove(loader: str) -> None:
    """Take a loader away with its cursors."""
    with operator() as api:
        api.remove_loader(loader)
        click.echo(f"{loader} is removed")
