"""The API's commit rules on SQLite in memory, and the network between them and the workers.

The API is the production code below its views, one call at one moment. The network loses requests and replies, doubles
requests and brings them late; an API that restarts answers nobody. What the first answer to each commit was is kept,
so that a repeated request can be held against it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

from api import commits, files, positions, workers
from api.database import Database, make_engine
from api.migrate import upgrade_at_start
from api.times import parse_time
from api.topic_state import find_topic
from ingest.catalog import Answer, Catalog, CatalogUnavailable
from tests.simulation.clocks import Clock
from tests.simulation.scheduler import Scheduler

TIMEOUT_S = 5.0  # of the worker's client

log = logging.getLogger(__name__)


class Empty:
    """An empty database with the newest schema, made once per process, and one engine that all seeds use in turn: its
    statements are compiled once."""

    def __init__(self) -> None:
        self._made = Database(make_engine("sqlite://"))
        upgrade_at_start(self._made)
        self._engine = make_engine("sqlite://")

    def copy(self, clock: Clock) -> Database:
        """The database of the next seed; that of the last one is gone with it."""
        database = Database(self._engine, lambda _: clock.now_us())
        _raw(self._made).backup(_raw(database))
        return database


def _raw(database: Database) -> sqlite3.Connection:
    found = database.engine.raw_connection().driver_connection
    assert isinstance(found, sqlite3.Connection)
    return found


class Api:
    """The API: state only in its database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.answers: dict[str, tuple[bytes, Any]] = {}  # commit id -> content and body of its 201
        self.wrong: list[str] = []
        self.counts: Counter[str] = Counter()
        self.judging = True  # a refusal as a defect is one
        self.on_commit: Callable[[str, dict[str, Any]], None] = lambda topic, content: None

    def serve(self, method: str, path: str, content: bytes) -> tuple[int, Any]:
        """Status and body of one request."""
        body = orjson.loads(content)
        if path == "/positions":
            return 200, {"topics": positions.answer_positions(self.database, body["topics"])}
        if path.startswith("/workers/"):
            return 200, workers.take_report(self.database, path.rpartition("/")[2], body)
        _, _, topic, what = urlsplit(path).path.split("/")
        if what == "commits":
            return self._commit(topic, body, content)
        if what == "files":
            return 200, self._files(topic, parse_qs(urlsplit(path).query))
        raise AssertionError(f"{method} {path}")

    def _commit(self, topic: str, body: dict[str, Any], content: bytes) -> tuple[int, Any]:
        status, said, _ = commits.commit(self.database, topic, body)
        name = said["type"].rpartition("/")[2] if status >= 400 else str(status)
        self.counts[name] += 1
        log.info(
            "commit %s to %s: %s, lines %s",
            body["id"][-6:],
            topic,
            name,
            [_short(line) for line in body["lines"]],
        )
        first = self.answers.get(body["id"])
        if status == 201:
            if first is not None:
                self.wrong.append(f"commit {body['id']} was taken twice")
            self.answers[body["id"]] = (content, said)
            self.on_commit(topic, body)
        elif first is not None and first[0] == content and (status, said) != (200, first[1]):
            self.wrong.append(
                f"commit {body['id']} was asked again and got {status} {said}, first {first[1]}"
            )
        elif status == 422 and first is None and self.judging:
            self.wrong.append(f"commit {body['id']} was refused as a defect: {said['detail']}")
        elif status == 200 and (first is None or first[0] != content):
            self.wrong.append(f"commit {body['id']} got 200 although it is not the first one of its id")
        return status, said

    def _files(self, topic: str, asked: dict[str, list[str]]) -> dict[str, Any]:
        with self.database.read() as connection:
            found = files.live_files(
                connection,
                find_topic(connection, topic).id,
                int(asked["at"][0]),
                limit=1_000_000,
                from_us=parse_time(asked["from"][0]) if "from" in asked else None,
            )
        shown = [{"url": row.url, "bytes": row.bytes, "what": row.what} for row in found]
        return {"files": shown, "next_page": None}


