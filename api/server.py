"""`tukang api`: the application under gunicorn's threads, in the foreground, until SIGTERM.

A thread waits in each long poll, so there are many; they hold no database connection meanwhile. At a stop long polls
are answered at once, other requests get time to end.
"""

import errno
import logging
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable
from typing import Any

from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from sqlalchemy.exc import OperationalError

from api.app import create_app
from api.connections import PollingWorker
from api.database import Database, make_engine
from api.migrate import upgrade_at_start
from api.settings import ApiSettings, SettingsError

log = logging.getLogger("tukang.api")

# Loaders and workers come back within their own pauses; a connection kept saves a handshake each time.
KEEPALIVE_SECONDS = 75
# Connections without a request at hand cost a socket, not a thread.
IDLE_CONNECTIONS = 4_000
# A second apart: how often a port is tried that is taken.
PORT_TRIES = 5
# What a PostgreSQL server answers that will serve soon.
PASSING = ("starting up", "shutting down", "in recovery", "too many clients", "remaining connection slots")


class _Application(BaseApplication):  # type: ignore[misc]
    def __init__(self, settings: ApiSettings, started: Callable[[str], None]) -> None:
        self._settings = settings
        self._started = started
        super().__init__()

    def load_config(self) -> None:
        settings = self._settings
        options = {
            "bind": settings.listen,
            "workers": settings.api_processes,
            "threads": settings.api_threads,
            "worker_class": PollingWorker,
            "worker_connections": settings.api_threads + IDLE_CONNECTIONS,
            "keepalive": KEEPALIVE_SECONDS,
            "graceful_timeout": settings.api_stop_after,
            "timeout": 120,
            "proc_name": "tukang-api",
            "loglevel": "warning",
            "when_ready": self._ready,
            "certfile": str(settings.tls_cert) if settings.tls_cert else None,
            "keyfile": str(settings.tls_key) if settings.tls_key else None,
            "control_socket_disable": True,
        }
        for name, value in options.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Any:
        return create_app(self._settings, prepared=True)

    def _ready(self, arbiter: Arbiter) -> None:
        scheme = "https" if self._settings.tls_cert else "http"
        for listener in arbiter.LISTENERS:
            host, port = listener.sock.getsockname()[:2]
            self._started(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}")


def _say_started(address: str) -> None:
    sys.stdout.write(f"tukang api listens on {address}\n")
    sys.stdout.flush()


def prepare_database(settings: ApiSettings) -> None:
    """Migrates where that is due at start; waits with growing pauses while the server is away.

    Raises SettingsError when waiting would not help: a wrong password, no such database, a file that cannot be opened.
    """
    pause = 0.2
    while True:
        database = Database(make_engine(settings.database, 1))
        try:
            upgrade_at_start(database)
            return
        except OperationalError as error:
            said = " ".join(str(error.orig).split())
            if database.sqlite:
                said += f" ({settings.database})"
            if database.sqlite or ("FATAL" in said and not any(word in said for word in PASSING)):
                raise SettingsError(f"TUKANG_DATABASE: the database cannot be opened: {said}") from error
            log.warning("waiting for the database: %s", said)
        finally:
            database.dispose()
        time.sleep(pause)
        pause = min(pause * 2, 10)


def _check_port(settings: ApiSettings) -> None:
    """Raises SettingsError when nothing can listen there; one that is about to end may do so first."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    for tries_left in reversed(range(PORT_TRIES)):
        try:
            socket.create_server((settings.host, settings.port), family=family).close()
            return
        except OSError as error:
            if not tries_left or error.errno != errno.EADDRINUSE:
                raise SettingsError(
                    f"TUKANG_LISTEN={settings.listen}: nothing can listen there ({os.strerror(error.errno or 0)}):"
                    " end the program that does, or choose another port"
                ) from error
        time.sleep(1)


def serve(settings: ApiSettings, started: Callable[[str], None] = _say_started) -> None:
    """Serves until SIGTERM or SIGINT, then ends the process (SystemExit). `started` is told the address then served.

    Raises SettingsError, before anything listens, when a setting or the database that it names is wrong.
    """
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise SettingsError("TUKANG_TLS_CERT, TUKANG_TLS_KEY: one without the other turns no TLS on")
    for key, path in (("TUKANG_TLS_CERT", settings.tls_cert), ("TUKANG_TLS_KEY", settings.tls_key)):
        if path is not None and not path.is_file():
            raise SettingsError(f"{key}: there is no file {path}")
    if settings.tls_cert is not None and settings.tls_key is not None:
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
                settings.tls_cert, settings.tls_key
            )
        except (ssl.SSLError, OSError) as error:
            raise SettingsError(
                f"TUKANG_TLS_CERT, TUKANG_TLS_KEY: they are no certificate and its key, both in PEM: {error}"
            ) from error
    _check_port(settings)
    if settings.auth == "none":
        if not settings.on_loopback():
            raise SettingsError(
                f"TUKANG_AUTH: none is for this machine alone, and {settings.listen} is not: use tokens"
            )
        log.warning("no tokens are asked for: every program on this machine may do everything")
    elif settings.tls_cert is None and not settings.on_loopback():
        log.warning("%s speaks no TLS itself: let only a proxy that does reach it", settings.listen)
    # Before the fork: one process migrates, and what is wrong with the database is said in one place.
    prepare_database(settings)
    _Application(settings, started).run()
