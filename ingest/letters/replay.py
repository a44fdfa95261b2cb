"""Replay: dead letters that are rows now, after a fix, leave their files and come into the lake, in one `rewrite`.

Exactly once, whenever it is killed: objects mean nothing until the commit names them, the commit takes the letters' own
files away, and it is refused when one of them, or a file that holds a twin, is not live any more. So of two replays
one wins, and the other finds nothing left. A re-sent copy that a worker publishes in the same moment is left to the
seal, as any copy that the window did not catch.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ingest.catalog import Catalog, CommitConflict, SchemaMoved
from ingest.dead_letters import SCHEMA
from ingest.decode import Decoded
from ingest.encode import Encoded, What, encode
from ingest.ids import uuid7
from ingest.inquiry import Inquiry
from ingest.lake import Lake
from ingest.lake_object import opened
from ingest.letters.again import Again, alive_mask, decoded, judged
from ingest.letters.find import File, Wanted, read
from ingest.position import time_from_text
from ingest.publish import put_fresh
from ingest.schema import TopicSchema, merge
from ingest.settings import LakeSettings
from ingest.topic_settings import TopicSettings, topic_settings

log = logging.getLogger(__name__)

MOST_LETTERS = 100_000  # of one commit
MOST_BYTES = 32_000_000  # of its files
TRIES = 20

_TWIN_COLUMNS = ["_lake_partition", "_event_id", "_event_time", "_time_from"]


class ReplayRefused(Exception):
    """Nothing was replayed, or not all; the text says why and what to do."""


@dataclass(slots=True)
class Outcome:
    """What a replay did: its commits, and what became of the letters."""

    sequences: list[int] = field(default_factory=list)
    rows: int = 0
    duplicates: int = 0
    dead: int = 0  # that are still no events, of those that were meant


@dataclass(frozen=True, slots=True)
class _Plan:
    """One commit's worth of letters, judged."""

    again: Again
    rest: pa.Table  # letters of the files that leave, which stay letters
    dead_in: Counter[int]
    remove: list[int]
    beside: list[int]


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay needs. `name` stands in its commits as the worker's."""

    inquiry: Inquiry
    catalog: Catalog
    lake: Lake
    environment: LakeSettings
    now_us: Callable[[], int]
    randbits: Callable[[int], int]
    name: str

    async def run(self, topic: str, wanted: Wanted, *, dry_run: bool = False) -> Outcome:
        """Replays the wanted letters of a topic. Raises `ReplayRefused`, `TopicUnknown`, `CommitRefused`."""
        outcome = Outcome()
        judged_urls: set[str] = set()  # files of which nothing (more) comes alive
        conflicts = 0
        while True:
            state = self.inquiry.topic(topic)
            settings = topic_settings(
                state["settings_version"], state["settings"], state["settings_own"], self.environment
            )
            if settings.wrong is not None:
                raise ReplayRefused(f"the topic's settings cannot be followed here: {settings.wrong}")
            live = list(self.inquiry.files(topic, state["sequence"])) if state["sequence"] else []
            files = [
                file for file in live if file["what"] == "dead_letters" and file["url"] not in judged_urls
            ]
            group = _group(sorted(files, key=lambda file: (file["sequence"], file["id"])))
            if not group:
                return outcome
            letters = [await asyncio.to_thread(read, self.lake, file) for file in group]
            masks = [wanted.mask(table) for table in letters]
            parts, schema = await self._decoded(topic, state, settings, letters, masks, dry_run)
            plan = await asyncio.to_thread(
                self._planned, state, settings, schema, live, group, letters, parts
            )
            meant = sum(int(mask.sum()) for mask in masks)
            came = plan.again.came_alive.num_rows
            gone, rest = set[int](), set[str]()
            if plan.remove and not dry_run:
                try:
                    sequence, rest = await self._commit(topic, state, settings, schema, plan)
                except CommitConflict as conflict:
                    conflicts += 1
                    log.info("topic %s: the lake moved meanwhile, planning anew: %s", topic, conflict)
                    if conflicts == TRIES:
                        raise ReplayRefused(
                            f"the lake moved {TRIES} times while the replay was made: try again when upkeep is done"
                        ) from conflict
                    continue
                outcome.sequences.append(sequence)
                gone = set(plan.remove)
            outcome.rows += plan.again.rows.num_rows
            outcome.duplicates += plan.again.duplicates.total()
            outcome.dead += meant - came
            judged_urls |= {file["url"] for file in group if file["id"] not in gone} | rest

    async def _decoded(
        self,
        topic: str,
        state: Mapping[str, Any],
        settings: TopicSettings,
        letters: Sequence[pa.Table],
        masks: Sequence[np.ndarray[Any, np.dtype[np.bool_]]],
        dry_run: bool,
    ) -> tuple[dict[int, Decoded], TopicSchema]:
        """The letters decoded by a schema that the API has (or would have)."""
        chosen = pa.concat_tables(
            table.filter(pa.array(mask)) for table, mask in zip(letters, masks, strict=True)
        ).sort_by([("_lake_partition", "ascending"), ("_offset", "ascending")])
        schema = TopicSchema()
        if state["schema_version"]:
            schema = TopicSchema.from_json(await self.catalog.schema(topic))
        while True:
            parts = await asyncio.to_thread(lambda known: dict(decoded(chosen, known, settings)), schema)
            wider = schema
            for part in parts.values():
                wider = merge(wider, part.schema)
            if wider == schema:
                return parts, schema
            if dry_run:
                schema = wider
                continue
            try:
                schema = TopicSchema.from_json(await self.catalog.register_schema(topic, wider.to_json()))
            except SchemaMoved as moved:
                schema = TopicSchema.from_json(moved.current)

    def _planned(
        self,
        state: Mapping[str, Any],
        settings: TopicSettings,
        schema: TopicSchema,
        live: Sequence[File],
        group: Sequence[File],
        letters: Sequence[pa.Table],
        parts: Mapping[int, Decoded],
    ) -> _Plan:
        twins: set[int] = set()

        def known(ids: pa.Array, between: tuple[int, int] | None) -> pa.Table:
            found = []
            for file in live:
                if file["what"] == "rows" and _overlaps(file, between):
                    table = _read(self.lake, file)
                    table = table.filter(pc.is_in(table.column("_event_id"), value_set=ids))
                    if table.num_rows:
                        twins.add(file["id"])
                        found.append(table)
            return pa.concat_tables(found) if found else _nothing()

        watermarks = {
            each["lake_partition"]: time_from_text(each["watermark"]) for each in state["partitions"]
        }
        again = judged(parts, schema, settings, watermarks, known)
        remove, rest, dead_in = [], [SCHEMA.empty_table()], Counter[int]()
        for file, table in zip(group, letters, strict=True):
            alive = alive_mask(table, again.came_alive)
            if alive.any():
                remove.append(file["id"])
                rest.append(table.filter(pa.array(~alive)))
                dead_in.update(table.column("_lake_partition").to_pylist())
        beside = sorted(twins) if again.duplicates.total() else []
        return _Plan(again, pa.concat_tables(rest), dead_in, remove, beside)

    async def _commit(
        self,
        topic: str,
        state: Mapping[str, Any],
        settings: TopicSettings,
        schema: TopicSchema,
        plan: _Plan,
    ) -> tuple[int, set[str]]:
        """Puts the files and makes the commit: its sequence, and the urls of the files of remaining letters."""
        commit_id = uuid7(self.now_us(), self.randbits)
        encoded = await asyncio.to_thread(_encoded, topic, state["epoch"], commit_id, settings, schema, plan)
        entries = [await asyncio.to_thread(self._put, topic, file) for file in encoded]
        rows_out = Counter[int](plan.again.rows.column("_lake_partition").to_pylist())
        dead_out = Counter[int](plan.rest.column("_lake_partition").to_pylist())
        answer = await self.catalog.commit(
            topic,
            {
                "id": commit_id,
                "kind": "rewrite",
                "epoch": state["epoch"],
                "worker": self.name,
                "rule_version": state["rule_version"],
                "schema_version": schema.version,
                "lines": [
                    {
                        "lake_partition": number,
                        "dead_in": plan.dead_in[number],
                        "rows_out": rows_out[number],
                        "dead_out": dead_out[number],
                        "duplicates": plan.again.duplicates[number],
                    }
                    for number in sorted(plan.dead_in)
                ],
                "files": entries,
                "remove": plan.remove,
                "beside": plan.beside,
            },
        )
        rest = {entry["url"] for entry in entries if entry["what"] == "dead_letters"}
        return int(answer["sequence"]), rest

    def _put(self, topic: str, file: Encoded) -> dict[str, Any]:
        return put_fresh(self.lake, topic, file, self.now_us, self.randbits)


