"""Record batches to chunks, and chunks to records: positions, checksums, transactions.

`walk` runs in the event loop and looks at headers of batches only; `records` runs in a decode thread, decompresses and
makes columns. Here live the rules of what a fetched batch means. Nothing here asks for data, waits, or knows groups.

The laws of a walk:
1. A batch is taken only after its checksum was right.
2. Batches of aborted transactions and control batches are passed over, and the position moves past them.
3. The position after a batch is the batch's own end, not its last record's: compaction removes records, not ends.
4. The position never goes back, and a chunk ends only at the end of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from aiokafka.consumer.fetcher import READ_COMMITTED
from aiokafka.errors import CorruptRecordException as CorruptRecordException
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord

from ingest.chunk import Chunk, ChunkError, Headers, Records
from ingest.raw_batch import read_slowly

CUT_OFFSETS = 25_000
"""Where a chunk is cut: decoding in slices of about this size stays in the processor's cache (a third faster)."""

CUT_BYTES = 4 * 2**20
"""Where a chunk of large records is cut, in bytes as fetched: what is decoded at once stays bounded."""

Column = npt.NDArray[np.int64]

Batch = tuple[Any, memoryview]
"""aiokafka's batch, which can be iterated once, and its bytes."""

_TAKEN: list[Batch] = []  # stands in a chunk whose batches were already turned into records


@dataclass(slots=True)
class Stretch:
    """Batches of one partition that follow each other: what a chunk is made of."""

    start: int
    next: int
    batches: list[Batch] = field(default_factory=list)
    bytes: int = 0  # of the batches, as fetched


def walk(fetched: Any, cut_offsets: int = CUT_OFFSETS) -> tuple[list[Stretch], ChunkError | None]:
    """Take all batches of aiokafka's `PartitionRecords`; its `next_fetch_offset` moves to where reading ends.

    Wants `raw_batch.keep_bytes` in force. Returns the stretches in order (none when nothing moved, one without batches
    when only the position did), and what stopped the walk, if something did: reading must then not go on behind the
    last stretch.
    """
    memory, position = fetched._records, fetched.next_fetch_offset
    stretches = [Stretch(position, position)]
    error = None
    while memory.has_next():
        try:
            batch = memory.next_batch()
            sound = batch.validate_crc()
        except CorruptRecordException as broken:
            error = ChunkError("crc", f"batch at or after offset {position}: {broken}")
            break
        if not sound:
            error = ChunkError("crc", f"batch at or after offset {position}: its checksum is wrong")
            break
        if batch.next_offset <= position:
            continue
        position = batch.next_offset
        if not _passed_over(fetched, batch):
            if stretches[-1].next - stretches[-1].start >= cut_offsets or stretches[-1].bytes >= CUT_BYTES:
                stretches.append(Stretch(stretches[-1].next, position))
            stretches[-1].batches.append((batch, memory.raw))
            stretches[-1].bytes += len(memory.raw)
        stretches[-1].next = position
    fetched.next_fetch_offset = position
    return [each for each in stretches if each.next > each.start], error


def let_go(fetched: Any) -> None:
    """Free aiokafka's `PartitionRecords` at once, and with it what was fetched, as soon as nobody has it any more.

    It and its generator hold each other until the generator has ended, which `walk` never starts: the bytes would lie
    there until the cyclic collector comes by, and in a worker it seldom does.
    """
    fetched._records_iterator = None


def _passed_over(fetched: Any, batch: Any) -> bool:
    """Whether a batch holds nothing for a reader of committed records: a marker, or an aborted transaction's."""
    producer = batch.producer_id  # None in the formats before transactions, which have no base_offset either
    if fetched._isolation_level == READ_COMMITTED and producer is not None:
        fetched._consume_aborted_up_to(batch.base_offset)
        if batch.is_control_batch:
            if _abort_marker(batch):
                fetched._aborted_producers.discard(
                    producer
                )  # may be unknown: a topic can begin with a marker
        elif batch.is_transactional and producer in fetched._aborted_producers:
            return True
    return bool(batch.is_control_batch)


def _abort_marker(batch: Any) -> bool:
    """Whether a control batch ends an aborted transaction. Compaction can leave one without its record: no."""
    record = next(iter(batch), None)
    return record is not None and ControlRecord.parse(record.key).type_ == ABORT_MARKER.type_


def records(chunk: Chunk) -> Records:
    """The records of a chunk as columns. Takes the batches out of the chunk, so that their memory is freed.

    Records before the chunk's start are left out: a batch may begin earlier than the position that was asked for.
    Raises ValueError when called a second time for a chunk, CorruptRecordException when a batch with a right
    checksum cannot be read: a defect of its producer, and the partition cannot go on by itself.
    """
    batches, chunk.batches = chunk.batches, _TAKEN
    if batches is _TAKEN:
        raise ValueError(
            f"the records of {chunk.topic}-{chunk.partition} from {chunk.start} on were taken before"
        )
    offsets: list[Column] = []
    timestamps: list[Column] = []
    keys: list[bytes | None] = []
    values: list[bytes | None] = []
    headers: list[Headers] | None = None
    batches.reverse()
    while batches:
        batch, raw = batches.pop()  # popped: only one decompressed batch at a time is held
        rows = _rows(batch, raw)
        offsets.append(_offsets(batch, rows))
        timestamps.append(_milliseconds(rows))
        theirs = [row.headers for row in rows]
        if headers is None and any(theirs):
            headers = [()] * len(keys)
        if headers is not None:
            headers += theirs
        keys += [row.key for row in rows]
        values += [row.value for row in rows]
    column = np.concatenate(offsets) if offsets else np.empty(0, np.int64)
    times = np.concatenate(timestamps) if timestamps else np.empty(0, np.int64)
    if skip := int(np.searchsorted(column, chunk.start)):
        column, times = column[skip:], times[skip:]
        del keys[:skip], values[:skip]
        headers = headers[skip:] if headers is not None else None
    return Records(column, times, keys, values, headers)


def _rows(batch: Any, raw: memoryview) -> list[Any]:
    try:
        return list(batch)
    except UnicodeDecodeError:  # one header's key is not UTF-8
        return list(read_slowly(raw))


def _offsets(batch: Any, rows: list[Any]) -> Column:
    """Most batches have a record for every offset, and then nobody need be asked."""
    if batch.producer_id is not None and len(rows) == batch.next_offset - batch.base_offset:
        return np.arange(batch.base_offset, batch.next_offset, dtype=np.int64)
    return np.array([row.offset for row in rows], dtype=np.int64)


def _milliseconds(rows: list[Any]) -> Column:
    """Timestamps, -1 for none: records of the oldest format carry none."""
    timestamps = [row.timestamp for row in rows]
    try:
        return np.array(timestamps, dtype=np.int64)
    except TypeError:
        return np.array([-1 if each is None else each for each in timestamps], dtype=np.int64)
