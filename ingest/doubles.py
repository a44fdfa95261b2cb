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

from ingest.joined import Joined, Rows
from ingest.values import exact_double

_LONG = 16  # bytes of digits and point: 15 digits and the point are always exact
_STEP = _LONG // 2  # a run of _LONG bytes holds two neighbouring multiples of this
_LONGEST = 64  # a longer run is left to the record-by-record way
_TINY = 1e-290  # above this a double has its full precision
_LARGE = re.compile(rb"[eE]\+?[0-9]{3}")
_NO_NUMBERS = (re.compile(b"NaN"), re.compile(b"Inf"))  # apart: the search for a literal is fast


def doubtful_rows(joined: Joined, columns: list[pa.Array], names: frozenset[bytes], in_lists: bool) -> Rows:
    """Rows with a number in a double column that may differ from the record's: sorted, none twice.

    `columns`: the parsed double columns at any depth. `names`: the keys (UTF-8) that such columns have; `in_lists`:
    some are in lists.
    """
    found = [_long_numbers(joined.data, names, in_lists)]
    if any(_any(column, _tiny) for column in columns):
        found.append(_small_exponents(joined.data))
    if any(_any(column, _unreal) for column in columns):
        found += [no_numbers(joined.data), _large_exponents(joined.data)]
    return joined.rows_at(np.concatenate(found))


def no_numbers(data: bytes) -> Rows:
    """Where NaN or Infinity may stand, which the parser takes for numbers."""
    return np.array([m.start() for pattern in _NO_NUMBERS for m in pattern.finditer(data)], np.int64)


def _any(column: pa.Array, predicate: Callable[[pa.Array], pa.Array]) -> bool:
    return bool(pc.any(predicate(column), min_count=0).as_py())


def _tiny(column: pa.Array) -> pa.Array:
    return pc.less(pc.abs(column), _TINY)


def _unreal(column: pa.Array) -> pa.Array:
    return pc.invert(pc.is_finite(column))


def _large_exponents(joined: bytes) -> Rows:
    """Where numbers may stand that are too large for a double: some of them the parser takes for infinite."""
    return np.array([found.start() for found in _LARGE.finditer(joined)], np.int64)


def _small_exponents(joined: bytes) -> Rows:
    """Where `e-` and three digits stand: numbers that may be too small for a double."""
    data = np.frombuffer(joined, np.uint8)
    at: Rows = np.flatnonzero(data == ord("-"))
    at = at[(at > 0) & (at < len(data) - 3)]
    at = at[(data[at - 1] | 0x20) == ord("e")]
    for step in (1, 2, 3):
        at = at[(data[at + step] - np.uint8(48)) < 10]
    return at[_ends_number(data, at - 1)] if len(at) else at


def _ends_number(data: npt.NDArray[np.uint8], ends: Rows) -> npt.NDArray[np.bool_]:
    """Whether the digits that end before `ends` begin like a number does; true when they are too many to tell.

    The groups of a UUID end in `e-` and three digits often enough to matter.
    """
    first = ends.copy()
    for _ in range(_LONGEST):
        back = (first > 0) & ((data[first - 1] - np.uint8(46)) < 12)
        if not back.any():
            break
        first -= back
    before = np.maximum(first - 1, 0)
    before = np.where(data[before] == ord("-"), np.maximum(before - 1, 0), before)
    begins = np.isin(data[before], np.frombuffer(b":[, \t\n\r", np.uint8))
    result: npt.NDArray[np.bool_] = begins | (ends - first >= _LONGEST)
    return result


def _long_numbers(joined: bytes, names: frozenset[bytes], in_lists: bool) -> Rows:
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
    text = joined.decode("latin-1") if sure.any() else ""
    for begin, end in zip(first[sure].tolist(), last[sure].tolist(), strict=True):
        if not exact(text[begin:end]):
            doubtful.append(begin)
    return np.array(doubtful, np.int64)


def long_integers(joined: bytes, digits: int) -> Rows:
    """Where numbers of at least so many digits stand, as far as the bytes before them tell."""
    data = np.frombuffer(joined, np.uint8)
    first, last = _extents(data, _runs(data))
    before = data[first - 1]
    return first[(last - first >= digits) & np.isin(before, np.frombuffer(b":[, \t\n\r-", np.uint8))]


def exact(token: str) -> bool:
    """Whether a double prints as this number (digits and points: a string may hold them too)."""
    try:
        return repr(float(token)) == token or exact_double(token) is not None
    except ValueError:
        return False  # two points: not a number, so not one of ours


def _runs(data: npt.NDArray[np.uint8]) -> Rows:
    """A byte of each run of digits and points that is long enough, and of some that are not."""
    digit = (np.ascontiguousarray(data[::_STEP]) - np.uint8(46)) < 12
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
    """Whether the key that ends with the quote at `ends` is one of `names`; true when it cannot be told.

    A key can be told when a plain quote, no escape, and no more bytes than a key with all its characters escaped has,
    stand before it.
    """
    result: npt.NDArray[np.bool_] = data[ends] != ord('"')  # white space before the colon
    longest = max(map(len, names), default=0)
    begins = ends.copy()
    walking = np.flatnonzero(~result)
    for _ in range(6 * longest + 2):
        if not len(walking):
            break
        begins[walking] -= 1
        walking = walking[begins[walking] >= 0]
        byte = data[begins[walking]]
        escape = byte == ord("\\")
        result[walking[escape]] = True
        walking = walking[~escape & (byte != ord('"'))]
    escaped = (begins > 0) & (data[np.maximum(begins, 1) - 1] == ord("\\"))
    result |= escaped & (data[np.maximum(begins, 0)] == ord('"'))
    lengths = ends - begins - 1
    for length in {len(name) for name in names}:
        of_length = np.flatnonzero((lengths == length) & ~result)
        if length == 0:
            result[of_length] = True
        elif len(of_length):
            bytes_ = data[begins[of_length, None] + 1 + np.arange(length)]
            keys = np.ascontiguousarray(bytes_).view(f"S{length}").ravel()
            result[of_length] = np.isin(keys, [name for name in names if len(name) == length])
    return result
