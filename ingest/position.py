"""Where a lake partition stands: the position that every append starts from and leaves behind.

Pure values and their JSON form. A position is compared by its `version` (the commit that made it), never by its
contents: equal contents can be two different histories.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

MAX_CARRIED_BYTES = 1_000_000  # a larger set is refused by the API; the worker publishes early before that

Offsets = npt.NDArray[np.int64]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def no_offsets() -> Offsets:
    return np.empty(0, dtype=np.int64)


def carried_to_text(offsets: Iterable[int] | Offsets, next_offset: int) -> str:
    """Offsets below `next_offset` as base64 of a portable roaring bitmap of their distances below it (each >= 1).

    Distances instead of offsets, because they fit in 32 bits for as long as a record can be carried.
    """
    distances = next_offset - np.fromiter(offsets, dtype=np.int64)
    bitmap = BitMap(distances.astype(np.uint32))
    bitmap.run_optimize()
    return base64.b64encode(bitmap.serialize()).decode()


def carried_from_text(text: str, next_offset: int) -> Offsets:
    """The inverse of `carried_to_text`: offsets, ascending."""
    if not text:
        return no_offsets()
    distances = np.array(BitMap.deserialize(base64.b64decode(text)).to_array(), dtype=np.int64)
    return np.sort(next_offset - distances)


def time_to_text(time_us: int | None) -> str | None:
    """Microseconds since 1970 as ISO 8601 UTC with six digits; None stays None."""
    if time_us is None:
        return None
    return (_EPOCH + timedelta(microseconds=time_us)).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")


def time_from_text(text: str | None) -> int | None:
    """ISO 8601 as microseconds since 1970; None stays None."""
    if text is None:
        return None
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Position:
    """A stored position. `next` is None for a lake partition that was never committed."""

    lake_partition: int
    partition: int
    next: int | None = None
    carried: Offsets = field(default_factory=no_offsets)  # ascending, all below `next`
    highest_us: int | None = None
    watermark_us: int | None = None
    published_to_us: int | None = None
    topic_id: str | None = None
    version: str | None = None
    start_from: str | None = None  # where reading begins when `next` is None: an operator's word at a reset

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Position:
        """A position as the API answers it."""
        next_offset = data["next"]
        return cls(
            lake_partition=data["lake_partition"],
            partition=data["broker_partition"],
            next=next_offset,
            carried=carried_from_text(data["carried"] or "", next_offset or 0),
            highest_us=time_from_text(data["highest"]),
            watermark_us=time_from_text(data["watermark"]),
            published_to_us=time_from_text(data["published_to"]),
            topic_id=data["topic_id"],
            version=data["version"],
            start_from=data.get("start_from"),
        )

    def to_commit(self) -> dict[str, Any]:
        """The position as an append carries it: what will be stored if the commit is accepted."""
        if self.next is None:
            raise ValueError("a position without next cannot be committed")
        return {
            "next": self.next,
            "carried": carried_to_text(self.carried, self.next),
            "highest": time_to_text(self.highest_us),
            "watermark": time_to_text(self.watermark_us),
            "published_to": time_to_text(self.published_to_us),
            "topic_id": self.topic_id,
        }
