"""Who runs: each contender starts its processes against the same broker and store, and says when it reads."""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx

from deploy.local import Stack
from deploy.part import Part
from deploy.seaweedfs import SeaweedFS

SETTINGS = {
    "event_id": ["id"],
    "event_time": ["time"],
    "lateness": "1s",  # twice what the events are out of order; also how long the topic must be quiet at its end
    "max_ahead": "1h",
    "flush_rows": 500_000,  # these two as the loader by hand
    "flush_age": "2s",
}


@dataclass(frozen=True)
class Course:
    """What all contenders run on."""

    folder: Path
    bootstrap: str
    topic: str
    store: SeaweedFS
    environment: dict[str, str]  # the mark of the ward


@dataclass(frozen=True)
class Contender:
    """`start` returns when the contender is about to read; its processes end with the ExitStack."""

    name: str
    start: Callable[[Course, str, ExitStack], list[Part]]
    share: float = 1.0  # of the topic's events that it must load: rates compare


def program(name: str, *arguments: str) -> Callable[[Course, str, ExitStack], list[Part]]:
    """A contender that is one program of this folder; it prints `reading` when partitions are assigned to it."""

    def start(course: Course, bucket: str, running: ExitStack) -> list[Part]:
        part = Part(
            bucket,
            [sys.executable, str(Path(__file__).with_name(f"{name}.py")), *arguments],
            folder=course.folder,
            ready=lambda: "reading" in part.tail(),
            environment=course.environment
            | course.store.credentials
            | {
                "BENCH_BROKER": course.bootstrap,
                "BENCH_TOPIC": course.topic,
                "BENCH_GROUP": bucket,
                "BENCH_BUCKET": bucket,
                "BENCH_S3": course.store.endpoint,
            },
        )
        running.callback(part.end)
        part.start()
        return [part]

    return start


def tukang(course: Course, bucket: str, running: ExitStack) -> list[Part]:
    """The real worker and the real API on SQLite. It reads once it has asked the API for the positions."""
    stack = running.enter_context(
        Stack(
            course.folder / bucket,
            topics=course.topic,
            broker=course.bootstrap,
            store=course.store,
            bucket=bucket,
            remove=True,
        )
    )
    stack.start_api()
    body = {"topic": course.topic, "settings": SETTINGS}
    httpx.post(f"{stack.api_url}/v1/topics", json=body).raise_for_status()
    asked = f"{stack.api_url}/v1/topics/{course.topic}"
    stack.start_worker(ready=lambda: bool(httpx.get(asked).json()["partitions"]))
    return stack.parts


CONTENDERS = (
    Contender("stock-faust", program("stock_faust", "worker"), share=0.1),
    Contender("by-hand", program("by_hand")),
    Contender("tukang", tukang),
)
