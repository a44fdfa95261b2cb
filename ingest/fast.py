"""A piece of a chunk, parsed at once by pyarrow with a schema that says everything: the way of nearly all events.

Pure. It takes a piece only if every record of it gives exactly the row that the record-by-record way would give; what
pyarrow lets through without a word is looked for here. Nothing is ever inferred.

One row for each record: each begins with `{`, ends with `}`, and a line break follows. The parser refuses a line break
in a string, and a `{` that follows a `}` inside of anything; so where a record ends, nothing is open, and each record
is one object or more. As many rows as records means one each.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.json as pj

from ingest.declared import Declared, UnsureError
from ingest.doubles import doubtful_rows
from ingest.joined import Joined, Rows
from ingest.names import encoded
from ingest.schema import TopicSchema
from ingest.shape import ContentError, Gathered, Shape, Variant

LARGEST = 1 << 30  # bytes of a piece; pyarrow counts in 32 bits

_NEGATIVE_ZERO = re.compile(rb"-0(?![.0-9eE])")


@dataclass(frozen=True, slots=True)
class Piece:
    """The event's columns, as in `event_schema`, a row for each record; `doubtful` rows must be read one by one."""

    columns: list[pa.Array]
    doubtful: Rows


@dataclass(frozen=True, slots=True)
class Refused:
    """Some record of the piece needs another look.

    `blank`: nothing is known of the topic; `shape`: some are no objects by their first and last byte, or have a zero
    byte; `utf8`; `count`: another number of objects than records; `content`: parsed, but not as the other way does;
    `parser`: what pyarrow said is in `text`.
    """

    why: Literal["blank", "shape", "utf8", "count", "content", "parser"]
    text: str = ""


class FastParser:
    """Parses pieces by one schema. Compiled once for each; may be used by several threads."""

    def __init__(self, schema: TopicSchema, declared: Declared, variant: Variant) -> None:
        self._shape = Shape(schema.root, True, variant, declared, declared.hidden)
        self._rest = schema.root.text is not None
        self._options = pj.ParseOptions(
            explicit_schema=pa.schema(self._shape.parsed), unexpected_field_behavior="error"
        )
        names: set[str] = set()
        self._doubles_in_lists = self._shape.double_names(names)
        self._double_names = frozenset(encoded(name) for name in names)

    def parse(self, joined: Joined) -> Piece | Refused:
        """The rows of the records (one or more)."""
        count = len(joined)
        if not self._shape.parsed:
            return Refused("blank")  # the parser counts no rows where it knows no field
        if len(joined.misshapen()) or len(joined.data) > LARGEST:
            return Refused("shape")
        if len(joined.not_utf8()):
            return Refused("utf8")
        options = pj.ReadOptions(use_threads=False, block_size=len(joined.data) + 1)
        try:
            table = pj.read_json(
                pa.BufferReader(joined.data), read_options=options, parse_options=self._options
            )
        except pa.ArrowInvalid as error:
            return Refused("parser", str(error))
        if table.num_rows != count:
            return Refused("count")
        gathered = Gathered()
        try:
            columns = self._shape.shaped(
                [each.chunk(0) if each.num_chunks == 1 else each.combine_chunks() for each in table.columns],
                count,
                gathered,
            )
        except (ContentError, UnsureError):
            return Refused("content")
        if gathered.zero_texts and _NEGATIVE_ZERO.search(joined.data):
            return Refused("content")
        if self._rest:
            columns.append(pa.nulls(count, pa.string()))
        doubtful = np.zeros(0, np.int64)
        if gathered.doubles:
            doubtful = doubtful_rows(joined, gathered.doubles, self._double_names, self._doubles_in_lists)
        return Piece(columns, doubtful)
