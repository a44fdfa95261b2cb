"""Bytes in flight: what chunks hold in memory between the source and the end of their decoding.

A chunk is counted when it is made and let go when the worker says so. A chunk that is lost on the way (a queue that was
cleared, an agent that died) is let go when it is collected, so that the count cannot creep up for ever.
"""

from __future__ import annotations

import threading
import weakref

from ingest.chunk import Chunk


class InFlight:
    """A count of bytes with an upper limit that stops the drain, not the single chunk. Safe between threads."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self.lost = 0  # chunks that died without being released
        self._lock = threading.RLock()  # re-entrant: a collection may run the callback inside `add`
        self._leases: dict[int, tuple[weakref.ref[Chunk], int]] = {}

    def add(self, chunk: Chunk) -> None:
        """Count a chunk's bytes until it is released or dies."""
        key = id(chunk)
        with self._lock:
            self._leases[key] = (weakref.ref(chunk, lambda _: self._let_go(key, lost=1)), chunk.bytes)
            self.bytes += chunk.bytes

    def release(self, chunk: Chunk) -> None:
        """The chunk's memory is free. A second call does nothing."""
        self._let_go(id(chunk), lost=0)

    def _let_go(self, key: int, lost: int) -> None:
        with self._lock:
            lease = self._leases.pop(key, None)
            if lease is not None:
                self.bytes -= lease[1]
                self.lost += lost

    @property
    def full(self) -> bool:
        """Whether no more may be drained now."""
        return self.bytes >= self.limit
