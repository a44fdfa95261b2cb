"""Makes commits as a worker would: positions first, then lines that chain, with files whose rows add up."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flask.testing import FlaskClient
from pyroaring import BitMap

from api.times import DAY_US, format_time


def bitmap(distances: Iterable[int]) -> str:
    return base64.b64encode(BitMap(list(distances)).serialize()).decode()


def file_entry(topic: str, modified_us: int, rows: int, **changes: Any) -> dict[str, Any]:
    """A file of rows of the day of `modified_us`."""
    what = changes.get("what", "rows")
    folder = {"rows": "fresh", "dead_letters": "dead_letters", "deletes": "deletes"}[what]
    return {
        "url": f"s3://lake/{folder}/{topic}/{uuid.uuid4().hex}-{what}.parquet",
        "what": what,
        "late": False,
        "bytes": rows * 10,
        "rows": rows,
        "sha256": "ab" * 32,
        "schema_version": 0,
        "periods": [{"start": format_time(modified_us // DAY_US * DAY_US), "rows": rows}]
        if what == "rows"
        else [],
        "lowest": format_time(modified_us - 1_000_000),
        "highest": format_time(modified_us),
        "modified_at": format_time(modified_us),
    } | changes


class Maker:
    """One worker of one topic; holds the positions it knows, and sends commits on top of them."""

    def __init__(
        self, client: FlaskClient, topic: str, partitions: Sequence[int], now: Callable[[], int]
    ) -> None:
        self.client = client
        self.topic = topic
        self.partitions = partitions
        self.now = now
        self.epoch = ""
        self.rule_version = 0
        self.positions: dict[int, dict[str, Any]] = {}

    def begin(self) -> dict[str, Any]:
        """Asks for the positions; what the API said of the topic."""
        answer = self.client.post(
            "/v1/positions", json={"topics": [{"topic": self.topic, "partitions": list(self.partitions)}]}
        )
        assert answer.status_code == 200, answer.get_data(as_text=True)
        [found] = answer.get_json()["topics"]
        self.epoch, self.rule_version = found["epoch"], found["rule_version"]
        self.positions = {position["lake_partition"]: position for position in found["positions"]}
        said: dict[str, Any] = found
        return said

    def line(
        self, lake_partition: int, rows: int, carried: Sequence[int] = (), **changes: Any
    ) -> dict[str, Any]:
        """A line that reads `rows` records and those carried before, and carries the distances given."""
        before = self.positions[lake_partition]
        start = before["next"] or 0
        end = start + rows
        position = {
            "next": end,
            "carried": bitmap(carried),
            "highest": format_time(self.now()),
            "watermark": format_time(self.now() - 60_000_000),
            "published_to": None,
            "topic_id": None,
        } | changes.pop("position", {})
        return {
            "lake_partition": lake_partition,
            "from_version": before["version"],
            "from_offset": start,
            "to_offset": end,
            "consumed": rows,
            "carried_in": before["carried_count"],
            "written": rows + before["carried_count"] - len(carried),
            "duplicates": 0,
            "differing": 0,
            "dead_letters": 0,
            "lost": 0,
            "carried_out": len(carried),
            "late": 0,
            "early": 0,
            "tombstones": 0,
            "lost_ranges": [],
            "position": position,
        } | changes

    def append(self, *lines: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """The body of an append of these lines (default: 10 rows of partition 0), with files that match."""
        chosen = list(lines) or [self.line(0, 10)]
        written = sum(line["written"] for line in chosen)
        dead = sum(line["dead_letters"] for line in chosen)
        files = []
        if written > 0:
            files.append(file_entry(self.topic, self.now(), written))
        if dead > 0:
            files.append(file_entry(self.topic, self.now(), dead, what="dead_letters"))
        return {
            "id": str(uuid.uuid4()),
            "kind": "append",
            "epoch": self.epoch,
            "worker": "worker-1",
            "rule_version": self.rule_version,
            "schema_version": 0,
            "lines": chosen,
            "files": files,
        } | changes

    def upkeep(
        self,
        kind: str,
        line: dict[str, Any],
        files: Sequence[dict[str, Any]] = (),
        remove: Sequence[int] = (),
        **changes: Any,
    ) -> dict[str, Any]:
        """The body of a commit of upkeep with one line, of lake partition 0."""
        return {
            "id": str(uuid.uuid4()),
            "kind": kind,
            "epoch": self.epoch,
            "worker": "upkeep-1",
            "lines": [{"lake_partition": 0} | line] if line else [],
            "files": list(files),
            "remove": list(remove),
        } | changes

    def file(self, rows: int, **changes: Any) -> dict[str, Any]:
        return file_entry(self.topic, self.now(), rows, **changes)

    def sealed(self, rows: int, day: str = "2026-01-01", **changes: Any) -> dict[str, Any]:
        """A sealed file of one day."""
        return self.file(
            rows,
            url=f"s3://lake/sealed/{self.topic}/event_date={day}/{uuid.uuid4().hex}.parquet",
            periods=[{"start": f"{day}T00:00:00Z", "rows": rows}],
            lowest=f"{day}T00:00:00Z",
            highest=f"{day}T23:00:00Z",
            **changes,
        )

    def live(self, **query: Any) -> list[dict[str, Any]]:
        """The live files."""
        answer = self.client.get(f"/v1/topics/{self.topic}/files", query_string=query)
        assert answer.status_code == 200, answer.get_data(as_text=True)
        found: list[dict[str, Any]] = answer.get_json()["files"]
        return found

    def send(self, body: dict[str, Any], status: int = 201) -> dict[str, Any]:
        """Sends a commit; when it is taken, goes on from the positions it left."""
        answer = self.client.post(f"/v1/topics/{self.topic}/commits", json=body)
        assert answer.status_code == status, answer.get_data(as_text=True)
        said: dict[str, Any] = answer.get_json()
        if status in (200, 201):
            self.positions.update({position["lake_partition"]: position for position in said["positions"]})
        return said

    def commit(self, rows: int = 10, lake_partition: int = 0) -> dict[str, Any]:
        """One append of `rows` rows, taken."""
        return self.send(self.append(self.line(lake_partition, rows)))
