"""From the name of a field to the name of its column, and back.

Here lives one reversible rule, made so that DuckDB, Spark, Iceberg and BigQuery can all read every column. What a
field holds, and which fields there are, is not known here.

The rule: a character that some reader refuses is written `_xHHHH_` (its code point in hexadecimal, as SQL/XML writes
names), and so is one character of a name that would be mistaken for something else: a system column, a sibling, a
name that a reader keeps for itself, another field's name in other case. `field_name` undoes it. Only a column too
long for BigQuery ends in a hash instead; its name stands in the schema.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

TEXT = "__text"  # ends the name of a sibling, and of nothing else
LONGEST_COLUMN = 300  # BigQuery's limit, in characters
_LONGEST_NAME = 1_000  # a longer field name gets no column: it would stand in every footer
_LONGEST_ESCAPED = 30  # of a name that only its column can say: so long a column never ends in a hash

SYSTEM_COLUMNS = (
    "_lake_partition",
    "_offset",
    "_event_id",
    "_event_time",
    "_time_from",
    "_timestamp",
    "_key",
    "_headers",
    "_late",
    "_tombstone",
    "_sequence",
)
# Beside ours: the partition keys of sealed files, which readers fill from the path, and Iceberg's metadata columns.
_TAKEN = frozenset(
    (
        *SYSTEM_COLUMNS,
        "event_date",
        "event_hour",
        "_change_ordinal",
        "_change_type",
        "_commit_snapshot_id",
        "_deleted",
        "_file",
        "_last_updated_sequence_number",
        "_pos",
        "_row_id",
        "_spec_id",
    )
)
# BigQuery refuses columns that begin so, in any case and at any depth.
_REFUSED = re.compile("_table_|_file_|_partition|_row_timestamp|__root__|_colidentifier|_change_sequence")

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_LOOKS_ESCAPED = re.compile(r"_(?=[xX][0-9A-Fa-f]{4})")
_ESCAPE = re.compile(r"_x([0-9A-F]{4}|[0-9A-F]{6})_")
_EMPTY = "_x_"  # the column of the field whose name is ""


def column_name(name: str, top: bool, *, strict: bool = False) -> str:
    """The column of field `name`; `top`: it is a field of the event itself, where the system columns stand.

    `strict` escapes the first character, and all that is not lower-case ASCII, for a name that differs from another in
    case only: different names have different strict columns, whatever a reader takes for the same letter.
    """
    if name == "":
        return _EMPTY
    if name == _EMPTY:
        column = "_x005F_x_"
    elif not strict and _PLAIN.match(name) and not _LOOKS_ESCAPED.search(name):
        column = name
    else:
        forced = {match.start() for match in _LOOKS_ESCAPED.finditer(name)}
        column = "".join(
            [c if i not in forced and _allowed(c, i == 0, strict) else escaped(c) for i, c in enumerate(name)]
        )
    if column.lower().endswith(TEXT):
        column = column[: -len("_text")] + escaped("_") + column[-len("text") :]
    folded = column.casefold()
    if _REFUSED.match(folded) or (top and folded in _TAKEN):
        column = column.replace("_", escaped("_"), 1)
    if len(column) + len(TEXT) > LONGEST_COLUMN:
        column = f"{column[: LONGEST_COLUMN // 2]}_x_{hashlib.sha256(encoded(name)).hexdigest()[:32]}"
    return column


def nameable(name: str) -> bool:
    """Whether a field of this name may have a column."""
    return len(name) <= (_LONGEST_NAME if storable(name) else _LONGEST_ESCAPED)


def storable(name: str) -> bool:
    """Whether a database keeps the name as it is: others are told by their column alone."""
    return not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in name)


def field_name(column: str) -> str:
    """The field whose column this is (not for a column that ends in a hash: the schema knows that name)."""
    return "" if column == _EMPTY else _ESCAPE.sub(lambda match: chr(int(match[1], 16)), column)


def sibling_name(column: str) -> str:
    """The column of text that stands beside `column`."""
    return column + TEXT


def column_names(fields: Iterable[tuple[str, str]], top: bool) -> list[str]:
    """A column for each of the fields of one object (name, and column if it has one already), in order.

    The first of several that differ in case keeps its name, so that a new field never renames an older one.
    """
    taken: set[str] = set()
    columns = []
    for name, registered in fields:
        column = registered or column_name(name, top)
        if not registered and folded(column) in taken:
            column = column_name(name, top, strict=True)
        taken.add(folded(column))
        columns.append(column)
    return columns


def folded(column: str) -> str:
    """What two columns share that some reader takes for one."""
    return column.casefold() if column.isascii() else unicodedata.normalize("NFKC", column).casefold()


def escaped(character: str) -> str:
    code = ord(character)
    return f"_x{code:04X}_" if code <= 0xFFFF else f"_x{code:06X}_"


def encoded(name: str) -> bytes:
    """UTF-8, of lone surrogates too."""
    return name.encode("utf-8", "surrogatepass")


def _allowed(character: str, first: bool, strict: bool) -> bool:
    if strict and first:
        return False
    if character <= "\x7f":
        if character == "_" or "a" <= character <= "z":
            return True
        return ("0" <= character <= "9" and not first) or (not strict and "A" <= character <= "Z")
    # Letters of any script, and within a name marks and digits: what all four readers take without quotes.
    kind = unicodedata.category(character)[0]
    return not strict and (kind == "L" or (not first and kind in "MN"))
