"""`tukang status`: how every topic stands, in words and figures of the API. Reads; decides and computes nothing.

What the API does not know now (no fresh report) stays `unknown` here: never a stale number.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ingest.catalog import CatalogRefused, CatalogUnavailable
from ingest.inquiry import Inquiry
from ingest.printer import fitted, printer
from ingest.settings import ApiSettings

COLOURS = {
    "running": "green",
    "starting": "green",
    "waiting": "yellow",
    "paused": "yellow",
    "unknown": "yellow",
}

Answer = Mapping[str, Any]


def status(settings: ApiSettings, *, as_json: bool = False, now: datetime | None = None) -> int:
    """Prints topics, loaders and workers. Returns 0, or 2 when the API could not be asked."""
    try:
        inquiry = Inquiry.of(settings, timeout_s=15)
        try:
            topics, loaders, workers = inquiry.topics(), inquiry.loaders(), inquiry.workers()
        finally:
            inquiry.close()
    except (CatalogRefused, CatalogUnavailable) as error:
        print(error, file=sys.stderr)  # noqa: T201 -- one line, unwrapped
        return 2
    if as_json:
        json.dump({"topics": topics, "loaders": loaders, "workers": workers}, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        show(topics, loaders, workers, now or datetime.now(UTC), printer(sys.stdout))
    return 0


def show(
    topics: Sequence[Answer],
    loaders: Sequence[Answer],
    workers: Sequence[Answer],
    now: datetime,
    console: Console,
) -> None:
    """For a person: three tables, and what is to be done."""
    if not topics:
        console.print(
            "No topic yet: a worker brings the topics that TUKANG_TOPICS names, or `tukang topics` makes one."
        )
        return
    console.print(fitted(_topics(topics, now), console))
    if loaders:
        console.print(fitted(_loaders(loaders, now), console))
    if workers:
        console.print(fitted(_workers(workers, now), console))
    for topic in topics:
        if topic["todo"] or (topic["state"] == "running" and topic["reason"] not in (None, "running")):
            console.print(
                f"{topic['topic']} is {topic['state']}: {_sentence(topic)}", markup=False, soft_wrap=True
            )


def _topics(topics: Sequence[Answer], now: datetime) -> Table:
    table = _table(
        "topic", "state", "lag", "fresh until", "complete until", "rows", "dead letters", "last commit"
    )
    for topic in topics:
        lag = topic["lag"]
        table.add_row(
            Text(topic["topic"]),
            Text(topic["state"], style=COLOURS.get(topic["state"], "red")),
            Text("unknown", style="yellow") if lag is None else f"{lag:,}",
            _time(topic["fresh_until"], "unknown"),
            _time(topic["complete_until"], "not yet"),
            f"{topic['rows']:,}",
            f"{topic['dead_letters']:,}",
            _age(topic["last_commit_at"], now, "none"),
        )
    return table


def _loaders(loaders: Sequence[Answer], now: datetime) -> Table:
    table = _table("loader", "topics behind", "commits behind", "rows behind", "waiting since")
    for loader in loaders:
        table.add_row(
            Text(loader["name"]),
            *(f"{loader[name]:,}" for name in ("behind", "lag_commits", "lag_rows")),
            _age(loader["moved_at"], now, "nothing waits" if not loader["behind"] else "the beginning"),
        )
    return table


def _workers(workers: Sequence[Answer], now: datetime) -> Table:
    table = _table("worker", "state", "lake partitions", "memory", "reported", "version")
    for worker in workers:
        reporting = worker["state"] == "reporting"
        partitions = sum(len(topic["lake_partitions"]) for topic in worker["topics"])
        table.add_row(
            Text(worker["name"]),
            Text(worker["state"], style="green" if reporting else "yellow"),
            f"{partitions:,}" if reporting else "unknown",
            _memory(worker) if reporting else "unknown",
            _age(worker["reported_at"], now, "never"),
            Text(worker["version"]),
        )
    return table


def _table(*names: str) -> Table:
    table = Table(box=box.SIMPLE_HEAVY)
    left = {"topic", "loader", "worker", "state", "fresh until", "complete until", "version"}
    for name in names:
        table.add_column(name, justify="left" if name in left else "right")
    return table


def _sentence(topic: Answer) -> str:
    reason = f"{topic['reason'].rstrip('.')}. " if topic["reason"] else ""
    return f"{reason}{topic['todo'] or ''}".strip()


def _time(text: str | None, without: str) -> str:
    """To the second: what is finer helps nobody who looks."""
    return without if text is None else f"{text[:10]} {text[11:19]}"


def _age(text: str | None, now: datetime, without: str) -> str:
    """How long ago, in one unit."""
    if text is None:
        return without
    seconds = max(0, int((now - datetime.fromisoformat(text)).total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"


def _memory(worker: Answer) -> str:
    used, limit = worker["memory_bytes"], worker["memory_limit"]
    if used is None:
        return "unknown"
    return f"{used / 2**20:,.0f} MiB" + (f" of {limit / 2**20:,.0f}" if limit else "")
