"""One `rewrite` on its way: which files leave, what comes in their place, and where each row went.

It has its id from the start, since the files say which commit they are of. What goes into it is decided in
`ingest.backfill.run`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ingest.backfill.compare import NAMED, Difference, Outcome
from ingest.encode import Encoded, What, encode
from ingest.ids import uuid7
from ingest.letters.replay import Replay
from ingest.publish import put_fresh
from ingest.schema import TopicSchema

NAMES = 4_000_000  # of one file of names

Counts = dict[str, Counter[int]]


def counts() -> Counts:
    """Of a line of the ledger, by lake partition."""
    names = ("rows_in", "dead_in", "restored", "rows_out", "dead_out", "duplicates")
    return {name: Counter() for name in names}


@dataclass(slots=True)
class Rewrite:
    """What the next commit of a topic names. `tools`: the lake, the API and the clock; `epoch`: as of the listing."""

    tools: Replay
    topic: str
    epoch: str
    period_us: int
    id: str = ""
    remove: list[int] = field(default_factory=list)
    beside: set[int] = field(default_factory=set)
    entries: list[dict[str, Any]] = field(default_factory=list)
    counts: Counts = field(default_factory=counts)
    named: list[pa.Table] = field(default_factory=list)
    difference: Difference = field(default_factory=Difference)

    def __post_init__(self) -> None:
        self.id = uuid7(self.tools.now_us(), self.tools.randbits)

    def another(self) -> Rewrite:
        """The one after this one."""
        return Rewrite(self.tools, self.topic, self.epoch, self.period_us)

    def encoded(self, outcome: Outcome, schema: TopicSchema) -> list[Encoded]:
        """Rows on time, late ones and dead letters, as files of this commit."""
        late = outcome.rows.column("_late")
        wanted: list[tuple[pa.Table, What, bool]] = [
            (outcome.rows.filter(pc.invert(late)), "rows", False),
            (outcome.rows.filter(late), "rows", True),
            (outcome.dead, "dead_letters", False),
        ]
        return [self._file(table, what, is_late, schema) for table, what, is_late in wanted if table.num_rows]

    async def put(self, files: list[Encoded]) -> None:
        """Puts files; the commit names them."""
        self.entries += [await asyncio.to_thread(self._put, each) for each in files]

    async def name(self, named: list[pa.Table], schema: TopicSchema, *, at_least: int = NAMES) -> None:
        """Rows that leave or come, for loaders; put when so many are gathered."""
        self.named += named
        if sum(table.num_rows for table in self.named) > at_least:
            table, self.named = pa.concat_tables(self.named).select(NAMED), []
            await self.put([await asyncio.to_thread(self._file, table, "deletes", False, schema)])

    def body(self, state: Mapping[str, Any], schema: TopicSchema) -> dict[str, Any]:
        """The request."""
        numbers = sorted({number for counted in self.counts.values() for number in counted})
        return {
            "id": self.id,
            "kind": "rewrite",
            "epoch": self.epoch,
            "worker": self.tools.name,
            "rule_version": state["rule_version"],
            "schema_version": schema.version,
            "lines": [
                {"lake_partition": number} | {name: counted[number] for name, counted in self.counts.items()}
                for number in numbers
            ],
            "files": self.entries,
            "remove": self.remove,
            "beside": sorted(self.beside - set(self.remove)),
        }

    def _file(self, table: pa.Table, what: What, late: bool, schema: TopicSchema) -> Encoded:
        footer = {
            "topic": self.topic,
            "epoch": self.epoch,
            "commit": self.id,
            "kind": "rewrite",
            "schema_version": schema.version,
            "what": what,
        }
        return encode(
            table.combine_chunks(),
            footer,
            what=what,
            late=late,
            schema_version=schema.version,
            period_us=self.period_us,
        )

    def _put(self, file: Encoded) -> dict[str, Any]:
        return put_fresh(self.tools.lake, self.topic, file, self.tools.now_us, self.tools.randbits)
