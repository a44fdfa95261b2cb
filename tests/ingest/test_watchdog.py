"""The watchdog: what it judges, and that it really ends a process."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from ingest.watchdog import EXIT_CODE, Patience, Signs, Watchdog
from tests.ingest.reader import produce
from tests.stack.kafka import Kafka

WELL = Signs(beats=1, drains=1, connected=True, member=True, broker_known=True)


def looks(change: dict[str, object], times: int, moving: tuple[str, ...] = ("beats", "drains")) -> str | None:
    """The verdict after so many looks, of which each shows these changes and everything else well."""
    dog, numbers, verdict = Watchdog(lambda: WELL), count(2), None
    dog.judge(WELL)
    for _ in range(times):
        number = next(numbers)
        verdict = dog.judge(replace(WELL, **(dict.fromkeys(moving, number) | change)))  # type: ignore[arg-type]
        if verdict:
            return verdict
    return verdict


def test_a_worker_that_fetches_is_left_alone() -> None:
    assert looks({}, 1000) is None


def test_a_blocked_loop_is_seen() -> None:
    assert looks({}, Patience().loop - 1, moving=("drains",)) is None
    assert "event loop has been blocked for 60 s" in str(looks({}, Patience().loop, moving=("drains",)))


def test_a_fetch_loop_that_stands_still_is_seen_once_it_has_begun() -> None:
    still = ("beats",)
    assert looks({}, Patience().drain - 1, moving=still) is None
    assert "nothing has been drained for 46 s" in str(looks({}, Patience().drain, moving=still))
    assert looks({"connected": False, "member": False}, 1000, moving=still) is None


def test_a_member_without_assignment_is_seen_unless_the_broker_is_away() -> None:
    assert "no partitions were assigned" in str(looks({"member": False}, Patience().member))
    assert looks({"member": False, "broker_known": False}, 1000) is None


def test_a_dead_task_of_the_client_is_seen_at_the_second_look() -> None:
    assert looks({"dead": "the fetch task"}, 1) is None
    assert looks({"dead": "the fetch task"}, 2) == "the fetch task of the Kafka client has ended"


def test_a_short_pause_counts_from_the_beginning_again() -> None:
    dog = Watchdog(lambda: WELL)
    for number in range(10):
        for _ in range(Patience().drain - 1):
            assert dog.judge(replace(WELL, beats=number, drains=number)) is None


STUCK = """
import asyncio, logging, sys, time
from pathlib import Path
from functools import partial
from tests.ingest.reader import Reader
from ingest.broker import BrokerSettings
from ingest.watchdog import Patience, Watchdog

logging.basicConfig(level=logging.INFO)
servers, topic, folder, what = sys.argv[1:]

async def main():
    dog = partial(Watchdog, patience=Patience(loop=10, drain=10, member=20), look_seconds=0.2)
    reader = Reader(BrokerSettings(servers=servers), topic, Path(folder), watchdog=dog)
    async with reader:
        while not reader.chunks:
            await asyncio.sleep(0.1)
        if what == "agent":
            class Never:
                subscriber_count = 1
                async def put(self, chunk):
                    await asyncio.Event().wait()
            reader.source.channel = Never()
        elif what == "drain":
            reader.source.tap.wait = lambda seconds: asyncio.Event().wait()
        elif what == "fetch task":
            reader.source._consumer._fetcher._fetch_task.cancel()
        print("stuck", flush=True)
        if what == "loop":
            time.sleep(100)
        await asyncio.sleep(100)

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("agent", "nothing has been drained"),
        ("drain", "nothing has been drained"),
        ("fetch task", "the fetch task of the Kafka client has ended"),
        ("loop", "the event loop has been blocked"),
    ],
)
def test_a_worker_that_is_stuck_ends_with_the_reason(
    kafka: Kafka, tmp_path: Path, what: str, reason: str
) -> None:
    topic = kafka.topic()
    produce(kafka.settings, topic, [b"first"])
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, kafka.settings.servers, topic, str(tmp_path), what],
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "said").open("w"),
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "stuck\n"
        produce(kafka.settings, topic, [b"second"])
        process.wait(100)
    finally:
        process.kill()
        process.wait()
    said = (tmp_path / "said").read_text()
    assert process.returncode == EXIT_CODE, said
    assert f"ends itself: {reason}" in said
