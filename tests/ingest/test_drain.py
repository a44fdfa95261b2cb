"""What a fetched batch means: compared, batch for batch, with aiokafka's own record-by-record way."""

from __future__ import annotations

import gc
import struct
import weakref
from dataclasses import dataclass
from typing import Any

import pytest
from aiokafka import codec as codecs
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from ingest.chunk import Chunk
from ingest.drain import let_go, records, walk
from ingest.raw_batch import RawRecords, read_slowly

TP = TopicPartition("topic", 0)
NO_PRODUCER = -1
ABORT, COMMIT = struct.pack(">HH", 0, 0), struct.pack(">HH", 0, 1)
Header = tuple[str, bytes | None]


@dataclass
class Batch:
    """A batch to be built. `kept`: which of its offsets survived compaction."""

    base: int
    count: int
    kept: list[int]
    producer: int = NO_PRODUCER
    control: bytes | None = None
    codec: int = 0
    headers: bool = False
    append_time: bool = False  # the broker's clock

    def build(self) -> bytes:
        builder = DefaultRecordBatchBuilder(
            2, self.codec, self.producer != NO_PRODUCER, self.producer, 0, 0, 1 << 20
        )
        for offset in self.kept or [self.base]:
            headers: list[Header] = [("name", b"%d" % offset), ("none", None)] if self.headers else []
            delta = offset - self.base
            if self.control is not None:
                builder.append(delta, 1000, self.control, b"", [])
            else:
                builder.append(
                    delta,
                    1000 + offset,
                    b"k%d" % offset,
                    None if offset % 7 == 0 else b"v%d" % offset,
                    headers,
                )
        raw = bytearray(builder.build())
        struct.pack_into(">q", raw, 0, self.base)
        struct.pack_into(">i", raw, 23, self.count - 1)  # the end stays when compaction takes the last record
        (attributes,) = struct.unpack_from(">h", raw, 21)
        flags = (0x30 if self.control is not None else 0) | (0x08 if self.append_time else 0)
        struct.pack_into(">h", raw, 21, attributes | flags)
        return sealed(raw)


def sealed(raw: bytearray) -> bytes:
    """With the checksum that belongs to it."""
    struct.pack_into(">I", raw, 17, calc_crc32c(bytes(raw[21:])))
    return bytes(raw)


def fetched(data: bytes, start: int, aborted: list[tuple[int, int]] = [], raw: bool = True) -> Any:  # noqa: B006
    """What aiokafka makes of an answer."""
    memory: Any = RawRecords(data) if raw else MemoryRecords(data)
    return PartitionRecords(TP, memory, aborted, start, None, None, True, 1)


def chunk_of(stretch: Any) -> Chunk:
    return Chunk(TP.topic, TP.partition, 1, stretch.start, stretch.next, list(stretch.batches), stretch.bytes)


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[Batch], list[tuple[int, int]], int]:
    """Batches as a log may hold them, the aborted transactions that the broker names, and where reading starts."""
    batches, aborted, opened = [], [], {}
    offset = draw(st.integers(0, 5))
    for _ in range(draw(st.integers(1, 12))):
        offset += draw(st.sampled_from([0, 0, 0, 3]))  # whole batches may be gone
        producer = draw(st.sampled_from([NO_PRODUCER, NO_PRODUCER, 7, 8]))
        if producer in opened and draw(st.booleans()):
            committed = draw(st.booleans())
            if not committed:
                aborted.append((producer, opened[producer]))
            del opened[producer]
            batches.append(Batch(offset, 1, [offset], producer, COMMIT if committed else ABORT))
            offset += 1
            continue
        count = draw(st.integers(1, 5))
        kept = draw(st.lists(st.sampled_from(range(offset, offset + count)), min_size=1, unique=True))
        batches.append(
            Batch(
                offset,
                count,
                sorted(kept),
                producer,
                None,
                draw(st.integers(0, 4)),
                *draw(st.tuples(*[st.booleans()] * 2)),
            )
        )
        if producer != NO_PRODUCER:
            opened.setdefault(producer, offset)
        offset += count
    first = batches[0]
    start = draw(st.integers(first.base, first.base + first.count - 1))
    return batches, draw(st.permutations(aborted)), start


@given(logs(), st.integers(1, 8))
def test_the_walk_gives_what_the_client_would_give(
    log: tuple[list[Batch], list[tuple[int, int]], int], cut: int
) -> None:
    batches, aborted, start = log
    data = b"".join(each.build() for each in batches)
    model = fetched(data, start, aborted, raw=False)
    wanted = [(each.offset, each.timestamp, each.key, each.value, list(each.headers)) for each in model]

    taken = fetched(data, start, aborted)
    stretches, error = walk(taken, cut)

    assert error is None
    assert taken.next_fetch_offset == model.next_fetch_offset == batches[-1].base + batches[-1].count
    got = []
    for stretch in stretches:
        found = records(chunk_of(stretch))
        headers = [[]] * len(found) if found.headers is None else [list(each) for each in found.headers]
        got += zip(
            found.offsets.tolist(),
            found.timestamps_ms.tolist(),
            found.keys,
            found.values,
            headers,
            strict=True,
        )
        assert all(stretch.start <= offset < stretch.next for offset in found.offsets.tolist())
    assert got == wanted
    assert [each.start for each in stretches[1:]] == [each.next for each in stretches[:-1]]
    assert sum(each.bytes for each in stretches) <= len(data)


