"""Names of topics, and patterns for whole names that begin with ^. Pure."""

import re
from collections.abc import Sequence


def covers(patterns: Sequence[str], topic: str) -> bool:
    """Whether one of the names or patterns names the topic."""
    return any(
        re.fullmatch(pattern, topic) is not None if pattern.startswith("^") else pattern == topic
        for pattern in patterns
    )


def wrong_patterns(patterns: Sequence[str]) -> list[str]:
    """What is wrong with those that are none."""
    wrong = []
    for pattern in patterns:
        if pattern.startswith("^"):
            try:
                re.compile(pattern)
            except re.error as error:
                wrong.append(f"{pattern}: is not a regular expression: {error}")
    return wrong
