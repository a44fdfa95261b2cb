"""Opening beside partitions that are held already: these go on only under what they were read under."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from ingest.catalog import Answer
from ingest.opening import Found, open_parts
from ingest.publish import Press
from ingest.settings import Settings
from ingest.topic import Means, Topic
from ingest.topic_settings import topic_settings

NOBODY: Any = None  # a part that these ways never reach
NOW_US = 1_000_000


def settings(version: int, window: str = "1h") -> Any:
    environment = Settings(broker="b:1", topics="t", bucket="b", api="http://a", auth="none")
    return topic_settings(version, {"dedup_window": window, "lateness": "0s"}, [], environment)


def answer(partitions: Iterable[int], *, rule_version: int = 0) -> Answer:
    return {
        "epoch": "e", "sequence": 0, "state": "running", "paused": False,
        "schema_version": 0, "rule_version": rule_version,
        "positions": [
            {
                "lake_partition": p, "broker_partition": p, "topic_id": None, "open": True, "next": None, "carried": "",
                "carried_count": 0, "highest": None, "watermark": None, "published_to": None, "version": None,
            }
            for p in partitions
        ],
    }  # fmt: skip


class Topical:
    """A topic in a worker whose API takes every commit, and what both were told."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.commits: list[dict[str, Any]] = []
        self.dropped: list[int] = []
        self.asked_of_broker: Any = lambda: None
        press = Press(
            NOBODY, SimpleNamespace(commit=self._commit), pool, pool, lambda: NOW_US, secrets.randbits, "w"
        )
        means = Means(NOBODY, press, pool, asyncio.Semaphore(2), self._topic_id, lambda: NOW_US, lambda: 1000)
        self.topic = Topic("t", means, settings(1), lambda partitions, _: self.dropped.extend(partitions))

    async def open(
        self, *partitions: int, version: int = 1, rule_version: int = 0, window: str = "1h"
    ) -> None:
        async def offset_at(*_: int) -> None:
            return None

        found = Found(None, dict.fromkeys(partitions, (0, 100)), offset_at)
        said = answer(partitions, rule_version=rule_version)
        await open_parts(self.topic, said, settings(version, window), found, NOBODY, NOBODY, NOW_US)

    async def _commit(self, topic: str, commit: dict[str, Any]) -> Answer:
        self.commits.append(commit)
        return {"sequence": len(self.commits)}

    async def _topic_id(self, name: str) -> None:
        self.asked_of_broker()


@asynccontextmanager
async def held() -> AsyncIterator[Topical]:
    """Partition 0 of the topic, opened under settings 1 and rules 0, with records read."""
    with ThreadPoolExecutor(2) as pool:
        topical = Topical(pool)
        await topical.open(0)
        topical.topic.parts[0].held.lose(0, 3, NOW_US)
        yield topical


@pytest.mark.parametrize("changed", [{"version": 2, "window": "2d"}, {"rule_version": 1}])
def test_what_is_held_is_dropped_when_another_partition_is_opened_under_newer_settings_or_rules(
    changed: dict[str, Any],
) -> None:
    async def play() -> None:
        async with held() as topical:
            await topical.open(1, **changed)
            assert topical.dropped == [0]
            assert list(topical.topic.parts) == [1]
            await topical.open(0, **changed)
            window_us = topical.topic.settings.dedup_window_us
            assert {part.held.seen.window_us for part in topical.topic.parts.values()} == {window_us}

    asyncio.run(play())


def test_what_is_held_goes_on_when_another_partition_is_opened_under_the_same() -> None:
    async def play() -> None:
        async with held() as topical:
            before = topical.topic.parts[0]
            await topical.open(1)
            assert topical.topic.parts[0] is before
            assert topical.dropped == []

    asyncio.run(play())


def test_a_commit_names_the_rules_under_which_its_rows_were_cut() -> None:
    async def play() -> None:
        async with held() as topical:

            def rules_change() -> None:
                topical.topic.rule_version = 1

            topical.asked_of_broker = rules_change
            await topical.topic.publish()
            assert [commit["rule_version"] for commit in topical.commits] == [0]

    asyncio.run(play())


def test_what_kafka_is_about_to_forget_goes_as_soon_as_the_batch_under_way_is_done() -> None:
    async def play() -> None:
        async with held() as topical:
            topic, part = topical.topic, topical.topic.parts[0]
            topic.publishing = asyncio.ensure_future(asyncio.sleep(0))
            part.endangered = True
            assert topic.due(NOW_US) is None
            topic.publishing = None
            assert topic.due(NOW_US) == "log's start"
            await topic.publish()
            assert topic.due(NOW_US) is None

    asyncio.run(play())
