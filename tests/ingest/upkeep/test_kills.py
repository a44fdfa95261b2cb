"""Upkeep killed again and again beside running workers: only orphans are left. UPKEEP_KILLS (20) says how often."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from itertools import count
from typing import Any

import pytest

from deploy.part import clean_environment
from tests.ingest.test_way import START_MS, event, produce, worker
from tests.ingest.upkeep.processes import start_upkeep
from tests.ingest.upkeep.test_seal import states
from tests.stack.kafka import Kafka
from tests.stack.services import Services

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("UPKEEP_KILLS", "20"))
FOLDERS = ("fresh", "sealed", "dead_letters", "deletes")
STEP = 1_200  # events a second apart: three steps are a period


class Stream:
    """Events without end: most in order, some again in the other partition, some an hour late."""

    def __init__(self, kafka: Kafka, topic: str, pause_s: float = 0.4) -> None:
        self._kafka, self._topic, self._pause_s = kafka, topic, pause_s
        self.sent = 0
        self.records = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        for step in count():
            first = step * STEP
            records = [
                (number % 2, event(number), START_MS + number * 1000) for number in range(first, first + STEP)
            ]
            again = range(max(0, first - 4 * STEP), max(0, first - 3 * STEP), 100)
            records += [(1 - number % 2, event(number), START_MS + (first + STEP) * 1000) for number in again]
            produce(self._kafka, self._topic, records)
            self.sent = first + STEP
            self.records += len(records)
            if self._stopped.wait(self._pause_s):
                return


def lines(services: Services, topic: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    page: dict[str, Any] = {"next_page": None}
    while not found or page["next_page"]:
        more = {"page": page["next_page"]} if page["next_page"] else {}
        page = services.get(f"/topics/{topic}/ledger", limit=1000, **more)
        found += page["lines"]
    return found


def appended(services: Services, topic: str) -> int:
    """How many records appends account for, none of them held back."""
    own = [line for line in lines(services, topic) if line["kind"] == "append"]
    return sum(line["written"] + line["duplicates"] for line in own)


def catalogued(services: Services) -> tuple[set[str], set[str]]:
    """Keys of the live files, and of all that a commit ever named."""
    with closing(sqlite3.connect(services.folder / "tukang.db", timeout=30)) as connection:
        rows = connection.execute("SELECT url, removed_sequence IS NULL FROM files").fetchall()
    keys = {str(url).removeprefix(f"s3://{services.bucket.name}/"): live for url, live in rows}
    return {key for key, live in keys.items() if live}, set(keys)


def test_upkeep_that_is_killed_at_any_moment_leaves_nothing_but_orphans(
    kafka: Kafka, services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = kafka.topic(partitions=2, retention_ms=-1)
    services.create(
        topic, event_id=["id"], event_time=["at"], lateness="1s", period="hour", grace="0s", file_bytes="1MB"
    )
    worker(services, topic, FLUSH_AGE="300ms")
    stream = Stream(kafka, topic)
    stream.start()
    environment = {**services.environment, "TUKANG_MEMORY": "256MiB"}
    log = str(services.folder / "upkeep.log")
    services.wait("a complete period", lambda: "complete" in states(services, topic))
    beside = start_upkeep({**environment, "TUKANG_NAME": "beside"}, log)
    began = time.monotonic()
    services.wait("a seal", lambda: "sealed" in states(services, topic))
    # Kills come at any moment of what takes so long here and now.
    first_s = min(time.monotonic() - began, 5.0)
    dice = random.Random(7)
    for number in range(KILLS):
        process = start_upkeep({**environment, "TUKANG_NAME": f"upkeep-{number}"}, log)
        time.sleep(dice.uniform(0.1, 1.1) * first_s)
        process.kill()
        process.join()
        if number % 4 == 3:
            beside.kill()
            beside.join()
            beside = start_upkeep({**environment, "TUKANG_NAME": f"beside-{number}"}, log)
    beside.kill()
    beside.join()
    stream.stop()
    services.wait("everything in the lake", lambda: appended(services, topic) == stream.records)
    assert sum(line["kind"] == "replace" for line in lines(services, topic)) > 1, "the kills hit nothing"
    found = (
        services.rows(topic)
        .sql("SELECT count(DISTINCT n), count(*), count(DISTINCT (_lake_partition, _offset)) FROM rows")
        .fetchone()
    )
    assert found is not None
    assert found[0] == stream.sent
    assert found[1] == found[2]
    objects = {url for folder in FOLDERS for url in services.bucket.keys(f"{folder}/{topic}/")}
    live, named = catalogued(services)
    assert live <= objects, "no live object is deleted"
    kinds = Counter(
        line["kind"] for line in {each["sequence"]: each for each in lines(services, topic)}.values()
    )
    twins = sum(line["duplicates"] for line in lines(services, topic) if line["kind"] == "replace")
    with capsys.disabled():
        sys.stdout.write(
            f"\n{KILLS} kills in {time.monotonic() - began:.0f} s: {found[1]} rows checked, {kinds['append']} appends, "
            f"{kinds['replace']} replaces took {twins} twins out, {len(objects)} objects, {len(objects - named)} of "
            f"them orphans, {len(live)} live, {len(live - objects)} live ones deleted\n"
        )
    proof = subprocess.run(
        [sys.executable, "-m", "tukang", "verify", topic, "--deep"],
        env=clean_environment(services.environment), cwd=services.folder, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (proof.returncode, proof.stdout.splitlines()[-1]) == (0, "complete"), proof.stdout + proof.stderr
