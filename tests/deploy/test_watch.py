"""Ledger lines add up to what a person is shown."""

from typing import Any

from deploy.watch import Ledger


def line(sequence: int, lake_partition: int, **figures: int) -> dict[str, Any]:
    return {"sequence": sequence, "lake_partition": lake_partition, "carried_out": 0} | figures


def test_figures_are_summed_over_commits_and_partitions() -> None:
    ledger = Ledger("orders")
    ledger.take(line(1, 0, consumed=10, written=8, duplicates=2))
    ledger.take(line(1, 1, consumed=5, written=5))
    ledger.take(line(2, 0, consumed=1, written=1))
    assert (ledger.totals["consumed"], ledger.totals["written"], ledger.totals["duplicates"]) == (16, 14, 2)
    assert (ledger.totals["commits"], ledger.sequence) == (2, 2)


def test_what_is_held_back_is_what_each_partition_carried_last() -> None:
    ledger = Ledger("orders")
    ledger.take(line(1, 0, consumed=10, written=7, carried_out=3))
    ledger.take(line(1, 1, consumed=10, written=6, carried_out=4))
    ledger.take(line(2, 0, carried_in=3, written=3, carried_out=0))
    assert ledger.held_back == 4
