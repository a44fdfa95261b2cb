"""`tukang load` against the real API and store: once, following, killed, two at once."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

from loaders.load import load
from loaders.warehouse import WarehouseAway, open_warehouse
from tests.loaders.conftest import ROOT, Api
from tests.loaders.maker import Maker
from tests.loaders.model import KINDS
from tests.loaders.test_warehouses import PARAMETERS, TARGETS, Target, rows_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

KILLS = int(os.environ.get("KILLS", "10"))
"""How often a loader is killed; more with `KILLS=50 pytest tests/loaders/test_load.py -k killed`."""


@pytest.fixture(params=PARAMETERS)
def target(request: pytest.FixtureRequest) -> Target:
    return TARGETS[request.param](request)


def loader(maker: Maker) -> str:
    """The name of a topic's own loader."""
    return f"dwh-{maker.topic}"


def registered(maker: Maker, **told: object) -> None:
    """Registers a loader that mirrors expiry, so that its table is the live rows."""
    body = {"topics": [maker.topic], "from": "snapshot", "hold": False, "mirror_expiry": True, **told}
    maker.http.put(f"/loaders/{loader(maker)}", json=body).raise_for_status()


def commits(maker: Maker, count: int, random: random.Random) -> None:
    for _ in range(count):
        maker.commit(random.choice((*KINDS, "append")), random.randint(0, 11))


def told(maker: Maker) -> int:
    """The cursor that the API has."""
    body = maker.http.get(f"/loaders/{loader(maker)}").raise_for_status().json()
    return int(next(each["sequence"] for each in body["cursors"] if each["topic"] == maker.topic))


def test_a_topic_is_loaded_up_to_its_head_and_the_api_told(maker: Maker, target: Target) -> None:
    maker.commit("append", 1)
    registered(maker)
    for round_ in range(3):
        commits(maker, 5, random.Random(round_))
        assert load(target.url, loader(maker), [maker.topic]) == 0
        assert rows_of(target, maker.topic) == maker.lake.head.rows()
        assert told(maker) == maker.lake.head.sequence
    assert load(target.url, loader(maker), []) == 0


def test_a_loader_that_nobody_registered_registers_itself_for_what_it_is_asked(
    maker: Maker, target: Target
) -> None:
    commits(maker, 3, random.Random(1))
    assert load(target.url, loader(maker), [f"^{maker.topic[:-1]}[0-9]$"]) == 0
    assert rows_of(target, maker.topic) == maker.lake.head.rows()


