"""Order: the watermark, what is ready, what is late, what waits. Pure functions over numpy columns.

Times are microseconds since 1970. The words are those of the protocol: a row newer than the watermark waits, a row at
or before it is ready, and a row before the watermark of its partition's last commit is late and never waits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def highest_of(*times: int | None) -> int | None:
    """The highest of the times that are known."""
    return max((time for time in times if time is not None), default=None)


def watermark(highest_us: int | None, lateness_us: int, stored_us: int | None, *, idle: bool) -> int | None:
    """The watermark of a lake partition: never lower than the stored one.

    An idle partition (at the log's end and quiet for `lateness`) waits for nothing: its watermark is its highest time.
    """
    if highest_us is None:
        return stored_us
    return highest_of(stored_us, highest_us if idle else highest_us - lateness_us)


def late(times: Times, stored_watermark_us: int | None, published_to_us: int | None) -> Mask:
    """Which rows are late: before the watermark of the last commit, or before what was published early."""
    line = highest_of(stored_watermark_us, published_to_us)
    if line is None:
        return np.zeros(len(times), dtype=np.bool_)
    return times < line


def ready(times: Times, watermark_us: int | None, never_waits: Mask) -> Mask:
    """Which rows go out now: at or before the watermark, or of the kind that never waits."""
    if watermark_us is None:
        return never_waits.copy()
    return (times <= watermark_us) | never_waits


def oldest(times: Times, limit: int) -> int:
    """The time up to which rows are taken so that about `limit` of them go (all of an equal time together)."""
    return int(np.partition(times, limit - 1)[limit - 1])


def lowered(watermark_us: int | None, stored_us: int | None, left_behind: Times) -> int | None:
    """The watermark that a cut may store when it leaves ready rows behind: just before the oldest of them.

    Otherwise a carried row would stand at or before the stored watermark, and would be late when it is read again
    although it came in time.
    """
    if watermark_us is None or len(left_behind) == 0:
        return watermark_us
    return highest_of(stored_us, min(watermark_us, int(left_behind.min()) - 1))