def _group(files: Sequence[File]) -> list[File]:
    """As many of the files, from the first, as one commit takes; one at least."""
    chosen: list[File] = []
    letters = size = 0
    for file in files:
        letters, size = letters + file["rows"], size + file["bytes"]
        if chosen and (letters > MOST_LETTERS or size > MOST_BYTES):
            break
        chosen.append(file)
    return chosen


def _encoded(
    topic: str, epoch: str, commit_id: str, settings: TopicSettings, schema: TopicSchema, plan: _Plan
) -> list[Encoded]:
    """Rows on time and late ones, the letters that remain, and the names of all rows that come."""
    rows = plan.again.rows
    late = rows.column("_late")
    wanted: list[tuple[pa.Table, What, bool]] = [
        (rows.filter(pc.invert(late)), "rows", False),
        (rows.filter(late), "rows", True),
        (plan.rest, "dead_letters", False),
        (rows.select(["_lake_partition", "_offset", "_event_time"]), "deletes", False),
    ]
    footer = {
        "topic": topic,
        "epoch": epoch,
        "commit": commit_id,
        "kind": "rewrite",
        "schema_version": schema.version,
    }
    return [
        encode(
            table.combine_chunks(),
            {**footer, "what": what},
            what=what,
            late=is_late,
            schema_version=schema.version,
            period_us=settings.period_us,
        )
        for table, what, is_late in wanted
        if table.num_rows
    ]


def _read(lake: Lake, file: File) -> pa.Table:
    source = opened(lake, str(file["url"]), int(file["bytes"]))
    return pq.read_table(source, columns=_TWIN_COLUMNS, pre_buffer=True)


def _nothing() -> pa.Table:
    from ingest.columns import SYSTEM

    return pa.schema([SYSTEM.field(name) for name in _TWIN_COLUMNS]).empty_table()


def _overlaps(file: File, between: tuple[int, int] | None) -> bool:
    if between is None:
        return True
    lowest, highest = time_from_text(file["lowest"]), time_from_text(file["highest"])
    return (lowest is None or lowest <= between[1]) and (highest is None or highest >= between[0])
