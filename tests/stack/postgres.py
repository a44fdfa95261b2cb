"""A real PostgreSQL for the session, started from its own programs, and a fresh database for each test that asks.

Nothing is synced to disk: the tests kill processes, never the machine.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from deploy.part import LOOPBACK, Part, Ward, free_ports

USER = "postgres"
CURE = "PostgreSQL's server programs are missing: apt-get install postgresql"
_numbers = count(1)


def _programs() -> Path:
    """The folder of initdb and postgres. Skips where there is none, but fails on CI, where it must be."""
    on_path = shutil.which("initdb")
    # Debian keeps the server's programs off the path, a folder for each version.
    found = [Path(on_path).resolve()] if on_path else sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        if os.environ.get("CI") == "true":
            pytest.fail(CURE, pytrace=False)
        pytest.skip(CURE)
    return found[-1].parent


def _as_postgres(command: list[str]) -> list[str]:
    """The server refuses to run as root."""
    # setpriv becomes the command, so that signals reach the server; runuser and su stay between.
    become = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", "--"]
    return [*become, *command] if os.geteuid() == 0 else command


@dataclass
class Postgres:
    """A server of its own folder and port. `stop`, `kill` and `start` keep both."""

    folder: Path
    programs: Path
    port: int
    environment: Mapping[str, str]
    part: Part | None = None
    fsync: str = "off"
    autovacuum: str = "on"

    def prepare(self) -> None:
        """Makes the folder of data."""
        if os.geteuid() == 0:
            shutil.chown(self.folder, USER)
        subprocess.run(
            _as_postgres(
                [str(self.programs / "initdb"), "-D", str(self.folder / "data"), "-U", USER, "-A", "trust",
                 "-E", "UTF8", "--locale=C", "--no-sync"]
            ),
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self.folder,
        )  # fmt: skip

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        self.part = Part(
            "postgres",
            _as_postgres(
                [str(self.programs / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port),
                 "-c", f"listen_addresses={LOOPBACK}", "-c", f"unix_socket_directories={self.folder}",
                 "-c", f"fsync={self.fsync}", "-c", f"autovacuum={self.autovacuum}", "-c", "max_connections=200"]
            ),
            folder=self.folder,
            ready=self._answers,
            environment=self.environment,
            port=self.port,
        )  # fmt: skip
        self.part.start()

    def stop(self) -> None:
        """Stops it at once, connections or not (SIGTERM would wait for them)."""
        if self.part is not None and self.part.process is not None:
            self.part.process.send_signal(signal.SIGINT)
            self.part.process.wait()
            self.part.end()
            self.part = None

    def kill(self) -> None:
        """Kills the server; its children follow."""
        if self.part is not None and self.part.process is not None:
            self.part.process.kill()
            self.part.process.wait()
            self.part.end()
            self.part = None

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://{USER}@{LOOPBACK}:{self.port}/{database}"

    def create(self, template: str = "template1") -> str:
        """A new database, a copy of `template`; gives its name."""
        name = f"test_{next(_numbers)}"
        with self._connect() as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
        return name

    def drop(self, database: str) -> None:
        with self._connect() as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database)))

    def _connect(self) -> "psycopg.Connection[tuple[object, ...]]":
        return psycopg.connect(host=LOOPBACK, port=self.port, user=USER, dbname=USER, autocommit=True)

    def _answers(self) -> bool:
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True


def _server() -> Iterator[Postgres]:
    programs = _programs()
    # Not pytest's folder: that one only root may enter.
    folder = Path(tempfile.mkdtemp(prefix="tukang-postgres-"))
    with Ward(remove=folder) as ward:
        # Statistics of what one test left would choose the plans of the next.
        server = Postgres(folder, programs, free_ports(1)[0], ward.environment, autovacuum="off")
        server.prepare()
        server.start()
        yield server
        server.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The session's server. A test that stops it asks for `own_postgres`."""
    yield from _server()


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A server that one test may stop and kill."""
    yield from _server()


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """SQLAlchemy's URL of an empty database."""
    name = postgres.create()
    yield postgres.url(name)
    postgres.drop(name)
