"""`tukang verify` of a lake that grew old: after upkeep, and with its history folded."""

from __future__ import annotations

import pytest

from tests.ingest.small_lake import SmallLake, rows
from tests.ingest.verify.conftest import Check

pytestmark = pytest.mark.slow


@pytest.fixture
def sealed(lake: SmallLake) -> SmallLake:
    """The lake after upkeep: all rows in one sealed file, less two duplicates; the old objects are swept."""
    old = lake.files()
    lake.replace(*old, drop=[3, 200])
    lake.append((0, 10))
    lake.sql(f"UPDATE files SET swept_us = 1 WHERE id IN ({', '.join(str(file['id']) for file in old)})")
    for file in old:
        lake.delete(file)
    return lake


@pytest.mark.parametrize("deep", [False, True])
def test_a_lake_after_upkeep_is_complete(sealed: SmallLake, check: Check, deep: bool) -> None:
    assert len(sealed.files()) == 2
    assert check(deep=deep) == (0, [])


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("rows_in = rows_in + 1", "came into the replace"),
        ("rows_in = rows_in + 1, rows_out = rows_out + 1", "the files have"),
        ("duplicates = duplicates - 1, rows_out = rows_out + 1", "its deletes name 2 rows"),
        ("erased = 1, rows_out = rows_out - 1", "has no erased"),
    ],
)
def test_a_changed_line_of_upkeep_is_found(
    sealed: SmallLake, check: Check, assignment: str, says: str
) -> None:
    sealed.sql(f"UPDATE ledger SET {assignment} WHERE sequence = 4 AND lake_partition = 0")
    code, found = check()
    assert code == 1
    assert any(
        says in each["text"] and each["sequence"] == 4 for each in found if each["code"] == "sum_broken"
    )


def test_a_deletes_file_must_be_there_as_long_as_the_history(sealed: SmallLake, check: Check) -> None:
    [deletes] = [file for file in sealed.commits()[3]["add"] if file["what"] == "deletes"]
    sealed.delete(deletes)
    code, [finding] = check()
    assert (code, finding["code"], finding["file"]) == (1, "object_missing", deletes["url"])


def test_a_sealed_row_that_also_stands_in_a_fresh_file_is_found_by_deep(
    sealed: SmallLake, check: Check
) -> None:
    sealed.send(1, 4)
    sealed.publish([sealed.next_line(1, 4)], rows(1, [90, 91, 92, 20]))
    code, found = check(deep=True)
    assert code == 1
    [twice] = [each for each in found if each["code"] == "row_twice"]
    assert (twice["lake_partition"], twice["offsets"]) == (1, [20, 21])


@pytest.fixture
def folded(sealed: SmallLake) -> SmallLake:
    """The sealed lake, grown old: all of it is folded but the commits that come now."""
    long = 500 * 86_400_000_000
    for table in ("commits", "ledger", "commit_ids"):
        sealed.sql(f"UPDATE {table} SET committed_us = committed_us - {long}")
    assert sealed.http.post(f"/topics/{sealed.topic}/folds").raise_for_status().json()["commits"] == 5
    sealed.append((0, 20), (1, 10), carry=1)
    return sealed


@pytest.mark.parametrize("deep", [False, True])
def test_a_lake_whose_history_is_folded_is_complete(folded: SmallLake, check: Check, deep: bool) -> None:
    code, found = check(deep=deep)
    # The object of the folded `deletes` waits for the sweep.
    assert (code, [(each["code"], "/deletes/" in each["file"]) for each in found]) == (0, [("orphan", True)])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("UPDATE folded SET written = written - 1 WHERE lake_partition = 0", "ledger_line"),
        ("UPDATE folded SET carried_in = 1, written = written + 1 WHERE lake_partition = 0", "chain_broken"),
        (f"UPDATE folded SET from_version = '{'ab' * 16}' WHERE lake_partition = 0", "chain_broken"),
        ("DELETE FROM folded WHERE lake_partition = 1", "chain_broken"),
        ("UPDATE folded SET written = written - 1, duplicates = duplicates + 1", "live_set"),
    ],
)
def test_a_changed_folded_line_is_found(folded: SmallLake, check: Check, change: str, code: str) -> None:
    folded.sql(change)
    exit_code, found = check()
    assert exit_code == 1
    assert code in {each["code"] for each in found}
