"""`make bench-api`: the API on PostgreSQL with a long past, under commits and under waiting loaders.

1. Commits a second over many topics, and what a page of the feed costs at the end of a deep topic against its start.
2. Loaders in long polls while commits arrive: how long a commit takes, how soon a loader knows, what memory does.

Parameters by environment: BENCH_TOPICS (4000), BENCH_COMMITS (5000000), BENCH_DEEP (1000000; commits of the deepest),
BENCH_WORKERS (16), BENCH_SECONDS (30), BENCH_LOADERS (500), BENCH_FOLLOWERS (1; loaders of one topic), BENCH_RATE (50;
commits a second of part 2), BENCH_PROCESSES (1; of the API), BENCH_FSYNC (on). Writes build/bench-api.json, and says
the figures as lines of a table. Clients, API and database share the machine: what each takes of it is said, too.

How it scales: every read and write is a range of an index, of which ten times the commits are one level more; what
grows is what must lie in memory, which is the newest end of each index, a page for each topic.
"""

import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich.console import Console

from api.migrate import upgrade
from api.settings import load
from api.tokens import create
from bench.crowd import Worker, follow
from bench.history import Past, generate
from deploy.part import LOOPBACK, Part, Ward, free_ports
from tests.stack.postgres import Postgres, _programs

console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)


def number(name: str, default: int) -> int:
    return int(os.environ.get(f"BENCH_{name}", str(default)))


@dataclass(frozen=True)
class Town:
    """What runs: a database with a past, the API before it, a token for all."""

    part: Part
    database: Part
    port: int
    token: str
    commits: int  # of all topics, at the start

    def worker(self) -> Worker:
        return Worker(LOOPBACK, self.port, self.token)

    def memory(self) -> int:
        """Resident bytes of the API's processes; what they share counts once for each."""
        return sum(each.memory_info().rss for each in _tree(self.part))

    def processor(self) -> dict[str, float]:
        """Seconds of processor time so far: of the API, the database, and this program."""
        own = time.process_time()
        return {"api": _cpu(self.part), "database": _cpu(self.database), "client": own}


def _tree(part: Part) -> list[psutil.Process]:
    assert part.process is not None
    root = psutil.Process(part.process.pid)
    return [root, *root.children(recursive=True)]


def _cpu(part: Part) -> float:
    times = [each.cpu_times() for each in _tree(part)]
    return sum(each.user + each.system for each in times)


@contextmanager
def town(folder: Path) -> Iterator[Town]:
    with Ward(remove=folder) as ward:
        server = Postgres(folder, _programs(), free_ports(1)[0], ward.environment)
        server.fsync = os.environ.get("BENCH_FSYNC", "on")
        server.prepare()
        server.start()
        url = server.url(server.create())
        settings = load(database=url)
        upgrade(settings)
        past = Past(
            number("TOPICS", 4000),
            number("COMMITS", 5_000_000),
            number("DEEP", 1_000_000),
            time.time_ns() // 1000,
        )
        began = time.monotonic()
        total = generate(url.replace("+psycopg", ""), past)
        console.print(
            f"{total:,} commits in {past.topics:,} topics, made in {time.monotonic() - began:.0f} s"
        )
        token = create(settings, "bench", ["ingest", "upkeep", "load", "operate", "read"])
        port = free_ports(1)[0]
        part = Part(
            "api", [sys.executable, "-m", "tukang", "api"], folder=folder,
            ready=lambda: _answers(port), port=port,
            environment={
                **ward.environment, "TUKANG_DATABASE": url, "TUKANG_LISTEN": f"{LOOPBACK}:{port}",
                "TUKANG_API_PROCESSES": str(number("PROCESSES", 1)),
            },
        )  # fmt: skip
        part.start()
        try:
            assert server.part is not None
            yield Town(part, server.part, port, token, total)
        finally:
            part.end()
            server.stop()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://{LOOPBACK}:{port}/health/ready").is_success
    except httpx.TransportError:
        return False


def _spread(values: list[float]) -> dict[str, float]:
    """Milliseconds: median, 99th percentile, highest."""
    ordered = sorted(values)
    at = min(len(ordered) - 1, int(len(ordered) * 0.99))
    return {
        "p50_ms": round(statistics.median(ordered) * 1000, 1),
        "p99_ms": round(ordered[at] * 1000, 1),
        "max_ms": round(ordered[-1] * 1000, 1),
    }


def commits(town: Town) -> dict[str, Any]:
    """As many commits as go in, by workers that each have topics of their own."""
    workers, seconds, topics = number("WORKERS", 16), number("SECONDS", 30), number("TOPICS", 4000)
    took: list[float] = []
    failed: list[BaseException] = []
    hands = [town.worker() for _ in range(workers)]
    for place, hand in enumerate(hands):
        hand.begin([f"bench-{n}" for n in range(place, topics, workers)])
    ends = time.monotonic() + seconds

    def work(hand: Worker) -> None:
        try:
            names = list(hand.topics)
            turn = 0
            while time.monotonic() < ends:
                sent, answered, _ = hand.commit(names[turn % len(names)])
                took.append(answered - sent)
                turn += 1
        except BaseException as error:
            failed.append(error)
            raise

    began, before = time.monotonic(), town.processor()
    threads = [threading.Thread(target=work, args=[hand]) for hand in hands]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    spent = {name: seconds - before[name] for name, seconds in town.processor().items()}
    return {
        "commits_per_s": round(len(took) / (time.monotonic() - began)),
        **_spread(took),
        # What does not depend on who else uses the machine.
        "processor_ms_each": {name: round(seconds / len(took) * 1000, 2) for name, seconds in spent.items()},
    }


