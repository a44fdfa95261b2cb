"""`make bench-lake`: a day of events as workers left it, and after upkeep: files, bytes, three analysts' queries.

BENCH_LAKE_ROWS (20000000) and BENCH_LAKE_COMMITS (2880) scale it, BENCH_LAKE_RUNS (3) says how often each query is
asked. The queries go to build/bench-lake.json, what sealing took to build/bench-lake-seal.json.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import httpx
from rich import box
from rich.console import Console
from rich.table import Table

from bench.amplification import played
from bench.lake_data import leave
from deploy.part import LOOPBACK, Part, Ward, free_ports
from deploy.seaweedfs import SeaweedFS
from ingest.lake import Lake
from ingest.parties import catalog_of
from ingest.settings import Settings
from ingest.upkeep.run import Pace, Upkeep
from loaders.sql import _extension

TOPIC = "bench"
QUERIES = {
    "one hour's sum": "SELECT count(*), round(sum(amount), 2) FROM events "
    "WHERE _event_time >= '2026-01-01 14:00:00Z' AND _event_time < '2026-01-01 15:00:00Z'",
    "one customer's history": "SELECT _event_time, kind, amount FROM events WHERE customer = 4242 ORDER BY ALL",
    "a day's group by": "SELECT country, kind, count(*), round(avg(amount), 4) FROM events GROUP BY ALL ORDER BY ALL",
}
# What a large store asks for a thousand requests (get and head; put and list), in dollars; bytes within its region are
# free.
PUTS_USD, GETS_USD = 0.005, 0.0004

SMALL_LATE, SMALL_ALL = 500, 1 << 30  # bytes of a fresh file that is small: those of late rows, or all

console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)


def live(api: str) -> list[dict[str, Any]]:
    """The live files of rows."""
    found: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 1000, "what": "rows"}
    while True:
        page = httpx.get(f"{api}/v1/topics/{TOPIC}/files", params=query, timeout=60).json()
        found += page["files"]
        if page["next_page"] is None:
            return found
        query["page"] = page["next_page"]


def named(api: str, after: int) -> list[dict[str, Any]]:
    """The files that name the rows which left since a commit."""
    query = {"limit": 1000, "after": after}
    page = httpx.get(f"{api}/v1/topics/{TOPIC}/batches", params=query, timeout=60).json()
    return [file for commit in page["commits"] for file in commit["add"] if file["what"] == "deletes"]


def asked(
    store: SeaweedFS, files: list[dict[str, Any]], query: str, runs: int, less: Sequence[dict[str, Any]] = ()
) -> tuple[float, Any]:
    """Median seconds of a query by a DuckDB that knows nothing yet, and its answer; without the rows that the files in
    `less` name.
    """
    took, answer = [], None
    for _ in range(runs):
        with duckdb.connect() as connection:
            connection.execute(f"LOAD '{_extension()}'; SET threads = 8; SET TimeZone = 'UTC'")
            connection.execute(
                f"CREATE SECRET (TYPE s3, KEY_ID '{store.credentials['AWS_ACCESS_KEY_ID']}', "
                f"SECRET '{store.credentials['AWS_SECRET_ACCESS_KEY']}', "
                f"ENDPOINT '{store.endpoint.removeprefix('http://')}', URL_STYLE 'path', USE_SSL false)"
            )
            without = f"ANTI JOIN {_read(less)} AS gone USING (_lake_partition, _offset)" if less else ""
            began = time.monotonic()
            connection.execute(f"CREATE VIEW events AS FROM {_read(files)} {without}")
            answer = connection.execute(query).fetchall()
            took.append(time.monotonic() - began)
    return statistics.median(took), answer


def _read(files: Sequence[dict[str, Any]]) -> str:
    return "read_parquet([" + ", ".join(f"'{file['url']}'" for file in files) + "])"


class CountedLake(Lake):
    """The store, and what it was asked for."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.bucket, settings.prefix, endpoint=settings.s3_endpoint)
        self.requests = Counter[str]()  # by the first word of what was done

    def _call(self, doing: str, act: Any) -> Any:
        self.requests[doing.split()[0]] += 1
        return super()._call(doing, act)

    def usd(self) -> float:
        """What a large store asks for these requests; a deletion costs nothing."""
        cheap = self.requests["get"] + self.requests["look"]
        return (
            cheap * GETS_USD + (self.requests.total() - cheap - self.requests["delete"]) * PUTS_USD
        ) / 1000


async def seal(settings: Settings, lake: Lake) -> None:
    """Upkeep, until nothing is due."""
    catalog = catalog_of(settings)
    upkeep = Upkeep(settings, lake, catalog, Pace())
    try:
        while await upkeep.seal(TOPIC):
            pass
        await upkeep.write_live(TOPIC)
    finally:
        await catalog.close()


