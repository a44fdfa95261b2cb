"""The client's log, thinned out."""

from __future__ import annotations

import logging

from ingest.quiet import AGAIN_SECONDS, MOST_REMEMBERED, OnceAMinute


def said(text: str, at: float, *args: object) -> logging.LogRecord:
    record = logging.LogRecord("aiokafka", logging.ERROR, "", 0, text, args, None)
    record.created = at
    return record


def test_a_text_passes_once_and_after_a_minute_with_its_count() -> None:
    quiet = OnceAMinute()
    assert quiet.filter(said("node %s is away", 0.0, 1))
    assert not quiet.filter(said("node %s is away", 1.0, 1))
    assert not quiet.filter(said("node %s is away", AGAIN_SECONDS - 1, 1))
    assert quiet.filter(said("node %s is away", 2.0, 2))
    again = said("node %s is away", AGAIN_SECONDS, 1)
    assert quiet.filter(again)
    assert again.getMessage() == "node 1 is away (2 times more since it was last said)"


def test_a_flood_of_different_texts_is_forgotten_in_time() -> None:
    quiet = OnceAMinute()
    assert all(quiet.filter(said(f"text {number}", 0.0)) for number in range(3 * MOST_REMEMBERED))
    assert len(quiet._passed) <= MOST_REMEMBERED
