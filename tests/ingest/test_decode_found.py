"""What fuzzing found: each input once broke the law of decoding."""

from __future__ import annotations

import pytest

from ingest.decode import DecodeRules
from ingest.schema import TopicSchema
from tests.ingest.test_decode_law import check, run

ALL = DecodeRules()
FOUND: list[tuple[list[bytes | None], DecodeRules]] = [
    # The parser takes a number that is a little too large for infinity, without NaN or Inf in the text.
    ([b'{"a":1.5,"l":[1.5]}', b'{"a":4.93157e308,"l":[1.797]}'], ALL),
    ([b'{"l":[1.5]}', b'{"l":[49e+307]}'], ALL),
    # A sibling that stands before its main column, whose values have no content yet.
    ([b'{"a":"\\ud800"}', b'{"a":[]}'], ALL),
    # A map below a struct that has a sibling: the document said of the struct, too, that it was one.
    ([b'{"a":0,"a":{"a":{"a":0,"b":0}}}'], DecodeRules(map_keys=1)),
    # A field without a column that has the name of another's sibling: it took the sibling's text with it.
    ([b'{"a":0}', b'{"a":"x","a__text":0}'], DecodeRules(max_columns=1)),
]


@pytest.mark.parametrize(("values", "rules"), FOUND, ids=range(len(FOUND)))
def test_the_law_holds_for_what_fuzzing_found(values: list[bytes | None], rules: DecodeRules) -> None:
    first = run(values, TopicSchema(), rules)
    check(values, first)
    again = run(values, TopicSchema.from_json(first.schema.to_json()), rules)
    check(values, again)
    assert again.table.equals(first.table)
