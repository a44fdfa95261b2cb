"""Dead letters after they were kept: which are meant, how they are shown, and what becomes of them when read again."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ingest.chunk import Records
from ingest.decode import DecodeRules, decode
from ingest.letters import show
from ingest.letters.again import Again, alive_mask, decoded, judged
from ingest.letters.command import wanted_of
from ingest.letters.find import Wanted, offsets_of
from ingest.schema import TopicSchema
from ingest.settings import Settings
from ingest.topic_settings import TopicSettings, topic_settings

SECOND = 1_000_000
NOW_US = 1_767_225_600 * SECOND


def letters(*values: bytes | None, lake_partition: int = 0, limit: int = 10) -> pa.Table:
    """What a topic that takes no tombstones and no records of more than `limit` bytes keeps of them, one a second."""
    count = len(values)
    stamps = NOW_US // 1_000 + 1_000 * np.arange(count)
    headers = [(("h", b"1"),) if i == 0 else () for i in range(count)]
    records = Records(np.arange(100, 100 + count), stamps, [b"k"] * count, list(values), headers)
    rules = DecodeRules(max_record_bytes=limit, tombstones="dead_letter")
    return decode(records, lake_partition, TopicSchema(), rules, NOW_US + 3600 * SECOND).dead


def told(**values: object) -> TopicSettings:
    settings = {"event_id": ["id"], "event_time": ["at"], **values}
    return topic_settings(1, settings, [], Settings(broker="b:1", bucket="lake", api="http://127.0.0.1:1"))


def event(number: int, second: int = 0) -> bytes:
    return b'{"id":"e%d","at":%d}' % (number, NOW_US // SECOND + second)


@pytest.mark.parametrize(
    ("wanted", "offsets"),
    [
        (Wanted(), [100, 101, 102, 103]),
        (Wanted(frozenset({"not_json", "no_value"})), [100, 102]),
        (Wanted(start_us=NOW_US + SECOND, end_us=NOW_US + 3 * SECOND), [101, 102]),
        (Wanted(first=101, last=102), [101, 102]),
        (Wanted(last=100), [100]),
        (Wanted(lake_partition=1), []),
    ],
)
def test_letters_are_chosen_by_reason_time_offset_and_lake_partition(
    wanted: Wanted, offsets: list[int]
) -> None:
    table = letters(b"{", event(1), None, b"\xff")
    assert table.filter(pa.array(wanted.mask(table))).column("_offset").to_pylist() == offsets


def test_what_no_option_can_mean_is_refused_with_what_can() -> None:
    assert [offsets_of(text) for text in (None, "7", "7-9", "7-", "-9")] == [
        (None, None), (7, 7), (7, 9), (7, None), (None, 9),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="17-40"):
        offsets_of("seven")
    with pytest.raises(ValueError, match="write 3-9"):
        offsets_of("9-3")
    with pytest.raises(ValueError, match="too_large"):
        Wanted(frozenset({"bad"}))
    with pytest.raises(ValueError, match="'yesterday' is no time"):
        wanted_of((), "yesterday", None, None, None)
    with pytest.raises(ValueError, match="nothing lies between"):
        wanted_of((), "2026-01-02", "2026-01-01", None, None)


def test_a_list_is_cut_at_its_limit_and_a_letter_is_shown_with_what_a_terminal_may_see() -> None:
    table = letters(b"{\x1b[31m", b"\xff", b"[1]")
    out = io.StringIO()
    show.listed([table.slice(0, 1), table.slice(1)], 2, "table", out)
    assert "not_utf8" in out.getvalue()
    assert "more than 2" in out.getvalue()
    assert "not_object" not in out.getvalue()
    out = io.StringIO()
    show.listed([table], 3, "json", out)
    assert [each["reason"] for each in json.loads(out.getvalue())] == ["not_json", "not_utf8", "not_object"]
    out = io.StringIO()
    show.whole(table.to_pylist()[0], out)
    assert "\x1b" not in out.getvalue()
    assert "header h: 1" in out.getvalue()


def test_exports_hold_the_very_bytes(tmp_path: Path) -> None:
    values = [b"{", b"\xff\x00", None]
    table = letters(*values)
    assert show.exported([table], tmp_path, "ndjson") == 3
    lines = [json.loads(line) for line in (tmp_path / "letters.ndjson").read_text().splitlines()]
    kept = [
        base64.b64decode(line["value_base64"]) if "value_base64" in line else line["value"] for line in lines
    ]
    assert kept == ["{", b"\xff\x00", None]
    assert show.exported([table], tmp_path / "raw", "raw") == 3
    assert [file.read_bytes() for file in sorted((tmp_path / "raw").iterdir())] == [b"{", b"\xff\x00", b""]


def again(
    table: pa.Table, settings: TopicSettings, known: Callable[..., pa.Table], watermark_us: int | None = None
) -> Again:
    parts, schema = {}, TopicSchema()
    for number, part in decoded(table, TopicSchema(), settings):
        parts[number], schema = part, part.schema
    return judged(parts, schema, settings, {0: watermark_us}, known)


def nothing(ids: pa.Array, between: object) -> pa.Table:
    return lake()


def lake(*rows: tuple[int, str, int]) -> pa.Table:
    """Rows of the lake as (lake partition, id, second)."""
    schema = TopicSchema().arrow()
    columns = {
        "_lake_partition": [row[0] for row in rows],
        "_event_id": [row[1] for row in rows],
        "_event_time": [NOW_US + row[2] * SECOND for row in rows],
        "_time_from": ["event"] * len(rows),
    }
    return pa.table([pa.array(columns[n], schema.field(n).type) for n in columns], names=list(columns))


def test_letters_that_are_events_now_go_through_dedup_and_order() -> None:
    table = letters(event(3, 30), event(1, 10), event(1, 10), b"{", event(2, 20), None)
    asked = []

    def known(ids: pa.Array, between: tuple[int, int] | None) -> pa.Table:
        asked.append((sorted(ids.to_pylist()), between))
        return lake((0, "e2", 25), (1, "e3", 30), (0, "e1", 10 + 7200))

    settings = told(tombstones="row")
    found = again(table, settings, known, watermark_us=NOW_US + 20 * SECOND)
    # The tombstone's time is its record's; e2 has a twin, e3 only one in another lake partition, e1 one too far away.
    assert found.rows.column("_offset").to_pylist() == [105, 101, 100]
    assert found.rows.column("_late").to_pylist() == [True, True, False]
    assert found.duplicates == {0: 2}
    assert found.came_alive.column("_offset").to_pylist() == [100, 101, 102, 104, 105]
    assert alive_mask(table, found.came_alive).tolist() == [True, True, True, False, True, True]
    window = settings.dedup_window_us
    assert asked == [(["e1", "e2", "e3"], (NOW_US + 10 * SECOND - window, NOW_US + 30 * SECOND + window))]
    row = found.rows.to_pylist()[2]
    assert (row["_headers"], row["_key"]) == ([{"key": "h", "value": b"1"}], b"k")


def test_a_letter_is_believed_as_it_was_when_it_was_read_first() -> None:
    table = letters(b'{"id":"a","at":"2027-01-01T00:00:00Z"}')
    found = again(table, told(), nothing)
    assert found.rows.column("_time_from").to_pylist() == ["record"]


def test_letters_of_which_none_is_an_event_stay_where_they_are() -> None:
    table = letters(b"{", b"[]")
    found = again(table, told(), nothing)
    assert found.rows.num_rows == 0
    assert not alive_mask(table, found.came_alive).any()
