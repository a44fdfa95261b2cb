"""Where commands print for a person: as wide as the terminal, and wide enough for every figure where there is none.

What does not fit is never cut: text wraps, and a table that is too wide even so comes as records, a
line for each field.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import IO

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

WIDTH = 160  # characters of a file or a pipe: nobody looks at 80 columns there, and figures must not be cut
TEXT = 16  # characters of a text that are not broken in a table


def printer(out: IO[str]) -> Console:
    """A console on a stream; COLUMNS says its width where the stream is no terminal."""
    return Console(
        file=out, highlight=False, width=None if out.isatty() or "COLUMNS" in os.environ else WIDTH
    )


def fitted(table: Table, console: Console) -> RenderableType:
    """The table as wide as the console at most, with no figure broken; else its rows as records."""
    cells = [[_text(each) for each in (column.header, *column.cells)] for column in table.columns]
    words = [
        max((cell_len(word) for cell in each for word in cell.plain.split()), default=1) for each in cells
    ]
    for place, column in enumerate(table.columns):
        if column.justify == "left":  # a text may be broken, a figure never
            words[place], column.overflow = min(words[place], TEXT), "fold"
    whole = [
        max((cell_len(row) for cell in each for row in cell.plain.splitlines()), default=1) for each in cells
    ]
    count = len(cells)
    spare = console.width - (3 * count + 1) - sum(words)
    if spare < 0:  # first the blanks beside the columns go
        table.padding = 0
        spare += 2 * count
    if spare < 0:
        return _records(cells)
    for place in sorted(range(len(cells)), key=lambda place: whole[place] - words[place]):
        more = min(whole[place] - words[place], spare)
        table.columns[place].width = words[place] + more
        spare -= more
    return table


def show(what: Table | str) -> None:
    """A table or a line on stdout."""
    console = printer(sys.stdout)
    console.print(fitted(what, console) if isinstance(what, Table) else what)


def _records(cells: Sequence[Sequence[Text]]) -> RenderableType:
    """A block for each row: the names of the columns at the left."""
    found: list[RenderableType] = []
    for row in range(1, len(cells[0])):
        block = Table.grid(padding=(0, 2))
        block.add_column(no_wrap=True)
        block.add_column(overflow="fold")
        for column in cells:
            block.add_row(column[0], column[row])
        found += [block, Text("")]
    return Group(*found)


def _text(cell: object) -> Text:
    return cell if isinstance(cell, Text) else Text.from_markup(str(cell))


def listed(headings: Sequence[str], rows: Iterable[Sequence[str | int | None]]) -> Iterator[str]:
    """Rows as lines below their headings, figures at the right of their column; no line at all without rows."""
    given = list(rows)
    if not given:
        return
    right = [any(isinstance(row[place], int) for row in given) for place in range(len(headings))]
    texts = [list(headings), *(["-" if cell is None else str(cell) for cell in row] for row in given)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        cells = (
            cell.rjust(width) if figure else cell.ljust(width)
            for cell, width, figure in zip(row, widths, right, strict=True)
        )
        yield "  ".join(cells).rstrip()
