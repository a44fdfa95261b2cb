"""A topic's settings as the steps use them: pure values, resolved once per change.

A topic's own setting wins over the worker's environment, the environment over the API's defaults.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ingest.batch import FlushRules
from ingest.decode import DecodeRules
from ingest.encode import PERIOD_US
from ingest.settings import LakeSettings, duration_us, size_bytes


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """What one topic is told. Durations are microseconds, sizes bytes."""

    version: int
    decode: DecodeRules
    flush: FlushRules
    dedup_window_us: int
    keep_differing: bool
    period_us: int
    file_bytes: int
    error_mode: Literal["keep", "suspend"]
    dead_letter_alarm: float  # share of the records
    wrong: str | None  # why these settings cannot be followed here; the topic is not read then
    timed: bool  # a path of the event time is configured: a stood-in time then never moves the watermark


def topic_settings(
    version: int, values: Mapping[str, Any], own: Collection[str], environment: LakeSettings
) -> TopicSettings:
    """From the API's answer. `own`: the names set on the topic itself."""

    def text(name: str, default: str) -> str:
        return str(values.get(name) or default)

    rows = values.get("flush_rows")
    if rows is None or ("flush_rows" not in own and "flush_rows" in environment.model_fields_set):
        rows = environment.flush_rows
    flush_bytes = size_bytes(text("flush_bytes", "128MB"))
    if "flush_bytes" not in own and "flush_bytes" in environment.model_fields_set:
        flush_bytes = int(environment.flush_bytes)
    age_us = duration_us(text("flush_age", "60s"))
    if "flush_age" not in own and "flush_age" in environment.model_fields_set:
        age_us = int(environment.flush_age.total_seconds() * 1_000_000)
    decode, wrong = DecodeRules(), None
    try:
        decode = DecodeRules.from_settings(values, environment.hash_key, version)
    except ValueError as error:  # no key for hashes, or a value that an API of a newer release takes
        wrong = str(error)
    return TopicSettings(
        version=version,
        decode=decode,
        flush=FlushRules(int(rows), flush_bytes, age_us, duration_us(text("lateness", "1min"))),
        dedup_window_us=duration_us(text("dedup_window", "1h")),
        keep_differing=values.get("on_differing") == "keep",
        period_us=PERIOD_US[text("period", "day")],
        file_bytes=size_bytes(text("file_bytes", "256MB")),
        error_mode="suspend" if values.get("error_mode") == "suspend" else "keep",
        dead_letter_alarm=float(values.get("dead_letter_alarm") or 0.01),
        wrong=wrong,
        timed=bool(values.get("event_time")),
    )
