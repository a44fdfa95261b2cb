"""`tukang demo`: the whole way once, for real, in front of a person's eyes.

The order of things is here; the parts are in `deploy/local.py`, the events in `deploy/flights.py`, what is shown at
the end in `deploy/show.py`.
"""

import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pyarrow as pa
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deploy import flights, show
from deploy.local import Stack
from deploy.part import StackError
from deploy.publish import PublishError, make_topics, publish
from deploy.watch import Watch

PARTITIONS = 2

SETTINGS = {
    "event_id": ["id"],
    "event_time": ["scheduled"],
    "lateness": "2s",  # a replayed year is over after seconds: nobody wants to wait longer for its last events
    "flush_age": "3s",
    "flush_rows": 10_000,  # some commits, so that an event can be later than the last one
    "max_ahead": "2h",  # flights arrive up to 86 minutes before they are due
    "dedup_window": "2d",  # the latest flight left 21 hours after it was due
}

STALL_SECONDS = 60
"""So long without a commit, and the demo gives up and shows the worker's log."""


class DemoFailed(Exception):
    """The demo could not be played; the message says why and what to do."""


@dataclass(frozen=True)
class Played:
    """What came of the demo."""

    sent: list[flights.Sent]
    watch: Watch
    seconds: float  # from the first record sent to the last one read
    bytes: int  # of all values sent


def demo(*, once: bool, keep: str | None, console: Console | None = None) -> int:
    """Play the demo; returns the exit code of `tukang verify`, or 128 and the signal's number. Raises DemoFailed."""
    console = console or Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    with _one_signal_interrupts() as caught:
        try:
            return _demo(console, stay=console.is_terminal and not once, keep=keep)
        except (StackError, PublishError, FileNotFoundError) as error:
            raise DemoFailed(f"The demo stopped: {error}") from error
        except httpx.HTTPError as error:
            raise DemoFailed(f"The demo stopped: the API did not answer as it should: {error}") from error
        except KeyboardInterrupt:
            sys.stderr.write("The demo was interrupted; everything it started is stopped.\n")
            return 128 + (caught or [signal.SIGINT])[0]  # as a shell says of a program that a signal ended


def _demo(console: Console, *, stay: bool, keep: str | None) -> int:
    folder = _folder(keep)
    # What reads the flights is interrupted with everything else, and only then waited for.
    with ThreadPoolExecutor(1) as pool, ExitStack() as everything:
        stack = everything.enter_context(Stack(folder, topics=",".join(flights.TOPICS), remove=keep is None))
        database = duckdb.connect()
        prepared = pool.submit(_prepare, database)
        everything.callback(database.interrupt)
        try:
            return _shown(console, stack, prepared, everything, stay=stay)
        except KeyboardInterrupt:
            console.print("stopping ...")
            raise


def _shown(
    console: Console, stack: Stack, prepared: Future[Any], everything: ExitStack, *, stay: bool
) -> int:
    _start(console, stack)
    played = _play(console, stack, prepared)
    everything.callback(played.watch.close)

    verified = stack.run("verify", width=console.width)
    console.print(show.figures(played))
    console.print(show.question(stack.run("sql", show.QUESTION, width=console.width)), "")
    console.print(show.addresses(stack, stay=stay), "")
    console.print(verified.stdout.strip() or verified.stderr.strip(), markup=False)
    if stay and verified.returncode == 0:
        _stay(console, stack, played)
        console.print(verified.stdout.strip().splitlines()[-1], markup=False)
    return verified.returncode


def _folder(keep: str | None) -> Path:
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="tukang-demo-"))
    folder = Path(keep).expanduser().absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DemoFailed(f"{keep} is not an empty folder, and the demo wants a clean one: name another.")
    return folder


def _prepare(database: duckdb.DuckDBPyConnection) -> tuple[pa.Table, list[flights.Sent]]:
    sent = {topic: flights.sent(events) for topic, events in flights.happened(database).items()}
    records = flights.interleaved({topic: table for topic, (table, _) in sent.items()})
    return records, [each for _, each in sent.values()]


