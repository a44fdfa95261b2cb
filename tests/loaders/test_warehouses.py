"""One behaviour suite for every warehouse: whatever a change says, the table has, and the cursor with it."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Protocol

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loaders.change import Change, Cursor
from loaders.feed import File
from loaders.warehouse import Warehouse, WarehouseRefused, open_warehouse
from tests.loaders.model import KINDS, Key, Lake, ModelFeed
from tests.loaders.parquet import as_rows, event_table, write_objects


class Target(Protocol):
    """A warehouse under test: how to open a loader for it, and how to ask it."""

    url: str

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """The answer to a query, by another way than the loader's."""

    def do(self, statement: str) -> None:
        """What somebody does to the tables by hand."""


class DuckDBTarget:
    def __init__(self, folder: Path) -> None:
        self.file = folder / "warehouse.duckdb"
        self.url = f"duckdb:///{self.file}"

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.file), read_only=True) as connection:
            return connection.execute(query).fetchall()

    def do(self, statement: str) -> None:
        with duckdb.connect(str(self.file)) as connection:
            connection.execute(statement)


class PostgreSQLTarget:
    def __init__(self, url: str) -> None:
        self.url = url.replace("postgresql+psycopg://", "postgresql://")

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url) as connection:
            return connection.execute(query.encode()).fetchall()

    def do(self, statement: str) -> None:
        with psycopg.connect(self.url) as connection:
            connection.execute(statement.encode())


TARGETS: dict[str, Callable[[pytest.FixtureRequest], Target]] = {
    "duckdb": lambda request: DuckDBTarget(request.getfixturevalue("tmp_path")),
    "postgresql": lambda request: PostgreSQLTarget(request.getfixturevalue("postgres_url")),
}


PARAMETERS = ["duckdb", pytest.param("postgresql", marks=pytest.mark.slow)]


@pytest.fixture(params=PARAMETERS)
def target(request: pytest.FixtureRequest) -> Target:
    return TARGETS[request.param](request)


@pytest.fixture
def warehouse(target: Target) -> Iterator[Warehouse]:
    opened = open_warehouse(target.url, "dwh")
    yield opened
    opened.close()


def rows_of(target: Target, table: str = "orders") -> dict[Key, Any]:
    columns = '"_lake_partition", "_offset", "value", "_sequence"'
    return as_rows(target.ask(f'SELECT {columns} FROM "{table}"'))  # type: ignore[arg-type]


def follow(warehouse: Warehouse, lake: Lake, folder: Path, most_bytes: int = 10**9, most: int = 1000) -> int:
    """Loads changes until there are no more (or `most`); returns how many."""
    feed = ModelFeed(lake)
    for done in range(most):
        change = feed.change(warehouse.cursor("orders"), most_bytes=most_bytes)
        if change is None:
            return done
        ids = [file.id for file in change.files]
        assert warehouse.apply("orders", change, write_objects(lake, ids, folder))
    return most


@pytest.mark.parametrize("seed", range(8))
def test_any_history_with_any_stops_ends_with_the_live_rows(
    seed: int, target: Target, warehouse: Warehouse, tmp_path: Path
) -> None:
    random = Random(seed)
    lake = Lake()
    for _ in range(14):
        step = random.choice((*KINDS, *KINDS, "append", "sweep", "fold", "restore", "load", "load"))
        if step == "load":
            follow(warehouse, lake, tmp_path, random.randint(1, 5), random.randint(1, 3))
        elif step == "sweep":
            lake = lake.sweep()
        elif step == "fold":
            lake = lake.fold()
        elif step == "restore":
            lake = lake.restore(max(0, lake.head.sequence - random.randint(0, 3)))
        else:
            lake = lake.commit(step, random.randint(0, 11))
    lake = lake.commit("append", 1)
    follow(warehouse, lake, tmp_path)
    assert rows_of(target) == lake.head.rows()


def test_a_change_that_somebody_else_has_loaded_is_not_loaded_again(
    target: Target, warehouse: Warehouse, tmp_path: Path
) -> None:
    lake = Lake().commit("append", 1).commit("append", 2)
    change = ModelFeed(lake).change(None)
    assert change is not None
    paths = write_objects(lake, [file.id for file in change.files], tmp_path)
    assert warehouse.apply("orders", change, paths)
    other = open_warehouse(target.url, "dwh")
    assert not other.apply("orders", change, paths)
    assert other.cursor("orders") == change.cursor
    other.close()
    assert rows_of(target) == lake.head.rows()


def test_a_loader_of_another_name_is_refused_a_table_that_is_loaded(
    target: Target, warehouse: Warehouse, tmp_path: Path
) -> None:
    follow(warehouse, Lake().commit("append", 1), tmp_path)
    other = open_warehouse(target.url, "other")
    with pytest.raises(WarehouseRefused, match="dwh"):
        other.cursor("orders")
    other.close()


