"""What workers really write goes into every warehouse: any JSON, in files of growing schemas."""

import json
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import psycopg
import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ingest.chunk import Records
from ingest.conform import conform
from ingest.decode import DecodeRules, decode
from ingest.schema import TopicSchema
from loaders.warehouse import open_warehouse
from tests.loaders.test_warehouses import Topic

PHASES = [Phase.explicit, Phase.reuse, Phase.generate]  # to shrink what is read from files would take minutes
FETCHED_US = 1_767_225_600_000_000
RULES = DecodeRules(map_keys=6, max_depth=4)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.integers(-5, 5)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6)
)
NAMES = st.sampled_from(["a", "b", "A", "a__b", "n", "_offset", "value", "x y", "e0", ""]) | st.text(
    max_size=3
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)
EVENTS = st.lists(st.dictionaries(NAMES, VALUES, max_size=5), min_size=1, max_size=6)


def tables(batches: list[list[dict[str, Any]]]) -> tuple[list[pa.Table], TopicSchema]:
    """Each batch as a worker would write it, with the schema that was known then; and the newest schema."""
    schema, made, offset = TopicSchema(), [], 0
    for batch in batches:
        values: list[bytes | None] = [json.dumps(event).encode() for event in batch]
        stamps = np.full(len(values), FETCHED_US // 1000, np.int64)
        records = Records(np.arange(offset, offset + len(values)), stamps, [b"k"] * len(values), values, None)
        result = decode(records, 0, schema, RULES, FETCHED_US)
        assert result.dead.num_rows == 0
        # Registered after each batch: a type that files have stays.
        schema = TopicSchema.from_json(result.schema.to_json() | {"version": schema.version + 1})
        offset += len(values)
        made.append(result.table)
    return made, schema


def plain(value: Any) -> Any:
    """With floats that compare, and empty values as the two sides agree on them."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list) else value


@pytest.mark.slow
@settings(max_examples=20, deadline=None, phases=PHASES)
@given(st.lists(EVENTS, min_size=1, max_size=3))
def test_duckdb_has_what_the_files_have_in_the_columns_of_the_newest_schema(batches: list[Any]) -> None:
    made, schema = tables(batches)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        topic = Topic(open_warehouse(f"duckdb:///{folder}/w.duckdb", "dwh"), folder)
        for table in made:
            topic.append(table)
        wanted = pa.concat_tables([conform(table, schema) for table in made])
        with duckdb.connect(f"{folder}/w.duckdb") as connection:
            found = connection.execute('SELECT * FROM "orders" ORDER BY "_offset"').to_arrow_table()
    events = [
        each
        for each in wanted.schema.names
        if not each.startswith("_") or each not in found.schema.names[:11]
    ]
    assert set(events) <= set(found.schema.names) | {"__text"}
    for column in events:
        assert plain(found.column(column).to_pylist()) == plain(wanted.column(column).to_pylist()), column


@pytest.mark.slow
@settings(max_examples=20, deadline=None, phases=PHASES)
@given(batches=st.lists(EVENTS, min_size=1, max_size=3), unnest=st.booleans())
def test_postgresql_takes_every_row(batches: list[Any], unnest: bool, loaded_into: str) -> None:
    made, _ = tables(batches)
    with psycopg.connect(loaded_into, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    with tempfile.TemporaryDirectory() as name:
        topic = Topic(open_warehouse(loaded_into, "dwh", unnest=unnest), Path(name))
        for table in made:
            topic.append(table)
        topic.warehouse.close()
    with psycopg.connect(loaded_into) as connection:
        found = connection.execute('SELECT "_offset" FROM "orders" ORDER BY 1').fetchall()
    assert found == [(offset,) for offset in range(sum(map(len, batches)))]


@pytest.fixture(scope="module")
def loaded_into(request: pytest.FixtureRequest) -> str:
    """A database that every example empties."""
    server = request.getfixturevalue("postgres")
    return str(server.url(server.create())).replace("+psycopg", "")
