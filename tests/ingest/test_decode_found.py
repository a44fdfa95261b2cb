"""What fuzzing found: each input once broke the law of decoding."""

from __future__ import annotations

import pytest

from ingest.decode import DecodeRules
from ingest.schema import TopicSchema
from tests.ingest.test_declared_law import declaring
from tests.ingest.test_decode_law import hold

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
    # A name that no database keeps, so long when escaped that its column ended in a hash: nothing told it any more.
    ([b'{"' + b"." * 42 + b'\\udc00":1}', b'{"a":{"' + b"." * 42 + b'\\u0000":1}}'], ALL),
    # A path declared before anything with content came: the stored schema had its columns in another order.
    ([b'{"a":[]}'], declaring({("a",): "timestamp"}, ALL)),
    # What is not kept stood in the text of the object around it, when pieces were read at once.
    ([b'{"b":{"c":[]}}'], declaring({("b", "c"): "drop"}, ALL)),
    ([b'{"b":{"c":7}}', b'{"b":{"c":8}}'], declaring({("b", "c"): "drop"}, ALL)),
    # What is not kept must be JSON all the same.
    ([b'{"a":0.5,"b":1}', b'{"a":NaN}'], declaring({("a",): "drop"}, ALL)),
    ([b'{"a":[{"b":0.5}],"b":1}', b'{"a":[{"b":NaN}]}'], declaring({("a",): "drop"}, ALL)),
    # Times so far ahead that a product of doubles is some microseconds off, and differs from one of integers.
    ([b'{"a":99999999999999.25}', b'{"a":99999999999999}'], declaring({("a",): "timestamp"}, ALL)),
    ([b'{"a":4.954681543848565e+16}'], declaring({("a",): "timestamp"}, ALL)),
    # A number that is no time stood in the sibling as a double prints it, not as it was written.
    ([b'{"a":1e27}', b'{"a":1.5}'], declaring({("a",): "timestamp"}, ALL)),
]


@pytest.mark.parametrize(("values", "rules"), FOUND, ids=range(len(FOUND)))
def test_the_law_holds_for_what_fuzzing_found(values: list[bytes | None], rules: DecodeRules) -> None:
    hold(values, TopicSchema(), rules)
