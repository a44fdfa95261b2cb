"""What the demo shows a person: figures, the answer to a question, addresses. Renderables; nothing is done here."""

import subprocess
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from deploy.local import Stack

if TYPE_CHECKING:
    from deploy.demo import Played

QUESTION = """
SELECT origin AS airport,
       strftime(date_trunc('hour', _event_time), '%d %B, %H:%M') AS "worst hour of 2013 (UTC)",
       count(*) AS flights,
       round(avg(delay_minutes))::INTEGER AS "average delay (min)"
FROM departures
WHERE NOT _tombstone
GROUP BY origin, date_trunc('hour', _event_time)
HAVING count(*) >= 10
QUALIFY row_number() OVER (PARTITION BY origin ORDER BY avg(delay_minutes) DESC) = 1
ORDER BY airport
"""


def figures(played: "Played") -> Table:
    """What was read, what became of it, and how fast."""
    watch = played.watch
    files = watch.files()
    table = Table(
        box=box.SIMPLE_HEAVY, title="From the bus to the lake", title_justify="left", title_style="bold"
    )
    table.add_column("")
    for ledger in watch.ledgers:
        table.add_column(ledger.topic, justify="right")
    table.add_column("together", justify="right")
    for label, name in (
        ("events read", "consumed"),
        ("duplicates removed", "duplicates"),
        ("dead letters", "dead_letters"),
        ("rows in the lake", "written"),
        ("  of them late", "late"),
        ("  of them without a value", "tombstones"),
        ("commits", "commits"),
    ):
        each = [f"{ledger.totals[name]:,}" for ledger in watch.ledgers]
        table.add_row(label, *each, f"{watch.total(name):,}")
    empty = [""] * len(watch.ledgers)
    table.add_row("Parquet files of rows", *empty, f"{files['rows']:,}")
    table.add_row("Parquet files of dead letters", *empty, f"{files['dead_letters']:,}")
    table.add_row("size in the lake", *empty, f"{files['bytes'] / 1e6:,.0f} MB")
    table.add_row("size of the events", *empty, f"{played.bytes / 1e6:,.0f} MB")
    table.add_row("events/s", *empty, f"{watch.total('consumed') / played.seconds:,.0f}")
    return table


def question(answered: "subprocess.CompletedProcess[str]") -> RenderableType:
    """A real question and what `tukang sql` said."""
    said = answered.stdout if answered.returncode == 0 else answered.stderr
    return Group(
        Text("The worst hour of the year at each airport (tukang sql):", style="bold"), Text(said.rstrip())
    )


def addresses(stack: Stack, *, stay: bool) -> Table:
    """Where everything is, while it runs."""
    table = Table.grid(padding=(0, 2))
    for name, value in (
        ("API", stack.api_url),
        ("broker", stack.bootstrap),
        ("object store", f"{stack.store.endpoint}/{stack.bucket}"),
        ("folder", str(stack.folder)),
    ):
        table.add_row(Text(name, style="bold"), Text(value))
    if stay:
        path = stack.write_environment()
        table.add_row(
            Text("in a shell", style="bold"), Text(f". {path}; tukang sql 'SELECT count(*) FROM arrivals'")
        )
    return table


def pulse(stack: Stack, played: "Played", seconds: float) -> Text:
    """One line that shows that the stack lives."""
    minutes, rest = divmod(int(seconds), 60)
    return Text(
        f"up for {minutes}:{rest:02} - {played.watch.total('written'):,} rows in the lake,"
        f" {played.watch.held_back:,} held back - Ctrl-C stops everything",
        style="dim",
    )
