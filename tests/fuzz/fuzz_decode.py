"""Coverage-guided fuzzing of decoding against its one law (`tests/ingest/test_decode_law.py`).

Not part of the test suite, since atheris is no dependency: `pip install atheris`, then from the top of the clone
`python -m tests.fuzz.fuzz_decode -max_total_time=3600 FOLDER` (FOLDER keeps the inputs that reached something new).
What it finds becomes a line in `tests/ingest/test_decode_found.py`.

An input is one byte of settings, then records with a byte 0xFE between them.
"""

from __future__ import annotations

import sys

import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

with atheris.instrument_imports(include=["ingest"]):
    from ingest.decode import DecodeRules
    from ingest.schema import TopicSchema

from tests.ingest.test_decode_law import check, run

BETWEEN = b"\xfe"  # in no record that is UTF-8


def one_input(data: bytes) -> None:
    settings, *records = data[:1], *data[1:].split(BETWEEN)
    byte = settings[0] if settings else 0
    rules = DecodeRules(
        numbers="double" if byte & 1 else "integer",
        max_columns=(1, 3, 2_000, 2_000)[byte >> 1 & 3],
        max_depth=(1, 2, 100, 100)[byte >> 3 & 3],
        map_keys=(1, 3, 300, 300)[byte >> 5 & 3],
    )
    values: list[bytes | None] = [record or None for record in records]
    first = run(values, TopicSchema(), rules)
    check(values, first)
    again = run(values, TopicSchema.from_json(first.schema.to_json()), rules)
    assert again.schema == first.schema
    assert again.table.equals(first.table)


def main() -> None:
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
