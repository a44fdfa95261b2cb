"""How far each topic is, known in every API process within milliseconds, so that waiting loaders ask nothing.

One watcher thread in a process: on PostgreSQL it listens for what other processes committed and tells them what this
one did (a NOTIFY inside the commits' transactions would take a lock that all of them share, so it is sent after them,
many topics in one); on SQLite it looks at the file's change counter. What a notice lost is found by one query in a
second, whatever the number of waiters.
"""

import logging
import os
import select
import threading
import time
from collections import defaultdict
from collections.abc import Collection

import psycopg
from sqlalchemy import select as sql_select
from sqlalchemy.exc import SQLAlchemyError

from api.database import Database, said_by
from api.tables import topics

log = logging.getLogger(__name__)

CHANNEL = "tukang_heads"
SQLITE_LOOK_SECONDS = 0.03
QUERY_SECONDS = 1.0
RECONNECT_SECONDS = 1.0
# PostgreSQL takes 8,000 bytes in one notice; an entry has at most 40.
TOPICS_IN_NOTICE = 190


class Heads:
    """The newest sequence of each topic as far as known, and those who wait for a newer one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._known: dict[int, int] = {}
        self._waiting: defaultdict[int, set[threading.Event]] = defaultdict(set)
        self._outbox: dict[int, int] = {}
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._away = False  # whether the database failed the watcher, and that was said
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)

    def moved(self, topic_id: int, sequence: int) -> None:
        """A commit of this process is in the database: wakes its waiters at once, other processes' soon."""
        self._learn({topic_id: sequence})
        if not self._database.sqlite:
            with self._lock:
                self._outbox[topic_id] = max(sequence, self._outbox.get(topic_id, 0))
            self._start()
            self._wake()

    def wait(self, after: dict[int, int], seconds: float) -> None:
        """Returns when one of the topics is beyond the head given (id -> sequence), at a stop, or after `seconds`.

        `after` are heads as the caller read them: what is known already wakes nobody.
        """
        event = threading.Event()
        with self._lock:
            if self._stopped or any(
                self._known.get(topic, 0) > sequence for topic, sequence in after.items()
            ):
                return
            for topic, sequence in after.items():
                self._known[topic] = sequence
                self._waiting[topic].add(event)
        self._start()
        try:
            event.wait(seconds)
        finally:
            with self._lock:
                for topic in after:
                    waiting = self._waiting[topic]
                    waiting.discard(event)
                    if not waiting:
                        del self._waiting[topic]

    def waiters(self) -> int:
        """How many requests wait now."""
        with self._lock:
            return len(set().union(*self._waiting.values())) if self._waiting else 0

    def stop(self) -> None:
        """Ends every wait and the watcher; a stopping server answers its long polls at once."""
        with self._lock:
            self._stopped = True
            for events in self._waiting.values():
                for event in events:
                    event.set()
            if self._thread is None:
                self._close()
        self._wake()

    def _close(self) -> None:
        """Gives the pipe back; the lock is held, so that nobody writes into another one's file."""
        if self._wake_write >= 0:
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._wake_read = self._wake_write = -1

    def _learn(self, heads: dict[int, int]) -> None:
        with self._lock:
            for topic, sequence in heads.items():
                if sequence > self._known.get(topic, 0):
                    self._known[topic] = sequence
                    for event in self._waiting.get(topic, ()):
                        event.set()

    def _wake(self) -> None:
        with self._lock:
            if self._wake_write < 0:
                return
            try:
                os.write(self._wake_write, b"\0")
            except BlockingIOError:
                return  # the pipe is full of wake-ups already

    def _watch(self) -> None:
        try:
            if self._database.sqlite:
                self._watch_sqlite()
            else:
                self._watch_postgresql()
        finally:
            with self._lock:
                self._close()

    def _start(self) -> None:
        """Starts the watcher with the first use, so that a server may fork after making the application."""
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(target=self._watch, name="heads", daemon=True)
                self._thread.start()

    def _query(self, wanted: Collection[int]) -> None:
        if wanted:
            with self._database.read() as connection:
                rows = connection.execute(
                    sql_select(topics.c.id, topics.c.sequence).where(topics.c.id.in_(list(wanted)))
                )
                self._learn({row.id: row.sequence for row in rows})

    def _wanted(self) -> list[int]:
        with self._lock:
            return list(self._waiting)

    def _watch_sqlite(self) -> None:
        """Another process's commit changes `data_version` as this connection sees it; reading it costs microseconds."""
        seen = -1
        while not self._stopped:
            try:
                with self._database.engine.connect() as connection:
                    driver = connection.connection.driver_connection
                    assert driver is not None
                    connection.detach()
                    while not self._stopped:
                        wanted = self._wanted()
                        version = driver.execute("PRAGMA data_version").fetchone()[0]
                        self._say_back()
                        if version != seen:
                            self._query(wanted)
                            seen = version if wanted else -1
                        time.sleep(SQLITE_LOOK_SECONDS if wanted else 4 * SQLITE_LOOK_SECONDS)
            except SQLAlchemyError as error:
                self._say_away(error)
                time.sleep(RECONNECT_SECONDS)

    def _watch_postgresql(self) -> None:
        while not self._stopped:
            try:
                raw = self._database.engine.raw_connection()
                driver = raw.driver_connection
                raw.detach()
                assert isinstance(driver, psycopg.Connection)
                driver.autocommit = True
                try:
                    # A lost notice costs a second's delay, a synced one would cost the disk a write each.
                    driver.execute("SET synchronous_commit = off")
                    driver.execute(f"LISTEN {CHANNEL}")
                    self._say_back()
                    self._listen(driver)
                finally:
                    driver.close()
            except (SQLAlchemyError, psycopg.Error) as error:
                self._say_away(error)
                time.sleep(RECONNECT_SECONDS)

    def _say_away(self, error: Exception) -> None:
        """Once for an outage, however long; each request that fails is in the log, too."""
        if not self._away and not self._stopped:
            self._away = True
            log.warning(
                "cannot learn of other processes' commits, trying again every second: %s", said_by(error)
            )

    def _say_back(self) -> None:
        if self._away:
            self._away = False
            log.warning("learns of other processes' commits again")

    def _listen(self, driver: "psycopg.Connection[tuple[object, ...]]") -> None:
        queried = 0.0
        # Not select(): with a thousand loaders connected, a descriptor is beyond what it can wait for.
        poll = select.poll()
        poll.register(driver.fileno(), select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while not self._stopped:
            if any(readable == self._wake_read for readable, _ in poll.poll(QUERY_SECONDS * 1000)):
                os.read(self._wake_read, 65536)
                self._tell(driver)
            heads: dict[int, int] = {}
            for notice in driver.notifies(timeout=0):
                for entry in notice.payload.split(","):
                    topic, _, sequence = entry.partition(":")
                    heads[int(topic)] = max(int(sequence), heads.get(int(topic), 0))
            self._learn(heads)
            if time.monotonic() - queried > QUERY_SECONDS:
                self._query(self._wanted())
                queried = time.monotonic()

    def _tell(self, driver: "psycopg.Connection[tuple[object, ...]]") -> None:
        with self._lock:
            entries, self._outbox = [f"{topic}:{sequence}" for topic, sequence in self._outbox.items()], {}
        for start in range(0, len(entries), TOPICS_IN_NOTICE):
            notice = ",".join(entries[start : start + TOPICS_IN_NOTICE])
            driver.execute("SELECT pg_notify(%s, %s)", (CHANNEL, notice))
