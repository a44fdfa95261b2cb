"""Erasing for real: columns, siblings, JSON text, dead letters; the rule, the record, and the proof."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from ingest.upkeep.erasing import NotFinished, erase_now, verify_erased, wanted_of
from ingest.upkeep.matching import Wanted, WhereWrong, hits, may_hold, not_a_column, parse_where
from ingest.upkeep.rebuilding import kept_in_lake
from tests.ingest.rows import table
from tests.ingest.small_lake import NOON_US, SmallLake, dead_rows, small_lake
from tests.stack.store import Bucket


@pytest.fixture
def lake(tmp_path: Path, bucket: Bucket) -> Iterator[SmallLake]:
    with small_lake(tmp_path, None, bucket) as made:
        yield made


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("customer_id = 42", ("customer_id",), "42"),
        ("customer.name='O''Hara'", ("customer", "name"), "O'Hara"),
        ("a=b", ("a",), "b"),
    ],
)
def test_where_is_a_field_and_a_value(text: str, path: tuple[str, ...], value: str) -> None:
    assert parse_where(text) == Wanted(path, (value,))


@pytest.mark.parametrize("text", ["", "a", "a = ", "a = 1 OR b = 2", "a > 1"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(WhereWrong):
        parse_where(text)


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("flight.carrier", None),
        ("_key", None),
        ("carrier", "did you mean flight.carrier?"),
        ("flight.carier", "did you mean flight.carrier?"),
        ("customer", "only text and dead letters are searched"),
    ],
)
def test_a_field_that_is_no_column_is_told_with_the_one_that_may_be_meant(
    field: str, said: str | None
) -> None:
    flight = {"struct": [{"column": "carrier", "type": "string"}, {"column": "number", "type": "integer"}]}
    columns = [{"column": "id", "type": "string"}, {"column": "flight", "type": flight}]
    told = not_a_column(columns, Wanted(tuple(field.split(".")), ("x",)))
    assert said is None if told is None else said is not None and said in told


def found(array: pa.Array, name: str, wanted: Wanted) -> list[int]:
    mask = hits(pa.table({name: array}), wanted).to_pylist()
    return [number for number, hit in enumerate(mask) if hit]


def test_a_value_is_found_wherever_the_event_was_kept() -> None:
    wanted = Wanted(("customer", "id"), ("42", 'é"x'))
    number = pa.array([{"id": 42}, {"id": 420}, None, {"id": None}])
    assert found(number, "customer", wanted) == [0]
    assert found(pa.array([{"id": "42"}, {"id": 'é"x'}, {"id": "4"}]), "customer", wanted) == [0, 1]
    siblings = [{"id__text": '"42"'}, {"id__text": "42"}, {"id__text": "[42]"}, {"name": "42"}]
    assert found(pa.array(siblings), "customer", wanted) == [0, 1]
    texts = [
        '{"id": 42}',
        '{"a":{"id" : "42"}}',
        '{"id": 420}',
        '{"id":142}',
        '{"xid":42}',
        None,
        '{"id":"é\\"x"}',
    ]
    assert found(pa.array(texts), "anything", wanted) == [0, 1, 6]
    lists = pa.array([[], [{"t": "x"}, {"t": '{"id":42}'}], None, [{"t": '{"id":42}'}]])
    assert found(lists, "things", wanted) == [1, 3]
    dead = pa.array([b'{"id": 42', b"\xff", b'\xff{"id":42,', b'{"id": 42000', b'"id":"\xc3\xa9\\"x"'])
    assert found(dead, "_value", wanted) == [0, 2, 4]


def test_a_value_is_found_in_keys_headers_and_bytes_that_are_no_json() -> None:
    wanted = Wanted(("customer", "id"), ("42", "a.b@c"))
    keys = pa.array([b"42", b"customer-42", b"420", b"x42", None, b"\xff:42;", b"a.b@c", b"aXb@c"])
    assert found(keys, "_key", wanted) == [0, 1, 5, 6]
    headers = pa.array(
        [[], [("who", b"42")], None, [("a", b"1"), ("b", b"id=42")], [("who", b"421")]],
        pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())])),
    )
    assert found(headers, "_headers", wanted) == [1, 3]
    letters = pa.table(
        {
            "_value": [b"7;42;x", b"7;42;x", b'{"id": 43, "n": 42', b"742", b"\xff42\xff"],
            "_reason": ["not_json", "too_large", "not_json", "not_json", "not_utf8"],
        }
    )
    assert hits(letters, wanted).to_pylist() == [True, False, False, False, True]


def test_a_key_or_a_header_is_a_field_whose_whole_value_counts() -> None:
    keys = pa.array([b"42", b"customer-42", b"\xff", None, b"a.b@c", b""])
    for text, rows in (("_key = 42", [0]), ("_key = customer-42", [1]), ("_key = a.b@c", [4])):
        assert found(keys, "_key", parse_where(text)) == rows
    assert found(pa.array(["42", '{"_key": 42}']), "text", parse_where("_key = 42")) == [], "only the key"
    headers = pa.array(
        [[("who", b"42"), ("x", None)], None, [], [("a", b"42"), ("who", b"4")], [("a.b", b"42")], [("who", b"x42")]],
        pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())])),
    )  # fmt: skip
    for text, rows in (("_headers.who = 42", [0]), ("_headers = 42", [0, 3, 4]), ("_headers.a.b = 42", [4])):
        assert found(headers, "_headers", parse_where(text)) == rows
        assert found(headers.slice(3), "_headers", parse_where(text)) == [row - 3 for row in rows if row >= 3]


@given(
    st.lists(st.none() | st.binary(max_size=3), min_size=1, max_size=10),
    st.sets(st.text(max_size=2), min_size=1),
)
def test_statistics_never_spare_a_file_that_has_a_key(keys: list[bytes | None], values: set[str]) -> None:
    wanted = Wanted(("_key",), tuple(values))
    sink = io.BytesIO()
    pq.write_table(pa.table({"_key": pa.array(keys, pa.binary()), "n": pa.array(range(len(keys)))}), sink)
    metadata = pq.read_metadata(sink)
    has = any(key is not None and key in {value.encode() for value in values} for key in keys)
    assert may_hold(metadata, metadata.schema.to_arrow_schema(), wanted) >= has


def test_statistics_spare_a_file_with_other_keys(tmp_path: Path) -> None:
    pq.write_table(pa.table({"_key": pa.array([b"b", b"d"]), "n": [1, 2]}), tmp_path / "file.parquet")
    metadata = pq.read_metadata(tmp_path / "file.parquet")
    may = [
        may_hold(metadata, metadata.schema.to_arrow_schema(), Wanted(("_key",), (key,))) for key in "abcde"
    ]
    assert may == [False, True, True, True, False]


def test_statistics_spare_files_without_keys(tmp_path: Path) -> None:
    wanted = Wanted(("n",), ("42",))
    for key, n, may in ((None, 1, False), (b"k", 1, True), (None, 42, True)):
        columns = {"_key": pa.array([key], pa.binary()), "n": pa.array([n])}
        pq.write_table(pa.table(columns), tmp_path / "file.parquet")
        metadata = pq.read_metadata(tmp_path / "file.parquet")
        assert may_hold(metadata, metadata.schema.to_arrow_schema(), wanted) == may


def test_a_sibling_of_the_field_itself_holds_the_value_alone() -> None:
    wanted = Wanted(("id",), ("42",))
    assert found(pa.array(['"42"', "42", "[42]", "420"]), "id__text", wanted) == [0, 1]


@given(
    st.lists(st.none() | st.integers(-50, 50), max_size=20),
    st.sets(st.integers(-50, 50), min_size=1, max_size=3),
)
def test_of_a_column_of_integers_exactly_the_rows_with_a_value(
    rows: list[int | None], values: set[int]
) -> None:
    wanted = Wanted(("n",), tuple(map(str, values)))
    assert found(pa.array(rows, pa.int64()), "n", wanted) == [
        at for at, row in enumerate(rows) if row in values
    ]


def events(lake: SmallLake, partition: int, customers: list[int], dead: list[bytes]) -> None:
    """One commit: rows with a customer each, who is their key too, and dead letters, whose key is their bytes."""
    line = lake.next_line(
        partition, len(customers) + len(dead), written=len(customers), dead_letters=len(dead)
    )
    offsets = range(line.from_offset, line.from_offset + len(customers))
    made = table(
        partition, offsets, [NOON_US + each for each in offsets], [f"{partition}-{each}" for each in offsets]
    )
    made = made.append_column("customer", pa.array(customers, pa.int64()))
    keys = pa.array([str(each).encode() for each in customers], pa.binary())
    made = made.set_column(made.schema.get_field_index("_key"), "_key", keys)
    letters = dead_rows(partition, range(offsets.stop, line.to_offset))
    for name in ("_value", "_key"):
        letters = letters.append_column(name, pa.array(dead, pa.binary()))
    lake.publish([line], made, dead=letters if dead else None)


def erase(lake: SmallLake, where: str, *, dry: bool = False, wait_s: float = 5) -> list[str]:
    return asyncio.run(erase_now(lake.settings, lake.topic, parse_where(where), dry=dry, wait_s=wait_s))


def left(lake: SmallLake) -> list[int]:
    found = []
    for file in lake.files():
        found += pq.read_table(io.BytesIO(lake.read(file))).column("customer").to_pylist()
    return sorted(found)


@pytest.mark.slow
def test_an_erasure_takes_the_rows_and_nothing_else_and_says_so_signed(lake: SmallLake) -> None:
    column = {"name": "customer", "column": "customer", "type": "integer", "reason": None, "first": None}
    lake.http.post(
        f"/topics/{lake.topic}/schemas", json={"base_version": 0, "columns": [column]}
    ).raise_for_status()
    events(lake, 0, [42, 1, 2, 42], [b'{"customer": 42', b"nothing"])
    events(lake, 1, [3, 4], [])
    events(lake, 1, [42], [])
    lake.http.put("/loaders/dwh", json={"topics": ["orders"]}).raise_for_status()
    assert "3 rows and 1 dead letters in 3 files" in erase(lake, "customer = 42", dry=True)[0]
    assert left(lake) == [1, 2, 3, 4, 42, 42, 42], "a dry run changes nothing"
    untouched = [file["url"] for file in lake.files() if file["rows"] == 2]

    said = erase(lake, "customer = 42")
    assert left(lake) == [1, 2, 3, 4]
    assert untouched[0] in [file["url"] for file in lake.files()], "a file without hits stays"
    assert [file["rows"] for file in lake.files("dead_letters")] == [1]
    commit = lake.commits()[-1]
    assert commit["kind"] == "erase"
    assert [file["rows"] for file in commit["add"] if file["what"] == "deletes"] == [3]
    told = json.loads(said[-1])
    assert (told["record"]["rows"], told["record"]["dead_letters"]) == (3, 1)
    assert [each["name"] for each in told["record"]["loaders"]] == ["dwh"]
    signed = json.dumps(told["record"], sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    public_key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(told["public_key"]))
    public_key.verify(bytes.fromhex(told["signature"]), signed)
    with pytest.raises(InvalidSignature):
        public_key.verify(bytes.fromhex(told["signature"]), signed.replace(b'"rows":3', b'"rows":2'))
    stored = lake.http.get(f"/topics/{lake.topic}/erasures").json()["erasures"]
    assert stored[0]["record"] == told["record"]
    audit = lake.http.get("/audit", params={"action": "create_erasure"}).text
    assert "value_hash" in audit
    assert "42" not in json.dumps(json.loads(audit)["audit"][0]["after"]["values"])

    [kept] = [each for each in kept_in_lake(lake.settings) if each["topic"] == lake.topic]
    [copied] = kept["state"]["erasures"]
    assert copied["record"] == told["record"], "the lake's copy has the record, for a rebuild"
    assert kept["state"]["topic"]["rule_version"] == 1

    lines, code = verify_erased(lake.settings, lake.topic, "customer = 42")
    assert code == 1, "the old objects are still there until the sweep"
    for file in [url.removesuffix(" holds it") for url in lines[:-1]]:
        lake.bucket.client().delete_object(
            Bucket=lake.bucket.name, Key=file.removeprefix(f"s3://{lake.bucket.name}/")
        )
    assert verify_erased(lake.settings, lake.topic, "customer = 42")[1] == 0
    assert verify_erased(lake.settings, lake.topic, "customer = 3")[1] == 1


@pytest.mark.slow
def test_keys_of_a_file_are_erased_from_rows_and_dead_letters(lake: SmallLake, tmp_path: Path) -> None:
    events(lake, 0, [42, 1, 43], [b"42", b"420", b"x 43"])
    events(lake, 1, [420, 43], [])
    (tmp_path / "keys").write_text("42\n43\n44\n")
    wanted = wanted_of(None, "_key", tmp_path / "keys")
    said = asyncio.run(erase_now(lake.settings, lake.topic, wanted, dry=False, wait_s=5))
    assert (json.loads(said[-1])["record"]["rows"], json.loads(said[-1])["record"]["dead_letters"]) == (3, 1)
    assert left(lake) == [1, 420]
    [letters] = [pq.read_table(io.BytesIO(lake.read(file))) for file in lake.files("dead_letters")]
    assert letters.column("_key").to_pylist() == [b"420", b"x 43"]


def test_an_append_made_before_the_rule_is_refused(lake: SmallLake) -> None:
    lake.append((0, 3))
    lake.http.post(
        f"/topics/{lake.topic}/erasures", json={"field": "customer", "values": ["42"]}
    ).raise_for_status()
    with pytest.raises(AssertionError, match="rule-version-old"):
        lake.append((0, 1))


def test_it_does_not_end_while_a_row_of_before_is_held_back(lake: SmallLake) -> None:
    lake.append((0, 5), carry=2)
    with pytest.raises(NotFinished, match="not in the lake yet"):
        erase(lake, "n = 42", wait_s=0)


def test_values_come_from_a_file_too(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("42\n43\n\n42\n")
    assert wanted_of(None, "customer.id", keys) == Wanted(("customer", "id"), ("42", "43"))
    with pytest.raises(WhereWrong):
        wanted_of("a = 1", "a", keys)
