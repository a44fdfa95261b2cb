"""Points in time: int microseconds since 1970 UTC inside, ISO 8601 with `Z` outside.

Nothing here reads a clock; `database.py` does.
"""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
SECOND_US = 1_000_000
HOUR_US = 3_600 * SECOND_US
DAY_US = 24 * HOUR_US
LATEST_US = 253_402_300_799_999_999


class TimeError(ValueError):
    """A text that looks like a time but names none (month 13, second 61)."""


def parse_time(text: str) -> int:
    """`2026-01-01T10:00:00.5Z` -> microseconds since 1970 UTC. Raises TimeError."""
    try:
        return (datetime.fromisoformat(text) - EPOCH) // MICROSECOND
    except (ValueError, TypeError) as error:
        raise TimeError(f"{text!r} is not a time in ISO 8601 UTC such as 2026-01-01T10:00:00Z") from error


def parse_time_or_none(text: str | None) -> int | None:
    return None if text is None else parse_time(text)


def format_time(time_us: int) -> str:
    """Microseconds since 1970 UTC -> ISO 8601 with `Z`, microseconds kept; the year 9999 at most."""
    time_us = min(time_us, LATEST_US)
    return (EPOCH + timedelta(microseconds=time_us)).isoformat().replace("+00:00", "Z")


def format_time_or_none(time_us: int | None) -> str | None:
    return None if time_us is None else format_time(time_us)
