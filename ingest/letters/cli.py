"""The words of `tukang dead-letters`: options and what they are handed to. The front door hands the rest of its line
here; what is done with letters is `ingest.letters.command`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import click

from ingest.commands import one_line
from ingest.letters.command import REFUSALS, export, list_, replay, sentence, show_one, wanted_of
from ingest.settings import LakeSettings, SettingsWrong, load_settings


@contextmanager
def told() -> Iterator[LakeSettings]:
    """The settings; refusals in one line, exit code 2."""
    with one_line(SettingsWrong, *REFUSALS):
        yield load_settings(LakeSettings)


def which(command: Callable[..., None]) -> Callable[..., None]:
    """The topic, and the options that say which of its letters are meant."""
    for option in (
        click.option("--lake-partition", type=int, help="Of this lake partition."),
        click.option("--offsets", metavar="A-B", help="Of these offsets: 17, 17-40, 17- or -40."),
        click.option("--to", "end", metavar="TIME", help="With a timestamp before this."),
        click.option("--from", "start", metavar="TIME", help="With a timestamp at or after this."),
        click.option("--reason", "reasons", multiple=True, help="Kept for this reason; repeated."),
        click.argument("topic"),
    ):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def letters() -> None:
    """Records that could not become rows: list, show, export them, and replay them after a fix."""


@letters.command("list")
@which
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")
def letters_list(topic: str, limit: int, form: Literal["table", "json"], **chosen: Any) -> None:
    """Where each stands and why it is no row, oldest commit first."""
    with told() as settings:
        list_(settings, topic, wanted_of(**chosen), limit=limit, form=form)


@letters.command("show")
@click.argument("topic")
@click.argument("offset", type=int)
@click.option("--lake-partition", type=int, help="Of this lake partition; else of all.")
def letters_show(topic: str, offset: int, lake_partition: int | None) -> None:
    """One letter whole: reason, key, headers, and its bytes where they went wrong."""
    with told() as settings:
        wanted = wanted_of((), None, None, str(offset), lake_partition)
        if not show_one(settings, topic, wanted):
            raise ValueError(f"{topic} has no dead letter at offset {offset}")


@letters.command("export")
@which
@click.option("--into", "folder", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--format", "form", type=click.Choice(["ndjson", "raw"]), default="ndjson")
def letters_export(topic: str, folder: Path, form: Literal["ndjson", "raw"], **chosen: Any) -> None:
    """Write them into a folder: one NDJSON file, or a file with the bytes of each."""
    with told() as settings:
        count = export(settings, topic, wanted_of(**chosen), folder, form)
        click.echo(f"{count} dead letter{'' if count == 1 else 's'} in {folder}")


@letters.command("replay")
@which
@click.option("--dry-run", is_flag=True, help="Say what would become of them.")
def letters_replay(topic: str, dry_run: bool, **chosen: Any) -> None:
    """Read them again as the topic is told now: those that are events become rows, exactly once, in one commit."""
    with told() as settings:
        outcome = replay(settings, topic, wanted_of(**chosen), dry_run=dry_run)
        click.echo(f"{topic}: {sentence(outcome, dry_run=dry_run)}")
