"""What fuzzing found: each input once broke the law of decoding."""

from __future__ import annotations

import pytest

from ingest.decode import DecodeRules
from ingest.schema import TopicSchema
from tests.ingest.test_decode_law import check, run

FOUND = [
    # The parser takes a number that is a little too large for infinity, without NaN or Inf in the text.
    [b'{"a":1.5,"l":[1.5]}', b'{"a":4.93157e308,"l":[1.797]}'],
    [b'{"l":[1.5]}', b'{"l":[49e+307]}'],
    # A sibling that stands before its main column, whose values have no content yet.
    [b'{"a":"\\ud800"}', b'{"a":[]}'],
]


@pytest.mark.parametrize("values", FOUND, ids=range(len(FOUND)))
def test_the_law_holds_for_what_fuzzing_found(values: list[bytes | None]) -> None:
    first = run(values, TopicSchema(), DecodeRules())
    check(values, first)
    again = run(values, TopicSchema.from_json(first.schema.to_json()), DecodeRules())
    check(values, again)
    assert again.table.equals(first.table)
