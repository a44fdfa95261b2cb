"""`tukang load`: ask the feed what comes next, fetch its files, bring it into the warehouse, tell the API. Again.

The order of things for one topic, and between topics, is here; what comes next is decided in `change.py`, what becomes
of the rows in the warehouse's own file. The process may end at any moment: what a transaction of the warehouse has not
taken never happened, and what it has taken its cursor says.
"""

import logging
import re
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import tenacity
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from loaders.change import next_change
from loaders.download import DownloadFailed, DownloadRefused, Downloads, ObjectGone
from loaders.feed import Feed, FeedError, FeedUnavailable, Registration
from loaders.settings import LoaderSettings, SettingsWrong, load_settings
from loaders.warehouse import Warehouse, WarehouseAway, WarehouseBusy, WarehouseRefused, open_warehouse

log = logging.getLogger(__name__)

REFUSALS = (SettingsWrong, WarehouseRefused, DownloadRefused, FeedError, FeedUnavailable)
"""What `load` raises in words for a person: nothing is broken, something is to be set right."""

PATIENCE_S = 60
"""How long a load that does not follow asks a part that does not answer."""

AGAIN_S = 60
"""A topic that could not be loaded while others can is tried again after so long."""

WAIT_S = 30


class Stopped(BaseException):
    """SIGTERM or SIGINT: everything that was begun is taken back, everything that was loaded stays."""


def load(
    url_to: str,
    loader: str,
    topics: Sequence[str],
    *,
    follow: bool = False,
    unnest: bool = False,
    settings: LoaderSettings | None = None,
    console: Console | None = None,
) -> int:
    """Loads topics into a warehouse until it has everything, or for ever. Exit code 1: a topic could not be loaded.

    `topics`: names or patterns that begin with ^; none: those that the loader is registered for, else all. Raises one
    of `REFUSALS`.
    """
    settings = settings or load_settings()
    patience_s = None if follow else PATIENCE_S
    feed = Feed(
        settings.api,
        token=settings.token_source,
        loader=loader,
        urls=settings.urls,
        ca=str(settings.api_ca) if settings.api_ca else None,
        patience_s=patience_s,
        on_wait=lambda reason: log.warning("waiting for the API: %s", reason),
    )
    warehouse = open_warehouse(url_to, loader, unnest=unnest)
    downloads = Downloads(endpoint=settings.s3_endpoint, at_once=settings.downloads)
    with _stoppable(), _Bar(console or Console(stderr=True)) as bar:
        try:
            registration = _register(feed, topics)
            work = _Work(feed, warehouse, downloads, registration, settings.run_bytes, patience_s, bar)
            failed = work.follow() if follow else work.all_there_is(_names(feed, registration))
        except (Stopped, RuntimeError) as error:
            # DuckDB has words of its own for what the signal's handler raises while a query runs.
            if not isinstance(error, Stopped) and not isinstance(error.__cause__, Stopped):
                raise
            return 0 if follow else 1
        finally:
            feed.close()
            downloads.close()
            warehouse.close()
    return 1 if failed else 0


def _register(feed: Feed, topics: Sequence[str]) -> Registration:
    """The loader as the API has it; made, or told of other topics, where that is asked for."""
    known = feed.registration()
    if known is None:
        return feed.register(topics or ["^.+$"])
    if topics and set(topics) - set(known.topics):
        return feed.register(
            [*known.topics, *(each for each in topics if each not in known.topics)],
            start=known.start,
            hold=known.hold,
            mirror_expiry=known.mirror_expiry,
        )
    return known


def _names(feed: Feed, registration: Registration) -> list[str]:
    """The topics that there are now among those of the registration."""
    names = [each for each in registration.topics if not each.startswith("^")]
    patterns = [re.compile(each) for each in registration.topics if each.startswith("^")]
    if patterns:
        names += [each for each in feed.topics() if any(pattern.fullmatch(each) for pattern in patterns)]
    return list(dict.fromkeys(names))


_GROWING = tenacity.wait_random_exponential(multiplier=0.1, max=10)
_SHORT = tenacity.wait_random(0, 0.5)
SAY_AGAIN_S = 10
"""What is waited for is said so often."""


def _pause(state: tenacity.RetryCallState) -> float:
    """Seconds until the next try. Whoever has the warehouse open leaves gaps, and long pauses would miss them."""
    busy = state.outcome is not None and isinstance(state.outcome.exception(), WarehouseBusy)
    return (_SHORT if busy else _GROWING)(state)


