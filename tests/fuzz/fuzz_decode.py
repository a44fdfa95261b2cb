"""Coverage-guided fuzzing of decoding against its one law (`tests/ingest/test_decode_law.py`).

Not part of the test suite, since atheris is no dependency: `pip install atheris`, then from the top of the clone
`python -m tests.fuzz.fuzz_decode -max_total_time=3600 -dict=tests/fuzz/json.dict FOLDER` (FOLDER keeps the inputs that
reached something new). What it finds becomes a line in `tests/ingest/test_decode_found.py`.

An input is one byte of settings, then, if its highest bit is set, one of a declared type, then records with a byte 0xFE
between them.
"""

from __future__ import annotations

import sys

import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

with atheris.instrument_imports(include=["ingest"]):
    from ingest.declared import NOTHING_DECLARED, Declared
    from ingest.decode import DecodeRules
    from ingest.schema import TopicSchema

from tests.ingest.declared_reference import KEY
from tests.ingest.test_declared_law import PATHS, TYPES
from tests.ingest.test_decode_law import check, run

BETWEEN = b"\xfe"  # in no record that is UTF-8


def declared(byte: int) -> Declared:
    types = [*TYPES, "drop", "hash"]
    path, type_ = divmod(byte, len(types))
    return Declared({PATHS[path % len(PATHS)]: types[type_]}, KEY)


def one_input(data: bytes) -> None:
    byte = data[0] if data else 0
    typed = byte & 0x80 and len(data) > 1
    values: list[bytes | None] = [record or None for record in data[2 if typed else 1 :].split(BETWEEN)]
    rules = DecodeRules(
        numbers="double" if byte & 1 else "integer",
        max_columns=(1, 3, 2_000, 2_000)[byte >> 1 & 3],
        max_depth=(1, 2, 100, 100)[byte >> 3 & 3],
        map_keys=(1, 3, 300, 300)[byte >> 5 & 3],
        declared=declared(data[1]) if typed else NOTHING_DECLARED,
    )
    first = run(values, TopicSchema(), rules)
    check(values, first, rules.declared)
    again = run(values, TopicSchema.from_json(first.schema.to_json()), rules)
    assert again.schema == first.schema
    assert again.table.equals(first.table)


def main() -> None:
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
