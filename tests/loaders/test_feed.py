"""The client that users copy, against the real API: what it asks, what it takes for an answer, how long it waits."""

import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import api.settings
import api.tokens
from loaders.feed import Feed, FeedError, FeedUnavailable
from loaders.load import load
from tests.loaders.conftest import Api
from tests.loaders.maker import Maker
from tests.loaders.test_warehouses import DuckDBTarget, rows_of

pytestmark = pytest.mark.slow


@pytest.fixture
def feed(api: Api, maker: Maker) -> Iterator[Feed]:
    opened = Feed(api.url, loader=f"feed-{maker.topic}", patience_s=0.5)
    yield opened
    opened.close()


def test_a_long_poll_ends_with_the_commit_it_waits_for(feed: Feed, maker: Maker) -> None:
    maker.commit("append", 1)
    later = threading.Timer(0.3, maker.commit, ["append", 2])
    later.start()
    page = feed.batches(maker.topic, 1, epoch=maker.epoch, wait=20)
    later.join()
    assert [commit.sequence for commit in page.commits] == [2]
    assert (page.head, page.more, page.epoch) == (2, False, maker.epoch)
    assert {file.what for file in page.commits[0].add} <= {"rows"}


def test_all_pages_of_files_come_as_of_one_sequence(feed: Feed, maker: Maker) -> None:
    for choice in range(4):
        maker.commit("append", choice)
    live = feed.files(maker.topic)
    assert live.sequence == 4
    assert {file.sequence for file in live.files} == {1, 2, 3, 4}
    assert {file.sequence for file in feed.files(maker.topic, at=2, what="rows").files} == {1, 2}
    assert feed.schema(maker.topic)["version"] == 0


def test_a_loader_is_told_of_topics_with_news_until_it_tells(feed: Feed, maker: Maker) -> None:
    maker.commit("append", 1)
    told = feed.register([maker.topic], start="earliest", mirror_expiry=True)
    assert (told.start, told.mirror_expiry, told.hold) == ("earliest", True, False)
    assert feed.registration() == told
    assert feed.waiting() == [maker.topic]
    feed.tell(maker.topic, maker.epoch, 1)
    assert feed.waiting() == []
    assert feed.place(maker.topic) == (maker.epoch, 1)


def test_what_another_process_told_is_not_taken_back_but_on_purpose(
    feed: Feed, maker: Maker, api: Api
) -> None:
    for choice in range(3):
        maker.commit("append", choice)
    feed.register([maker.topic], start="earliest")
    other = Feed(api.url, loader=feed.loader)
    other.registration()
    feed.tell(maker.topic, maker.epoch, 2)
    other.tell(maker.topic, maker.epoch, 1)
    assert feed.place(maker.topic)[1] == 2
    other.tell(maker.topic, maker.epoch, 3)
    assert feed.place(maker.topic)[1] == 3
    feed.tell(maker.topic, maker.epoch, 1, reset=True)
    assert feed.place(maker.topic)[1] == 1
    other.close()


def test_only_one_process_holds_the_lease(feed: Feed, maker: Maker, api: Api) -> None:
    maker.commit("append", 1)
    feed.register([maker.topic], start="earliest")
    other = Feed(api.url, loader=feed.loader)
    other.registration()
    assert feed.lease("one", 60)
    assert not other.lease("two", 60)
    with pytest.raises(FeedError, match="one holds the lease"):
        other.tell(maker.topic, maker.epoch, 1)
    feed.tell(maker.topic, maker.epoch, 1)
    assert feed.lease("one", 0)
    assert other.lease("two", 60)
    other.close()


def test_a_loader_that_begins_now_loads_what_comes_after_its_registration(
    feed: Feed, maker: Maker, tmp_path: Path
) -> None:
    maker.commit("append", 1)
    before = maker.lake.head.rows()
    feed.register([maker.topic], start="now")
    maker.commit("append", 2)
    target = DuckDBTarget(tmp_path)
    assert load(target.url, feed.loader, []) == 0
    live = maker.lake.head.rows()
    assert rows_of(target, maker.topic) == {key: row for key, row in live.items() if key not in before}


def test_an_unknown_topic_is_said_in_words(feed: Feed) -> None:
    with pytest.raises(FeedError, match=r"nobody.*404"):
        feed.files("nobody")


def test_a_server_that_is_not_the_api_is_said_at_once_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)  # 404 to GET, 501 to PUT
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("TUKANG_API", f"http://127.0.0.1:{server.server_port}")
    with pytest.raises(FeedError, match=r"404, and not by Tukang's API; is TUKANG_API right\?"):
        load(f"duckdb:///{tmp_path}/w.duckdb", "dwh", [], follow=True)
    server.shutdown()
    server.server_close()


def test_an_api_that_is_away_is_asked_until_it_is_back_or_patience_ends(
    own_api: Api, own_maker: Maker
) -> None:
    own_maker.commit("append", 1)
    said: list[str] = []
    patient = Feed(own_api.url, loader="patient", patience_s=None, on_wait=said.append)
    own_api.stop()
    hasty = Feed(own_api.url, loader="hasty", patience_s=0.3)
    with pytest.raises(FeedUnavailable):
        hasty.files("orders")
    found: list[int] = []
    asking = threading.Thread(target=lambda: found.append(patient.files("orders").sequence))
    asking.start()
    while not said:
        time.sleep(0.01)
    own_api.start()
    asking.join()
    assert found == [1]


def test_a_token_is_sent_and_a_wrong_one_is_said_in_words(
    own_api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_api.stop()
    own_api.auth = "token"
    settings = api.settings.load(database=own_api.database)
    token, maker_token = (
        api.tokens.create(settings, name, scopes)
        for name, scopes in (("dwh", ["load"]), ("maker", ["ingest", "operate"]))
    )
    own_api.start()
    maker = Maker(
        own_api.url, own_api.bucket, tmp_path / "objects", headers={"Authorization": f"Bearer {maker_token}"}
    )
    file = tmp_path / "token"
    file.write_text(token + "\n")
    monkeypatch.setenv("TUKANG_TOKEN_FILE", str(file))
    monkeypatch.setenv("TUKANG_URLS", "presigned")
    assert load(f"duckdb:///{tmp_path}/w.duckdb", "dwh", [maker.topic]) == 0
    file.write_text("wrong")
    with pytest.raises(FeedError, match="token"):
        load(f"duckdb:///{tmp_path}/w.duckdb", "dwh", [maker.topic])
    maker.http.close()
