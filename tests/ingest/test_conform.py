"""Rows of older schemas brought to newer ones, and what readers make of files of both."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from ingest.conform import conform
from ingest.schema import TopicSchema
from tests.ingest.test_decode import decoded, event


def registered(schema: TopicSchema, version: int) -> TopicSchema:
    return TopicSchema.from_json({**schema.to_json(), "version": version})


def grown(*pieces: list[bytes]) -> tuple[list[pa.Table], TopicSchema]:
    """Tables decoded one after the other, each by the schema registered so far."""
    schema, tables = TopicSchema(), []
    for version, piece in enumerate(pieces, 1):
        result = decoded(*piece, schema=schema)
        tables.append(result.table)
        schema = registered(result.schema, version)
    return tables, schema


def test_a_table_that_has_all_columns_is_not_touched() -> None:
    (table,), schema = grown([b'{"a":1,"b":{"c":[1]}}'])
    assert conform(table, schema) is table


def test_new_columns_are_null_at_any_depth() -> None:
    (old, _), schema = grown(
        [b'{"a":1,"b":{"c":1},"l":[{"x":1}]}'], [b'{"b":{"d":2},"l":[{"y":"z"}],"n":1.5}']
    )
    row = conform(old, schema).to_pylist()[0]
    assert (row["n"], row["b"], row["l"]) == (None, {"c": 1, "d": None}, [{"x": 1, "y": None}])
    assert conform(old, schema).schema.equals(schema.arrow())


def test_integers_become_doubles_and_those_that_would_change_go_to_the_sibling() -> None:
    (old, _), schema = grown([b'{"a":1}', b'{"a":9007199254740993}'], [b'{"a":1.5}'])
    table = conform(old, schema)
    assert table.column("a").to_pylist() == [1.0, None]
    assert table.column("a__text").to_pylist() == [None, "9007199254740993"]


def test_rows_of_before_a_declaration_get_its_type() -> None:
    (old,), schema = grown(
        [b'{"a":"2024-05-01","b":{"x":1,"y":1,"y":"z"},"c":7,"d":"s"}', b'{"a":"n/a","b":"q"}']
    )
    types = {("a",): "date", ("b",): "json", ("c",): "drop", ("d",): "hash"}
    table = conform(old, schema.declare(types, 1))
    assert [str(each) for each in table.column("a").to_pylist()] == ["2024-05-01", "None"]
    assert table.column("a__text").to_pylist() == [None, '"n/a"']
    assert table.column("b").to_pylist() == ['{"x":1,"y":1,"y":"z"}', None]
    assert table.column("b__text").to_pylist() == [None, '"q"']
    assert "c" not in table.column_names
    assert table.column("d").to_pylist() == ["s", None]


def test_a_list_with_an_integer_that_no_double_holds_goes_whole_to_the_sibling() -> None:
    (old, _), schema = grown([b'{"a":[1,9007199254740993]}', b'{"a":[2]}'], [b'{"a":[1.5]}'])
    table = conform(old, schema)
    assert table.column("a").to_pylist() == [None, [2.0]]
    assert table.column("a__text").to_pylist() == ["[1,9007199254740993]", None]


def test_a_schema_older_than_the_table_is_refused() -> None:
    (_, new), _ = grown([b'{"a":1}'], [b'{"b":1}'])
    with pytest.raises(ValueError, match="not in the schema"):
        conform(new, TopicSchema())


def test_readers_get_one_table_over_files_of_all_versions(tmp_path: Path) -> None:
    tables, schema = grown(
        [b'{"a":1,"a.b":"x","_offset":7,"":1}'],
        [b'{"a":2,"Name":1,"s":{"t":[1,2]},"e":[]}'],
        [b'{"a":"n/a","name":"x","s":{"t":"x","u":1},"e":[{"f":1}]}', b'{"a":1,"a":2}'],
    )
    for number, table in enumerate(tables):
        pq.write_table(table, tmp_path / f"{number}.parquet")
    files = str(tmp_path / "*.parquet")
    rows = duckdb.sql(f"SELECT * FROM read_parquet('{files}', union_by_name=true) ORDER BY filename, _offset")
    assert rows.columns == schema.arrow().names
    assert len(rows.fetchall()) == 4
    read = ds.dataset([str(tmp_path / f"{n}.parquet") for n in range(3)], schema=schema.arrow()).to_table()
    whole = pa.concat_tables([conform(table, schema) for table in tables])
    assert read.cast(whole.schema).to_pylist() == whole.to_pylist()


def test_a_stream_that_flips_between_versions_gives_one_schema() -> None:
    flips = [b'{"v":1,"a":1}' if i % 2 else b'{"v":2,"a":"x","b":{"c":1}}' for i in range(3_000)]
    result = decoded(*flips)
    assert result.table.num_rows == 3_000
    assert decoded(*flips, schema=registered(result.schema, 1)).schema == result.schema
    assert event(result, 0) in ({"v": 2, "a": "x", "b": {"c": 1}}, {"v": 2, "a__text": '"x"', "b": {"c": 1}})
