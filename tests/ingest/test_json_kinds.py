"""The kinds of cases that JSON parsers disagree about, each alone and all together: numbers, strings, arrays, objects,
structure. What is JSON is a row that holds it, what is not is a dead letter."""

from __future__ import annotations

import pytest

from ingest.decode import DecodeRules
from ingest.schema import TopicSchema
from tests.ingest.test_decode_law import expected, hold

VALID: dict[str, list[str]] = {
    "numbers": [
        "0", "-0", "-1", "123", "20e1", "0e+1", "0e1", "1E22", "1E-2", "1E+2", "123e45", "123.456e78",
        "1.5", "-0.0",
        "123.456789", "1e-2", "-0.000000000000000000000000000000000000000000000000000000000000000000000000000001",
        "0.4e00669999999999999999999999999999999999999999999999999999999999999969999999006", "-1e+9999",
        "1.5e+9999",
        "-123123e100000", "123123e100000", "123e-10000000", "-123123123123123123123123123123",
        "100000000000000000000",
        "-237462374673276894279832749832423479823246327846", "9223372036854775807", "-9223372036854775808",
        "18446744073709551615", "1" + "0" * 400, "1." + "0" * 400, "9007199254740993", "4.9e-324", "2e-324",
    ],
    "strings": [
        '""', '" "', '"a/*b*/c/*d//e"', r'"\u0060\u012a\u12AB"', r'"\ud801\udc37"', r'"\ud83d\ude39\ud83d\udc8d"',
        r'"\"\\\/\b\f\n\r\t"', r'"\\u0000"', r'"\""', r'"\u0000"', '"asd "', r'"\u0012"', r'"\uFFFF"',
        r'"new\u00A0line"', r'"\uDBFF\uDFFE"', r'"\uD83F\uDFFE"', r'"\u200B"', r'"\u2064"', '"\u2028"', '"\u2029"',
        '"\U0010ffff"', '"\x7f"', '"€𝄞"', r'"\uFDD0"', r'"\uFFFE"', r'"\u0022"', r'"\u005C"', r'"\uA66D"', '"⍂㈴⍂"',
        r'"\uDADA"', r'"\uD888\u1234"', r'"\uD800\n"', r'"\uD800\uD800\n"', r'"\uDd1ea"', r'"\ud800abc"',
        r'"\uDd1e\uD834"', r'"\uDFAA"', r'"\uD800\\uDC00"', '"\ufeff"',
    ],
    "arrays": [
        "[]", "[ ]", "[[]]", '[[]   ]', '[""]', "[false]", "[null, 1, \"1\", {}]", "[null]", "[1\n]",
        " [1]", "[1,null,2]",
        "[2] ", "[[1,2],[3,4]]", '[{"a":1},{"b":[]}]', "[" * 40 + "]" * 40, "[" * 140 + "1" + "]" * 140,
        "[1,1.5,1e2]",
    ],
    "objects": [
        "{}", '{"a":"b"}', '{"a":"b","a":"c"}', '{"a":"b","a":"b"}', '{"":0}', r'{"foo\u0000bar": 42}', '{"a":[]}',
        '{ "min": -1.0e+28, "max": 1.0e+28 }', '{\n"a": "b"\n}', r'{"\u041f": "\u041e"}', '{"a":null,"a":{}}',
        '{"a":{"b":{"c":[{"d":1,"d":[2]}]}}}', r'{"\ud800":1}', '{"\\"":1,"\\\\":2}',
    ],
    "words": ["true", "false", "null", "\t\n\r true"],
}  # fmt: skip

INVALID: dict[str, list[str]] = {
    "numbers": [
        "++1234", "+1", "+Inf", "-01", "-1.0.", "-2.", "-NaN", ".-1", ".2e-3", "0.1.2", "0.3e+", "0.3e",
        "0.e1", "0E+",
        "0E", "1.0e+", "1.0e-", "1.0e", "1 000.0", "1eE2", "2.e+3", "2.e-3", "9.e+", "Inf", "NaN", "1+2",
        "0x1", "0x42",
        "Infinity", "0e+-1", "-123.123foo", "-", "-foo", "- 1", "-012", "-.123", "-1x", "1ea", "1.", ".123",
        "1.2a-3",
        "1.8011670033376514H-308", "012", "\uff11", "nan", "1_000", "1e1.5", "٣",
    ],
    "strings": [
        r'"\x00"', r'"\\\"', r'"\a"', '"\\', r'"\uD834\uDd"', r'"\uD800\uD800\x"', r'"\u00A"', r'"\uZZZZ"',
        "'a'", '"',
        '"\n"', '"\t"', '"\x00"', '"\x1f"', r'"\u"', r'"\uD800\u"', '"a', "abc", r'\n', r'"\U00000001"', '"a" "b"',
        '“a”', r'"\ "',
    ],
    "arrays": [
        "[1 true]", "[a]", '["": 1]', '[""],', "[,1]", "[1,,2]", '["x",,]', "[1]]", '["",]', '["x"', "[x",
        "[3[4]]", "[1:2]",
        "[,]", "[-]", "[   , \"\"]", "[1,", "[1,\n1\n,1", "[{}", "[*]", "[1,]", "[", "]", "[1}", "[" * 40, "[1 2]",
    ],
    "objects": [
        '{"x", null}', '{"x"::"b"}', '{"a":"a" 123}', "{key: 'value'}", '{"a" b}', '{:"b"}', '{"a" "b"}',
        '{"a":', '{"a"',
        "{1:1}", "{9999E9999:1}", "{null:null}", '{"id":0,,,,,}', "{'a':0}", '{"id":0,}', '{"a":"b"}/**/',
        '{"a":"b"}#',
        '{"a":"b",,"c":"d"}', "{a: \"b\"}", '{"a":"a', '{ "foo" : "bar", "a" }', '{"a":"b"}{}', "{", "}",
        "{]", "{{}}",
        '{"a":1]', '{"a":1,"b"}', '{true:1}', '{"a"=1}',
    ],
    "words": [
        "nul", "nulll", "tru", "True", "TRUE", "falze", "fals",
        "undefined", "null,", "truefalse", "\\u0074rue", "⁠true",
    ],
    "white space": ["\f1", "\v1", "\xa01", "\u20601", "\ufeff1", "1\x85", "\u20281", "\x001", "1\x00", "\b1", ""],
}  # fmt: skip

CASES = [("valid", kind) for kind in VALID] + [("invalid", kind) for kind in INVALID]


@pytest.mark.parametrize(("said", "kind"), CASES, ids=[" ".join(case) for case in CASES])
def test_what_parsers_disagree_about_is_a_row_or_a_dead_letter_as_the_standard_says(
    said: str, kind: str
) -> None:
    texts = (VALID if said == "valid" else INVALID)[kind]
    records: list[bytes | None] = [f'{{"a":{text}}}'.encode() for text in texts]
    whole: list[bytes | None] = [text.encode() for text in texts if said == "invalid"]
    for record in [*records, *whole]:
        assert record is not None
        assert (expected(record) is not None) == (said == "valid"), record
    result = hold([*records, *whole], TopicSchema(), DecodeRules())
    assert result.table.num_rows == (len(records) if said == "valid" else 0)
