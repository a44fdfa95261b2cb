"""UUIDv7 (RFC 9562): names of commits and objects, which sort by the time they were made.

Time and randomness are arguments, so that a simulation can make the same names again.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable


def uuid7(now_us: int, randbits: Callable[[int], int]) -> str:
    """A UUIDv7 of the time in microseconds; `randbits(n)` gives n random bits."""
    value = (now_us // 1000 & (1 << 48) - 1) << 80
    value |= 7 << 76 | randbits(12) << 64 | 2 << 62 | randbits(62)
    return str(uuid.UUID(int=value))
