"""The worker while others are away: broker, store, API, database; at its start, and for a while at full input.

Each time the same is proved: it waits and says so, its memory stays under its ceiling, its heartbeats go on, work goes
on by itself when they are back, and nothing is lost or doubled.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from deploy.part import LOOPBACK
from tests.chaos.check import check
from tests.chaos.producers import PlainProducer, Topics
from tests.chaos.program import Program
from tests.chaos.town import Town
from tests.stack.postgres import USER
from tests.stack.proxy import Proxy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

AWAY_S = float(os.environ.get("OUTAGE_SECONDS", "20"))
RATE = 4000.0
MIB = 2**20
INTERPRETER = 320 * MIB  # Python, Arrow, boto3 and the Kafka clients, before the first record
WHO = ["broker", "store", "API", "database"]


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """One town for all tests here; each has a topic, a group and a worker of its own."""
    with Town(tmp_path_factory.mktemp("town"), apis=1, FLUSH_AGE="1s") as town:
        yield town


@pytest.fixture
def whole(town: Town) -> Iterator[Town]:
    """The town, whole again and without workers after the test."""
    yield town
    for proxy in (town.broker_proxy, town.store_proxy, town.api_proxy, town.database_proxy):
        proxy.fine()
    for program in town.workers.values():
        program.kill()
    town.workers.clear()


@pytest.fixture
def topic(whole: Town, request: pytest.FixtureRequest) -> str:
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)
    return whole.create(name, 4, event_id=["id"], event_time=["at"], lateness="5s")


def proxy_of(town: Town, who: str) -> Proxy:
    return {
        "broker": town.broker_proxy,
        "store": town.store_proxy,
        "API": town.api_proxy,
        "database": town.database_proxy,
    }[who]


def start(town: Town, topic: str, **settings: str) -> Program:
    return town.start_worker(f"worker-of-{topic}", TOPICS=topic, GROUP=topic, **settings)


@contextmanager
def writing(town: Town, topic: str, rate: float = RATE) -> Iterator[PlainProducer]:
    """Events are written, until the block ends and all of them are in Kafka."""
    producer = PlainProducer(
        town.kafka.settings.confluent_config(), Topics({topic: 4}), rate, seed=7, began=time.time()
    )
    producer.start()
    try:
        yield producer
    finally:
        producer.finish()
        assert producer.error is None


class Watch(threading.Thread):
    """Looks at a worker's memory and group while something is away."""

    def __init__(self, worker: Program) -> None:
        super().__init__(daemon=True)
        self.worker = worker
        self.highest_rss = 0
        self.highest_held = 0.0
        self.generations: set[float] = set()
        self.held = False
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.5):
            self.highest_rss = max(self.highest_rss, self.worker.rss())
            generation = self.worker.metric("tukang_group_generation")
            if generation is not None:
                self.generations.add(generation)
            self.highest_held = max(self.highest_held, self.worker.metric("tukang_memory_bytes") or 0)
            self.held |= self.worker.metric("tukang_holding") == 1

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()


def wait_caught_up(town: Town, topic: str) -> None:
    def caught_up() -> bool:
        ends = town.ends(topic)
        parts = town.get(f"/topics/{topic}")["partitions"]
        return len(parts) == len(ends) and all(
            part["next"] == ends[part["broker_partition"]] and not part["carried_count"] for part in parts
        )

    town.wait(f"{topic} in the lake", caught_up)


def wait_first_commits(town: Town, topic: str) -> None:
    town.wait("the first commits", lambda: town.get(f"/topics/{topic}")["sequence"] >= 2)


def prove(town: Town, topic: str, folder: Path, worker: Program) -> None:
    """Nothing lost, doubled, invented or changed; the worker is the one that was started."""
    wait_caught_up(town, topic)
    found = check(town, topic, folder)
    assert found.records > 0
    assert found.wrong == 0, found
    assert worker.running, worker.part.tail(60)


@pytest.mark.parametrize("who", WHO)
def test_a_worker_started_while_somebody_is_away_waits_and_says_so(
    whole: Town, topic: str, tmp_path: Path, who: str
) -> None:
    proxy_of(whole, who).refuse()
    with writing(whole, topic, 500):
        worker = start(whole, topic)
        whole.wait("a word about it", lambda: "waiting for the" in worker.part.log.read_text())
        time.sleep(3)
        assert worker.running, worker.part.tail()
        proxy_of(whole, who).fine()
        wait_first_commits(whole, topic)
    prove(whole, topic, tmp_path, worker)


