"""What DuckDB alone can do as a warehouse: structs and lists that grow."""

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loaders.change import Change, Cursor
from loaders.feed import File
from loaders.warehouse import WarehouseAway, WarehouseRefused, open_warehouse
from tests.loaders.test_download import files_of_at_most
from tests.loaders.test_warehouses import DuckDBTarget, Topic, events


@pytest.fixture
def target(tmp_path: Path) -> DuckDBTarget:
    return DuckDBTarget(tmp_path)


@pytest.fixture
def topic(target: DuckDBTarget, tmp_path: Path) -> Topic:
    return Topic(open_warehouse(target.url, "dwh"), tmp_path)


def test_structs_and_lists_grow_in_place_at_any_depth(topic: Topic, target: DuckDBTarget) -> None:
    topic.append(
        events(
            0,
            a=pa.array([{"n": 1, "l": [{"x": 2**53 + 1}, None]}, None]),
            deep=pa.array([[[1, 2]], None]),
        )
    )
    topic.append(
        events(
            2,
            a=pa.array([{"new": "y", "n": 1.5, "l": [{"y": True, "x": 0.5}]}]),
            deep=pa.array([[[0.5]]]),
        )
    )
    found = target.ask('SELECT a, deep FROM "orders" ORDER BY "_offset"')
    assert found == [
        (
            {
                "n": 1.0,
                "l": [{"x": None, "x__text": str(2**53 + 1), "y": None}, None],
                "n__text": None,
                "new": None,
            },
            [[1.0, 2.0]],
        ),
        (None, None),
        (
            {"n": 1.5, "l": [{"x": 0.5, "x__text": None, "y": True}], "n__text": None, "new": "y"},
            [[0.5]],
        ),
    ]


def test_a_struct_that_is_declared_json_becomes_its_text(topic: Topic, target: DuckDBTarget) -> None:
    topic.append(events(0, a=pa.array([{"n": 1, "l": [None, "x"]}])))
    topic.append(events(1, a=pa.array(['{"m": 2}'])))
    assert target.ask('SELECT a FROM "orders" ORDER BY "_offset"') == [
        ('{"n":1,"l":[null,"x"]}',),
        ('{"m": 2}',),
    ]


def test_a_file_that_another_process_writes_is_waited_for_and_what_is_no_database_is_refused(
    topic: Topic, target: DuckDBTarget, tmp_path: Path
) -> None:
    other = tmp_path / "other.duckdb"
    other.write_text("not a database" * 1000)
    with pytest.raises(WarehouseRefused, match="cannot be opened"):
        open_warehouse(f"duckdb:///{other}", "dwh").cursor("orders")
    with pytest.raises(WarehouseRefused, match="does not exist"):
        open_warehouse("duckdb:///nowhere/at/all.duckdb", "dwh")
    assert WarehouseAway is not WarehouseRefused


def test_a_table_that_no_loader_made_is_left_alone(topic: Topic, target: DuckDBTarget) -> None:
    with duckdb.connect(str(target.file)) as connection:
        connection.execute("CREATE TABLE Orders (mine VARCHAR)")
    with pytest.raises(WarehouseRefused, match="no loader made"):
        topic.append(events(0, a=pa.array([1])))
    assert target.ask("SELECT * FROM orders") == []


def test_a_full_disk_is_waited_out(target: DuckDBTarget, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    values = [random.bytes(1000).hex() for _ in range(3000)]
    pq.write_table(events(0, a=pa.array(values)), tmp_path / "1.parquet")
    file = File(1, 1, "append", "s3://lake/1.parquet", "rows", 1, 3000, "0" * 64, 1)
    change = Change(None, Cursor("e0", 1), (file,), empty=True)
    warehouse = open_warehouse(target.url, "dwh")
    with files_of_at_most(3_000_000), pytest.raises(WarehouseAway, match="cannot be written"):
        warehouse.apply("orders", change, {1: tmp_path / "1.parquet"})
    assert warehouse.cursor("orders") is None
    assert warehouse.apply("orders", change, {1: tmp_path / "1.parquet"})
    assert target.ask('SELECT count(*) FROM "orders"') == [(3000,)]
