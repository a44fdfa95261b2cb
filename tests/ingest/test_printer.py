"""Tables for a person: whatever the width, no figure is broken and nothing is cut."""

import io

import pytest
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ingest.printer import fitted, listed

ROWS = [("orders", "1,234,567,890", "2026-01-01 11:59:58"), ("payments.eu.refunds", "7", "not yet")]


@pytest.mark.parametrize("width", [200, 60, 48, 40])
def test_every_figure_is_there_whole_in_any_width(width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width)
    table = Table(box=box.SIMPLE_HEAVY)
    table.add_column("topic")
    table.add_column("rows in the lake", justify="right")
    table.add_column("complete until")
    for row in ROWS:
        table.add_row(*map(Text, row))
    console.print(fitted(table, console))
    words = out.getvalue().split()
    assert {"1,234,567,890", "7", "orders", "2026-01-01", "11:59:58"} <= set(words)
    assert max(map(len, out.getvalue().splitlines())) <= width
    assert words.count("topic") == (1 if width >= 48 else len(ROWS))  # below, a block for each row


def test_a_list_has_headings_and_figures_at_the_right() -> None:
    assert list(listed(("loader", "rows"), [("dwh", 12), ("warehouse", None)])) == [
        "loader     rows",
        "dwh          12",
        "warehouse     -",
    ]
    assert not list(listed(("loader", "rows"), []))