def main() -> None:
    rows = int(os.environ.get("BENCH_LAKE_ROWS", "20000000"))
    commits = int(os.environ.get("BENCH_LAKE_COMMITS", "2880"))
    runs = int(os.environ.get("BENCH_LAKE_RUNS", "3"))
    with tempfile.TemporaryDirectory(prefix="tukang-bench-") as name, Ward(remove=Path(name)) as ward:
        folder = Path(name)
        store = SeaweedFS(folder, bucket="lake", environment=ward.environment)
        store.start()
        os.environ |= store.credentials
        port = free_ports(1)[0]
        api = f"http://{LOOPBACK}:{port}"
        part = Part(
            "api",
            [sys.executable, "-m", "tukang", "api"],
            folder=folder,
            ready=lambda: _answers(api),
            environment={
                **ward.environment,
                "TUKANG_DATABASE": f"sqlite:///{folder / 'tukang.db'}",
                "TUKANG_LISTEN": f"{LOOPBACK}:{port}",
                "TUKANG_AUTH": "none",
                "PYTHONPATH": str(Path(__file__).parents[1]),
            },
            port=port,
        )
        part.start()
        settings = Settings(
            broker="127.0.0.1:9",
            bucket="lake",
            s3_endpoint=store.endpoint,
            api=api,
            memory="2GiB",
            topics=TOPIC,
        )
        console.print(f"A day of {rows:,} events in {commits:,} commits ...")
        writing = CountedLake(settings)
        left = leave(api, writing, TOPIC, rows, commits)
        before = live(api)
        first = {title: asked(store, before, query, runs) for title, query in QUERIES.items()}
        console.print(f"{len(before):,} files; sealing ...")
        began, cpu = time.monotonic(), time.process_time()
        sealing = CountedLake(settings)
        asyncio.run(seal(settings, sealing))
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        after = live(api)
        second = {title: asked(store, after, query, runs) for title, query in QUERIES.items()}
        gone = named(api, left.commits)
        for title, query in QUERIES.items():
            _check(title, asked(store, before, query, 1, gone)[1], second[title][1])
        part.end()
        store.end()
    results = [
        {
            "query": title,
            "before_s": round(first[title][0], 3),
            "after_s": round(second[title][0], 3),
            "ratio": round(first[title][0] / second[title][0], 1),
        }
        for title in QUERIES
    ]
    size = sum(file["bytes"] for file in before)
    figures = {
        "rows": left.rows,
        "commits": left.commits,
        "files_before": len(before),
        "files_after": len(after),
        "bytes_before": size,
        "bytes_after": sum(file["bytes"] for file in after),
        "duplicates": left.rows - sum(file["rows"] for file in after),
        "seal_s": round(seconds, 1),
        "seal_cpu_s": round(cpu, 1),
        "rows_per_s": round(left.rows / seconds),
        "rows_per_cpu_s": round(left.rows / cpu),
        "workers_requests_usd_per_tb": round(writing.usd() / size * 1e12, 2),
        "seal_requests_usd_per_tb": round(sealing.usd() / size * 1e12, 2),
        "cpu_hours_per_tb": round(cpu / size * 1e12 / 3600, 1),
        # By the planner alone, over three days with 1 % of the rows late by a day.
        "times_written": round(played(SMALL_LATE).times, 2),
        "times_written_in_small_files": round(played(SMALL_ALL).times, 2),
    }
    build = Path("build")
    build.mkdir(exist_ok=True)
    (build / "bench-lake.json").write_text(json.dumps(results, indent=1) + "\n")
    (build / "bench-lake-seal.json").write_text(json.dumps(figures, indent=1) + "\n")
    _show(results, figures)


def _check(title: str, before: Any, after: Any) -> None:
    """Upkeep took away the duplicates that it named, and nothing else: all other rows give the same answer."""
    same = len(before) == len(after) and all(
        math.isclose(one, two, abs_tol=0.011) if isinstance(one, float) else one == two
        for row, other in zip(before, after, strict=True)
        for one, two in zip(row, other, strict=True)
    )
    if not same:
        raise SystemExit(f"{title}: the answer is another after upkeep")


def _answers(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health/ready").is_success
    except httpx.TransportError:
        return False


def _show(results: list[dict[str, Any]], figures: dict[str, Any]) -> None:
    shown = Table(box=box.SIMPLE_HEAVY, title="three queries, before and after upkeep", title_justify="left")
    for column in ("query", "before_s", "after_s", "ratio"):
        shown.add_column(column, justify="left" if column == "query" else "right")
    for each in results:
        shown.add_row(*(str(value) for value in each.values()))
    console.print(shown)
    for name, value in figures.items():
        console.print(f"{name:>22}  {value:,}" if isinstance(value, int) else f"{name:>22}  {value}")


if __name__ == "__main__":
    main()
