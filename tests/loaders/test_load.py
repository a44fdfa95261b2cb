"""`tukang load` against the real API and store: once, following, killed, two at once."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loaders.load import load
from loaders.warehouse import WarehouseAway, open_warehouse
from tests.loaders.conftest import Api
from tests.loaders.maker import Maker
from tests.loaders.model import KINDS
from tests.loaders.test_warehouses import TARGETS, Target, rows_of

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("KILLS", "10"))
"""How often a loader is killed; more with `KILLS=50 pytest tests/loaders/test_load.py -k killed`."""


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> Target:
    return TARGETS[request.param](request)


def registered(maker: Maker, name: str = "dwh", **told: object) -> None:
    """Registers a loader that mirrors expiry, so that its table is the live rows."""
    body = {"topics": [maker.topic], "from": "snapshot", "hold": False, "mirror_expiry": True, **told}
    maker.http.put(f"/loaders/{name}", json=body).raise_for_status()


def commits(maker: Maker, count: int, random: random.Random) -> None:
    for _ in range(count):
        maker.commit(random.choice((*KINDS, "append")), random.randint(0, 11))


def told(maker: Maker, name: str = "dwh") -> int:
    """The cursor that the API has."""
    body = maker.http.get(f"/loaders/{name}").raise_for_status().json()
    return int(next(each["sequence"] for each in body["cursors"] if each["topic"] == maker.topic))


def test_a_topic_is_loaded_up_to_its_head_and_the_api_told(maker: Maker, target: Target) -> None:
    maker.commit("append", 1)
    registered(maker)
    for round_ in range(3):
        commits(maker, 5, random.Random(round_))
        assert load(target.url, "dwh", ["orders"]) == 0
        assert rows_of(target) == maker.lake.head.rows()
        assert told(maker) == maker.lake.head.sequence
    assert load(target.url, "dwh", []) == 0


def test_a_loader_that_nobody_registered_registers_itself_for_what_it_is_asked(
    maker: Maker, target: Target
) -> None:
    commits(maker, 3, random.Random(1))
    assert load(target.url, "fresh", ["^ord.*"]) == 0
    assert rows_of(target) == maker.lake.head.rows()


def test_files_come_by_presigned_urls_without_credentials(
    maker: Maker, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits(maker, 3, random.Random(1))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "TUKANG_S3_ENDPOINT"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("TUKANG_URLS", "presigned")
    assert load(target.url, "dwh", ["orders"]) == 0
    assert rows_of(target) == maker.lake.head.rows()


def test_a_topic_that_cannot_be_loaded_does_not_keep_the_others(maker: Maker, target: Target) -> None:
    commits(maker, 3, random.Random(1))
    assert load(target.url, "dwh", ["nobody.made.this", "orders"]) == 1
    assert rows_of(target) == maker.lake.head.rows()


def test_a_loader_whose_next_objects_are_gone_catches_up(api: Api, maker: Maker, target: Target) -> None:
    chance = random.Random(3)
    maker.commit("append", 1)
    registered(maker)
    for _ in range(3):
        assert load(target.url, "dwh", []) == 0
        commits(maker, 8, chance)
        maker.commit("replace", 2)
        maker.commit("append", 3)
        maker.sweep()
        api.say_swept()
    assert load(target.url, "dwh", []) == 0
    assert rows_of(target) == maker.lake.head.rows()


def test_a_loader_follows_into_the_life_of_a_restored_catalogue(
    api: Api, maker: Maker, target: Target
) -> None:
    chance = random.Random(4)
    maker.commit("append", 1)
    registered(maker)
    commits(maker, 4, chance)
    for steps in (1, 4):
        backup = api.back_up()
        common = maker.lake.head.sequence
        commits(maker, steps, chance)
        assert load(target.url, "dwh", []) == 0
        commits(maker, steps, chance)
        api.restore(backup, common)
        maker.restored(common)
        commits(maker, 3, chance)
        assert load(target.url, "dwh", []) == 0
        assert rows_of(target) == maker.lake.head.rows()
        assert told(maker) == maker.lake.head.sequence


@contextmanager
def process(api: Api, target: Target, log: Path, how: str = "follow") -> Iterator[subprocess.Popen[bytes]]:
    """A loader of its own process, one commit a transaction; killed at the end."""
    environment = {**os.environ, **api.environment, "TUKANG_RUN_BYTES": "1"}
    command = [sys.executable, "-m", "tests.loaders.process", target.url, "dwh", how, "orders"]
    with log.open("ab") as out:
        running = subprocess.Popen(
            command, env=environment, stdout=out, stderr=out, cwd=Path(__file__).parents[2]
        )
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def cursor_of(target: Target) -> int:
    """How far the warehouse is; -1 while nobody can look."""
    warehouse = open_warehouse(target.url, "dwh")
    try:
        cursor = warehouse.cursor("orders")
    except WarehouseAway:
        return -1
    finally:
        warehouse.close()
    return cursor.sequence if cursor else 0


def test_a_loader_that_is_killed_at_any_moment_ends_with_the_live_rows(
    api: Api, maker: Maker, target: Target, tmp_path: Path
) -> None:
    chance = random.Random(KILLS)
    maker.commit("append", 1)
    registered(maker)
    log = tmp_path / "load.log"
    moved = 0
    for _ in range(KILLS):
        commits(maker, 6, chance)
        before, patience = cursor_of(target), time.monotonic() + 60
        with process(api, target, log) as running:
            while cursor_of(target) <= before:  # it is at work
                assert running.poll() is None, log.read_text()
                assert time.monotonic() < patience, log.read_text()
                time.sleep(0.05)
            time.sleep(chance.random() * 0.5)
        moved += cursor_of(target) > before
    assert moved == KILLS
    assert load(target.url, "dwh", []) == 0
    assert rows_of(target) == maker.lake.head.rows()


def test_two_loaders_at_once_under_one_name_load_everything_once(
    api: Api, maker: Maker, target: Target, tmp_path: Path
) -> None:
    chance = random.Random(2)
    maker.commit("append", 1)
    registered(maker)
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    with process(api, target, logs[0]) as one, process(api, target, logs[1]) as two:
        for _ in range(8):
            commits(maker, 3, chance)
            time.sleep(0.2)
        patience = time.monotonic() + 90
        while cursor_of(target) < maker.lake.head.sequence:
            assert time.monotonic() < patience, logs[0].read_text() + logs[1].read_text()
            time.sleep(0.1)
        for running in (one, two):
            running.send_signal(signal.SIGTERM)
        assert [one.wait(30), two.wait(30)] == [0, 0], logs[0].read_text() + logs[1].read_text()
    assert rows_of(target) == maker.lake.head.rows()
    assert told(maker) <= maker.lake.head.sequence
