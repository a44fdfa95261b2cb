"""What goes wrong around a loader: a warehouse that is busy, objects that are lost, URLs that nobody may see."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import duckdb
import pytest

from loaders.change import Change, Cursor
from loaders.load import load
from loaders.warehouse import Warehouse, WarehouseBusy, open_warehouse
from tests.loaders.conftest import ROOT, Api
from tests.loaders.maker import Maker
from tests.loaders.test_load import commits, loader, told
from tests.loaders.test_warehouses import DuckDBTarget, Target, rows_of

pytestmark = pytest.mark.slow


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return DuckDBTarget(tmp_path)


def _wait_for(words: str, log: Path) -> None:
    patience = time.monotonic() + 60
    while words not in log.read_text():
        assert time.monotonic() < patience, log.read_text()
        time.sleep(0.1)


def _lose(maker: Maker, api: Api) -> None:
    """Deletes the objects behind all files that are live."""
    for each in maker.store.list_objects_v2(Bucket=api.bucket.name)["Contents"]:
        maker.store.delete_object(Bucket=api.bucket.name, Key=each["Key"])


def test_no_presigned_url_is_in_anybodys_log(
    own_api: Api, own_maker: Maker, target: Target, tmp_path: Path
) -> None:
    """As the programs log, also where a URL does not work: the API's own and the loader's."""
    commits(own_maker, 3, random.Random(1))
    kept = ("AWS_", "TUKANG_S3_ENDPOINT")
    environment = {name: value for name, value in own_api.environment.items() if not name.startswith(kept)}
    command = [sys.executable, "-m", "tukang", "load", "--to", target.url, "--loader", loader(own_maker)]
    log = tmp_path / "load.log"
    for words in ("loaded up to 3", "its presigned URL has expired (404)"):
        with log.open("ab") as out:
            running = subprocess.Popen(
                [*command, "--follow", own_maker.topic], stdout=out, stderr=out, cwd=ROOT,
                env={"PATH": os.environ["PATH"], **environment, "TUKANG_URLS": "presigned"},
            )  # fmt: skip
        try:
            _wait_for(words, log)
        finally:
            running.terminate()
            assert running.wait(30) == 0, log.read_text()
        own_maker.commit("append", 1)
        _lose(own_maker, own_api)
    assert own_api.part is not None
    said = log.read_text() + own_api.part.log.read_text()
    assert "listens on" in said
    assert not [line for line in said.splitlines() if "Signature" in line or "X-Amz" in line]


@pytest.mark.timeout(120)
def test_an_object_that_is_lost_ends_the_patience_of_who_does_not_follow(
    own_api: Api, own_maker: Maker, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits(own_maker, 3, random.Random(1))
    own_maker.commit("append", 1)
    _lose(own_maker, own_api)
    monkeypatch.setattr("loaders.load.PATIENCE_S", 1)
    assert load(target.url, loader(own_maker), [own_maker.topic]) == 1


class OftenBusy:
    """A warehouse that somebody else has open at every third call."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._asked = 0

    def _knock(self) -> None:
        self._asked += 1
        if self._asked % 3 == 1:
            raise WarehouseBusy("somebody looks at it")

    def cursor(self, topic: str) -> Cursor | None:
        self._knock()
        return self._warehouse.cursor(topic)

    def apply(self, topic: str, change: Change, paths: Mapping[int, Path]) -> bool:
        self._knock()
        return self._warehouse.apply(topic, change, paths)

    def close(self) -> None:
        self._warehouse.close()


def test_a_warehouse_that_is_busy_at_any_step_is_waited_for(
    maker: Maker, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits(maker, 3, random.Random(1))
    monkeypatch.setattr(
        "loaders.load.open_warehouse",
        lambda url, loader, *, unnest: OftenBusy(open_warehouse(url, loader, unnest=unnest)),
    )
    for _ in range(2):  # the second has nothing to load, and tells the API so
        assert load(target.url, loader(maker), [maker.topic]) == 0
        assert rows_of(target, maker.topic) == maker.lake.head.rows()
        assert told(maker) == maker.lake.head.sequence


class AtWork:
    """A warehouse in the middle of a long query of DuckDB when the stop comes."""

    def cursor(self, topic: str) -> Cursor | None:
        return None

    def apply(self, topic: str, change: Change, paths: Mapping[int, Path]) -> bool:
        threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGTERM]).start()
        with duckdb.connect() as connection:
            # Long enough for the signal; closing waits for what runs.
            connection.execute("SELECT count(*) FROM range(300000000) AS r(x) WHERE hash(x) = 1")
        return True

    def close(self) -> None:
        """Nothing is open."""


def test_a_stop_while_duckdb_is_at_work_is_a_stop(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    maker.commit("append", 1)
    monkeypatch.setattr("loaders.load.open_warehouse", lambda *_, **__: AtWork())
    assert load("duckdb:///x", loader(maker), [maker.topic], follow=True) == 0
