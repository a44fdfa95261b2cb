"""Quiet: the Kafka client's log, each thing at most once a minute.

While a broker is away aiokafka logs some sixty errors a second, which bury the one line that says what the worker waits
for. Nothing is decided here, and no other log is touched.
"""

from __future__ import annotations

import logging

AGAIN_SECONDS = 60.0
LOGGERS = (
    "aiokafka",
    "aiokafka.conn",
    "aiokafka.consumer.consumer",
    "aiokafka.consumer.fetcher",
    "aiokafka.consumer.group_coordinator",
)
MOST_REMEMBERED = 1000  # texts; an outage has a handful


class OnceAMinute(logging.Filter):
    """Lets a text pass, and passes it again only after a while, then with the number of times it was held back."""

    def __init__(self) -> None:
        super().__init__()
        self._passed: dict[str, tuple[float, int]] = {}  # text -> when it passed, held back since

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        passed_at, held_back = self._passed.get(text, (-AGAIN_SECONDS, 0))
        if record.created - passed_at < AGAIN_SECONDS:
            self._passed[text] = (passed_at, held_back + 1)
            return False
        if len(self._passed) >= MOST_REMEMBERED:
            self._passed.clear()
        self._passed[text] = (record.created, 0)
        if held_back:
            record.msg, record.args = f"{text} ({held_back} times more since it was last said)", ()
        return True


def quiet_client() -> None:
    """Put the filter before the client's loggers; a second call does nothing."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(each, OnceAMinute) for each in logger.filters):
            logger.addFilter(OnceAMinute())
