"""What a warehouse must be able to do, and which one a URL names. Two implementations: `duckdb.py`, `postgres.py`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from loaders.change import Change, Cursor


class WarehouseRefused(Exception):
    """The warehouse will not take this, now or later: the message says why and what to do."""


class WarehouseAway(Exception):
    """The warehouse does not answer, or another process has it locked: ask again after a pause.

    Whether a transaction was taken is then told by the cursor, and by nothing else.
    """


class WarehouseBusy(WarehouseAway):
    """Another process has it open, for as long as it looks something up, or loads: soon there is a gap."""


BEGIN_ANEW = (
    "If somebody altered a table of the loader, make it again as it was, or begin anew: drop the topic's tables and "
    "its row in _tukang_cursors."
)
"""What an operator can do about a table that is not as the loader left it."""


class Warehouse(Protocol):
    """A table for each topic, and its cursor. Neither call is to be made by two threads at once."""

    def cursor(self, topic: str) -> Cursor | None:
        """What the table of a topic holds; None: nothing was ever loaded."""

    def apply(self, topic: str, change: Change, paths: Mapping[int, Path]) -> bool:
        """One change in one transaction, the cursor's move with it. `paths`: where its files lie, by id.

        False: the stored cursor is not `change.before`, so that another process was here; nothing is changed then.
        """

    def close(self) -> None:
        """Ends connections."""


def open_warehouse(url: str, loader: str, *, unnest: bool = False) -> Warehouse:
    """`duckdb:///FILE` or `postgresql://...`. Raises `WarehouseRefused` for anything else."""
    kind, _, rest = url.partition("://")
    if kind == "duckdb":
        from loaders.duckdb import DuckDB

        if unnest:
            raise WarehouseRefused("DuckDB has lists and structs of its own: leave --unnest out.")
        if not rest.startswith("/") or len(rest) < 2:
            raise WarehouseRefused(
                f"{url} names no file: write duckdb:///FILE, or duckdb:////FILE for a full path."
            )
        return DuckDB(Path(rest[1:]), loader)
    if kind in ("postgresql", "postgres"):
        from loaders.postgres import PostgreSQL

        return PostgreSQL(url, loader, unnest=unnest)
    raise WarehouseRefused(
        f"There is no loader for {kind or url}: write duckdb:///FILE or postgresql://HOST/DATABASE."
    )
