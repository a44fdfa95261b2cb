"""A stream whose records flip between versions gives as many files as one that does not."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ingest import batch
from ingest.batch import FlushRules
from ingest.chunk import Records
from ingest.decode import DecodeRules, decode
from ingest.dedup import Seen
from ingest.held import Held
from ingest.position import Position
from ingest.publish import _encode
from ingest.schema import TopicSchema

RULES = FlushRules(rows=1_000, bytes=10**12, age_us=10**12, lateness_us=0)
CHUNK, CHUNKS = 500, 20


def files_of(versions: int) -> list[int]:
    """Rows of each file that a worker would put: `versions` shapes of events in turn, each with a field of its own."""
    schema, sizes = TopicSchema(), []
    held = Held(Position(0, 0), 0, Seen(3_600_000_000), 0)
    for number in range(CHUNKS):
        offsets = np.arange(number * CHUNK, (number + 1) * CHUNK)
        values = [
            json.dumps(
                {
                    "n": i,
                    f"v{i % versions}": i,
                    "same": "x" if i % versions % 2 else i,
                    "o": {f"k{i % versions}": 1},
                }
            ).encode()
            for i in offsets.tolist()
        ]
        records = Records(offsets, 1_000 + offsets, [None] * CHUNK, list(values), None)
        decoded = decode(records, 0, schema, DecodeRules(), 10**12)
        if decoded.schema != schema:
            schema = TopicSchema.from_json({**decoded.schema.to_json(), "version": schema.version + 1})
            decoded = decode(records, 0, schema, DecodeRules(), 10**12)
        held.add(
            decoded.table, decoded.dead, decoded.content, np.zeros(CHUNK, np.bool_), offsets, int(offsets[-1]) + 1, 0,
            keep_differing=False,
        )  # fmt: skip
        if batch.due([held], RULES, {0: True}, 0):
            cut = batch.cut("t", [held], schema, RULES, {0: True}, "c", most_rows=10**9)
            assert cut is not None
            for file in _encode(cut, "epoch", 0, 3_600_000_000):
                sizes.append(pq.read_table(pa.BufferReader(file.data)).num_rows)
    return sizes


def test_flips_between_versions_of_a_schema_give_no_more_files() -> None:
    steady, flips = files_of(1), files_of(7)
    assert sum(steady) == sum(flips) == CHUNK * CHUNKS
    assert len(flips) == len(steady) == CHUNK * CHUNKS // RULES.rows