def test_a_table_that_somebody_dropped_is_not_quietly_begun_with_what_comes(
    target: Target, warehouse: Warehouse, tmp_path: Path
) -> None:
    lake = Lake().commit("append", 1)
    follow(warehouse, lake, tmp_path)
    target.do('DROP TABLE "orders"')
    lake = lake.commit("append", 2)
    with pytest.raises(WarehouseRefused, match=r"orders.* begin anew: drop the topic's tables and its row"):
        follow(warehouse, lake, tmp_path)
    target.do("DELETE FROM _tukang_cursors WHERE topic = 'orders'")
    follow(warehouse, lake, tmp_path)
    assert rows_of(target) == lake.head.rows()


def test_a_table_that_somebody_altered_refuses_in_words_and_goes_on_when_it_is_mended(
    target: Target, warehouse: Warehouse, tmp_path: Path
) -> None:
    lake = Lake().commit("append", 1)
    follow(warehouse, lake, tmp_path)
    for change in ("ADD COLUMN note VARCHAR DEFAULT 'x'", "ALTER COLUMN note DROP DEFAULT",
                   "ALTER COLUMN note SET NOT NULL"):  # fmt: skip
        target.do(f'ALTER TABLE "orders" {change}')
    before, lake = rows_of(target), lake.commit("append", 2)
    with pytest.raises(WarehouseRefused, match=r"refused the load.*note") as refused:
        follow(warehouse, lake, tmp_path)
    assert "e0/2" not in str(refused.value)  # no row's content goes into a log
    assert rows_of(target) == before
    target.do('ALTER TABLE "orders" ALTER COLUMN note DROP NOT NULL')
    follow(warehouse, lake, tmp_path)
    assert rows_of(target) == lake.head.rows()


_ids = count(1)


class Topic:
    """Appends of tables, to see what becomes of columns."""

    def __init__(self, warehouse: Warehouse, folder: Path, topic: str = "orders") -> None:
        self.warehouse, self.folder, self.topic = warehouse, folder, topic
        self.cursor: Cursor | None = None

    def append(self, *tables: pa.Table) -> None:
        """One change with a file for each table."""
        sequence = self.cursor.sequence + 1 if self.cursor else 1
        files, paths = [], {}
        for table in tables:
            number = next(_ids)
            paths[number] = self.folder / f"table-{number}.parquet"
            pq.write_table(table, paths[number])
            url = f"s3://lake/{number}.parquet"
            files.append(File(number, sequence, "append", url, "rows", 1, table.num_rows, "0" * 64, 1))
        change = Change(self.cursor, Cursor("e0", sequence), tuple(files), empty=self.cursor is None)
        assert self.warehouse.apply(self.topic, change, paths)
        self.cursor = change.cursor


@pytest.fixture
def topic(warehouse: Warehouse, tmp_path: Path) -> Topic:
    return Topic(warehouse, tmp_path)


def events(first: int, **columns: pa.Array) -> pa.Table:
    """Rows with offsets from `first` on."""
    rows = len(next(iter(columns.values())))
    return event_table([(0, first + place) for place in range(rows)], columns)


def test_new_columns_are_null_in_older_rows(topic: Topic, target: Target) -> None:
    topic.append(events(0, a=pa.array([1, 2])))
    topic.append(events(2, a=pa.array([3]), b=pa.array(["x"])), events(3, c=pa.array([True])))
    assert target.ask('SELECT "a", "b", "c" FROM "orders" ORDER BY "_offset"') == [
        (1, None, None),
        (2, None, None),
        (3, "x", None),
        (None, None, True),
    ]


def test_integers_that_meet_doubles_become_doubles_and_what_a_double_cannot_hold_stays_as_text(
    topic: Topic, target: Target
) -> None:
    topic.append(events(0, a=pa.array([1, 2**53 + 1, None])))
    topic.append(events(3, a=pa.array([0.5])), events(4, a=pa.array([2**60 + 1])))
    assert target.ask('SELECT "a", "a__text" FROM "orders" ORDER BY "_offset"') == [
        (1.0, None),
        (None, str(2**53 + 1)),
        (None, None),
        (0.5, None),
        (None, str(2**60 + 1)),
    ]


def test_a_column_whose_declared_type_changed_is_text(topic: Topic, target: Target) -> None:
    topic.append(events(0, a=pa.array(["x", "2026-01-01"])))
    topic.append(events(2, a=pa.array([START_OF_2026], pa.date32())))
    found = target.ask('SELECT "a" FROM "orders" ORDER BY "_offset"')
    assert found == [("x",), ("2026-01-01",), ("2026-01-01",)]


START_OF_2026 = 20_454  # days since 1970