def _start(console: Console, stack: Stack) -> None:
    for what, start in (
        ("Tansu, the broker", stack.start_broker),
        ("SeaweedFS, the object store", stack.start_store),
        ("the API, on SQLite", stack.start_api),
    ):
        with console.status(f"starting {what}"):
            start()
        console.print(f"[green]✓[/] {what}")
    make_topics(stack.bootstrap, list(flights.TOPICS), PARTITIONS)
    for topic in flights.TOPICS:
        made = httpx.post(f"{stack.api_url}/v1/topics", json={"topic": topic, "settings": SETTINGS})
        made.raise_for_status()
    with console.status("starting a worker"):
        stack.start_worker(ready=lambda: all(_assigned(stack, topic) for topic in flights.TOPICS))
    console.print("[green]✓[/] a worker")


def _assigned(stack: Stack, topic: str) -> bool:
    """Whether a worker has asked for the topic's positions: it reads from then on."""
    answer = httpx.get(f"{stack.api_url}/v1/topics/{topic}")
    answer.raise_for_status()
    return bool(answer.json()["partitions"])


def _play(console: Console, stack: Stack, prepared: Future[Any]) -> Played:
    with console.status("reading the flights of 2013"):
        records, sent = prepared.result()
    console.print(f"[green]✓[/] {records.num_rows:,} records of {len(sent)} topics to send")
    watch = Watch(stack.api_url, flights.TOPICS)
    columns = (
        TextColumn("{task.description:<28}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn()
    )  # fmt: skip
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor(1) as pool:
        bars = [
            progress.add_task(name, total=records.num_rows) for name in ("sent to the broker", "in the lake")
        ]
        stopped = threading.Event()

        def told(count: int) -> None:
            if stopped.is_set():
                raise PublishError("interrupted")
            progress.advance(bars[0], count)

        began = time.monotonic()
        sending = pool.submit(publish, stack.bootstrap, records, told)
        try:
            read_after = _watched(
                stack, watch, sending, records.num_rows, lambda n: progress.update(bars[1], completed=n)
            )
        finally:
            stopped.set()  # else an interrupted demo would send all the rest first
    size = int(pa.compute.sum(pa.compute.binary_length(records["value"])).as_py())
    return Played(sent, watch, read_after - began, size)


def _watched(
    stack: Stack, watch: Watch, sending: Future[None], records: int, told: Callable[[int], None]
) -> float:
    """Waits until all records are in the lake; when the last one was read, by the monotonic clock."""
    read_after = moved = time.monotonic()
    while True:
        before = watch.total("commits")
        watch.look()
        stack.check()
        if sending.done():
            sending.result()
        now = time.monotonic()
        if watch.total("commits") > before:
            moved = now
        elif now - moved > STALL_SECONDS:
            logs = "".join(part.tail(10) for part in stack.parts if part.name in ("api", "worker"))
            raise StackError(f"nothing was committed for {STALL_SECONDS} s.{logs}")
        consumed, held_back = watch.total("consumed"), watch.held_back
        if consumed < records:
            read_after = now
        told(consumed - held_back)
        if consumed >= records and held_back == 0:
            return read_after
        time.sleep(0.1)


def _stay(console: Console, stack: Stack, played: Played) -> None:
    """Until Ctrl-C: show that everything lives."""
    began = time.monotonic()
    try:
        with Live(console=console, refresh_per_second=2, transient=True) as live:
            while True:
                stack.check()
                played.watch.look()
                live.update(show.pulse(stack, played, time.monotonic() - began))
                time.sleep(1)
    except KeyboardInterrupt:
        console.print("stopping ...")


@contextmanager
def _one_signal_interrupts() -> Iterator[list[int]]:
    """SIGINT, SIGTERM and SIGHUP interrupt the demo; while it stops, more of them change nothing. Gives the first."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def interrupt(number: int, _: object) -> None:
        if not caught:
            caught.append(number)
            raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
