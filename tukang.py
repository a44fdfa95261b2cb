"""The front door: command name -> function. Nothing else happens here.

Programs are imported when their command runs, so that one does not wait for the dependencies of another.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import click

from ingest.commands import loaders, one_line, show, topics


def log_to_stderr() -> None:
    """Log lines of a service: time in UTC, level, where, what."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    for chatty in (
        "botocore",
        "boto3",
        "urllib3",
        "httpx",
        "httpcore",
        "faust",
        "mode",
        "aiokafka",
        "alembic",
    ):
        logging.getLogger(chatty).setLevel(logging.WARNING)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(importlib.metadata.version("tukang"), prog_name="tukang")
@click.pass_context
def main(context: click.Context) -> None:
    """Every event from Kafka, once and in order, as typed Parquet on S3; and the API that proves it."""
    if context.invoked_subcommand != "demo":  # which reads no setting
        from deploy.keys import misspelt

        for line in misspelt(os.environ):
            click.echo(f"warning: {line}", err=True)


def service(name: str) -> Callable[[Callable[[], None]], click.Command]:
    """A command without arguments, told everything by settings."""

    def decorate(run: Callable[[], None]) -> click.Command:
        return main.command(name)(run)

    return decorate


@service("worker")
def worker() -> None:
    """Read topics, write Parquet, commit. Stopped by SIGTERM without loss."""
    import asyncio

    from ingest.service import REFUSALS, serve
    from ingest.settings import SettingsWrong, load_settings

    log_to_stderr()
    with one_line(SettingsWrong, *REFUSALS):
        asyncio.run(serve(load_settings()))


@service("api")
def api() -> None:
    """Serve the metadata API."""
    from api.server import serve
    from api.settings import SettingsError, load

    log_to_stderr()
    with one_line(SettingsError):
        serve(load())


@main.command()
@click.option("--once", is_flag=True, help="End when nothing is due.")
def upkeep(once: bool) -> None:
    """Seal complete periods: few sorted files without duplicates. Any number may run, beside workers and loaders."""
    import asyncio

    from ingest.service import REFUSALS
    from ingest.settings import LakeSettings, SettingsWrong, load_settings
    from ingest.upkeep.run import serve

    log_to_stderr()
    with one_line(SettingsWrong, *REFUSALS):
        asyncio.run(serve(load_settings(LakeSettings), once=once))


