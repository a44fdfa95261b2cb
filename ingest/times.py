"""Which time an event has, and whether it is believed.

Pure: clocks are arguments, times are microseconds since 1970 UTC. Finding the value in a record is `ingest.identity`.
"""

from __future__ import annotations

import datetime as dt
import re
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.columns import TIME
from ingest.values import Number

Times = npt.NDArray[np.int64]
NO_TIME = np.iinfo(np.int64).min  # stands for null in arrays of times
EARLIEST, LATEST = (
    -62_135_596_800_000_000,
    253_402_300_799_999_999,
)  # the years 1 to 9999: what calendars have

_UTC = dt.UTC
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=_UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_EPOCH_TEXT = re.compile(r"-?\d{9,19}(\.\d+)?\Z", re.ASCII)
# Seconds, milliseconds, microseconds, nanoseconds: each up to the year 5138 in its own unit.
_SECONDS, _MILLISECONDS, _MICROSECONDS = 10**11, 10**14, 10**17
_ROUNDED = 1 << 52  # products of doubles from here on may be off by more than a half


def event_time_us(value: Any) -> int | None:
    """ISO 8601 text (UTC if it names no zone) or an epoch in s, ms, us or ns by magnitude; None if it is neither."""
    time_us = _time_us(value)
    return None if time_us is None or not EARLIEST <= time_us <= LATEST else time_us


def usable_stamps(timestamps_ms: Times) -> Times:
    """Timestamps of records, -1 where there is none or none that a calendar has."""
    wrong = (timestamps_ms > LATEST // 1_000) | (timestamps_ms < -1)
    return np.where(wrong, -1, timestamps_ms) if wrong.any() else timestamps_ms


def _time_us(value: Any) -> int | None:
    kind = type(value)
    if kind is str:
        if _EPOCH_TEXT.match(value):
            return _epoch_us(float(value)) if "." in value else _epoch_us(int(value))
        try:
            time = dt.datetime.fromisoformat(value)
        except ValueError:
            return None
        if time.tzinfo is None:
            time = time.replace(tzinfo=_UTC)
        return (time - _EPOCH) // _MICROSECOND
    if kind is int:
        return _epoch_us(value)
    if kind is float:
        return _epoch_us(value)
    if isinstance(value, Number):
        whole = value.integer()
        double = value.double() if whole is None else None
        return _epoch_us(whole) if whole is not None else None if double is None else _epoch_us(double)
    return None


def _epoch_us(value: int | float) -> int | None:
    size = abs(value)
    if not size <= 1 << 63:  # (nor is NaN)
        return None
    times = 1_000_000 if size < _SECONDS else 1_000 if size < _MILLISECONDS else 1
    exact: Any = Fraction(repr(value)) if type(value) is float and size * times >= _ROUNDED else value
    return int(round(exact * times) if size < _MICROSECONDS else exact // 1_000)


def times_of(column: pa.Array) -> Times:
    """The times of a column of any type, NO_TIME where there is none."""
    type_ = column.type
    if pa.types.is_string(type_):
        return _of_text(column)
    if pa.types.is_int64(type_):
        values = _filled(column, np.int64)
        size = np.abs(values)
        times = np.select(
            [
                size < 0,
                size < _SECONDS,
                size < _MILLISECONDS,
                size < _MICROSECONDS,
            ],  # (< 0: of the least integer)
            [values // 1_000, values * 1_000_000, values * 1_000, values],
            values // 1_000,
        )
        return _masked(_in_calendar(times), column)
    if pa.types.is_timestamp(type_):
        return _masked(_filled(column.cast(pa.int64()), np.int64), column)
    if pa.types.is_float64(type_):
        return _one_by_one(column)
    return np.full(len(column), NO_TIME)


def _of_text(column: pa.Array) -> Times:
    """All at once if all are written alike: with a zone, without, or with more digits than microseconds have."""
    for type_ in (TIME, pa.timestamp("us"), pa.timestamp("ns", "UTC")):
        try:
            times = _filled(column.cast(type_).cast(pa.int64()), np.int64)
        except pa.ArrowInvalid:
            continue
        if type_.unit == "ns":
            times = times // 1_000
        return _masked(_in_calendar(times), column)
    return _one_by_one(column)


def _in_calendar(times: Times) -> Times:
    wrong = (times < EARLIEST) | (times > LATEST)
    return np.where(wrong, NO_TIME, times) if wrong.any() else times


def _one_by_one(column: pa.Array) -> Times:
    found = [None if value is None else event_time_us(value) for value in column.to_pylist()]
    return np.array([NO_TIME if time is None else time for time in found], np.int64)


def _filled(column: pa.Array, dtype: Any) -> Any:
    if column.null_count:
        column = column.fill_null(0)
    return column.to_numpy(zero_copy_only=False).astype(dtype, copy=False)


def _masked(times: Times, column: pa.Array) -> Times:
    if column.null_count:
        times = np.where(column.is_null().to_numpy(zero_copy_only=False), NO_TIME, times)
    return times


def believed(
    event_us: Times, timestamps_ms: Times, fetched_at_us: int | Times, max_ahead_us: int
) -> tuple[Times, pa.Array]:
    """The time of each row, and where it is from: `event`, `record` or `fetch`. `fetched_at_us`: of all, or of each.

    An event's own time is believed up to `max_ahead_us` after the earlier of the record's timestamp and the fetch; the
    record's timestamp, which may be the producer's clock too, up to `max_ahead_us` after the fetch.
    """
    stamped = timestamps_ms >= 0
    stamps_us = timestamps_ms * 1_000
    earlier = np.minimum(stamps_us, fetched_at_us)
    if not stamped.all():
        earlier = np.where(stamped, earlier, fetched_at_us)
    own = event_us <= earlier + max_ahead_us
    own &= event_us != NO_TIME
    if own.all():
        return event_us, pa.repeat(pa.scalar("event"), len(own))
    record = ~own & stamped & (stamps_us <= fetched_at_us + max_ahead_us)
    times = np.where(own, event_us, np.where(record, stamps_us, fetched_at_us))
    index = np.where(own, 0, np.where(record, 1, 2)).astype(np.int8)
    source = pa.DictionaryArray.from_arrays(pa.array(index), pa.array(["event", "record", "fetch"]))
    return times, source.cast(pa.string())
