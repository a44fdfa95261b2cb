"""What a topic can be told: names, defaults, what each value must be, and which rule wins. Pure.

A topic's own value wins over the defaults whose pattern matches its name (higher priority first, then the later name),
those over what is built in. Values travel as people write them: durations and sizes as text, counts as integers.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.times import DAY_US, HOUR_US
from api.units import UnitError, parse_duration, parse_size

PERIODS_US = {"hour": HOUR_US, "day": DAY_US}
# An object may wait in a worker for half of this before its commit; below it the check would refuse honest commits.
LEAST_SAFE_AGE_US = HOUR_US
FOR_EVER = "for ever"


class SettingError(ValueError):
    """What a value must be, said to the person who set it."""


def _duration(least: str = "0s", most: str = "36500d") -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if not isinstance(value, str):
            raise SettingError("must be a duration as text, such as 15min")
        try:
            duration_us = parse_duration(value)
        except UnitError as error:
            raise SettingError(str(error)) from error
        if not parse_duration(least) <= duration_us <= parse_duration(most):
            raise SettingError(f"must lie between {least} and {most}")

    return check


def _size(least: str, most: str) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if not isinstance(value, str):
            raise SettingError("must be a size as text, such as 128MB")
        try:
            size = parse_size(value)
        except UnitError as error:
            raise SettingError(str(error)) from error
        if not parse_size(least) <= size <= parse_size(most):
            raise SettingError(f"must lie between {least} and {most}")

    return check


def _count(least: int, most: int) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise SettingError(f"must be an integer between {least} and {most}")

    return check


def _one_of(*words: str) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if value not in words:
            raise SettingError(f"must be one of {', '.join(words)}")

    return check


def _paths(value: Any) -> None:
    if not isinstance(value, list) or len(value) > 20:
        raise SettingError("must be a list of at most 20 paths, such as [metadata.eid] or [header:ce_id]")
    for path in value:
        if not isinstance(path, str) or not 0 < len(path) <= 500 or "\x00" in path:
            raise SettingError("each path must be a text of 1 to 500 characters")


def _share(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise SettingError("must be a share: a number above 0, at most 1, such as 0.01")


TYPES = ("timestamp", "date", "json", "string", "integer", "double", "boolean")
DECIMAL = re.compile(r"decimal\(([1-9][0-9]?),([0-9]{1,2})\)", flags=re.ASCII)
MOST_PATHS = 1_000


def _path_of_fields(path: Any) -> None:
    """Names with dots between; `\\.` and `\\\\` stand for a dot and a backslash of a name."""
    if not isinstance(path, str) or not 0 < len(path) <= 500 or "\x00" in path:
        raise SettingError("each path must be a text of 1 to 500 characters, such as customer.name")
    if "\\" in re.sub(r"\\[.\\]", "", path):
        raise SettingError(
            f"path {path!r}: a backslash may stand before a dot or a backslash only; write \\\\ for one"
        )


def _paths_of_fields(value: Any) -> None:
    if not isinstance(value, list) or len(value) > MOST_PATHS:
        raise SettingError(f"must be a list of at most {MOST_PATHS} paths, such as [customer.name]")
    for path in value:
        _path_of_fields(path)


def _types(value: Any) -> None:
    if not isinstance(value, dict) or len(value) > MOST_PATHS:
        raise SettingError(f"must map at most {MOST_PATHS} paths to types, such as {{sold_at: timestamp}}")
    for path, type_ in value.items():
        _path_of_fields(path)
        match = DECIMAL.fullmatch(type_) if isinstance(type_, str) else None
        if type_ not in TYPES and (match is None or not int(match[2]) <= int(match[1]) <= 38):
            raise SettingError(
                f"path {path!r}: the type must be one of {', '.join(TYPES)}, decimal(p,s) with s <= p <= 38"
            )


RETENTION = re.compile(r"(?P<time>[0-9.]+[a-z]+)(?: from (?P<base>event time|commit))?", flags=re.ASCII)


def _retention(value: Any) -> None:
    if value == FOR_EVER:
        return
    match = RETENTION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise SettingError(
            "must be `for ever`, or a duration such as `90d`, `90d from event time`, `90d from commit`"
        )
    _duration("1h")(match["time"])


@dataclass(frozen=True, slots=True)
class Definition:
    """One setting: its value where nobody set it (None: the worker's own), its check, and what it is."""

    default: Any
    check: Callable[[Any], None]
    about: str


SETTINGS: Mapping[str, Definition] = {
    "event_id": Definition(
        [], _paths, "Paths or header:NAME that together name an event; none: no duplicates known."
    ),
    "event_time": Definition([], _paths, "Paths or header:NAME of the event time, first present wins."),
    "lateness": Definition("1min", _duration(most="30d"), "How long rows wait for older ones."),
    "dedup_window": Definition("1h", _duration(most="30d"), "Event time within which an id is known again."),
    "max_ahead": Definition(
        "10min", _duration(most="3650d"), "How far ahead of its record a time is believed."
    ),
    "on_differing": Definition("drop", _one_of("drop", "keep"), "Same id, other bytes."),
    "numbers": Definition(
        "integer", _one_of("integer", "double"), "What a number without a fraction becomes."
    ),
    "tombstones": Definition("row", _one_of("row", "dead_letter"), "What a record without a value becomes."),
    "error_mode": Definition(
        "keep", _one_of("keep", "suspend"), "Whether a commit with dead letters stops the topic."
    ),
    "max_record_bytes": Definition("10MB", _size("1kB", "1GB"), "Larger records are dead letters."),
    "max_columns": Definition(2_000, _count(1, 20_000), "More become JSON text."),
    "max_depth": Definition(100, _count(1, 150), "Deeper values become JSON text."),
    "map_keys": Definition(300, _count(1, 20_000), "An object with more different keys is a map: JSON text."),
    "types": Definition(
        {}, _types, "Declared types: path to type, from then on; what does not fit is kept as text."
    ),
    "drop": Definition([], _paths_of_fields, "Paths that are not kept, from then on."),
    "hash": Definition(
        [], _paths_of_fields, "Paths of which a keyed hash is kept, from then on (the worker has the key)."
    ),
    "dead_letter_alarm": Definition(
        0.01, _share, "The topic alarms when more of the records of the last 5 minutes were dead letters."
    ),
    "flush_rows": Definition(None, _count(1, 10**9), "A batch is due at this many rows."),
    "flush_bytes": Definition("128MB", _size("64kB", "10GB"), "A batch is due at this size."),
    "flush_age": Definition("60s", _duration("100ms", "1d"), "A batch is due at this age."),
    "period": Definition(
        "day", _one_of(*PERIODS_US), "Unit of completeness and sealing; fixed by the first rows."
    ),
    "grace": Definition(
        "15min", _duration(most="30d"), "Beyond lateness, before a quiet partition counts as done."
    ),
    "file_bytes": Definition("256MB", _size("1MB", "10GB"), "Target size of sealed files."),
    "sort_by": Definition(
        [], _paths, "Columns that sealed files are sorted by within a period; none: by event time."
    ),
    "replaced_grace": Definition(
        "7d", _duration("1min"), "How long replaced objects wait for holding loaders."
    ),
    "read_grace": Definition("1h", _duration("1min"), "How long an object stays after it left the live set."),
    "safe_age": Definition(
        "24h", _duration("1h", "30d"), "Objects that no commit names are swept when older."
    ),
    "presigned_for": Definition("15min", _duration("1min", "7d"), "How long a presigned URL works."),
    "hold_limit": Definition("7d", _duration(), "How long a loader can hold expiry up."),
    "retention": Definition(FOR_EVER, _retention, "How long rows live."),
    "dead_letter_retention": Definition(
        FOR_EVER, _retention, "How long dead letters live, by record timestamp."
    ),
    "min_retention": Definition("1d", _duration(), "Nothing expires earlier after its commit."),
    "max_retention": Definition(None, _duration("1h"), "Nothing lives longer, held or not."),
    "history": Definition("400d", _duration("1d"), "How far back the feed and the ledger go line by line."),
}


@dataclass(frozen=True, slots=True)
class Rule:
    """Defaults by pattern, as stored."""

    name: str
    pattern: str
    priority: int
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Explained:
    value: Any
    origin: str  # topic, defaults or built in
    rule: str | None


def wrong_settings(changes: Mapping[str, Any]) -> dict[str, str]:
    """Name -> what it must be, for each change that cannot be; None takes a value away and is always right."""
    wrong: dict[str, str] = {}
    for name, value in changes.items():
        definition = SETTINGS.get(name)
        if definition is None:
            wrong[name] = "there is no such setting"
        elif value is not None:
            try:
                definition.check(value)
            except SettingError as error:
                wrong[name] = str(error)
    return wrong


def wrong_pattern(pattern: str) -> str | None:
    try:
        re.compile(pattern)
    except re.error as error:
        return f"is not a regular expression: {error}"
    return None


def strongest_first(rules: Sequence[Rule]) -> list[Rule]:
    return sorted(rules, key=lambda rule: (rule.priority, rule.name), reverse=True)


def explain(topic: str, own: Mapping[str, Any], rules: Sequence[Rule]) -> dict[str, Explained]:
    """Each setting of a topic with the rule that set it. `rules`: all there are, in any order."""
    matching = [rule for rule in strongest_first(rules) if re.fullmatch(rule.pattern, topic)]
    found: dict[str, Explained] = {}
    for name, definition in SETTINGS.items():
        if name in own:
            found[name] = Explained(own[name], "topic", None)
            continue
        rule = next((rule for rule in matching if name in rule.settings), None)
        if rule is not None:
            found[name] = Explained(rule.settings[name], "defaults", rule.name)
        else:
            found[name] = Explained(definition.default, "built in", None)
    return found


def resolve(topic: str, own: Mapping[str, Any], rules: Sequence[Rule]) -> dict[str, Any]:
    """Each setting of a topic with the value that holds."""
    return {name: explained.value for name, explained in explain(topic, own, rules).items()}