def pages(town: Town) -> dict[str, Any]:
    """A page of a hundred commits of the deep topic: the first one, and the one at its end."""
    hand, deep = town.worker(), number("DEEP", 1_000_000)
    times: dict[int, list[float]] = {0: [], deep - 100: []}
    for _ in range(60):
        for after, found in times.items():
            began = time.monotonic()
            status, answer = hand.ask("GET", f"/v1/topics/bench-0/batches?after={after}&limit=100&swept=1")
            assert (status, len(answer["commits"])) == (200, 100), answer
            found.append(time.monotonic() - began)
    first, last = (statistics.median(found) for found in times.values())
    return {
        "first_page_ms": round(first * 1000, 2),
        f"page_at_{deep}_ms": round(last * 1000, 2),
        "ratio": round(last / first, 2),
    }


def polls(town: Town) -> dict[str, Any]:
    """Loaders in long polls, commits at a steady rate to the topics that they follow."""
    loaders, followers = number("LOADERS", 500), number("FOLLOWERS", 1)
    rate, seconds = number("RATE", 50), number("SECONDS", 30)
    names = [f"bench-{n}" for n in range(1, 1 + loaders // followers)]
    hand = town.worker()
    hand.begin(names)
    places = [(name, hand.topics[name]["sequence"], hand.topics[name]["epoch"]) for name in names] * followers
    context = multiprocessing.get_context("spawn")
    ready, result = context.Event(), context.Queue()
    settle = 5 + loaders / 100
    enough = settle + seconds + 5
    crowd = context.Process(
        target=follow, args=(LOOPBACK, town.port, town.token, places, enough, ready, result)
    )
    crowd.start()
    ready.wait()
    time.sleep(settle)
    memory = [town.memory()]
    took: list[float] = []
    answered_at: dict[tuple[str, int], float] = {}
    hands = [town.worker() for _ in range(8)]
    for each in hands:
        each.topics = hand.topics
    due = iter(range(rate * seconds))
    lock, began = threading.Lock(), time.monotonic()

    def work(own: Worker) -> None:
        while True:
            with lock:
                turn = next(due, None)
            if turn is None:
                return
            time.sleep(max(0.0, began + turn / rate - time.monotonic()))
            name = names[turn % len(names)]
            sent, answered, sequence = own.commit(name)
            took.append(answered - sent)
            answered_at[name, sequence] = answered
            if turn % (rate * 5) == 0:
                memory.append(town.memory())

    threads = [threading.Thread(target=work, args=[each]) for each in hands]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    memory.append(town.memory())
    seen = result.get(timeout=60)
    crowd.join()
    told = [at - answered_at[topic, sequence] for topic, sequence, at in seen]
    return {
        "loaders": len(places),
        "commits": len(took),
        "commit": _spread(took),
        "told": len(told),
        "missed": len(took) * followers - len(told),
        "wake": _spread(told),
        "memory_mb": [round(each / 1e6) for each in memory],
        # Every loader is told of its own topics' commits: the one that waited longest.
        "slowest_loader_ms": round(max(_longest(seen, answered_at).values(), default=0) * 1000, 1),
        "loaders_told": len({topic for topic, _, _ in seen}) * followers,
    }


def _longest(
    seen: list[tuple[str, int, float]], answered_at: dict[tuple[str, int], float]
) -> dict[str, float]:
    """The longest wait of each topic's loaders, in seconds."""
    longest: dict[str, float] = {}
    for topic, sequence, at in seen:
        longest[topic] = max(longest.get(topic, 0.0), at - answered_at[topic, sequence])
    return longest


def _table(report: dict[str, Any]) -> str:
    """The figures as lines of a Markdown table."""
    past, commits, pages, polls = (report[name] for name in ("past", "commits", "pages", "polls"))
    first, last = (value for name, value in pages.items() if name != "ratio")
    memory, each, told = polls["memory_mb"], commits["processor_ms_each"], polls["wake"]
    lines = {
        "the past": f"{past['commits']:,} commits in {past['topics']:,} topics; fsync {past['fsync']}",
        "the machine": f"{past['cores']} cores, for API, database and clients together",
        "commits": f"{commits['commits_per_s']} a second, p50 {commits['p50_ms']} ms, p99 {commits['p99_ms']} ms",
        "processor time of one": f"{each['api']} ms of the API, {each['database']} ms of PostgreSQL",
        f"a page of 100 commits at commit {past['deep']:,}": f"{last} ms; the first page {first} ms",
        f"commits, {past['rate']} a second, with {polls['loaders']} loaders in long polls": (
            f"p50 {polls['commit']['p50_ms']} ms, p99 {polls['commit']['p99_ms']} ms"
        ),
        "from a commit's answer until its loader has it": (
            f"p50 {told['p50_ms']} ms, p99 {told['p99_ms']} ms, at most {told['max_ms']} ms; "
            f"{polls['missed']} of {polls['commits']} missed"
        ),
        "the API's memory meanwhile": f"{memory[0]} MB, at most {max(memory)} MB, {memory[-1]} MB at the end",
    }
    return "\n".join(f"| {what} | {figure} |" for what, figure in lines.items())


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="tukang-bench-"))
    with town(folder) as running:
        report: dict[str, Any] = {
            "past": {
                "commits": running.commits, "topics": number("TOPICS", 4000), "deep": number("DEEP", 1_000_000),
                "workers": number("WORKERS", 16), "rate": number("RATE", 50), "processes": number("PROCESSES", 1),
                "fsync": os.environ.get("BENCH_FSYNC", "on"), "cores": os.cpu_count(),
            }
        }  # fmt: skip
        for name, part in (("pages", pages), ("commits", commits), ("polls", polls)):
            report[name] = part(running)
            console.print(f"{name}: {report[name]}")
    console.print(_table(report), soft_wrap=True)
    target = Path("build/bench-api.json")
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
