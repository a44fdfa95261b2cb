"""`tukang verify` against a real broker, store and API: one test for each damage, planted by hand."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ingest.position import no_offsets
from ingest.verify import verify
from tests.ingest.small_lake import NOON_US, SmallLake, reencoded, rows, sha256
from tests.ingest.verify.conftest import Check, codes, documented

pytestmark = pytest.mark.slow


def test_the_page_names_only_codes_that_exist() -> None:
    package = Path(__file__).parents[3] / "ingest" / "verify"
    source = "".join(each.read_text() for each in package.glob("*.py"))
    assert not [code for code in documented() if f'"{code}"' not in source]


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_lake_is_complete_and_says_so_last(
    lake: SmallLake, check: Check, capsys: pytest.CaptureFixture[str], deep: bool
) -> None:
    assert check(deep=deep) == (0, [])
    assert verify(lake.settings, lake.topic, deep=deep) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "complete"
    assert ("not read: --deep does that" in " ".join(out.split())) != deep


def test_a_deleted_object_is_found(lake: SmallLake, check: Check) -> None:
    lake.delete(lake.files()[1])
    code, [finding] = check()
    assert code == 1
    assert (finding["code"], finding["file"], finding["topic"], finding["sequence"]) == (
        "object_missing", lake.files()[1]["url"], lake.topic, 1,
    )  # fmt: skip


@pytest.mark.parametrize("records", [60, 9_000], ids=["a small object", "a large object"])
@pytest.mark.parametrize("deep", [False, True])
def test_a_flipped_byte_is_found(lake: SmallLake, check: Check, records: int, deep: bool) -> None:
    lake.append((0, records))
    file = lake.files()[-1]
    assert (file["bytes"] > 64 << 10) == (records > 60)
    data = bytearray(lake.read(file))
    data[100] ^= 1
    lake.overwrite(file, bytes(data))
    code, [finding] = check(deep=deep)
    assert (code, finding["code"], finding["file"]) == (1, "object_checksum", file["url"])


@pytest.mark.parametrize("change", ["cut short", "emptied", "longer"])
@pytest.mark.parametrize("records", [60, 9_000], ids=["a small object", "a large object"])
def test_an_object_of_another_size_is_found(lake: SmallLake, check: Check, records: int, change: str) -> None:
    lake.append((0, records))
    file = lake.files()[-1]
    data = lake.read(file)
    lake.overwrite(file, {"cut short": data[:-100], "emptied": b"", "longer": data + b"x"}[change])
    code, [finding] = check()
    assert (code, finding["code"], finding["file"]) == (1, "object_size", file["url"])


def test_rows_missing_in_a_footer_are_found(lake: SmallLake, check: Check) -> None:
    file = lake.files()[0]
    data = reencoded(lake.read(file), keep=file["rows"] - 1)
    lake.overwrite(file, data)
    lake.sql("UPDATE files SET bytes = ?, sha256 = ? WHERE id = ?", len(data), sha256(data), file["id"])
    code, found = check()
    assert code == 1
    [finding] = [each for each in found if each["code"] == "rows_missing"]
    assert (finding["file"], finding["sequence"]) == (file["url"], 1)
    assert "121 rows, 122 were committed" in finding["text"]


def test_an_object_that_is_no_parquet_file_is_found(lake: SmallLake, check: Check) -> None:
    file = lake.files()[0]
    data = b"x" * file["bytes"]
    lake.overwrite(file, data)
    lake.sql("UPDATE files SET sha256 = ? WHERE id = ?", sha256(data), file["id"])
    code, [finding] = check()
    assert (code, finding["code"]) == (1, "footer")


@pytest.mark.parametrize(
    ("sequence", "lake_partition", "code", "offsets"),
    [
        (1, 0, "chain_broken", [0, 100]),
        (2, 0, "position_moved", [100, 160]),
        (3, 1, "position_moved", [50, 90]),
    ],
    ids=["first", "middle", "last"],
)
def test_a_removed_ledger_line_is_found(
    lake: SmallLake, check: Check, sequence: int, lake_partition: int, code: str, offsets: list[int]
) -> None:
    lake.sql("DELETE FROM ledger WHERE sequence = ? AND lake_partition = ?", sequence, lake_partition)
    exit_code, found = check()
    assert exit_code == 1
    [finding] = [each for each in found if each["code"] == code and "next" in each["text"] + "next"][:1]
    assert (finding["lake_partition"], finding["offsets"]) == (lake_partition, offsets)
    [line] = [each for each in found if each["code"] == "line_changed"][:1]
    assert (line["sequence"], line["lake_partition"]) == (sequence, lake_partition)
    assert line["file"] in {file["url"] for file in lake.files() + lake.files("dead_letters")}


@pytest.mark.parametrize("commits_without_rows", [1, 2])
def test_a_removed_line_is_found_that_wrote_nothing(
    lake: SmallLake, check: Check, commits_without_rows: int
) -> None:
    for _ in range(commits_without_rows):
        lake.append((0, 10), duplicates=10)
    lake.append((0, 10))
    assert check() == (0, [])
    lake.sql("DELETE FROM ledger WHERE sequence = 4")
    code, found = check()
    assert code == 1
    [finding] = [each for each in found if each["code"] == "chain_broken"]
    assert (finding["lake_partition"], finding["offsets"]) == (0, [160, 170])


CHANGES = {
    "written": ("written = written + 1", "ledger_line"),
    "consumed and written": ("written = written - 1, consumed = consumed - 1", "sum_broken"),
    "written to duplicates": ("written = written - 1, duplicates = duplicates + 1", "sum_broken"),
    "duplicates to lost": ("duplicates = duplicates - 1, lost = lost + 1", "ledger_line"),
    "dead letters to duplicates": (
        "dead_letters = dead_letters - 1, duplicates = duplicates + 1",
        "sum_broken",
    ),
    "consumed and duplicates": ("consumed = consumed - 1, duplicates = duplicates - 1", "line_changed"),
    "to_offset": ("to_offset = to_offset + 1", "chain_broken"),
    "from_offset": ("from_offset = from_offset + 1", "line_changed"),
    "from_version": ("from_version = '00000000000000000000000000000000'", "chain_broken"),
    "carried_out": ("carried_out = carried_out - 1, duplicates = duplicates + 1", "ledger_line"),
    "late": ("late = late + 1", "sum_broken"),
    "early": ("early = early + 1", "line_changed"),
    "differing": ("differing = duplicates + 1", "ledger_line"),
    "tombstones": ("tombstones = tombstones + 1", "line_changed"),
    "watermark": ("watermark_us = watermark_us + 1", "line_changed"),
    "highest": ("highest_us = highest_us + 100000000000", "ledger_line"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_ledger_line_is_found(lake: SmallLake, check: Check, change: str) -> None:
    assignment, code = CHANGES[change]
    lake.sql(f"UPDATE ledger SET {assignment} WHERE sequence = 1 AND lake_partition = 0")
    exit_code, found = check()
    assert exit_code == 1
    [finding] = [each for each in found if each["code"] == code][:1]
    assert finding["sequence"] in (1, 2)
    assert finding.get("lake_partition", 0) == 0
    assert "line_changed" in codes(found), "the footers of the commit's files contradict every change"


def test_a_file_that_is_entered_twice_is_found(lake: SmallLake, check: Check) -> None:
    columns = "topic_id, added_sequence, kind, what, late, sealed, url, url_hash, bytes, rows, sha256, schema_version, "
    columns += "periods, lowest_us, highest_us, newest_commit_us, newest_sequence"
    lake.sql("DROP INDEX uq_files_url_hash")
    chosen = columns.replace("added_sequence", "3")
    lake.sql(
        f"INSERT INTO files ({columns}) SELECT {chosen} FROM files WHERE added_sequence = 2 AND what = 'rows'"
    )
    code, found = check()
    assert code == 1
    assert codes(found) >= {"entered_twice", "sum_broken", "live_set"}
    [finding] = [each for each in found if each["code"] == "entered_twice"]
    assert (finding["sequence"], finding["file"]) == (3, lake.files()[2]["url"])


def test_a_copied_object_that_is_entered_beside_its_original_is_found(lake: SmallLake, check: Check) -> None:
    file = lake.files()[2]
    copy = file["url"].replace("-rows", "-copy-rows")
    lake.overwrite({"url": copy}, lake.read(file))
    columns = "topic_id, kind, what, late, sealed, bytes, rows, sha256, schema_version, periods, lowest_us, highest_us"
    columns += ", newest_commit_us, newest_sequence, added_sequence"
    lake.sql(
        f"INSERT INTO files (url, url_hash, {columns}) SELECT ?, ?, {columns} FROM files WHERE id = ?",
        copy, b"0" * 16, file["id"],
    )  # fmt: skip
    code, found = check()
    assert (code, codes(found)) == (1, {"sum_broken", "live_set"})
    code, found = check(deep=True)
    [twice] = [each for each in found if each["code"] == "row_twice"]
    assert (twice["file"], twice["lake_partition"]) == (copy, 0)
    assert file["url"] in twice["text"]


def test_a_file_taken_out_of_the_catalogue_is_found(lake: SmallLake, check: Check) -> None:
    lake.sql("DELETE FROM files WHERE added_sequence = 2")
    code, found = check()
    assert code == 1
    assert {"sum_broken", "live_set", "orphan"} == codes(found)


def test_a_file_marked_as_removed_that_no_commit_removed_is_found(lake: SmallLake, check: Check) -> None:
    file = lake.files()[0]
    lake.sql("UPDATE files SET removed_sequence = 3 WHERE id = ?", file["id"])
    code, found = check()
    assert (code, codes(found)) == (1, {"live_set"})


@pytest.mark.parametrize(
    ("assignment", "offsets"),
    [
        ("next = 150", [150, 160]),
        ("next = 170", [160, 170]),
        ("carried_count = 0", None),
        ("watermark_us = 1", None),
    ],
)
def test_a_moved_position_is_found(
    lake: SmallLake, check: Check, assignment: str, offsets: list[int] | None
) -> None:
    lake.sql(f"UPDATE lake_partitions SET {assignment} WHERE lake_partition = 0")
    code, found = check()
    assert code == 1
    [finding] = [each for each in found if each["code"] == "position_moved"]
    assert (finding["lake_partition"], finding.get("offsets")) == (0, offsets)


def test_an_orphan_is_said_and_is_no_damage(lake: SmallLake, check: Check) -> None:
    url = f"s3://{lake.bucket.name}/fresh/{lake.topic}/nobody-rows.parquet"
    lake.overwrite({"url": url}, b"left over")
    code, [finding] = check()
    assert (code, finding["grade"], finding["code"], finding["file"]) == (0, "note", "orphan", url)


@pytest.mark.parametrize("sequence", [1, 2, 3])
def test_a_sequence_gap_is_found(lake: SmallLake, check: Check, sequence: int) -> None:
    lake.sql("DELETE FROM commits WHERE sequence = ?", sequence)
    code, found = check()
    assert code == 1
    [finding] = [each for each in found if each["code"] == "sequence_gap"]
    assert f"commits {sequence} to {sequence} are missing" in finding["text"]


def test_a_row_in_two_files_is_found_by_deep_only(lake: SmallLake, check: Check) -> None:
    lake.send(0, 20)
    line = lake.next_line(0, 10, carried_in=2, written=11, carried_out=1)
    line = replace(line, position=replace(line.position, carried=np.array([160])))
    [first] = lake.publish([line], rows(0, [158, 159, *range(161, 170)]))["add"]
    again = [160, *range(170, 178), 164]  # 160 was carried; 164 stands in the commit before
    line = lake.next_line(0, 10, carried_in=1, written=10, duplicates=1)
    line = replace(line, position=replace(line.position, carried=no_offsets()))
    [file] = lake.publish([line], rows(0, again))["add"]
    assert check() == (0, [])
    code, found = check(deep=True)
    assert code == 1
    [twice] = [each for each in found if each["code"] == "row_twice"]
    [outside] = [each for each in found if each["code"] == "row_outside"]
    assert twice["offsets"] == outside["offsets"] == [164, 165]
    assert (twice["lake_partition"], twice["file"]) == (0, file["url"])
    assert first["url"] in twice["text"]


def test_a_row_that_is_twice_in_one_commit_is_found_by_deep(lake: SmallLake, check: Check) -> None:
    lake.send(1, 4)
    lake.publish([lake.next_line(1, 4, late=1)], rows(1, [90, 91, 92]), rows(1, [92], late=True))
    code, found = check(deep=True)
    assert (code, codes(found)) == (1, {"row_twice"})
    assert found[0]["offsets"] == [92, 93]


def test_a_commit_that_wrote_less_of_a_partition_than_its_line_says_is_found_by_deep(
    lake: SmallLake, check: Check
) -> None:
    lake.append((0, 2))  # nothing is carried any more
    lake.send(0, 4)
    lake.send(1, 4)
    lines = [lake.next_line(0, 4, written=3, duplicates=1), lake.next_line(1, 4)]
    lake.publish(lines, pa.concat_tables([rows(0, range(162, 166)), rows(1, range(90, 93))]))
    code, found = check(deep=True)
    assert (code, codes(found)) == (1, {"rows_missing"})
    of_lines = {(each["lake_partition"], each["sequence"]) for each in found if "sequence" in each}
    assert of_lines == {(0, 5), (1, 5)}
    assert {each["lake_partition"] for each in found if "sequence" not in each} == {0, 1}, (
        "nor do the sums agree"
    )


def test_offsets_beyond_what_a_commit_read_are_found_in_the_statistics(lake: SmallLake, check: Check) -> None:
    lake.send(1, 4)
    lake.publish([lake.next_line(1, 4)], rows(1, range(1_000, 1_004)))
    code, found = check()
    assert (code, codes(found)) == (1, {"row_outside"})
    assert found[0]["offsets"] == [1_000, 1_004]


def test_only_files_of_the_range_are_looked_at(lake: SmallLake, check: Check) -> None:
    lake.delete(lake.files()[2])  # rows from 12:01:35 on
    assert check(end="2026-01-01T12:01:35Z") == (0, [])
    assert check(start="2026-01-01T12:01:36Z")[0] == 1
    assert check(start="2026-01-02") == (0, [])


def test_a_topic_is_pinned_to_one_sequence_while_workers_go_on(lake: SmallLake, check: Check) -> None:
    stop = threading.Event()

    def go_on() -> None:
        while not stop.is_set():
            lake.append((0, 20), (1, 20), duplicates=1, dead=1)

    worker = threading.Thread(target=go_on)
    worker.start()
    try:
        for deep in (False, True, False):
            code, found = check(deep=deep)
            # An object whose commit comes a moment later is an orphan for that moment.
            assert (code, codes(found) - {"behind", "orphan"}) == (0, set())
    finally:
        stop.set()
        worker.join()


def test_times_of_the_files_are_compared_with_their_statistics(lake: SmallLake, check: Check) -> None:
    lake.sql("UPDATE files SET lowest_us = ? WHERE added_sequence = 2", NOON_US - 1)
    code, [finding] = check()
    assert (code, finding["code"]) == (1, "footer")