def test_files_come_by_presigned_urls_without_credentials(
    maker: Maker, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits(maker, 3, random.Random(1))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "TUKANG_S3_ENDPOINT"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("TUKANG_URLS", "presigned")
    assert load(target.url, loader(maker), [maker.topic]) == 0
    assert rows_of(target, maker.topic) == maker.lake.head.rows()


def test_a_topic_that_cannot_be_loaded_does_not_keep_the_others(maker: Maker, target: Target) -> None:
    commits(maker, 3, random.Random(1))
    assert load(target.url, loader(maker), ["nobody.made.this", maker.topic]) == 1
    assert rows_of(target, maker.topic) == maker.lake.head.rows()


def test_a_loader_whose_next_objects_are_gone_catches_up(
    own_api: Api, own_maker: Maker, target: Target
) -> None:
    maker = own_maker
    chance = random.Random(3)
    maker.commit("append", 1)
    registered(maker)
    for _ in range(3):
        assert load(target.url, loader(maker), []) == 0
        commits(maker, 8, chance)
        maker.commit("replace", 2)
        maker.commit("append", 3)
        maker.sweep()
        own_api.say_swept()
    assert load(target.url, loader(maker), []) == 0
    assert rows_of(target, maker.topic) == maker.lake.head.rows()


def test_a_loader_follows_into_the_life_of_a_restored_catalogue(
    own_api: Api, own_maker: Maker, target: Target
) -> None:
    maker = own_maker
    chance = random.Random(4)
    maker.commit("append", 1)
    registered(maker)
    commits(maker, 4, chance)
    for steps in (1, 4):
        backup = own_api.back_up()
        common = maker.lake.head.sequence
        commits(maker, steps, chance)
        assert load(target.url, loader(maker), []) == 0
        commits(maker, steps, chance)
        own_api.restore(backup, common)
        maker.restored(common)
        commits(maker, 3, chance)
        assert load(target.url, loader(maker), []) == 0
        assert rows_of(target, maker.topic) == maker.lake.head.rows()
        assert told(maker) == maker.lake.head.sequence


def test_a_loader_of_many_topics_brings_each_into_a_table_of_its_own(
    api: Api, maker: Maker, target: Target, tmp_path: Path
) -> None:
    makers = [
        Maker(api.url, maker.bucket, tmp_path / f"objects{number}", f"{maker.topic}.{number}")
        for number in range(5)
    ]
    for number, each in enumerate(makers):
        commits(each, 4, random.Random(number))
        each.commit("append", 1)
    assert load(target.url, loader(maker), [rf"^{maker.topic}\..+", maker.topic]) == 0
    for each in makers:
        assert rows_of(target, each.topic) == each.lake.head.rows()
        each.http.close()


@pytest.mark.parametrize("target", ["duckdb"], indirect=True)
def test_the_example_of_the_page_on_loaders_is_a_loader(
    own_api: Api, own_maker: Maker, target: Target, tmp_path: Path
) -> None:
    """Told by nothing but the API's address, also through a 410."""
    for program in ("bash", "curl", "jq"):
        if shutil.which(program) is None:
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"there is no {program}")
    blocks = (ROOT / "docs" / "loaders.md").read_text().split("```bash\n")
    script = tmp_path / "loader.sh"
    script.write_text(blocks[-1].split("```")[0])
    assert script.read_text().count("\n") <= 60
    warehouse = tmp_path / "example.duckdb"
    maker, chance = own_maker, random.Random(6)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = ["bash", str(script), maker.topic, "example", str(warehouse)]
    for _ in range(3):
        commits(maker, 10, chance)
        maker.commit("append", 1)
        environment = {"PATH": path, "TUKANG_API": own_api.url, "TMPDIR": str(tmp_path)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        with duckdb.connect(str(warehouse), read_only=True) as connection:
            found = connection.execute(
                f'SELECT lake_partition, "offset", event->>\'value\' FROM "{maker.topic}" ORDER BY ALL'
            ).fetchall()
        live = maker.lake.head.rows()
        kept = {key for key, row in maker.lake.head.expired.items()} - set(live)
        assert [each for each in found if each[:2] not in kept] == sorted(
            (*key, row.value) for key, row in live.items()
        )
        assert len({each[:2] for each in found}) == len(found)
        maker.sweep()
        own_api.say_swept()


@contextmanager
def process(api: Api, maker: Maker, target: Target, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A loader of its own process, one commit a transaction; killed at the end."""
    temp = log.parent / "temp"
    temp.mkdir(exist_ok=True)
    environment = {**os.environ, **api.environment, "TUKANG_RUN_BYTES": "1", "TMPDIR": str(temp)}
    command = [
        sys.executable, "-m", "tukang", "load", "--to", target.url, "--loader", loader(maker), "--follow", maker.topic
    ]  # fmt: skip
    with log.open("ab") as out:
        running = subprocess.Popen(command, env=environment, stdout=out, stderr=out, cwd=ROOT)
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def cursor_of(maker: Maker, target: Target) -> int:
    """How far the warehouse is; -1 while nobody can look."""
    warehouse = open_warehouse(target.url, loader(maker))
    try:
        cursor = warehouse.cursor(maker.topic)
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
        before, patience = cursor_of(maker, target), time.monotonic() + 60
        with process(api, maker, target, log) as running:
            while cursor_of(maker, target) <= before:  # it is at work
                assert running.poll() is None, log.read_text()
                assert time.monotonic() < patience, log.read_text()
                time.sleep(0.2)  # who looks at a DuckDB file keeps the loader out
            time.sleep(chance.random() * 0.5)
        moved += cursor_of(maker, target) > before
    assert moved == KILLS
    assert load(target.url, loader(maker), []) == 0
    commits(maker, 1, chance)
    before = cursor_of(maker, target)
    with process(api, maker, target, log) as running:  # which also clears up after those that were killed
        while cursor_of(maker, target) <= before:
            assert running.poll() is None, log.read_text()
            time.sleep(0.2)
        running.terminate()
        assert running.wait(30) == 0, log.read_text()
    assert not list((tmp_path / "temp").iterdir())
    assert rows_of(target, maker.topic) == maker.lake.head.rows()


def test_two_loaders_at_once_under_one_name_load_everything_once(
    api: Api, maker: Maker, target: Target, tmp_path: Path
) -> None:
    chance = random.Random(2)
    maker.commit("append", 1)
    registered(maker)
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    with process(api, maker, target, logs[0]) as one, process(api, maker, target, logs[1]) as two:
        for _ in range(8):
            commits(maker, 3, chance)
            time.sleep(0.2)
        patience = time.monotonic() + 90
        while cursor_of(maker, target) < maker.lake.head.sequence:
            assert time.monotonic() < patience, logs[0].read_text() + logs[1].read_text()
            time.sleep(0.1)
        for running in (one, two):
            running.send_signal(signal.SIGTERM)
        assert [one.wait(30), two.wait(30)] == [0, 0], logs[0].read_text() + logs[1].read_text()
    assert rows_of(target, maker.topic) == maker.lake.head.rows()
    assert told(maker) <= maker.lake.head.sequence