class _Work:
    """One process of a loader."""

    def __init__(
        self,
        feed: Feed,
        warehouse: Warehouse,
        downloads: Downloads,
        registration: Registration,
        run_bytes: int,
        patience_s: float | None,
        bar: "_Bar",
    ) -> None:
        self._feed = feed
        self._warehouse = warehouse
        self._downloads = downloads
        self._registration = registration
        self._run_bytes = run_bytes
        self._patience_s = patience_s
        self._bar = bar
        self._moved_at = 0.0  # when something last went on, by the monotonic clock
        self._most = 0  # bytes that the best try of the change at hand had
        self._said_at = -float(SAY_AGAIN_S)

    def all_there_is(self, topics: Sequence[str]) -> list[str]:
        """Loads each topic up to its head. Returns those that could not be loaded."""
        return [topic for topic in topics if not self._load(topic)]

    def follow(self) -> NoReturn:
        """Loads what comes, for ever. Topics that cannot be loaded are tried again now and then, beside the others."""
        aside: dict[str, float] = {}
        for topic in _names(self._feed, self._registration):
            if not self._load(topic):
                aside[topic] = time.monotonic() + AGAIN_S
        while True:
            now = time.monotonic()
            waiting = [each for each in self._feed.waiting(wait=WAIT_S) if aside.get(each, 0) <= now]
            for topic in waiting:
                aside.pop(topic, None)
                if not self._load(topic):
                    aside[topic] = time.monotonic() + AGAIN_S
            if not waiting:
                time.sleep(1 if aside else 0)  # the feed answers at once while a topic set aside has news

    def _load(self, topic: str) -> bool:
        """One topic up to its head. False: it cannot be loaded, and the log says why."""
        try:
            if not self._patiently(self._once, topic):
                # Told in any case: a reply may have been lost, the warehouse restored from an older state.
                self._patiently(self._tell_again, topic)
                return True
            while self._patiently(self._once, topic):
                pass
        # The last: no room, or no right, in the temporary folder.
        except (WarehouseRefused, FeedError, DownloadFailed, ObjectGone, OSError) as error:
            log.error("%s is not loaded further: %s", topic, error)
            return False
        return True

    def _patiently(self, step: Callable[[str, Path], bool], topic: str) -> bool:
        """One step; tried again while the warehouse or an object is away. Returns what it does.

        What was fetched stays for the next try: presigned URLs may end before all of a large change are fetched.
        """
        self._moved_at, self._most = time.monotonic(), 0

        def stop(_: tenacity.RetryCallState) -> bool:
            return self._patience_s is not None and time.monotonic() - self._moved_at > self._patience_s

        tries = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((WarehouseAway, ObjectGone)),
            wait=_pause,
            stop=stop,
            before_sleep=self._say_waiting,
            reraise=True,
        )
        with tempfile.TemporaryDirectory(prefix="tukang-load-") as folder:
            try:
                return tries(step, topic, Path(folder))
            except WarehouseAway as error:
                why = " ".join(str(error).split())
                raise WarehouseRefused(f"The warehouse was away for {self._patience_s} s: {why}") from error

    def _say_waiting(self, state: tenacity.RetryCallState) -> None:
        """One line now and then: a database says more than one, and somebody may look at a table for hours."""
        if time.monotonic() - self._said_at >= SAY_AGAIN_S:
            self._said_at = time.monotonic()
            log.warning("waiting: %s", " ".join(str(state.outcome and state.outcome.exception()).split()))

    def _once(self, topic: str, folder: Path) -> bool:
        """One change. False: there is none."""
        cursor = self._warehouse.cursor(topic)
        known = self._registration
        change = next_change(
            self._feed,
            topic,
            cursor,
            start=known.start,
            mirror_expiry=known.mirror_expiry,
            most_bytes=self._run_bytes,
        )
        if change is None:
            return False
        with self._bar.of(topic, sum(file.bytes for file in change.files)) as advance:
            had = 0

            def fetched(count: int) -> None:
                nonlocal had
                had += count
                # Only what no try had before: what lies there from the last one is nothing new.
                if had > self._most:
                    self._moved_at, self._most = time.monotonic(), had
                advance(count)

            paths = self._downloads.fetch(change.files, folder, fetched)
        if self._warehouse.apply(topic, change, paths):
            rows = sum(file.rows for file in change.rows)
            self._bar.say(
                f"{topic}: loaded up to {change.cursor.sequence}: {len(change.files)} files, {rows:,} rows"
            )
        else:
            self._bar.say(f"{topic}: another process of this loader was here; asking again from its cursor")
        self._tell(topic)
        return True

    def _tell_again(self, topic: str, _: Path) -> bool:
        self._tell(topic, reset=True)
        return True

    def _tell(self, topic: str, *, reset: bool = False) -> None:
        cursor = self._warehouse.cursor(topic)
        if cursor is not None:
            self._feed.tell(topic, cursor.epoch, cursor.sequence, reset=reset)


class _Bar:
    """The progress of downloads, on a terminal; a line of the log for each change elsewhere."""

    def __init__(self, console: Console) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn()
        self._progress = Progress(*columns, console=console, transient=True) if console.is_terminal else None

    def __enter__(self) -> "_Bar":
        if self._progress:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress:
            self._progress.stop()

    def say(self, line: str) -> None:
        """What was done."""
        if self._progress is None:
            log.info(line)
        else:
            self._progress.console.print(line, highlight=False, markup=False)

    @contextmanager
    def of(self, topic: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar for one change; gives what is to be told of bytes."""
        if self._progress is None:
            yield lambda _: None
            return
        progress, task = self._progress, self._progress.add_task(topic, total=total)
        try:
            yield lambda count: progress.advance(task, count)
        finally:
            progress.remove_task(task)


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM and SIGINT end the load where it stands."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise Stopped

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
