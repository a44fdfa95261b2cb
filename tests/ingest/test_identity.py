"""Who an event says it is, and when it happened."""

from __future__ import annotations

import numpy as np
import pytest

from ingest.decode import Decoded, DecodeRules, decode
from ingest.identity import parse_path
from ingest.schema import TopicSchema
from tests.ingest.test_decode import FETCHED_US, decoded, records


def ids(result: Decoded) -> list[str | None]:
    return result.table.column("_event_id").to_pylist()


def test_an_id_is_compared_as_text_whatever_column_it_stands_in() -> None:
    values = [b'{"id":"a"}', b'{"id":5}', b'{"id":"5"}', b'{"id":5.0}', b'{"id":null}', b'{"id":""}', b"{}"]
    assert ids(decoded(*values, event_id=("id",))) == ["a", "5", "5", "5", None, None, None]


def test_several_parts_never_give_the_id_of_other_parts() -> None:
    values = [b'{"a":"x|y","b":"z"}', b'{"a":"x","b":"y|z"}', b'{"a":"x\\\\","b":"|z"}', b'{"a":"x"}']
    found = ids(decoded(*values, event_id=("a", "b")))
    assert len(set(found)) == 4
    assert found[3] is None


def test_paths_lead_into_structs_siblings_and_json_text() -> None:
    values = [b'{"m":{"id":"a"}}', b'{"m":"none"}', b'{"m":{"id":7}}', b'{"m":{"id":"a","id":"b"}}']
    assert ids(decoded(*values, event_id=("m.id",))) == ["a", None, "7", "b"]
    assert ids(decoded(*values, event_id=("m.id",), max_depth=1)) == ["a", None, "7", "b"]


def test_a_dot_of_a_name_is_escaped_in_a_path() -> None:
    assert parse_path("a.b") == ("a", "b")
    assert parse_path(r"a\.b.c") == ("a.b", "c")
    assert parse_path(r"a\\.b") == ("a\\", "b")
    with pytest.raises(ValueError, match="backslash"):
        parse_path("a\\")


def test_cloud_events_are_known_without_settings() -> None:
    body = b'{"specversion":"1.0","id":"7","source":"shop","type":"t","time":"2024-04-30T00:00:00Z"}'
    result = decoded(body, b'{"id":"7","source":"shop"}')
    assert ids(result) == ["shop|7", None]
    assert result.table.column("_time_from").to_pylist() == ["event", "record"]


def test_cloud_events_in_headers_are_known_without_settings() -> None:
    headers = [[("ce_source", b"shop"), ("ce_id", b"7"), ("ce_time", b"2024-04-30T00:00:00Z")], []]
    result = decode(records([b'{"a":1}'] * 2, headers), 0, TopicSchema(), DecodeRules(), FETCHED_US)
    assert ids(result) == ["shop|7", None]
    assert result.table.column("_time_from").to_pylist() == ["event", "record"]


def test_nakadi_events_are_known_without_settings() -> None:
    result = decoded(b'{"metadata":{"eid":"e1","occurred_at":"2024-04-30T00:00:00Z"}}')
    assert ids(result) == ["e1"]
    assert result.table.column("_time_from").to_pylist() == ["event"]


def test_the_last_header_of_a_name_counts() -> None:
    headers = [[("id", b"old"), ("id", b"new")], [("id", b"\xff")]]
    rules = DecodeRules(event_id=("header:id",))
    assert ids(decode(records([b"{}"] * 2, headers), 0, TopicSchema(), rules, FETCHED_US)) == ["new", None]


@pytest.mark.parametrize(
    "value",
    [
        '"2024-04-30T00:00:00Z"',
        '"2024-04-30T02:00:00+02:00"',
        '"2024-04-30T00:00:00"',
        '"2024-04-30"',
        '"20240430T000000Z"',
        "1714435200",
        "1714435200000",
        "1714435200000000",
        "1714435200000000000",
        "1714435200.0",
        '"1714435200"',
    ],
)
def test_a_time_is_read_however_it_is_written_alone_and_among_others(value: str) -> None:
    record = b'{"t":%s}' % value.encode()
    for around in ([], [b'{"t":"2024-04-29T00:00:00Z"}']):
        result = decoded(*around, record, event_time=("t",))
        assert result.table.column("_event_time").cast("int64").to_pylist()[-1] == 1_714_435_200_000_000


def test_a_time_too_far_ahead_is_not_believed() -> None:
    soon, later = b'{"t":%d}' % (FETCHED_US + 599_000_000), b'{"t":%d}' % (FETCHED_US + 601_000_000)
    result = decoded(soon, later, b'{"t":"soon"}', event_time=("t",))
    assert result.table.column("_time_from").to_pylist() == ["event", "record", "record"]


def test_a_timestamp_too_far_ahead_is_not_believed_either() -> None:
    far = records([b"{}"], stamp_ms=FETCHED_US // 1_000 + 601_000)
    result = decode(far, 0, TopicSchema(), DecodeRules(), FETCHED_US)
    assert result.table.column("_time_from").to_pylist() == ["fetch"]
    assert result.table.column("_event_time").cast("int64").to_pylist() == [FETCHED_US]


def test_a_record_without_a_timestamp_has_the_time_of_its_fetch() -> None:
    none = records([b"{}"])
    none.timestamps_ms[:] = np.int64(-1)
    result = decode(none, 0, TopicSchema(), DecodeRules(), FETCHED_US)
    assert result.table.column("_time_from").to_pylist() == ["fetch"]
    assert result.table.column("_timestamp").to_pylist() == [None]