def _short(line: dict[str, Any]) -> str:
    counts = {
        name: line[name]
        for name in ("consumed", "carried_in", "written", "duplicates", "dead_letters", "lost", "carried_out")
        if line[name]
    }
    return f"{line['lake_partition']}:{line['from_offset']}-{line['to_offset']} {counts}"


class Network:
    """Between the workers and the API. The chances are per request."""

    def __init__(
        self, scheduler: Scheduler, rng: random.Random, api: Api, count: Callable[[str], None]
    ) -> None:
        self.scheduler = scheduler
        self.rng = rng
        self.api = api
        self.count = count
        self.api_up = True
        self.reports = True
        self.mean_s = 0.02
        self.request_lost = 0.0
        self.reply_lost = 0.0
        self.doubled = 0.0
        self.late = 0.0
        self.on_step: Callable[[Any, str], None] = lambda process, step: None
        self.on_end: Callable[[], None] = lambda: None  # of what a fault delayed

    def send(
        self, process: Any, method: str, path: str, content: bytes, reply: Callable[[int, Any], None]
    ) -> None:
        """Carries one request to the API and its answer back, or not."""
        rng = self.rng
        way = rng.expovariate(1 / self.mean_s)
        if rng.random() < self.late:
            self.count("request late")
            way += rng.choice([rng.uniform(0.3, 3), rng.uniform(2, 20)])
            self.scheduler.after(way, self.on_end)
        if rng.random() < self.request_lost:
            self.count("request lost")
        else:
            self.scheduler.after(way, lambda: self._arrive(process, method, path, content, reply))
        if rng.random() < self.doubled:
            self.count("request doubled")
            again = way + rng.choice([rng.uniform(0, 0.2), rng.uniform(0, 10)])
            self.scheduler.after(again, lambda: self._arrive(None, method, path, content, lambda *_: None))

    def _arrive(
        self, process: Any, method: str, path: str, content: bytes, reply: Callable[[int, Any], None]
    ) -> None:
        if not self.api_up:
            self.count("request to an API that is away")
            return
        status, body = self.api.serve(method, path, content)
        if process is not None:
            self.on_step(process, f"{method} {path}")
        if self.rng.random() < self.reply_lost:
            self.count("reply lost")
            return
        self.scheduler.after(self.rng.expovariate(1 / self.mean_s), lambda: reply(status, body))


class Reply:
    """What the worker's client sees of an answer."""

    def __init__(self, status: int, body: Any) -> None:
        self.status_code = status
        self.is_success = status < 400
        self._body = body

    def json(self) -> Any:
        return self._body


class SimulatedCatalog(Catalog):
    """`ingest.catalog.Catalog` with its way of asking again, over the simulated network."""

    def __init__(self, process: Any, network: Network) -> None:
        self._on_wait = lambda _: None
        self.kept: dict[tuple[str, int], Any] = {}  # for a mutant
        self._process = process
        self._network = network

    async def report(self, worker: str, report: Mapping[str, Any]) -> Answer:
        """Only where something is told by return; elsewhere reports would cost a sixth of the time."""
        if not self._network.reports:
            raise CatalogUnavailable("nobody takes reports in this world")
        return await super().report(worker, report)

    async def _once(self, method: str, path: str, body: Any = None) -> Any:
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Reply] = loop.create_future()

        def reply(status: int, said: Any) -> None:
            if not answered.done():
                answered.set_result(Reply(status, orjson.loads(orjson.dumps(said))))

        def give_up() -> None:
            if not answered.done():
                answered.set_exception(CatalogUnavailable(f"{method} {path}: no answer"))
                self._network.on_end()

        self._network.send(self._process, method, path, orjson.dumps(body), reply)
        patience = TIMEOUT_S if self._network.api_up else self._network.rng.uniform(0.01, 0.5)
        timer = loop.call_later(patience, give_up)
        try:
            return await answered
        finally:
            timer.cancel()
