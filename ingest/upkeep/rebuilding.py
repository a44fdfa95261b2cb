"""What the lake has for `tukang rebuild`: the copies of all topics, and appends that came after them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from ingest.encode import PERIOD_US
from ingest.parties import lake_of
from ingest.settings import LakeSettings
from ingest.upkeep.catalogue import read_copies
from ingest.upkeep.footers import appends_beyond


class NothingKept(Exception):
    """The lake has no copy of a catalogue."""


def kept_in_lake(settings: LakeSettings) -> Iterator[Mapping[str, Any]]:
    """Each topic with `topic`, `state`, `commits`, `appends`, as the API's rebuild takes it. Raises NothingKept."""
    lake = lake_of(settings)
    lake.check()
    found = False
    for kept in read_copies(lake):
        found = True
        named = {file["url"] for commit in kept.commits for file in commit["files"]}
        period_us = kept.state["topic"].get("period_us") or PERIOD_US["day"]
        now_us = time.time_ns() // 1000
        appends = appends_beyond(lake, kept.topic, kept.epoch, named, period_us, now_us)
        yield {"topic": kept.topic, "state": kept.state, "commits": kept.commits, "appends": appends}
    if not found:
        raise NothingKept(
            f"there is no catalogue below {lake.url('catalog/')}: are TUKANG_BUCKET and TUKANG_PREFIX right?"
        )
