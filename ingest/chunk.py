"""What the source hands to the agent: a chunk, and its records as columns.

Here live the two shapes that travel from the Kafka side of a worker to the pure side. No Kafka client, no Arrow and
no decision may live here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Headers = Sequence[tuple[str, bytes | None]]

ErrorKind = Literal["out_of_range", "crc", "fetch", "jump"]


@dataclass(slots=True, frozen=True)
class ChunkError:
    """Why a partition could not be read on: it stays paused until it is positioned anew."""

    kind: ErrorKind
    text: str


@dataclass(slots=True, weakref_slot=True)  # the source lets go of the bytes of a chunk that died
class Chunk:
    """Records of one broker partition that were fetched together.

    `start` and `next` are positions (the ledger's `from_offset` and `to_offset`), not offsets of records: compaction,
    control records and aborted transactions make no gap between them. A chunk may hold no record at all, when only
    the position moved.
    """

    topic: str
    partition: int
    positioning: int  # number of the positioning it belongs to; an older one is left over from before it
    start: int
    next: int
    batches: list[Any] = field(default_factory=list)  # record batches that passed CRC and transaction checks
    bytes: int = 0  # held in memory, as fetched (compressed)
    fetched_at_us: int = 0
    end: int = -1  # high watermark as of the fetch, -1 unknown
    stable_end: int = -1  # last stable offset as of the fetch, -1 unknown
    error: ChunkError | None = None


@dataclass(slots=True, frozen=True)
class Records:
    """Records of one partition as parallel columns of equal length, in order of offset."""

    offsets: npt.NDArray[np.int64]
    timestamps_ms: npt.NDArray[np.int64]  # -1: the record has none
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[Headers] | None = None  # None: no record has any

    def __len__(self) -> int:
        return len(self.offsets)

    def where(self, mask: npt.NDArray[np.bool_]) -> Records:
        """The records where `mask` is true."""
        chosen = np.flatnonzero(mask).tolist()
        headers = self.headers
        return Records(
            self.offsets[mask],
            self.timestamps_ms[mask],
            [self.keys[i] for i in chosen],
            [self.values[i] for i in chosen],
            None if headers is None else [headers[i] for i in chosen],
        )