@main.command()
@click.argument("topics", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Say what would expire.")
def expire(topics: tuple[str, ...], dry_run: bool) -> None:
    """Take files whose retention is over out of the live set. Upkeep does so by itself, too."""
    import asyncio

    from ingest.service import REFUSALS
    from ingest.settings import LakeSettings, SettingsWrong, load_settings
    from ingest.upkeep.commands import expire_now

    with one_line(SettingsWrong, *REFUSALS):
        for line in asyncio.run(expire_now(load_settings(LakeSettings), topics, dry=dry_run)):
            click.echo(line)


@main.command()
@click.argument("topics", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Say what would be deleted.")
def sweep(topics: tuple[str, ...], dry_run: bool) -> None:
    """Delete objects that nobody needs any more. Upkeep does so by itself, too."""
    import asyncio

    from ingest.service import REFUSALS
    from ingest.settings import LakeSettings, SettingsWrong, load_settings
    from ingest.upkeep.commands import sweep_now

    with one_line(SettingsWrong, *REFUSALS):
        for line in asyncio.run(sweep_now(load_settings(LakeSettings), topics, dry=dry_run)):
            click.echo(line)


@main.command()
@click.argument("topic")
@click.option("--where", metavar="FIELD=VALUE", help="Like customer_id = 42 or customer.name = 'Ann'.")
@click.option("--field", help="With --keys: whose values stand in the file.")
@click.option(
    "--keys", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="One value a line."
)
@click.option("--dry-run", is_flag=True, help="Say what would be erased.")
@click.option("--wait", default="15min", help="How long to wait for what Kafka has and the lake has not.")
def erase(
    topic: str, where: str | None, field: str | None, keys: Path | None, dry_run: bool, wait: str
) -> None:
    """Erase all events with a value, and print the signed record."""
    import asyncio

    from ingest.service import REFUSALS
    from ingest.settings import LakeSettings, SettingsWrong, duration_us, load_settings
    from ingest.upkeep.erasing import NotFinished, erase_now, wanted_of
    from ingest.upkeep.matching import WhereWrong

    log_to_stderr()
    with one_line(SettingsWrong, WhereWrong, NotFinished, ValueError, *REFUSALS):
        wanted = wanted_of(where, field, keys)
        wait_s = duration_us(wait) / 1_000_000
        for line in asyncio.run(
            erase_now(load_settings(LakeSettings), topic, wanted, dry=dry_run, wait_s=wait_s)
        ):
            click.echo(line)


@service("rebuild")
def rebuild() -> None:
    """Make a lost database again. What upkeep keeps in the lake is read for it; the API must be stopped."""
    from api.rebuild import rebuild as make_again
    from api.settings import SettingsError, load
    from ingest.lake import LakeRefused, LakeUnavailable
    from ingest.settings import LakeSettings, SettingsWrong, load_settings
    from ingest.upkeep.rebuilding import NothingKept, kept_in_lake

    log_to_stderr()
    with one_line(SettingsError, SettingsWrong, LakeRefused, LakeUnavailable, NothingKept):
        for line in make_again(load(), kept_in_lake(load_settings(LakeSettings))):
            click.echo(line)


@service("migrate")
def migrate() -> None:
    """Bring the API's database to this release's schema."""
    from api.migrate import upgrade
    from api.settings import SettingsError, load

    log_to_stderr()
    with one_line(SettingsError):
        upgrade(load())
        click.echo("The database is as this release wants it.")


@main.command()
@click.argument("topic", required=False)
@click.option("--json", "as_json", is_flag=True, help="Findings as JSON on stdout.")
@click.option("--deep", is_flag=True, help="Read the rows too: each offset at most once, inside its line.")
@click.option("--caught-up", is_flag=True, help="Wrong, too: records at the source that no commit has yet.")
@click.option("--from", "start", metavar="TIME", help="Only files with rows at or after this event time.")
@click.option("--to", "end", metavar="TIME", help="Only files with rows before this event time.")
@click.option("--erased", metavar="FIELD=VALUE", help="Instead: does any object of the topic still hold it?")
def verify(topic: str | None, erased: str | None, **options: Any) -> None:
    """Prove that lake, ledger and Kafka agree. Exit code 0: complete, 1: something is wrong, 2: could not check."""
    from ingest.settings import LakeSettings, SettingsWrong, load_settings
    from ingest.verify import verify as prove

    if erased is not None:
        from ingest.lake import LakeRefused, LakeUnavailable
        from ingest.upkeep.erasing import verify_erased
        from ingest.upkeep.matching import WhereWrong

        with one_line(SettingsWrong, WhereWrong, LakeRefused, LakeUnavailable):
            lines, code = verify_erased(load_settings(LakeSettings), topic, erased)
            click.echo("\n".join(lines))
            sys.exit(code)
    with one_line(SettingsWrong):
        sys.exit(prove(load_settings(), topic, **options))


@main.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON on stdout.")
def status(as_json: bool) -> None:
    """How every topic stands, and what to do. Lag, freshness, completeness; loaders and workers, too."""
    from ingest.settings import ApiSettings, SettingsWrong, load_settings
    from ingest.status import status as show

    with one_line(SettingsWrong):
        sys.exit(show(load_settings(ApiSettings), as_json=as_json))


main.add_command(topics)
main.add_command(loaders)


@main.command("dead-letters", add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def dead_letters(arguments: tuple[str, ...]) -> None:
    """Records that are no rows: list, show, export, replay."""
    from ingest.letters.cli import letters

    log_to_stderr()
    letters.main(list(arguments), prog_name="tukang dead-letters")


@main.group()
def tokens() -> None:
    """Tokens of the API. Made by whoever has TUKANG_DATABASE: the first one can come from nowhere else."""


@tokens.command("create")
@click.argument("name")
@click.option(
    "--scope", "scopes", multiple=True, required=True, help="ingest, upkeep, load, operate or read; repeated."
)
@click.option("--topic", "patterns", multiple=True, help="Only topics that match this pattern; repeated.")
@click.option("--expires", metavar="TIME", help="When it ends by itself.")
def tokens_create(name: str, scopes: tuple[str, ...], patterns: tuple[str, ...], expires: str | None) -> None:
    """Print a new token alone on stdout; only its hash is kept."""
    from api.settings import SettingsError, load
    from api.times import TimeError
    from api.tokens import TokenError, create

    with one_line(SettingsError, TokenError, TimeError):
        click.echo(create(load(), name, scopes, patterns or None, expires))


@tokens.command("list")
def tokens_list() -> None:
    """Name, scopes, topics and end of each token."""
    from api.settings import SettingsError, load
    from api.tokens import list_all

    with one_line(SettingsError):
        found = (
            (
                token["name"],
                ",".join(token["scopes"]),
                ",".join(token["topics"] or ()) or "all",
                f"revoked {token['revoked_at']}" if token["revoked_at"] else token["expires_at"],
            )
            for token in list_all(load())
        )
        show("tokens", ("token", "scopes", "topics", "end"), found)


@tokens.command("rotate")
@click.argument("name")
@click.option("--overlap", default="1h", show_default=True, help="How long the old one still works.")
def tokens_rotate(name: str, overlap: str) -> None:
    """Print a new text of a token alone on stdout."""
    from api.settings import SettingsError, load
    from api.tokens import TokenError, rotate
    from api.units import UnitError

    with one_line(SettingsError, TokenError, UnitError):
        click.echo(rotate(load(), name, overlap))


@tokens.command("revoke")
@click.argument("name")
def tokens_revoke(name: str) -> None:
    """End a token at once."""
    from api.settings import SettingsError, load
    from api.tokens import TokenError, revoke

    with one_line(SettingsError, TokenError):
        revoke(load(), name)
        click.echo(f"{name} is revoked")


@main.command()
@click.argument("query")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table")
def sql(query: str, form: Literal["table", "csv", "json"]) -> None:
    """Ask DuckDB over the live files. Each topic is a view by its name, TOPIC__dead_letters another."""
    from ingest.printer import show
    from loaders.sql import SqlRefused
    from loaders.sql import sql as ask

    with one_line(SqlRefused):
        ask(query, form=form, show=show)


@main.command()
@click.option("--to", "url", required=True, metavar="URL", help="duckdb:///FILE or postgresql://...")
@click.option(
    "--loader", required=True, metavar="NAME", help="The name under which the API knows this loader."
)
@click.option("--follow", is_flag=True, help="Go on with what comes, until SIGTERM.")
@click.option("--unnest", is_flag=True, help="Lists become child tables instead of JSON.")
@click.argument("topics", nargs=-1)
def load(url: str, loader: str, topics: tuple[str, ...], follow: bool, unnest: bool) -> None:
    """Load topics into a warehouse, each row once. The cursor is kept there, in the same transaction."""
    from ingest.scratch import remove_left, scratch_for_all
    from loaders.load import REFUSALS
    from loaders.load import load as fetch

    log_to_stderr()
    remove_left()
    with one_line(*REFUSALS), scratch_for_all():
        sys.exit(fetch(url, loader, topics, follow=follow, unnest=unnest))


@main.command()
@click.option("--once", is_flag=True, help="End when everything is in the lake, also on a terminal.")
@click.option("--keep", metavar="DIR", help="Work in this folder and leave it there.")
def demo(once: bool, keep: str | None) -> None:
    """Run the whole stack here, on 336,776 real flights."""
    from deploy.demo import DemoFailed
    from deploy.demo import demo as play

    with one_line(DemoFailed):
        sys.exit(play(once=once, keep=keep))


if __name__ == "__main__":
    main()