@pytest.mark.parametrize("trouble", ["refuses", "is silent"])
@pytest.mark.parametrize("who", WHO)
def test_somebody_away_at_full_input_costs_nothing_but_time(
    whole: Town, topic: str, tmp_path: Path, who: str, trouble: str
) -> None:
    away = proxy_of(whole, who)
    worker = start(whole, topic, MEMORY="256MiB")
    with writing(whole, topic):
        wait_first_commits(whole, topic)
        with Watch(worker) as watch:
            if trouble == "refuses":
                away.refuse()
                if who in ("broker", "store"):  # the API can be told
                    whole.wait(
                        "the state that says so",
                        lambda: whole.get(f"/topics/{topic}")["state"] == "waiting",
                        AWAY_S + 30,
                    )
                    assert who in whole.get(f"/topics/{topic}")["reason"]
                time.sleep(AWAY_S)
                assert "waiting for the" in worker.part.log.read_text(), worker.part.tail()
            else:  # a request waits for its time limit before the worker knows
                away.hang()
                time.sleep(AWAY_S / 2)
            away.fine()
            time.sleep(3)
    prove(whole, topic, tmp_path, worker)
    assert watch.highest_rss < 256 * MIB + INTERPRETER, watch.highest_rss / MIB
    if who != "broker":  # a broker that cannot be reached hears no heartbeats
        assert len(watch.generations) == 1, watch.generations


def refuse_writes(town: Town) -> Callable[[], None]:
    """Makes the database read-only for every new connection; returns what ends it."""

    def alter(how: str) -> None:
        with psycopg.connect(
            host=LOOPBACK, port=town.postgres.port, user=USER, dbname=USER, autocommit=True
        ) as connection:
            connection.execute(
                sql.SQL("ALTER DATABASE {} {} default_transaction_read_only" + how).format(
                    sql.Identifier(town.database), sql.SQL("SET" if how else "RESET")
                )
            )
        town.database_proxy.cut()

    alter(" = on")
    return lambda: alter("")


def fill_disk(town: Town) -> Callable[[], None]:
    """The store has no room; returns what ends it."""
    town.store_proxy.answer("PUT", "507 Insufficient Storage")
    return town.store_proxy.fine


@pytest.mark.parametrize("limit", [refuse_writes, fill_disk])
def test_a_store_or_database_that_takes_nothing_is_waited_for(
    whole: Town, topic: str, tmp_path: Path, limit: Callable[[Town], Callable[[], None]]
) -> None:
    worker = start(whole, topic, MEMORY="256MiB")
    with writing(whole, topic):
        wait_first_commits(whole, topic)
        with Watch(worker) as watch:
            end = limit(whole)
            time.sleep(2)
            before = whole.get(f"/topics/{topic}")["sequence"]
            time.sleep(AWAY_S / 2)
            assert whole.get(f"/topics/{topic}")["sequence"] == before
            assert "waiting for the" in worker.part.log.read_text(), worker.part.tail()
            end()
            time.sleep(3)
    prove(whole, topic, tmp_path, worker)
    assert watch.highest_rss < 256 * MIB + INTERPRETER, watch.highest_rss / MIB
    assert len(watch.generations) == 1, watch.generations


@pytest.mark.parametrize("who", ["store", "API"])
def test_a_backlog_that_cannot_be_published_stays_under_the_ceiling(
    whole: Town, topic: str, tmp_path: Path, who: str
) -> None:
    with writing(whole, topic, 40_000) as producer:
        producer.events.copies = 0  # the window of duplicates is cut short here, for want of memory
        whole.wait("a backlog", lambda: producer.records > 200_000)
        worker = start(whole, topic, MEMORY="64MiB", FLUSH_ROWS="20000")
        wait_first_commits(whole, topic)
        proxy_of(whole, who).refuse()
        with Watch(worker) as watch:
            whole.wait("no more fetching", lambda: watch.held)
            producer.finish()
            time.sleep(AWAY_S / 2)
            proxy_of(whole, who).fine()
            wait_caught_up(whole, topic)
    prove(whole, topic, tmp_path, worker)
    assert watch.highest_held < 64 * MIB * 1.25, watch.highest_held / MIB
    assert watch.highest_rss < 3 * 64 * MIB + INTERPRETER, watch.highest_rss / MIB
    assert len(watch.generations) == 1, watch.generations


@pytest.mark.parametrize("who", WHO)
def test_sigterm_ends_a_worker_also_while_somebody_is_away(
    whole: Town, topic: str, tmp_path: Path, who: str
) -> None:
    worker = start(whole, topic)
    with writing(whole, topic, 1000):
        wait_first_commits(whole, topic)
        proxy_of(whole, who).refuse()
        time.sleep(3)
        worker.signal(signal.SIGTERM)
        assert worker.process.wait(150) == 0, worker.part.tail(60)
        proxy_of(whole, who).fine()
        worker = start(whole, topic)
        time.sleep(3)
    prove(whole, topic, tmp_path, worker)
