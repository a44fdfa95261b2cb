"""The model's commits made real by hand: Parquet files in the bucket, one request to the API for each commit."""

import base64
import hashlib
import time
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from pyroaring import BitMap

from tests.loaders.model import PARTITIONS, Key, Lake, Object, State
from tests.loaders.parquet import START_US, write_object
from tests.stack.store import Bucket

FOLDERS = {"rows": "fresh", "dead_letters": "dead_letters", "deletes": "deletes"}
DAY_US = 86_400_000_000


def uuid7() -> str:
    """An id in the order of time."""
    ms = time.time_ns() // 1_000_000
    value = (ms << 80) | (7 << 76) | (uuid.uuid4().int & ((1 << 76) - 1))
    return str(uuid.UUID(int=(value & ~(3 << 62)) | (2 << 62)))


def text(us: int) -> str:
    """Microseconds since 1970 as the contract writes times."""
    return (
        datetime.fromtimestamp(us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{us % 1_000_000:06d}Z"
    )


class Maker:
    """One topic of a real API, kept equal to a model. `lake` is the model as it is now."""

    def __init__(
        self,
        url: str,
        bucket: Bucket,
        folder: Path,
        topic: str = "orders",
        headers: dict[str, str] | None = None,
    ) -> None:
        self.http = httpx.Client(base_url=f"{url}/v1", timeout=60, headers=headers or {})
        self.bucket, self.folder, self.topic = bucket, folder, topic
        folder.mkdir(parents=True, exist_ok=True)
        self.store = bucket.client()
        self.lake = Lake()
        self.ids: dict[int, int] = {}  # of the model's files: their ids in the API
        self.urls: dict[int, str] = {}
        # An expire is taken only of what policy lets go: here everything at once.
        expiring = {"retention": "1h", "dead_letter_retention": "1h", "min_retention": "0s"}
        made = self.http.post("/topics", json={"topic": topic, "settings": expiring})
        assert made.status_code in (201, 409), made.text
        self._find_positions()

    def _find_positions(self) -> None:
        asked = {"topics": [{"topic": self.topic, "topic_id": None, "partitions": [0, 1]}]}
        answer = self.http.post("/positions", json=asked).raise_for_status().json()["topics"][0]
        self.epoch = answer["epoch"]
        self.versions: dict[int, str | None] = {
            each["lake_partition"]: each["version"] for each in answer["positions"]
        }

    def commit(self, kind: str, choice: int = 0) -> None:
        """One more commit, of the model and of the API."""
        before, after = self.lake, self.lake.commit(kind, choice)
        if kind != "append" and not after.commits[-1].remove:
            kind, after = "append", self.lake.commit("append", choice)  # there was nothing to take
        made = after.commits[-1]
        added = [after.objects[file.id] for file in made.add]
        removed = [after.objects[number] for number in made.remove]
        files = [self._put(each) for each in added]
        body: dict[str, Any] = {
            "id": uuid7(),
            "kind": kind,
            "epoch": self.epoch,
            "worker": "maker",
            "rule_version": 0,
            "schema_version": 0,
            "files": files,
        }
        if kind == "append":
            body["lines"] = self._append_lines(before.head, after.head, added)
        else:
            body["lines"] = _upkeep_lines(kind, added, removed)
            body["remove"] = [self.ids[each.file.id] for each in removed]
        answer = self.http.post(f"/topics/{self.topic}/commits", json=body)
        assert answer.status_code == 201, answer.text
        assert answer.json()["sequence"] == after.head.sequence
        for position in answer.json()["positions"]:
            self.versions[position["lake_partition"]] = position["version"]
        self.lake = after
        self._learn_ids(added)

    def _append_lines(self, before: State, after: State, added: list[Object]) -> list[dict[str, Any]]:
        lines = []
        for number, end in after.next.items():
            written, dead = (
                sum(1 for each in added if each.file.what == what for key in each.rows if key[0] == number)
                for what in ("rows", "dead_letters")
            )
            held = sorted(offset for each, offset in after.carried if each == number)
            highest = text(START_US + end * 1_000_003)
            lines.append(
                {
                    "lake_partition": number,
                    "from_version": self.versions[number],
                    "from_offset": before.next[number],
                    "to_offset": end,
                    "consumed": end - before.next[number],
                    "carried_in": sum(1 for each, _ in before.carried if each == number),
                    "written": written,
                    "duplicates": 0,
                    "differing": 0,
                    "dead_letters": dead,
                    "lost": 0,
                    "carried_out": len(held),
                    "late": 0,
                    "early": 0,
                    "tombstones": 0,
                    "lost_ranges": [],
                    "position": {
                        "next": end,
                        "carried": base64.b64encode(
                            BitMap([end - offset for offset in held]).serialize()
                        ).decode(),
                        "highest": highest,
                        "watermark": highest,
                        "published_to": None,
                        "topic_id": None,
                    },
                }
            )
        return lines

    def _put(self, each: Object) -> dict[str, Any]:
        what, late = each.file.what, each.file.late
        ending = {"rows": "-late" if late else "-rows", "dead_letters": "", "deletes": ""}[what]
        key = f"{FOLDERS[what]}/{self.topic}/{uuid7()}{ending}.parquet"
        data = write_object(each, self.folder).read_bytes()
        self.store.put_object(Bucket=self.bucket.name, Key=key, Body=data)
        modified = self.store.head_object(Bucket=self.bucket.name, Key=key)["LastModified"]
        self.urls[each.file.id] = f"s3://{self.bucket.name}/{key}"
        times = [START_US + offset * 1_000_003 for _, offset in each.rows]
        days: dict[int, int] = {}
        for moment in times:
            days[moment // DAY_US * DAY_US] = days.get(moment // DAY_US * DAY_US, 0) + 1
        kept = (
            {"newest_sequence": max(row.sequence for row in each.rows.values())} if each.own_sequence else {}
        )
        return {
            **kept,
            "url": self.urls[each.file.id],
            "what": what,
            "late": late,
            "bytes": len(data),
            "rows": len(each.rows),
            "sha256": hashlib.sha256(data).hexdigest(),
            "schema_version": 0,
            "periods": [{"start": text(day), "rows": rows} for day, rows in sorted(days.items())]
            if what == "rows"
            else [],
            "lowest": text(min(times)),
            "highest": text(max(times)),
            "modified_at": text(int(modified.timestamp()) * 1_000_000),
        }

    def _learn_ids(self, added: Iterable[Object]) -> None:
        sequence = self.lake.head.sequence
        answer = self.http.get(f"/topics/{self.topic}/batches", params={"after": sequence - 1, "limit": 1})
        by_url = {each["url"]: each["id"] for each in answer.raise_for_status().json()["commits"][0]["add"]}
        self.ids |= {each.file.id: by_url[self.urls[each.file.id]] for each in added}

    def restored(self, common: int) -> None:
        """The catalogue was restored to a state that has everything up to `common`."""
        self.lake = self.lake.restore(common)
        self._find_positions()

    def sweep(self) -> None:
        """Deletes the objects of all files that are not live, as the sweep does after their grace."""
        swept = self.lake.sweep()
        for number in swept.swept - self.lake.swept:
            self.store.delete_object(
                Bucket=self.bucket.name, Key=self.urls[number].removeprefix(f"s3://{self.bucket.name}/")
            )
        self.lake = swept


def _upkeep_lines(kind: str, added: list[Object], removed: list[Object]) -> list[dict[str, Any]]:
    """The ledger's lines of a commit of upkeep, counted from its files."""

    def keys(objects: list[Object], what: str, number: int) -> set[Key]:
        return {key for each in objects if each.file.what == what for key in each.rows if key[0] == number}

    lines = []
    for number in PARTITIONS:
        rows_in, rows_out = keys(removed, "rows", number), keys(added, "rows", number)
        dead_in, dead_out = keys(removed, "dead_letters", number), keys(added, "dead_letters", number)
        line = {
            "lake_partition": number,
            "rows_in": len(rows_in),
            "rows_out": len(rows_out),
            "dead_in": len(dead_in),
            "dead_out": len(dead_out),
        }
        left = len((rows_in | dead_in) - rows_out - dead_out)
        name = {"replace": "duplicates", "expire": "expired", "erase": "erased", "rewrite": "lost"}[kind]
        line[name] = left
        if kind == "rewrite":
            line["restored"] = len((rows_out | dead_out) - rows_in - dead_in)
        lines.append(line)
    return lines
