"""Where commands print for a person: as wide as the terminal, and wide enough for every figure where there is none."""

from __future__ import annotations

import os
from typing import IO

from rich.console import Console

WIDTH = 160  # characters of a file or a pipe: nobody looks at 80 columns there, and figures must not be cut


def printer(out: IO[str]) -> Console:
    """A console on a stream; COLUMNS says its width where the stream is no terminal."""
    return Console(
        file=out, highlight=False, width=None if out.isatty() or "COLUMNS" in os.environ else WIDTH
    )
