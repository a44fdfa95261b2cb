"""Durations (`15min`) and sizes (`128MB`, `512MiB`) as text, and back to microseconds and bytes. Pure."""

import re

DURATIONS_US = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "min": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}
SIZES = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
# Beyond 10,000 years of a duration or 8 EB of a size no figure fits a signed 64-bit column any more.
LARGEST = 2**63 - 1


class UnitError(ValueError):
    """A text that is no duration or size; the message says what one looks like."""


def _parse(text: str, units: dict[str, int], example: str) -> int:
    match = re.fullmatch(r"\s*(\d{1,18})(?:\.(\d{1,6}))?\s*([A-Za-z]+)\s*", text, flags=re.ASCII)
    if match is None or match[3] not in units:
        raise UnitError(f"{text!r} must be a number with a unit ({', '.join(units)}), such as {example}")
    unit = units[match[3]]
    fraction: str = match[2] or ""
    value: int = int(match[1]) * unit + int(fraction or 0) * unit // 10 ** len(fraction)
    if value > LARGEST:
        raise UnitError(f"{text!r} is too large")
    return value


def parse_duration(text: str) -> int:
    """`2s`, `15min`, `1h`, `7d` -> microseconds. Raises UnitError."""
    return _parse(text, DURATIONS_US, "15min")


def parse_size(text: str) -> int:
    """`512MiB`, `128MB` -> bytes. Raises UnitError."""
    return _parse(text, SIZES, "128MB")
