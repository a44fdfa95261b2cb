"""The allocator: memory that a worker let go of goes back to the machine.

Arrow's own pool keeps what it freed, thread by thread: several times what is held, where the ceiling is small. The C
library's is told to give back, in steps that grow with the ceiling, because asking again costs time (a fifth of the
speed, where a large worker gives back every small piece).
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
from collections.abc import Callable

import pyarrow as pa

log = logging.getLogger(__name__)

# Names and numbers of glibc's malloc.h, for mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
KIB = 1024


def give_back(memory: int) -> None:
    """Sets up this process for a ceiling of `memory` bytes; call it before threads are started.

    Where the C library has no such settings (macOS, musl), Arrow's pool stays as it is.
    """
    mallopt = _of_glibc("mallopt")
    if mallopt is None:
        return
    wanted = {
        M_ARENA_MAX: max(2, os.cpu_count() or 1),
        M_TRIM_THRESHOLD: min(max(memory // 16, 128 * KIB), 64 * KIB * KIB),
        M_MMAP_THRESHOLD: min(max(memory // 256, 128 * KIB), 4 * KIB * KIB),
    }
    if all(mallopt(name, value) for name, value in wanted.items()):
        pa.set_memory_pool(pa.system_memory_pool())
    else:
        log.info("the C library keeps freed memory as it likes")


def trim() -> None:
    """Gives back what is free between pieces still held (malloc_trim(3)), which no threshold does."""
    malloc_trim = _of_glibc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


@functools.cache
def _of_glibc(name: str) -> Callable[..., int] | None:
    try:
        function: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
    return function
