"""`tukang sql` against a real store and API."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pyarrow as pa
import pytest

from loaders.settings import LoaderSettings
from loaders.sql import SqlRefused, sql
from tests.ingest.small_lake import SmallLake, rows, small_lake
from tests.stack.store import Bucket

pytestmark = pytest.mark.slow

Ask = Callable[..., str]


@pytest.fixture
def lake(tmp_path: Path, bucket: Bucket) -> Iterator[SmallLake]:
    with small_lake(tmp_path, None, bucket) as made:
        made.append((0, 100), (1, 50), duplicates=3, dead=2, late=4, carry=5)
        made.append((0, 60))
        yield made


@pytest.fixture
def settings(lake: SmallLake) -> LoaderSettings:
    return LoaderSettings(api=lake.settings.api, s3_endpoint=lake.settings.s3_endpoint)


@pytest.fixture
def ask(settings: LoaderSettings, capfd: pytest.CaptureFixture[str]) -> Ask:
    def run(query: str, form: Any = "csv") -> str:
        capfd.readouterr()
        sql(query, form=form, settings=settings)
        return capfd.readouterr().out

    return run


def test_each_topic_is_a_view_of_its_live_rows(ask: Ask) -> None:
    assert ask("SELECT count(*) AS n, sum(_late::INT) AS late FROM orders").split() == ["n,late", "195,8"]
    assert ask("SELECT count(*) AS n FROM orders__dead_letters").split() == ["n", "4"]


def test_views_join_and_a_query_may_be_long(ask: Ask) -> None:
    query = """
        WITH dead AS (FROM orders__dead_letters SELECT _lake_partition, count(*) AS dead GROUP BY ALL)
        SELECT _lake_partition AS partition, count(*) AS n, any_value(dead) AS dead
        FROM orders JOIN dead USING (_lake_partition) GROUP BY ALL ORDER BY ALL;
    """
    assert ask(query).split() == ["partition,n,dead", "0,155,2", "1,40,2"]


def test_json_and_csv_keep_types_and_hold_every_row(ask: Ask) -> None:
    found = json.loads(ask("SELECT _offset, _event_time, _late FROM orders ORDER BY ALL LIMIT 1", "json"))
    assert found == [{"_offset": 0, "_event_time": "2026-01-01 12:00:00+00", "_late": True}]
    assert len(json.loads(ask("FROM range(5000)", "json"))) == 5_000
    assert len(ask("FROM range(5000)").splitlines()) == 5_001


def test_a_table_for_a_person_shows_values_as_they_are(ask: Ask) -> None:
    out = ask("SELECT 1.50::DECIMAL(9,2) AS price, '[red]x' AS text, NULL AS none, {'a': [1]} AS s", "table")
    assert [word in out for word in ("price", "1.50", "[red]x", "NULL", "{'a': [1]}")] == [True] * 5
    out = ask("FROM range(2000)", "table")
    assert "999" in out
    assert "... and more rows than 1,000" in out


def test_later_files_may_have_more_columns_and_wider_types(lake: SmallLake, ask: Ask) -> None:
    line = lake.next_line(1, 2, carried_in=5, carried_out=5)
    table = rows(1, [50, 51]).append_column("extra", pa.array([1, 2]))
    lake.publish([line], table)
    line = lake.next_line(1, 2, carried_in=5, carried_out=5)
    lake.publish([line], rows(1, [52, 53]).append_column("extra", pa.array([0.5, 1.5])))
    assert ask("SELECT count(*) AS n, sum(extra) AS total FROM orders").split() == ["n,total", "199,5.0"]


def test_a_topic_without_rows_has_the_columns_of_its_schema(lake: SmallLake, ask: Ask) -> None:
    http = httpx.Client(base_url=f"{lake.settings.api}/v1")
    http.post("/topics", json={"topic": "empty.one"}).raise_for_status()
    columns = [
        {"name": "price", "column": "price", "type": "decimal(9,2)"},
        {
            "name": "who",
            "column": "who",
            "type": {"struct": [{"name": "n", "column": "n", "type": "string"}]},
        },
        {"name": "tags", "column": "tags", "type": {"list": "integer"}},
    ]
    body = {"base_version": 0, "columns": columns, "decisions": []}
    http.post("/topics/empty.one/schemas", json=body).raise_for_status()
    assert ask('SELECT count(*) AS n FROM "empty.one"').split() == ["n", "0"]
    described = {row[0]: row[1] for row in csv.reader(io.StringIO(ask('DESCRIBE "empty.one"')))}
    assert described["price"] == "DECIMAL(9,2)"
    assert described["who"] == "STRUCT(n VARCHAR)"
    assert described["tags"] == "BIGINT[]"
    assert described["_event_time"] == "TIMESTAMP WITH TIME ZONE"
    assert ask('SELECT _reason FROM "empty.one__dead_letters"').split() == ["_reason"]


def test_names_that_differ_in_case_are_told_apart_as_they_are_written(lake: SmallLake, ask: Ask) -> None:
    httpx.post(f"{lake.settings.api}/v1/topics", json={"topic": "Orders"}).raise_for_status()
    assert ask("SELECT count(*) AS n FROM orders").split() == ["n", "195"]
    assert ask("SELECT count(*) AS n FROM Orders").split() == ["n", "0"]
    with pytest.raises(SqlRefused, match="differ only in case"):
        ask("SELECT * FROM orders, Orders")


def test_show_tables_lists_the_topics(ask: Ask) -> None:
    assert ask("SHOW TABLES;").split() == ["name", "orders"]


def test_a_query_is_explained(ask: Ask) -> None:
    assert "READ_PARQUET" in ask("EXPLAIN SELECT count(*) FROM orders", "table")


NO_QUERIES = (
    "DROP VIEW orders", "COPY orders TO 'x.csv'", "SELECT 1; SELECT 2", "CREATE TABLE x (a INT)", "INSTALL spatial",
    "SET threads = 1", "",
)  # fmt: skip


def test_only_queries_are_answered(ask: Ask) -> None:
    for query in NO_QUERIES:
        with pytest.raises(SqlRefused, match="queries only"):
            ask(query)


def test_what_is_wrong_is_said_in_words(
    lake: SmallLake, ask: Ask, settings: LoaderSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SqlRefused, match=r'nobody does not exist.*Topics: "orders"'):
        ask("SELECT * FROM nobody")
    with pytest.raises(SqlRefused, match="syntax error"):
        ask("SELEC 1")
    with pytest.raises(SqlRefused, match='"nothing" not found'):
        ask("SELECT nothing FROM orders")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(SqlRefused, match=r"The store does not serve the files of orders.*credentials"):
        ask("SELECT * FROM orders")
    monkeypatch.setattr("loaders.sql.PATIENCE_S", 0.1)
    with pytest.raises(SqlRefused, match="ConnectError"):
        sql("SELECT 1", settings=settings.model_copy(update={"api": "http://127.0.0.1:9"}))
    monkeypatch.delenv("TUKANG_API", raising=False)
    with pytest.raises(SqlRefused, match="TUKANG_API is not set"):
        sql("SELECT 1")


def test_a_missing_package_is_said_with_its_cure(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duckdb, "__version__", "9.9.9")
    with pytest.raises(SqlRefused, match=r"pip install duckdb-extension-httpfs==9\.9\.9"):
        ask("SELECT 1")
