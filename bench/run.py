"""`make bench`: every contender several times on one topic, medians, rows checked, a table and build/bench.json.

BENCH_EVENTS (3000000) scales it, BENCH_RUNS (3) says how often, BENCH_ONLY (names, separated by commas) who.
"""

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
from rich import box
from rich.console import Console
from rich.table import Table

from bench import bad_days, data
from bench.contenders import CONTENDERS, Contender, Course
from bench.measure import Bucket, Meter
from deploy.part import Ward, free_ports
from deploy.publish import make_topics, publish
from deploy.seaweedfs import SeaweedFS
from deploy.tansu import Tansu
from tests.stack.kafka import Kafka

TOPIC = "bench"
PARTITIONS = 4
STALL_SECONDS = 120

console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)


@dataclass(frozen=True)
class Run:
    """One contender, once."""

    events: int
    seconds: float  # from the assignment of partitions until all rows are in the bucket
    cpu_seconds: float
    peak_rss: int
    files: int


class BenchFailed(Exception):
    """A contender lost or doubled rows, died or stood still."""


def run(contender: Contender, course: Course, events: int, number: int) -> Run:
    """Let one contender load its share of the topic into a fresh bucket. Raises BenchFailed."""
    wanted = round(events * contender.share)
    bucket = Bucket(course.store, f"{contender.name}-{number}")
    with ExitStack() as running:
        parts = contender.start(course, bucket.name, running)
        began = time.monotonic()
        with Meter([part.process.pid for part in parts if part.process]) as meter:
            moved, rows = began, 0
            while rows < wanted:
                time.sleep(0.05)
                now, before, rows = time.monotonic(), rows, bucket.rows()
                if rows > before:
                    moved = now
                for part in parts:
                    if not part.alive() or now - moved > STALL_SECONDS:
                        raise BenchFailed(f"{contender.name}: {rows:,} of {wanted:,} rows.{part.tail()}")
            seconds = time.monotonic() - began
    rows = bucket.rows()
    if contender.share == 1 and rows != wanted:
        raise BenchFailed(f"{contender.name} wrote {rows:,} rows of {wanted:,} events")
    if (distinct := bucket.distinct("id")) != rows:
        raise BenchFailed(f"{contender.name} wrote {rows:,} rows with {distinct:,} different ids")
    return Run(wanted, seconds, meter.cpu_seconds, meter.peak_rss, bucket.files())


@contextmanager
def broker(folder: Path, ward: Ward) -> Iterator[tuple[str, str]]:
    """Its name and address: Apache Kafka where Java and Maven are, else Tansu."""
    if shutil.which("java") and shutil.which("mvn"):
        home = folder / "kafka"
        home.mkdir()
        kafka = Kafka(home, ward.environment, *free_ports(2))
        kafka.prepare()
        kafka.start()
        yield "Apache Kafka", kafka.settings.servers
        kafka.stop()
    else:
        tansu = Tansu(folder, environment=ward.environment)
        tansu.start()
        yield "Tansu", tansu.bootstrap
        tansu.end()


def result(
    contender: Contender, runs: list[Run], event_bytes: float, stock: float | None
) -> dict[str, object]:
    """The medians of a contender's runs, as they stand in build/bench.json."""

    def median(figures: Iterator[float]) -> float:
        return statistics.median(figures)

    rate = median(run.events / run.seconds for run in runs)
    return {
        "contender": contender.name,
        "events_per_s": round(rate),
        "mb_per_s": round(rate * event_bytes / 1e6, 1),
        "cpu_s_per_million": round(median(run.cpu_seconds / run.events * 1e6 for run in runs), 2),
        "peak_rss_mb": round(median(run.peak_rss / 1e6 for run in runs)),
        "files": round(median(run.files for run in runs)),
        "ratio_to_stock_faust": round(rate / stock, 1) if stock else None,
    }


def table(results: list[dict[str, object]], title: str) -> Table:
    shown = Table(box=box.SIMPLE_HEAVY, title=title, title_justify="left")
    shown.add_column("contender")
    names = {
        "events_per_s": "events/s",
        "mb_per_s": "MB/s",
        "cpu_s_per_million": "CPU s per million",
        "peak_rss_mb": "peak RSS MB",
        "files": "files",
        "ratio_to_stock_faust": "times stock Faust",
    }
    for name in names.values():
        shown.add_column(name, justify="right")
    for each in results:
        figures = [each[name] for name in names]
        shown.add_row(
            str(each["contender"]), *("-" if figure is None else f"{figure:,}" for figure in figures)
        )
    return shown


def main() -> int:
    events = int(os.environ.get("BENCH_EVENTS", "3000000"))
    rounds = int(os.environ.get("BENCH_RUNS", "3"))
    only = [name for name in os.environ.get("BENCH_ONLY", "").split(",") if name]
    contenders = [each for each in CONTENDERS if not only or each.name in only]
    folder = Path(tempfile.mkdtemp(prefix="tukang-bench-"))
    with Ward(remove=folder) as ward, broker(folder, ward) as (broker_name, bootstrap):
        store = SeaweedFS(folder, bucket="unused", environment=ward.environment)
        store.start()
        make_topics(bootstrap, [TOPIC], PARTITIONS, {"retention.ms": "-1"})
        size = 0
        with console.status(f"publishing {events:,} events to {broker_name}"):
            for records in data.events(TOPIC, events):
                publish(bootstrap, records)
                size += pc.sum(pc.binary_length(records["value"])).as_py()
        course = Course(folder, bootstrap, TOPIC, store, ward.environment)
        runs: dict[str, list[Run]] = {each.name: [] for each in contenders}
        for number in range(1, rounds + 1):
            for contender in contenders:
                with console.status(f"round {number} of {rounds}: {contender.name}"):
                    done = run(contender, course, events, number)
                runs[contender.name].append(done)
                console.print(f"round {number}: {contender.name}: {done.events / done.seconds:,.0f} events/s")
        store.end()
    event_bytes = size / events
    stock = runs.get("stock-faust")
    stock_rate = statistics.median(each.events / each.seconds for each in stock) if stock else None
    results = [result(each, runs[each.name], event_bytes, stock_rate) for each in contenders]
    title = f"{events:,} events of {event_bytes:.0f} bytes, {PARTITIONS} partitions, {broker_name}, {rounds} rounds"
    console.print(table(results, title))
    path = Path("build/bench.json")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")
    if not only:
        bad_days.main(console)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchFailed as failed:
        console.print(f"[red]The benchmark failed:[/] {failed}")
        sys.exit(1)
