"""The check at start: what the source was not made for, it does not run with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from aiokafka.consumer.fetcher import Fetcher, FetchResult

from ingest import internals


def test_the_pinned_libraries_pass() -> None:
    internals.check()


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(internals.VERSIONS, "aiokafka", "0.99.0")
    with pytest.raises(internals.InternalsChanged, match=r"aiokafka is 0\.14\.0, wanted 0\.99\.0"):
        internals.check()


def test_a_missing_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(internals.VERSIONS, "never-made", "1")
    with pytest.raises(internals.InternalsChanged, match="never-made is missing, wanted 1"):
        internals.check()


def test_a_method_that_has_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(FetchResult, "check_assignment")
    with pytest.raises(internals.InternalsChanged, match="FetchResult has no check_assignment"):
        internals.check()


def test_an_attribute_that_is_assigned_nowhere_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fetcher, "__init__", lambda self: None)
    with pytest.raises(internals.InternalsChanged, match="Fetcher has no _fetch_task"):
        internals.check()


CHANGED = """
from aiokafka.consumer.fetcher import Fetcher
Fetcher._create_waiter = Fetcher._create_fetch_waiter
del Fetcher._create_fetch_waiter
from ingest.source import make_app
make_app("changed")
print("it runs")
"""


@pytest.mark.slow
def test_a_worker_with_changed_libraries_does_not_start() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHANGED],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 1
    assert "it runs" not in done.stdout
    assert "Fetcher has no _create_fetch_waiter" in done.stderr
    assert "the worker does not run with others" in done.stderr
