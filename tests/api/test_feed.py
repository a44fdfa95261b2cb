"""The feed and the live set: gapless, in order, pinned; long polls that wake in every process."""

from __future__ import annotations

import threading
import time

import pytest

from api import feed
from api.app import create_app
from api.process import EXTENSION
from api.settings import load
from tests.api.conftest import World
from tests.api.maker import file_entry


def test_the_feed_shows_commits_after_a_sequence_in_order(world: World) -> None:
    maker = world.maker()
    ids = [maker.commit(rows)["version"] for rows in (3, 4, 5)]
    page = world.get("/topics/orders/batches", after=1)
    assert [commit["sequence"] for commit in page["commits"]] == [2, 3]
    assert [commit["id"] for commit in page["commits"]] == ids[1:]
    assert [commit["add"][0]["rows"] for commit in page["commits"]] == [4, 5]
    assert (page["head"], page["oldest"], page["more"], page["epoch"]) == (3, 1, False, maker.epoch)


def test_limit_counts_commits(world: World) -> None:
    maker = world.maker()
    for _ in range(3):
        maker.commit()
    page = world.get("/topics/orders/batches", limit=2)
    assert ([commit["sequence"] for commit in page["commits"]], page["more"]) == ([1, 2], True)


def test_an_answer_ends_at_the_limit_of_files_but_holds_one_commit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "FILES_IN_ANSWER", 3)
    maker = world.maker()
    for _ in range(3):
        body = maker.append(maker.line(0, 10))
        body["files"] = [
            file_entry("orders", maker.now(), 4),
            file_entry("orders", maker.now(), 6, late=True),
        ]
        maker.send(body)
    assert len(world.get("/topics/orders/batches")["commits"]) == 1
    monkeypatch.setattr(feed, "FILES_IN_ANSWER", 1)
    assert len(world.get("/topics/orders/batches")["commits"]) == 1
    monkeypatch.setattr(feed, "FILES_IN_ANSWER", 4)
    assert len(world.get("/topics/orders/batches")["commits"]) == 2


def test_what_filters_files_and_never_commits(world: World) -> None:
    maker = world.maker()
    maker.send(maker.append(maker.line(0, 10, dead_letters=2, written=8)))
    maker.commit()
    commits = world.get("/topics/orders/batches", what="dead_letters")["commits"]
    assert [[file["what"] for file in commit["add"]] for commit in commits] == [["dead_letters"], []]


def test_a_cursor_of_an_unknown_epoch_needs_a_snapshot(world: World) -> None:
    maker = world.maker()
    gone = world.get("/topics/orders/batches", 410, epoch="0" * 32)
    assert (gone["type"], gone["epoch"]) == ("/problems/snapshot", maker.epoch)


def test_a_cursor_above_the_head_is_refused(world: World) -> None:
    world.maker().commit()
    assert world.get("/topics/orders/batches", 422, after=2)["head"] == 1
    assert world.get("/topics/orders/files", 422, at=2)["head"] == 1


def test_a_long_poll_without_a_commit_ends_empty(world: World) -> None:
    world.maker()
    assert world.get("/topics/orders/batches", wait=1)["commits"] == []


@pytest.mark.parametrize("same_process", [True, False], ids=["same process", "another process"])
def test_a_long_poll_wakes_at_a_commit(world: World, same_process: bool) -> None:
    """Also when another process takes the commit; many waiters cost no more than one."""
    maker = world.maker()
    maker.commit()
    other = create_app(load(database=world.url, auth="none"), world.clock)
    waiting = world.app if same_process else other
    late: list[float] = []
    heads = waiting.extensions[EXTENSION].heads

    def poll() -> None:
        page = waiting.test_client().get("/v1/topics/orders/batches?after=1&wait=20").get_json()
        late.append(time.monotonic())
        assert [commit["sequence"] for commit in page["commits"]] == [2]

    threads = [threading.Thread(target=poll) for _ in range(20)]
    for thread in threads:
        thread.start()
    while heads.waiters() < 20:
        time.sleep(0.01)
    time.sleep(0.3)
    maker.commit()
    for thread in threads:
        thread.join()
    assert len(late) == 20
    assert heads.waiters() == 0
    other.extensions[EXTENSION].heads.stop()
    other.extensions[EXTENSION].database.dispose()


def test_a_stop_answers_long_polls(world: World) -> None:
    world.maker()
    heads = world.process.heads
    thread = threading.Thread(target=lambda: world.get("/topics/orders/batches", wait=30))
    thread.start()
    while not heads.waiters():
        time.sleep(0.01)
    heads.stop()
    thread.join(5)
    assert not thread.is_alive()


def test_the_live_set_is_pinned_to_its_sequence_over_its_pages(world: World) -> None:
    maker = world.maker()
    for rows in range(1, 6):
        maker.commit(rows)
    page = world.get("/topics/orders/files", limit=2)
    maker.commit(6)
    seen = [file["rows"] for file in page["files"]]
    while page["next_page"]:
        page = world.get("/topics/orders/files", limit=2, page=page["next_page"])
        assert page["sequence"] == 5
        seen += [file["rows"] for file in page["files"]]
    assert seen == [1, 2, 3, 4, 5]
    assert len(world.get("/topics/orders/files")["files"]) == 6
    assert [file["rows"] for file in world.get("/topics/orders/files", at=2)["files"]] == [1, 2]
    assert [file["rows"] for file in world.get("/topics/orders/files", at=4, after=2)["files"]] == [3, 4]


def test_files_are_found_by_event_time(world: World) -> None:
    maker = world.maker()
    times = [
        ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"),
        ("2026-01-01T02:00:00Z", "2026-01-01T03:00:00Z"),
    ]
    for lowest, highest in times:
        body = maker.append()
        body["files"][0] |= {"lowest": lowest, "highest": highest}
        maker.send(body)
    found = world.get(
        "/topics/orders/files", **{"from": "2026-01-01T01:00:00Z", "to": "2026-01-01T02:00:00Z"}
    )
    assert [file["lowest"] for file in found["files"]] == ["2026-01-01T00:00:00Z"]
    found = world.get("/topics/orders/files", **{"from": "2026-01-01T01:00:00.000001Z"})
    assert [file["lowest"] for file in found["files"]] == ["2026-01-01T02:00:00Z"]


def test_a_forged_page_is_refused(world: World) -> None:
    world.maker().commit()
    for page in ("x", "e30", "bnVsbA", "eyJhdCI6MSwiaWQiOiJ4In0"):
        assert world.get("/topics/orders/files", 400, page=page)["type"] == "/problems/request-invalid"


def test_an_unknown_parameter_is_refused(world: World) -> None:
    world.maker().commit()
    assert "no such parameter" in world.get("/topics/orders/batches", 400, afer=5)["detail"]
    assert "not an integer" in world.get("/topics/orders/batches", 400, after="1_0")["detail"]
