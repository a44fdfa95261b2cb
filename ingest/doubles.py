"""Which numbers of a piece of JSON a double cannot hold: found in the bytes, since the parser rounds without a word.

Pure, over whole pieces. A double column means the decimal number that it prints (`ingest.values.exact_double`). Up to
15 significant digits always survive; so only long runs of digits, exponents of three digits, and NaN and Infinity
(which the parser takes for numbers) need a second look.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingest.values import exact_double

Rows = npt.NDArray[np.int64]

_LONG = 16  # bytes of digits and point: 15 digits and the point are always exact
_STEP = _LONG // 2  # a run of _LONG bytes holds two neighbouring multiples of this
_LONGEST = 64  # a longer run is left to the record-by-record way
_TINY = 1e-290  # above this a double has its full precision
_NO_NUMBER = re.compile(rb"NaN|Inf")


def doubtful_rows(
    joined: bytes, starts: Rows, columns: list[pa.Array], names: frozenset[bytes], in_lists: bool
) -> Rows:
    """Rows with a number in a double column that may differ from the record's: sorted, none twice.

    `joined`: the records' bytes, record i at `starts[i]`. `columns`: the parsed double columns at any depth. `names`:
    the keys (as JSON text) that such columns have; `in_lists`: some are in lists.
    """
    found = [_long_numbers(joined, starts, names, in_lists)]
    if any(_any(column, _tiny) for column in columns):
        found.append(_rows(_small_exponents(joined), starts))
    if any(_any(column, _unreal) for column in columns):
        found.append(_rows(np.array([m.start() for m in _NO_NUMBER.finditer(joined)], np.int64), starts))
    return np.unique(np.concatenate(found))


def _any(column: pa.Array, predicate: Callable[[pa.Array], pa.Array]) -> bool:
    return bool(pc.any(predicate(column), min_count=0).as_py())


def _tiny(column: pa.Array) -> pa.Array:
    return pc.less(pc.abs(column), _TINY)


def _unreal(column: pa.Array) -> pa.Array:
    return pc.invert(pc.is_finite(column))


def _rows(positions: Rows, starts: Rows) -> Rows:
    rows: Rows = np.searchsorted(starts, positions, "right") - 1
    return rows


def _small_exponents(joined: bytes) -> Rows:
    """Where `e-` and three digits stand: numbers that may be too small for a double."""
    data = np.frombuffer(joined, np.uint8)
    at: Rows = np.flatnonzero(data == ord("-"))
    at = at[(at > 0) & (at < len(data) - 3)]
    at = at[(data[at - 1] | 0x20) == ord("e")]
    for step in (1, 2, 3):
        at = at[(data[at + step] - np.uint8(48)) < 10]
    return at


def _long_numbers(joined: bytes, starts: Rows, names: frozenset[bytes], in_lists: bool) -> Rows:
    data = np.frombuffer(joined, np.uint8)
    runs = _runs(data)
    if not len(runs):
        return runs
    first, last = _extents(data, runs)
    first, keep = np.unique(first, return_index=True)
    last = last[keep]
    keep_long = last - first >= _LONG
    first, last = first[keep_long], last[keep_long]
    before = first - 1
    before = np.where(data[before] == ord("-"), before - 1, before)
    lead = data[before]
    # A number follows a colon, a bracket, a comma or white space; an exponent or a sign leaves no other choice either.
    number = np.isin(lead, np.frombuffer(b":[, \t\n\reE+-", np.uint8))
    listed = np.isin(lead, np.frombuffer(b"[,", np.uint8))
    number &= ~listed if not in_lists else True
    colon = lead == ord(":")
    number[colon] = _has_key(data, before[colon] - 1, names)
    first, last, before = first[number], last[number], before[number]
    tail = data[np.minimum(last, len(data) - 1)] | 0x20
    unsure = (
        (last - first >= _LONGEST) | (tail == ord("e")) | np.isin(data[before] | 0x20, (ord("e"), ord("+")))
    )
    doubtful = list(first[unsure])
    sure = ~unsure
    for begin, end in zip(first[sure].tolist(), last[sure].tolist(), strict=True):
        text = joined[begin:end].decode()
        if text.count(".") > 1 or exact_double(text) is None:
            doubtful.append(begin)
    return _rows(np.array(doubtful, np.int64), starts)


def _runs(data: npt.NDArray[np.uint8]) -> Rows:
    """A byte of each run of digits and points that is long enough, and of some that are not."""
    sampled = data[::_STEP]
    digit = (sampled - np.uint8(46)) < 12
    at: Rows = np.flatnonzero(digit[:-1] & digit[1:]) * _STEP
    for step in (4, 2, 6, 1, 3, 5, 7):
        at = at[(data[at + step] - np.uint8(46)) < 12]
    return at


def _extents(data: npt.NDArray[np.uint8], runs: Rows) -> tuple[Rows, Rows]:
    """First byte and the byte after the last of each run, at most _LONGEST away."""
    first, last = runs.copy(), runs + _STEP
    for _ in range(_LONGEST):
        back = (first > 0) & ((data[first - 1] - np.uint8(46)) < 12)
        on = (last < len(data)) & ((data[np.minimum(last, len(data) - 1)] - np.uint8(46)) < 12)
        if not back.any() and not on.any():
            break
        first -= back
        last += on
    return first, last


def _has_key(data: npt.NDArray[np.uint8], ends: Rows, names: frozenset[bytes]) -> npt.NDArray[np.bool_]:
    """Whether the key that ends with the quote at `ends` is one of `names`; true when it cannot be told."""
    result: npt.NDArray[np.bool_] = data[ends] != ord('"')  # white space before the colon
    for name in names:
        text = np.frombuffer(b'"' + name, np.uint8)
        begins = ends - len(text)
        same = begins >= 0
        for offset, byte in enumerate(text):
            same &= data[np.maximum(begins + offset, 0)] == byte
            if not same.any():
                break
        result |= same
    return result
