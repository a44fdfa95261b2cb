"""Workers and loaders as a crowd: as little client as there can be, so that what is measured is the server.

Workers are threads with one connection each; loaders are coroutines of a process of their own, each in a long poll.
"""

import asyncio
import http.client
import json
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any

_numbers = count()


def written(time_us: int) -> str:
    """As the contract writes times."""
    return (
        datetime.fromtimestamp(time_us / 1e6, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    )


class Worker:
    """One connection, and the positions of the topics that it alone commits to."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=60)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self.topics: dict[str, dict[str, Any]] = {}

    def begin(self, topics: list[str]) -> None:
        for start in range(0, len(topics), 500):
            asked = [{"topic": name, "partitions": [0]} for name in topics[start : start + 500]]
            _, answer = self.ask("POST", "/v1/positions", {"topics": asked})
            self.topics |= {each["topic"]: each for each in answer["topics"]}

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        data = json.dumps(body) if body is not None else None
        self._connection.request(method, path, data, self._headers)
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")

    def commit(self, topic: str) -> tuple[float, float, int]:
        """One append of ten rows. When it was sent and answered (monotonic seconds), and its sequence."""
        held = self.topics[topic]
        before = held["positions"][0]
        start, now_us = before["next"] or 0, time.time_ns() // 1000
        now, day = written(now_us), written(now_us // 86_400_000_000 * 86_400_000_000)
        line = {
            "lake_partition": 0, "from_version": before["version"], "from_offset": start, "to_offset": start + 10,
            "consumed": 10, "carried_in": 0, "written": 10, "duplicates": 0, "differing": 0, "dead_letters": 0,
            "lost": 0, "carried_out": 0,
            "position": {"next": start + 10, "carried": "OjAAAAAAAAA=", "highest": now, "watermark": now,
                         "published_to": None, "topic_id": None},
        }  # fmt: skip
        file = {
            "url": f"s3://bench/fresh/{topic}/{uuid.uuid4().hex}{next(_numbers)}-rows.parquet", "what": "rows",
            "late": False, "bytes": 1000, "rows": 10, "sha256": "ab" * 32, "schema_version": 0,
            "periods": [{"start": day, "rows": 10}], "lowest": now, "highest": now, "modified_at": now,
        }  # fmt: skip
        body = {
            "id": str(uuid.uuid4()), "kind": "append", "epoch": held["epoch"], "worker": "bench", "rule_version": 0,
            "schema_version": 0, "lines": [line], "files": [file],
        }  # fmt: skip
        sent = time.monotonic()
        status, answer = self.ask("POST", f"/v1/topics/{topic}/commits", body)
        answered = time.monotonic()
        if status != 201:
            raise RuntimeError(f"commit to {topic}: {status} {answer}")
        held["positions"] = answer["positions"]
        return sent, answered, int(answer["sequence"])


@dataclass
class Seen:
    """What a loader was told: which commit, and when (monotonic seconds)."""

    topic: str
    sequence: int
    at: float


async def _loader(
    host: str, port: int, token: str, topic: str, after: int, epoch: str, seen: list[Seen], ends: float
) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    while time.monotonic() < ends:
        path = f"/v1/topics/{topic}/batches?after={after}&epoch={epoch}&wait=30"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        )
        body = await reader.readexactly(length)
        now = time.monotonic()
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise RuntimeError(body.decode())
        for commit in json.loads(body)["commits"]:
            after = commit["sequence"]
            seen.append(Seen(topic, after, now))
    writer.close()


def follow(
    host: str,
    port: int,
    token: str,
    places: list[tuple[str, int, str]],
    seconds: float,
    ready: Any,
    result: Any,
) -> None:
    """The process of the loaders: one for each (topic, after, epoch), for so many seconds from `ready` on."""

    async def run() -> list[Seen]:
        seen: list[Seen] = []
        ends = time.monotonic() + seconds
        loaders = [asyncio.create_task(_loader(host, port, token, *place, seen, ends)) for place in places]
        ready.set()
        _, late = await asyncio.wait(loaders, timeout=ends - time.monotonic() + 1)
        for each in late:  # still in their last poll
            each.cancel()
        for each in loaders:
            if each.done() and not each.cancelled() and each.exception():
                raise each.exception() or RuntimeError
        return seen

    result.put([(each.topic, each.sequence, each.at) for each in asyncio.run(run())])
