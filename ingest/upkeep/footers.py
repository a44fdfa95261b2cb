"""What the objects tell of themselves: appends that the copy of the catalogue does not have, from their footers.

The footer of each fresh object carries its commit's id and ledger lines. When all objects of a commit are there, and
their rows are what the lines say was written, the body of the commit can be made again. Whether it chains is the API's
to say: what was never committed is refused there, or is as good as what was.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ingest.encode import FOOTER_KEY, periods
from ingest.lake import Lake
from ingest.lake_object import got
from ingest.position import time_to_text

_FOLDERS = {"rows": "fresh", "dead_letters": "dead_letters"}


def appends_beyond(
    lake: Lake, topic: str, epoch: str, named: Collection[str], period_us: int, now_us: int
) -> list[dict[str, Any]]:
    """Bodies (without epoch) of the appends of an epoch whose objects no commit in `named` (addresses) has."""
    by_commit: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = defaultdict(list)
    for what, folder in _FOLDERS.items():
        for found in lake.objects(f"{folder}/{topic}/"):
            if found.url in named or not found.url.endswith(".parquet"):
                continue
            told = _look(lake, found.url, what, period_us, now_us)
            if told is not None and (told[0].get("epoch"), told[0].get("topic")) == (epoch, topic):
                by_commit[told[0]["commit"]].append(told)
    return [body for commit in sorted(by_commit) for body in _body(by_commit[commit])]


def _body(files: list[tuple[dict[str, Any], dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    footer = files[0][0]
    if footer.get("kind") != "append":
        return
    entries = _once(entry for _, entry in files)
    for what, count in (("rows", "written"), ("dead_letters", "dead_letters")):
        there = sum(entry["rows"] for entry in entries if entry["what"] == what)
        if there != sum(line[count] for line in footer["lines"]):
            return
    yield {
        "id": footer["commit"],
        "kind": "append",
        "worker": None,
        "rule_version": footer.get("rule_version", 0),
        "schema_version": footer["schema_version"],
        "lines": footer["lines"],
        "files": entries,
    }


def _once(entries: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """A put that got no answer was made again under another name: one of each kind of file is enough."""
    return list({(entry["what"], entry["late"]): entry for entry in entries}.values())


def _look(
    lake: Lake, url: str, what: str, period_us: int, now_us: int
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    data = got(lake, url)
    try:
        with pq.ParquetFile(io.BytesIO(data)) as file:
            footer: Mapping[str, Any] = json.loads((file.schema_arrow.metadata or {})[FOOTER_KEY])
            name = "_event_time" if what == "rows" else "_timestamp"
            times = file.read(columns=[name]).column(name)
    except (pa.ArrowInvalid, KeyError, ValueError):
        return None  # nothing of ours
    bounds = pc.min_max(times.cast(pa.int64())).as_py()
    entry = {
        "url": url,
        "what": what,
        "late": url.endswith("-late.parquet"),
        "bytes": len(data),
        "rows": len(times),
        "sha256": hashlib.sha256(data).hexdigest(),
        "schema_version": footer.get("schema_version", 0),
        "periods": periods(times, period_us) if what == "rows" else [],
        "lowest": time_to_text(bounds["min"]),
        "highest": time_to_text(bounds["max"]),
        # It is there now; its age counts from when it is named again.
        "modified_at": time_to_text(now_us),
    }
    return dict(footer), entry
