"""The seam by content type: another format beside JSON is one function, and every other step takes what it gives."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from ingest import reading
from ingest.chunk import Records
from ingest.declared import Declared
from ingest.learn import Limits
from ingest.reading import Indexes, Parsed, read_json
from ingest.schema import TopicSchema
from tests.ingest.test_decode import decoded, event


def read_base64(
    records: Records,
    events: Indexes,
    sizes: Indexes,
    lake_partition: int,
    schema: TopicSchema,
    limits: Limits,
    declared: Declared,
) -> Parsed:
    """A format of its own: JSON in base64. (No format beside JSON is built in yet.)"""
    plain = [base64.b64decode(value) if value else value for value in records.values]
    sizes[:] = [-1 if value is None else len(value) for value in plain]
    inner = replace(records, values=plain)
    parsed = read_json(inner, events, sizes, lake_partition, schema, limits, declared)
    return replace(parsed, event=lambda record: parsed.event(base64.b64decode(record)))


def test_a_format_of_another_content_type_goes_through_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(reading.READERS, "base64", read_base64)  # type: ignore[arg-type]
    plain = [b'{"id":1,"at":"2024-05-01T10:00:00Z"}', b'{"id":{"x":"in text"},"at":"n/a"}', b"rubbish"]
    records = [base64.b64encode(value) for value in plain]
    rules = {"event_id": ("id.x",), "event_time": ("at",), "map_keys": 1}
    there = decoded(*records, None, content_type="base64", **rules)
    here = decoded(*plain, None, **rules)
    assert there.table.equals(here.table)
    assert there.table.column("_event_id").to_pylist() == [None, "in text", None]
    assert event(there)["id"] == 1
    assert there.dead.column("_reason").to_pylist() == here.dead.column("_reason").to_pylist() == ["not_json"]
    assert there.dead.column("_value").to_pylist() == [records[2]]
