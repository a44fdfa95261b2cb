"""Bytes in flight: counted until released or gone."""

from __future__ import annotations

import gc

from ingest.chunk import Chunk
from ingest.flight import InFlight


def chunk(size: int) -> Chunk:
    return Chunk("topic", 0, 1, 0, 1, bytes=size)


def test_a_chunk_counts_until_it_is_released() -> None:
    flight = InFlight(100)
    first, second = chunk(60), chunk(60)
    flight.add(first)
    assert not flight.full
    flight.add(second)
    assert flight.full
    flight.release(first)
    flight.release(first)
    assert (flight.bytes, flight.full, flight.lost) == (60, False, 0)


def test_a_chunk_that_is_lost_counts_no_more() -> None:
    flight = InFlight(100)
    lost = chunk(60)
    flight.add(lost)
    del lost
    gc.collect()
    assert (flight.bytes, flight.lost) == (0, 1)


def test_a_chunk_that_dies_after_its_release_is_not_lost() -> None:
    flight = InFlight(100)
    released = chunk(60)
    flight.add(released)
    flight.release(released)
    del released
    gc.collect()
    assert (flight.bytes, flight.lost) == (0, 0)
