"""Patience: who is away is asked again with growing pauses, each said in the log, for as long as it takes."""

from __future__ import annotations

import logging
from typing import Any

import tenacity

LONGEST_PAUSE_S = 10.0

waiting: dict[str, str] = {}
"""Who is waited for in this process now, and why: what a worker's report says of itself."""


def growing_pauses(log: logging.Logger, whom: str, away: type[Exception]) -> dict[str, Any]:
    """Arguments of tenacity's `Retrying` and `AsyncRetrying`: until no `away` is raised. `whom` as in the log."""

    def again(state: tenacity.RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, away):
            waiting[whom] = str(error)
            return True
        if waiting.pop(whom, None) is not None and error is None:
            log.info("%s is back", whom)
        return False

    def say(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        pause = state.next_action.sleep if state.next_action else 0.0
        log.warning("waiting for %s: %s; next try in %.1f s", whom, error, pause)

    return {
        "retry": again,
        "wait": tenacity.wait_random_exponential(multiplier=0.2, max=LONGEST_PAUSE_S),
        "before_sleep": say,
    }
