"""Merging: every row once, in order, duplicates by the rule, types and sequences kept, files of one period each."""

from __future__ import annotations

import datetime
import decimal
import json
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.schema import TopicSchema
from ingest.times import EARLIEST, LATEST
from ingest.upkeep.merge import Merge, Source
from ingest.upkeep.rolling import Merged
from ingest.upkeep.seal import conformed
from tests.ingest.rows import table
from tests.ingest.test_conform import grown

HOUR = 3_600_000_000
MEMORY = 256 << 20

Row = tuple[int, str | None]  # event time, id


def written(
    folder: Path, files: Sequence[Sequence[Row]]
) -> tuple[list[Path], dict[int, tuple[int, str | None, int]]]:
    """Files of rows; offsets go on over all files. Returns also offset -> (time, id, number of the file)."""
    paths, world, offset = [], {}, 0
    for number, rows in enumerate(files):
        offsets = range(offset, offset + len(rows))
        offset += len(rows)
        path = folder / f"source-{number}.parquet"
        pq.write_table(table(0, offsets, [time for time, _ in rows], [name for _, name in rows]), path)
        paths.append(path)
        world |= {at: (time, name, number) for at, (time, name) in zip(offsets, rows, strict=True)}
    return paths, world


def merged(
    folder: Path, sources: list[Source], sealed_periods: Sequence[int] = (), file_bytes: int = 1 << 30
):  # type: ignore[no-untyped-def]
    merge = Merge(folder, sources, TopicSchema().arrow(), memory=MEMORY, threads=1)
    try:
        found = merge.find_duplicates()
        dropped = [offset for batch in merge.duplicates() for offset in batch["_offset"].to_pylist()]
        assert len(dropped) == found.total()
        files = list(
            merge.write(
                "out",
                {"kind": "replace"},
                period_us=HOUR,
                sealed_periods=sealed_periods,
                file_bytes=file_bytes,
            )
        )
    finally:
        merge.close()
    return dropped, files


def offsets(file: Merged) -> list[int]:
    return list(pq.read_table(file.path, columns=["_offset"]).column(0).to_pylist())


rows = st.lists(
    st.tuples(st.integers(-HOUR, 2 * HOUR - 1), st.one_of(st.none(), st.sampled_from("abcdef"))),
    min_size=1,
    max_size=12,
)


