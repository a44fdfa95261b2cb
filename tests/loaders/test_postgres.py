"""What PostgreSQL needs as a warehouse: columns instead of structs, JSONB or child tables instead of lists."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import psycopg
import pyarrow as pa
import pytest

from loaders.change import Change, Cursor
from loaders.columns import LONGEST_NAME, MOST_COLUMNS
from loaders.feed import Kept
from loaders.warehouse import WarehouseAway, WarehouseRefused, open_warehouse
from tests.loaders.test_warehouses import PostgreSQLTarget, Topic, events
from tests.stack.postgres import Postgres

pytestmark = pytest.mark.slow


@pytest.fixture
def target(postgres_url: str) -> PostgreSQLTarget:
    return PostgreSQLTarget(postgres_url)


@pytest.fixture
def topic(target: PostgreSQLTarget, tmp_path: Path) -> Topic:
    return Topic(open_warehouse(target.url, "dwh"), tmp_path)


@pytest.fixture
def unnested(target: PostgreSQLTarget, tmp_path: Path) -> Topic:
    return Topic(open_warehouse(target.url, "dwh", unnest=True), tmp_path)


def columns(target: PostgreSQLTarget, table: str = "orders") -> dict[str, str]:
    """Names and types of a table, without the system's."""
    found = target.ask(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
        f"WHERE attrelid = '\"{table}\"'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
    )
    return {name: type_ for name, type_ in found if not name.startswith("_")}


def test_every_type_arrives_as_it_was(topic: Topic, target: PostgreSQLTarget) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
    topic.append(
        events(
            0,
            b=pa.array([True, None]),
            i=pa.array([2**63 - 1, -(2**63)]),
            d=pa.array([0.1, 1e-300]),
            s=pa.array(["", 'a"b\n,\\.\t\\N']),
            t=pa.array([moment, None], pa.timestamp("us", "UTC")),
            day=pa.array([date(1, 1, 1), date(9999, 12, 31)]),
            m=pa.array([Decimal("12345678901234567890.12"), None], pa.decimal128(30, 2)),
        )
    )
    assert target.ask('SELECT b, i, d, s, t, day, m FROM "orders" ORDER BY "_offset"') == [
        (True, 2**63 - 1, 0.1, "", moment, date(1, 1, 1), Decimal("12345678901234567890.12")),
        (None, -(2**63), 1e-300, 'a"b\n,\\.\t\\N', None, date(9999, 12, 31), None),
    ]
    assert columns(target) == {
        "b": "boolean",
        "i": "bigint",
        "d": "double precision",
        "s": "text",
        "t": "timestamp with time zone",
        "day": "date",
        "m": "numeric(30,2)",
    }


def test_keys_and_headers_keep_their_bytes(topic: Topic, target: PostgreSQLTarget) -> None:
    topic.append(events(0, a=pa.array([1])))
    [(key, headers)] = target.ask('SELECT "_key", "_headers" FROM "orders"')
    assert key == b"\x00\xff0"
    assert headers == [
        {"key": "trace", "base64": "/g=="},
        {"key": "user", "value": "ada"},
        {"key": "none", "value": None},
    ]


def test_structs_become_columns_and_grow(topic: Topic, target: PostgreSQLTarget) -> None:
    topic.append(events(0, a=pa.array([{"n": 2**53 + 1, "deep": {"x": "y"}}, None])))
    topic.append(events(2, a=pa.array([{"n": 0.5, "new": [1, None]}])))
    assert target.ask('SELECT a__n, a__n__text, a__deep__x, a__new FROM "orders" ORDER BY "_offset"') == [
        (None, str(2**53 + 1), "y", None),
        (None, None, None, None),
        (0.5, None, None, [1, None]),
    ]


def test_lists_of_anything_become_jsonb_and_nul_its_picture(topic: Topic, target: PostgreSQLTarget) -> None:
    nasty = ["\x00", "\\u0000", "\\\x00", "\\\\", '"\x00"', "\x01"]
    topic.append(
        events(
            0,
            l=pa.array([[{"a": nasty, "t": datetime(2026, 1, 1, tzinfo=UTC)}]]),
            s=pa.array(["a\x00b"]),
            m=pa.array([[Decimal("0.10000000000000000001")]], pa.list_(pa.decimal128(30, 20))),
        )
    )
    [(found, text, money)] = target.ask('SELECT l, s, m::text FROM "orders"')
    assert found[0]["a"] == [each.replace("\x00", "\u2400") for each in nasty]
    assert text == "a\u2400b"
    assert json.loads(money, parse_float=Decimal) == [Decimal("0.10000000000000000001")]


