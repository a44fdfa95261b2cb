"""Records read again become rows by the schema of today, which they may widen: fetch and decode of a backfill."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingest.backfill.again import Source
from ingest.catalog import SchemaMoved
from ingest.decode import Decoded, decode
from ingest.letters.replay import Replay
from ingest.schema import TopicSchema, merge
from ingest.topic_settings import TopicSettings

Longs = npt.NDArray[np.int64]


@dataclass(slots=True)
class Decoding:
    """Of one pass. `schema` is the newest, and the API has it unless `dry_run`."""

    tools: Replay
    topic: str
    source: Source
    settings: TopicSettings
    dry_run: bool
    schema: TopicSchema

    async def rows(self, number: int, old: pa.Table, mask: npt.NDArray[np.bool_]) -> list[Decoded]:
        """The records of some rows of one lake partition."""
        rows = old.filter(pa.array(mask)).select(["_offset", "_event_time", "_time_from"]).sort_by("_offset")
        offsets = np.asarray(rows.column("_offset").to_numpy(), np.int64)
        # When they were fetched first, as far as it is known: by it a time is believed or not.
        fetched = np.full(len(offsets), self.tools.now_us(), np.int64)
        stood_in = pc.equal(rows.column("_time_from").cast(pa.string()), "fetch").to_numpy()
        times = np.asarray(rows.column("_event_time").cast(pa.int64()).to_numpy(), np.int64)
        fetched[stood_in] = times[stood_in]
        return await self.offsets(number, offsets, fetched)

    async def offsets(self, number: int, offsets: Longs, fetched: Longs) -> list[Decoded]:
        """The records at these offsets. `fetched`: when each was seen first."""
        assert self.source.again is not None, "no partition is readable then"
        parts = []
        async for records in self.source.again.records(self.source.partitions[number], offsets):
            seen = fetched[np.searchsorted(offsets, records.offsets)]
            while True:
                part = await asyncio.to_thread(
                    decode, records, number, self.schema, self.settings.decode, seen
                )
                wider = merge(self.schema, part.schema)
                if wider == self.schema:
                    break
                await self._widen(wider)
            parts.append(part)
        return parts

    async def _widen(self, wider: TopicSchema) -> None:
        if self.dry_run:
            self.schema = wider
            return
        try:
            answer = await self.tools.catalog.register_schema(self.topic, wider.to_json())
            self.schema = TopicSchema.from_json(answer)
        except SchemaMoved as moved:
            self.schema = TopicSchema.from_json(moved.current)
