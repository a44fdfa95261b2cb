"""Too many dead letters are an alarm, while they are too many."""

from __future__ import annotations

from ingest.letter_rate import LEAST, WINDOW_US, LetterRate


def test_a_share_above_the_limit_is_an_alarm_until_the_window_has_passed() -> None:
    rate = LetterRate()
    rate.add(0, 1_000, 5)
    assert rate.alarm(0, 0.01) is None
    rate.add(1_000_000, 1_000, 50)
    alarm = rate.alarm(1_000_000, 0.01)
    assert alarm is not None
    assert "55 of the 2000 records" in alarm
    assert rate.alarm(1_000_000, 0.5) is None
    assert rate.share(1_000_000) == 55 / 2000
    rate.add(WINDOW_US // 2, 10_000, 0)
    assert rate.alarm(WINDOW_US // 2, 0.01) is None
    assert rate.counts(WINDOW_US + 20_000_000) == (10_000, 0)
    assert rate.share(3 * WINDOW_US) == 0.0


def test_a_few_letters_of_few_records_are_no_alarm() -> None:
    rate = LetterRate()
    rate.add(0, LEAST - 1, LEAST - 1)
    assert rate.alarm(0, 0.01) is None
    rate.add(0, 1, 1)
    assert rate.alarm(0, 0.01) is not None


def test_memory_does_not_grow_with_time() -> None:
    rate = LetterRate()
    for second in range(5_000):
        rate.add(second * 1_000_000, 10, 1)
        rate.counts(second * 1_000_000)
    assert rate.counts(5_000_000_000)[0] < 3_200
