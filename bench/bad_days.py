"""Decoding alone on bad days: the benchmark's events with one thing wrong in some or all of them, on one core.

`python -m bench.bad_days`; `make bench` has it too. All kinds run in turn, several times, so that the ratios to good
events are of one run; a figure is events per second of CPU time, the median.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from bench import data
from ingest.chunk import Records
from ingest.decode import Decoded, DecodeRules, decode
from ingest.schema import TopicSchema

CHUNK = 20_000  # records decoded together
NOW_US = 1_767_225_600_000_000
RULES = DecodeRules(event_id=("id",), event_time=("time",))
PATH = Path("build/bench-decode.json")

Spoil = Callable[[int, bytes], bytes]

KINDS: Mapping[str, Spoil] = {
    "good": lambda _, event: event,
    "1 % poison": lambda i, event: event if i % 100 else event[:-3],
    "1 % of another type": lambda i, event: (
        event if i % 100 else event.replace(b'"price":', b'"price":"free","was":')
    ),
    "all with a key twice": lambda _, event: event[:-1] + b',"ok":false}',
    "all with a lone surrogate": lambda _, event: event[:-1] + b',"note":"\\ud800 x"}',
    "all poison": lambda _, event: event[:-3],
}


def decoded(values: list[bytes], schema: TopicSchema) -> Decoded:
    count = len(values)
    records = Records(np.arange(count), np.full(count, NOW_US // 1_000), [None] * count, list(values), None)
    return decode(records, 0, schema, RULES, NOW_US)


def registered(schema: TopicSchema) -> TopicSchema:
    return TopicSchema.from_json({**schema.to_json(), "version": schema.version + 1})


def measure(events: int, rounds: int) -> list[dict[str, object]]:
    """A row for each kind: events per second and core, and the ratio to good events. Raises AssertionError when a
    record is neither row nor dead letter."""
    values: list[bytes] = next(data.events("bench", min(events, data.CHUNK)))["value"].to_pylist()
    chunks, schemas = {}, {}
    for kind, spoil in KINDS.items():
        spoilt = [spoil(i, value) for i, value in enumerate(values)]
        chunks[kind] = [spoilt[at : at + CHUNK] for at in range(0, len(spoilt), CHUNK)]
        schemas[kind] = registered(decoded(values[:100], TopicSchema()).schema)
        for _ in range(2):  # what this kind teaches is known, as it is in a topic that goes on
            schemas[kind] = registered(decoded(chunks[kind][0], schemas[kind]).schema)
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        for kind in KINDS:
            began = time.process_time()
            results = [decoded(chunk, schemas[kind]) for chunk in chunks[kind]]
            seconds[kind].append(time.process_time() - began)
            came = sum(each.table.num_rows + each.dead.num_rows for each in results)
            assert came == len(values), f"{kind}: {came:,} rows and dead letters of {len(values):,} records"
    rates = {kind: len(values) / statistics.median(each) for kind, each in seconds.items()}
    return [
        {"events": kind, "events_per_s": round(rate), "ratio_to_good": round(rate / rates["good"], 2)}
        for kind, rate in rates.items()
    ]


def table(results: list[dict[str, object]]) -> Table:
    shown = Table(box=box.SIMPLE_HEAVY, title="decoding alone, one core", title_justify="left")
    shown.add_column("events")
    for name in ("events/s", "ratio to good"):
        shown.add_column(name, justify="right")
    for each in results:
        shown.add_row(str(each["events"]), f"{each['events_per_s']:,}", str(each["ratio_to_good"]))
    return shown


def main(console: Console) -> None:
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)  # as a worker
    results = measure(int(os.environ.get("BENCH_EVENTS", "3000000")), int(os.environ.get("BENCH_RUNS", "3")))
    console.print(table(results))
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main(Console(highlight=False, width=None if sys.stdout.isatty() else 110))