@given(st.lists(rows, min_size=1, max_size=4), st.sets(st.sampled_from([-HOUR, 0, HOUR])))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_row_is_kept_once_and_only_twins_leave(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[Row]], sealed: set[int]
) -> None:
    folder = tmp_path_factory.mktemp("merge")
    paths, world = written(folder, files)
    sources = [Source(path, 10 + number, sealed=False) for number, path in enumerate(paths)]
    dropped, out = merged(folder, sources, sorted(sealed))
    gone = set(dropped)
    assert sorted(offset for file in out for offset in offsets(file)) == sorted(set(world) - gone)
    best: dict[str, tuple[int, int]] = {}
    for offset, (time, name, _) in world.items():
        if name is not None:
            best[name] = min(best.get(name, (time, offset)), (time, offset))
    assert gone == {
        at for at, (time, name, _) in world.items() if name is not None and (time, at) != best[name]
    }
    for file in out:
        content = pq.read_table(file.path)
        times = content.column("_event_time").cast(pa.int64()).to_pylist()
        order = list(zip(times, content.column("_offset").to_pylist(), strict=True))
        assert order == sorted(order)
        expected = [10 + world[offset][2] for offset in offsets(file)]
        assert content.column("_sequence").to_pylist() == expected
        periods = {time // HOUR * HOUR for time in times}
        assert periods == {file.period_us} if file.period_us is not None else not periods & sealed
        assert (file.rows, sum(file.periods.values())) == (len(times), len(times))
        assert (file.lowest_us, file.highest_us) == (min(times), max(times))


def test_the_sealed_copy_stays_and_what_is_only_compared_never_leaves(tmp_path: Path) -> None:
    paths, _ = written(tmp_path, [[(5, "a"), (9, "b")], [(1, "a"), (2, "c")], [(0, "c"), (7, "d")]])
    sources = [
        Source(paths[0], 1, sealed=True, drops=False),
        Source(paths[1], 2, sealed=False),
        Source(paths[2], 3, sealed=True),
    ]
    dropped, out = merged(tmp_path, sources, [0])
    assert dropped == [2, 3]
    assert [offsets(file) for file in out] == [[4, 5]]


def test_nothing_comes_of_files_that_are_only_compared(tmp_path: Path) -> None:
    """A period that was reopened by a row which has left since is sealed again by looking at it."""
    paths, _ = written(tmp_path, [[(5, "a"), (9, "b")], [(5, "a")]])
    sources = [Source(path, 1, sealed=True, drops=False) for path in paths]
    assert merged(tmp_path, sources, [0]) == ([], [])


@pytest.mark.parametrize("time", [EARLIEST, -HOUR - 1, -HOUR, -1, 0, LATEST])
def test_an_event_may_have_any_time(tmp_path: Path, time: int) -> None:
    paths, _ = written(tmp_path, [[(5 * HOUR, "a")], [(time, "b")]])
    sources = [Source(path, 1, sealed=False) for path in paths]
    period = time // HOUR * HOUR
    _, out = merged(tmp_path, sources, [period])
    assert [(file.period_us, file.periods) for file in out] == [
        (period, {period: 1}),
        (None, {5 * HOUR: 1}),
    ]


def test_a_column_may_have_any_name(tmp_path: Path) -> None:
    """Also those that the queries of a merge might use for themselves."""
    folder = tmp_path / "of=a tenant"
    folder.mkdir()
    paths, _ = written(folder, [[(5, "a"), (9, "b")], [(7, "a"), (3, None)]])
    names = [
        "filename",
        "sequence",
        "sealed",
        "drops",
        "rows",
        "period",
        "place",
        "id_hash",
        "source",
        "known",
        "start",
        "of",
    ]
    for path in paths:
        rows = pq.read_table(path)
        for name in names:
            rows = rows.append_column(name, pa.array([f"{name} {at}" for at in rows["_offset"].to_pylist()]))
        pq.write_table(rows, path)
    merge = Merge(
        folder,
        [Source(path, 1 + number, sealed=False) for number, path in enumerate(paths)],
        pq.read_schema(paths[0]),
        memory=MEMORY,
        threads=1,
    )
    assert merge.find_duplicates() == {0: 1}
    [file] = merge.write("out", {}, period_us=HOUR, sealed_periods=[0], file_bytes=1 << 30)
    merge.close()
    found = pq.read_table(file.path)
    assert found["_offset"].to_pylist() == [3, 0, 1]
    assert found["_sequence"].to_pylist() == [2, 1, 1]
    for name in names:
        assert found[name].to_pylist() == [f"{name} {at}" for at in (3, 0, 1)]


def test_rows_are_sorted_by_the_columns_that_the_operator_names(tmp_path: Path) -> None:
    paths, _ = written(tmp_path, [[(1, "b"), (2, "a"), (HOUR, "a")], [(3, "c"), (4, None)]])
    merge = Merge(
        tmp_path,
        [Source(path, 1, sealed=False) for path in paths],
        TopicSchema().arrow(),
        memory=MEMORY,
        threads=1,
    )
    merge.find_duplicates()
    files = list(
        merge.write(
            "out", {}, period_us=HOUR, sealed_periods=[0, HOUR], file_bytes=1 << 30, order_by=["_event_id"]
        )
    )
    merge.close()
    assert [pq.read_table(file.path).column("_event_id").to_pylist() for file in files] == [
        ["a", "b", "c", None]
    ]


def test_a_sequence_that_a_row_has_already_is_kept(tmp_path: Path) -> None:
    paths, _ = written(tmp_path, [[(1, None)], [(2, None)]])
    old = pq.read_table(paths[0])
    pq.write_table(old.append_column("_sequence", pa.array([7], pa.int64())), paths[0])
    _, out = merged(tmp_path, [Source(paths[0], 50, sealed=True), Source(paths[1], 51, sealed=False)], [0])
    assert pq.read_table(out[0].path).column("_sequence").to_pylist() == [7, 51]


def test_files_end_at_the_size_asked_for_and_say_what_they_are_part_of(tmp_path: Path) -> None:
    paths, _ = written(tmp_path, [[(number, f"id-{number}") for number in range(1000)]])
    _, out = merged(tmp_path, [Source(paths[0], 1, sealed=False)], [0], file_bytes=1)
    assert all(
        json.loads(pq.read_metadata(file.path).metadata[b"tukang"]) == {"kind": "replace"} for file in out
    )
    assert sum(file.rows for file in out) == 1000
    assert all(file.bytes == file.path.stat().st_size for file in out)


def test_ids_have_a_bloom_filter_that_is_no_larger_than_they_need(tmp_path: Path) -> None:
    sizes = {}
    for count in (10, 20_000):
        paths, _ = written(tmp_path, [[(number, f"id-{number:09}") for number in range(count)]])
        _, [file] = merged(tmp_path, [Source(paths[0], 1, sealed=False)], [0])
        sizes[count] = file.bytes
        # Only what the filter cannot exclude is read.
        with duckdb.connect() as connection:
            query = f"SELECT bloom_filter_excludes FROM parquet_bloom_probe('{file.path}', '_event_id', ?)"
            for name, excluded in (("id-000000005", False), ("id-00000000x", True)):
                assert connection.execute(query, [name]).fetchall() == [(excluded,)]
    assert sizes[10] < 10_000
    without, _ = written(tmp_path, [[(number, None) for number in range(10)]])
    _, [file] = merged(tmp_path, [Source(without[0], 1, sealed=False)], [0])
    with duckdb.connect() as connection:
        offsets = f"SELECT bloom_filter_offset FROM parquet_metadata('{file.path}')"
        assert set(connection.execute(offsets).fetchall()) == {(None,)}


def test_types_are_kept_exactly(tmp_path: Path) -> None:
    base = table(0, [0, 1], [1, 2])
    more = {
        "s": pa.array([{"a": 1, "b": ["x", None]}, None]),
        "l": pa.array([[{"k": True}], []]),
        "d": pa.array([decimal.Decimal("1.10"), None], pa.decimal128(12, 2)),
        "day": pa.array([datetime.date(2026, 1, 1), None]),
        "t": pa.array([1, None], pa.timestamp("us", "UTC")),
        "big": pa.array([2**63 - 1, -(2**63)]),
        "f": pa.array([0.1, 1e308]),
        'Ünï c.ode "q"': pa.array(["a", "b"]),
    }
    whole = base
    for name, array in more.items():
        whole = whole.append_column(name, array)
    headers = pa.array([[{"key": "k", "value": b"\xff"}], None], base.schema.field("_headers").type)
    whole = whole.set_column(whole.schema.get_field_index("_headers"), "_headers", headers)
    path = tmp_path / "typed.parquet"
    pq.write_table(whole, path)
    merge = Merge(tmp_path, [Source(path, 1, sealed=False)], whole.schema, memory=MEMORY, threads=1)
    merge.find_duplicates()
    (file,) = merge.write("typed-out", {}, period_us=HOUR, sealed_periods=[0], file_bytes=1 << 30)
    merge.close()
    assert pq.read_table(file.path).drop_columns(["_sequence"]).equals(whole)


def test_rows_of_an_older_schema_are_sealed_with_the_newest_one(tmp_path: Path) -> None:
    (old, new), schema = grown([b'{"a":1}', b'{"a":9007199254740993}'], [b'{"a":1.5,"b":"x"}'])
    sources = []
    for number, rows in enumerate((old, new)):
        path = tmp_path / f"source-{number}.parquet"
        pq.write_table(rows, path)
        sources.append(Source(conformed(path, schema), number, sealed=False))
    merge = Merge(tmp_path, sources, schema.arrow(), memory=MEMORY, threads=1)
    merge.find_duplicates()
    day_us = 24 * HOUR
    starts = {
        each // day_us * day_us
        for rows in (old, new)
        for each in rows["_event_time"].cast(pa.int64()).to_pylist()
    }
    [file] = merge.write("out", {}, period_us=day_us, sealed_periods=sorted(starts), file_bytes=1 << 30)
    merge.close()
    sealed = pq.read_table(file.path)
    found = {tuple(row.values()) for row in sealed.select(["a", "a__text", "b"]).to_pylist()}
    assert found == {(1.0, None, None), (None, "9007199254740993", None), (1.5, None, "x")}
    assert sealed.drop_columns(["_sequence"]).schema.equals(schema.arrow())