def test_names_that_meet_or_are_too_long_stay_apart_and_stay_the_same(
    topic: Topic, target: PostgreSQLTarget
) -> None:
    long = "n" * 80
    first = events(
        0,
        a__b=pa.array([1]),
        a=pa.array([{"b": 2}]),
        **{long + "1": pa.array([3]), long + "2": pa.array([4])},
    )
    topic.append(first)
    names = list(columns(target))
    assert names[0] == "a__b"
    assert all(len(name) <= LONGEST_NAME for name in names)
    topic.append(events(1, **{long + "2": pa.array([8])}, a=pa.array([{"b": 6}]), a__b=pa.array([5])))
    listed = ", ".join(f'"{name}"' for name in names)
    assert list(columns(target)) == names
    assert target.ask(f'SELECT {listed} FROM "orders" ORDER BY "_offset"') == [(1, 2, 3, 4), (5, 6, None, 8)]


def test_more_columns_than_a_row_can_hold_lie_in_one_of_json(topic: Topic, target: PostgreSQLTarget) -> None:
    wide = {f"c{number}": pa.array(["x" * 30]) for number in range(MOST_COLUMNS + 100)}
    topic.append(events(0, **wide, l=pa.array([[1]]), o=pa.array([{"p": 2}])))
    assert len(columns(target)) < MOST_COLUMNS
    [(more,)] = target.ask('SELECT "_more" FROM "orders"')
    assert more["l"] == [1]
    assert more["o.p"] == 2
    assert more[f"c{MOST_COLUMNS + 99}"] == "x" * 30


def test_a_list_that_is_declared_json_becomes_its_text(topic: Topic, target: PostgreSQLTarget) -> None:
    topic.append(events(0, a=pa.array([[1, 2]])))
    topic.append(events(1, a=pa.array(['{"m": 2}'])), events(2, a=pa.array([[3]])))
    assert target.ask('SELECT a FROM "orders" ORDER BY "_offset"') == [("[1, 2]",), ('{"m": 2}',), ("[3]",)]


def test_unnested_lists_become_child_tables_that_grow(unnested: Topic, target: PostgreSQLTarget) -> None:
    unnested.append(
        events(
            0,
            items=pa.array([[{"sku": "a", "n": 1, "_offset": 7}, None], []]),
            o=pa.array([{"tags": ["x", None]}, None]),
        )
    )
    unnested.append(events(2, items=pa.array([[{"sku": "b", "n": 0.5, "extra": {"z": [True]}}]])))
    assert columns(target) == {}
    assert target.ask('SELECT "_offset", "_index", sku, n, extra__z FROM "orders__items" ORDER BY 1, 2') == [
        (0, 0, "a", 1.0, None),
        (0, 1, None, None, None),
        (2, 0, "b", 0.5, [True]),
    ]
    assert target.ask('SELECT "_offset", "_index", "value" FROM "orders__o__tags" ORDER BY 1, 2') == [
        (0, 0, "x"),
        (0, 1, None),
    ]
    with pytest.raises(WarehouseRefused, match="with --unnest"):
        open_warehouse(target.url, "dwh").cursor("orders")


def test_the_elements_of_rows_that_leave_leave_too(unnested: Topic, target: PostgreSQLTarget) -> None:
    unnested.append(events(0, items=pa.array([["a", "b"], ["c"], ["d"]])))
    assert unnested.cursor is not None
    change = Change(unnested.cursor, Cursor("e1", 1), kept=(Kept(0, 3, frozenset([1])),))
    assert unnested.warehouse.apply("orders", change, {})
    assert target.ask('SELECT "value" FROM "orders__items" ORDER BY 1') == [("a",), ("b",), ("d",)]
    assert unnested.warehouse.apply("orders", Change(change.cursor, Cursor("e1", 2), empty=True), {})
    assert target.ask('SELECT "value" FROM "orders__items"') == []


def test_a_table_that_no_loader_made_is_left_alone(topic: Topic, target: PostgreSQLTarget) -> None:
    with psycopg.connect(target.url) as connection:
        connection.execute('CREATE TABLE "orders" (mine text)')
    with pytest.raises(WarehouseRefused, match="no loader made"):
        topic.append(events(0, a=pa.array([1])))
    assert target.ask('SELECT * FROM "orders"') == []
    assert topic.warehouse.cursor("orders") is None


def test_a_server_that_is_away_is_waited_for_and_one_that_refuses_is_not(
    own_postgres: Postgres, tmp_path: Path
) -> None:
    url = own_postgres.url(own_postgres.create()).replace("+psycopg", "")
    warehouse = open_warehouse(url, "dwh")
    assert warehouse.cursor("orders") is None
    with pytest.raises(WarehouseRefused, match="does not exist"):
        open_warehouse(own_postgres.url("nobody_made_it").replace("+psycopg", ""), "dwh").cursor("orders")
    own_postgres.stop()
    for _ in range(2):
        with pytest.raises(WarehouseAway):
            warehouse.cursor("orders")
    own_postgres.start()
    assert warehouse.cursor("orders") is None