@given(logs(), st.data())
def test_the_slow_way_reads_what_the_fast_way_reads(
    log: tuple[list[Batch], list[tuple[int, int]], int], data: st.DataObject
) -> None:
    raw = data.draw(st.sampled_from(log[0])).build()
    fast = [
        (each.offset, each.timestamp, each.key, each.value, list(each.headers))
        for each in MemoryRecords(raw).next_batch()
    ]
    slow = [
        (each.offset, each.timestamp, each.key, each.value, list(each.headers))
        for each in read_slowly(memoryview(raw))
    ]
    assert slow == fast


@given(logs(), st.data())
def test_a_flipped_bit_never_passes(
    log: tuple[list[Batch], list[tuple[int, int]], int], data: st.DataObject
) -> None:
    batches, aborted, _ = log
    built = [each.build() for each in batches]
    hurt = data.draw(st.integers(0, len(built) - 1))
    at = data.draw(st.integers(21, len(built[hurt]) - 1))  # what the checksum covers
    spoiled = bytearray(built[hurt])
    spoiled[at] ^= 1 << data.draw(st.integers(0, 7))
    built[hurt] = bytes(spoiled)

    taken = fetched(b"".join(built), batches[0].base, aborted)
    stretches, error = walk(taken)

    assert error is not None
    assert error.kind == "crc"
    assert taken.next_fetch_offset <= batches[hurt].base
    assert all(each.next <= batches[hurt].base for each in stretches)


def test_a_batch_that_the_broker_cut_short_is_left_for_the_next_fetch() -> None:
    whole, cut = Batch(0, 3, [0, 1, 2]).build(), Batch(3, 3, [3, 4, 5]).build()
    taken = fetched(whole + cut[:-1], 0)
    stretches, error = walk(taken)
    assert error is None
    assert [(each.start, each.next) for each in stretches] == [(0, 3)]


def test_a_batch_before_the_position_is_passed_over() -> None:
    data = Batch(0, 3, [0, 1, 2]).build() + Batch(3, 3, [3, 4, 5]).build()
    stretches, _ = walk(fetched(data, 4))
    assert records(chunk_of(stretches[0])).offsets.tolist() == [4, 5]


def test_an_end_without_records_is_a_stretch_that_moves_the_position() -> None:
    data = Batch(5, 1, [5], 7, COMMIT).build()
    stretches, error = walk(fetched(data, 5))
    assert error is None
    assert [(each.start, each.next, each.batches) for each in stretches] == [(5, 6, [])]
    assert len(records(chunk_of(stretches[0]))) == 0


def test_a_marker_whose_record_was_compacted_away_ends_nothing() -> None:
    raw = bytearray(Batch(5, 1, [5], 7, ABORT).build())[:61]
    struct.pack_into(">i", raw, 8, len(raw) - 12)
    struct.pack_into(">i", raw, 57, 0)
    data = sealed(raw) + Batch(6, 1, [6]).build()
    stretches, error = walk(fetched(data, 5))
    assert error is None
    assert [(each.start, each.next) for each in stretches] == [(5, 7)]


@pytest.mark.parametrize("codec", range(5))
def test_a_header_key_that_is_no_text_costs_no_record(codec: int) -> None:
    plain = bytearray(Batch(10, 3, [10, 11, 12], headers=True).build())
    at = plain.find(b"name", plain.find(b"v11"))
    plain[at] = 0xFF
    if codec:  # compressed by the builder's own codec, over the bytes already spoiled
        body = bytes(plain[61:])
        packed = [codecs.gzip_encode, codecs.snappy_encode, codecs.lz4_encode, codecs.zstd_encode][codec - 1](
            body
        )
        plain = plain[:61] + packed
        struct.pack_into(">h", plain, 21, codec)
        struct.pack_into(">i", plain, 8, len(plain) - 12)
    stretches, error = walk(fetched(sealed(plain), 10))
    found = records(chunk_of(stretches[0]))
    assert error is None
    assert found.offsets.tolist() == [10, 11, 12]
    assert found.values == [b"v10", b"v11", b"v12"]
    assert found.headers is not None
    assert [headers[0][0] for headers in found.headers] == ["name", "\\xffame", "name"]


def test_records_of_the_oldest_format_have_no_timestamp_and_no_headers() -> None:
    data = b""
    for offset in range(3):
        builder = LegacyRecordBatchBuilder(0, 0, 1 << 16)
        builder.append(offset, None, b"k", b"v%d" % offset)
        data += bytes(builder.build())
    stretches, error = walk(fetched(data, 1))
    found = records(chunk_of(stretches[0]))
    assert error is None
    assert found.offsets.tolist() == [1, 2]
    assert found.timestamps_ms.tolist() == [-1, -1]
    assert found.headers is None


def test_what_was_fetched_is_freed_when_its_chunks_are() -> None:
    """Without the collector, which walks so many objects that a worker lets it come seldom."""
    gc.collect()
    gc.disable()
    try:
        taken = fetched(Batch(0, 3, [0, 1, 2]).build(), 0)
        alive = weakref.ref(taken)
        walk(taken)
        let_go(taken)
        del taken
        assert alive() is None
    finally:
        gc.enable()


def test_records_are_taken_once() -> None:
    stretches, _ = walk(fetched(Batch(0, 1, [0]).build(), 0))
    chunk = chunk_of(stretches[0])
    assert len(records(chunk)) == 1
    with pytest.raises(ValueError, match="were taken before"):
        records(chunk)
