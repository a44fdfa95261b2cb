"""Brings a database to this release's schema, and says whether this release can run on the one it finds.

Empty and SQLite databases migrate at start, others by `tukang migrate`. A lock makes processes that start at once
migrate once. Migrations only expand: `installation.runs_from` is the oldest revision whose code still runs.
"""

import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, inspect, select, text

from api.database import Database, make_engine
from api.months import ensure_months
from api.settings import ApiSettings, SettingsError
from api.tables import installation

# The revision that this release's code is written for.
REVISION = 9
# Any number that no other program takes for its advisory lock; PostgreSQL's locks are one space for a database.
MIGRATION_LOCK = 0x74756B616E67


# Its plugins announce themselves line by line.
logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)


class SchemaError(SettingsError):
    """The database's schema is not one that this release runs on; the message says what to do."""


def revision_of(connection: Connection) -> int:
    """The database's revision; 0: empty."""
    if not inspect(connection).has_table("alembic_version"):
        return 0
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return int(found) if found else 0


def check(connection: Connection) -> None:
    """Raises SchemaError when this release cannot run on the schema."""
    found = revision_of(connection)
    if found < REVISION:
        raise SchemaError(
            f"TUKANG_DATABASE: the database is at revision {found}, this release needs {REVISION}: "
            "run `tukang migrate` first."
        )
    if found > REVISION:
        runs_from = connection.execute(select(installation.c.runs_from)).scalar_one()
        if runs_from > REVISION:
            raise SchemaError(
                f"TUKANG_DATABASE: the database is at revision {found}, made by a newer release that "
                f"dropped what this one (revision {REVISION}) needs: start the newer release."
            )


def _upgrade(database: Database, only_at_start: bool) -> int:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with database.write() as connection:
        if not database.sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
        found = revision_of(connection)
        if found < REVISION and (found == 0 or database.sqlite or not only_at_start):
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        check(connection)
        ensure_months(connection, database.clock(connection))
        return found


def upgrade_at_start(database: Database) -> None:
    """Migrates an empty or SQLite database; raises SchemaError when another one is behind."""
    _upgrade(database, only_at_start=True)


def upgrade(settings: ApiSettings) -> tuple[int, int]:
    """`tukang migrate`: migrates whatever is found. Gives the revisions before and after."""
    database = Database(make_engine(settings.database, 2))
    try:
        return _upgrade(database, only_at_start=False), REVISION
    finally:
        database.dispose()
