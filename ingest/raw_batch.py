"""A batch's bytes: cut out of what the broker sent, and read record by record when the client's decoder cannot.

aiokafka's decoder fails for a whole batch when one header's key is not UTF-8, which the broker does not check. Such a
record is still an event; its header's key is spelled with escapes (`\\xff`) instead. Nothing here knows positions or
transactions.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.legacy_records import LegacyRecordBatch

from ingest.chunk import Headers

_LENGTH = struct.Struct(">8xi")  # base offset, then the length of what follows
_PREFIX = _LENGTH.size
_MAGIC_AT = 16  # at the same place in all formats
_LEAST_LENGTH = 14  # what follows in the oldest format, without key and value
_HEADER = struct.Struct(
    ">q13xh4xqq14xi"
)  # base offset, attributes, first and last timestamp, number of records
_DECOMPRESS: dict[int, Callable[[Any], bytes]] = {
    0: bytes, 1: gzip_decode, 2: snappy_decode, 3: lz4_decode, 4: zstd_decode,
}  # fmt: skip
_APPEND_TIME = 0x08


class RawRecords:
    """In place of aiokafka's `MemoryRecords`: the same three verbs, and the bytes of the batch handed out last."""

    def __init__(self, data: bytes) -> None:
        self.raw = memoryview(b"")
        self._data = memoryview(data)
        self._at = 0

    def size_in_bytes(self) -> int:
        return len(self._data)

    def has_next(self) -> bool:
        """Whether another whole batch is there; the broker may cut the last one short."""
        left = len(self._data) - self._at
        return left >= _PREFIX and left >= _PREFIX + _LENGTH.unpack_from(self._data, self._at)[0]

    def next_batch(self) -> Any:
        """The next batch, not decompressed. Raises CorruptRecordException when it is too short to be one."""
        (length,) = _LENGTH.unpack_from(self._data, self._at)
        if length < _LEAST_LENGTH:
            raise CorruptRecordException(f"a batch of {length} bytes is none")
        self.raw = self._data[self._at : self._at + _PREFIX + length]
        self._at += len(self.raw)
        magic = self.raw[_MAGIC_AT]
        return DefaultRecordBatch(self.raw) if magic >= 2 else LegacyRecordBatch(self.raw, magic)


class Record(NamedTuple):
    """A record as aiokafka's decoder would give it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def keep_bytes() -> None:
    """Let aiokafka hand out batches together with their bytes, from now on, in this process."""
    fetcher.MemoryRecords = RawRecords


def read_slowly(raw: memoryview) -> Iterator[Record]:
    """The records of a batch of format 2. Raises CorruptRecordException when its structure is wrong."""
    base_offset, attributes, first, last, count = _HEADER.unpack_from(raw)
    try:
        data = _DECOMPRESS[attributes & 0x07](raw[_HEADER.size :])
        at = 0
        for _ in range(count):
            length, at = _varint(data, at)
            end = at + length
            delta, at = _varint(data, at + 1)  # after a byte of attributes that nobody uses
            offset_delta, at = _varint(data, at)
            key, at = _bytes(data, at)
            value, at = _bytes(data, at)
            header_count, at = _varint(data, at)
            headers: list[tuple[str, bytes | None]] = []
            for _ in range(header_count):
                name, at = _bytes(data, at)
                content, at = _bytes(data, at)
                headers.append(((name or b"").decode("utf-8", "backslashreplace"), content))
            if at != end:
                raise CorruptRecordException(f"a record of {length} bytes ends {at - end} bytes beyond")
            timestamp = last if attributes & _APPEND_TIME else first + delta
            yield Record(base_offset + offset_delta, timestamp, key, value, headers)
    except (IndexError, KeyError, ValueError) as error:
        raise CorruptRecordException(
            f"the batch at offset {base_offset} cannot be read: {error!r}"
        ) from error


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at


def _bytes(data: bytes, at: int) -> tuple[bytes | None, int]:
    length, at = _varint(data, at)
    if length < 0:
        return None, at
    if at + length > len(data):
        raise IndexError(f"{length} bytes wanted at {at}, {len(data)} are there")
    return data[at : at + length], at + length
