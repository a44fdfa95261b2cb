"""Which records of a piece are probably why the fast parser refused it.

Pure. These are hints only: what is named here is read another way, and a record named wrongly costs time, never
anything else. Each hint looks at all records at once, so that a few bad ones do not send their neighbours the slow way.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from ingest.doubles import long_integers, no_numbers
from ingest.fast import Refused
from ingest.joined import Joined, Rows

_ROW = re.compile(r" in row (\d+)$")
_CHANGED = re.compile(r"Column\((.*)\) changed from \w+ to (\w+) in row \d+$", re.DOTALL)
_TWICE = re.compile(r"Column\((.*)\) was specified twice in row \d+$", re.DOTALL)
_CONVERT = re.compile(r"(?:couldn't parse:|to decimal\S+ \S+ |The string ')([^\s']+)")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
# The first byte of a value by what the parser calls its kind.
_BEGINS = {"number": b"[-0-9NI]", "string": b'"', "boolean": b"[tf]", "object": rb"\{", "array": rb"\["}
_LONG, _TOO_LONG = 19, 20  # digits that may be more than 64 bits, and that are

_connections = threading.local()


@dataclass(frozen=True, slots=True)
class Suspects:
    """Rows to look at apart. `path` and `kind`: they have a value of this kind in this field, as far as can be told;
    `late`: what would have found them before all was parsed for nothing (a name in `EARLY`)."""

    rows: Rows
    path: tuple[str, ...] = ()
    kind: str = ""
    late: str = ""


def suspects(joined: Joined, refused: Refused) -> Suspects | None:
    """The likely culprits, at least one; None when nothing can be told (a field that is new, for one)."""
    found = Suspects(np.zeros(0, np.int64))
    if refused.why in ("shape", "utf8"):
        found = Suspects(np.union1d(joined.misshapen(), joined.not_utf8()))
    elif refused.why == "count":
        found = Suspects(invalid(joined), late="invalid")
    elif refused.why == "parser":
        found = _by_message(joined, refused.text.removeprefix("JSON parse error: "))
        stated = _ROW.search(refused.text)
        if stated is not None and int(stated[1]) < len(joined):
            # (Not quite the row if a record before it holds two objects: one more to look at.)
            found = replace(found, rows=np.union1d(found.rows, [int(stated[1])]))
    return found if len(found.rows) else None


def not_finite(joined: Joined) -> Rows:
    """Rows with what the parser takes for a number and then cannot convert, or with integers beyond 64 bits."""
    at = [no_numbers(joined.data), long_integers(joined.data, _TOO_LONG)]
    return joined.rows_at(np.concatenate(at))


def invalid(joined: Joined) -> Rows:
    """Records that DuckDB does not take for JSON. (It takes NaN; and it reads 4 million records a second.)"""
    cursor = getattr(_connections, "cursor", None)
    if cursor is None:
        import duckdb  # 40 MB, which a worker without bad records saves

        cursor = _connections.cursor = duckdb.connect(config={"threads": 1}).cursor()
    records = pa.table({"record": joined.texts()})
    valid = cursor.from_arrow(records).project("json_valid(record)").fetchnumpy()
    mask = np.ma.getdata(next(iter(valid.values()))).astype(bool)
    return np.flatnonzero(~mask)


EARLY = {"invalid": invalid, "not_finite": not_finite}


def _by_message(joined: Joined, text: str) -> Suspects:
    changed = _CHANGED.match(text)
    if changed is not None:
        path, kind = tuple(changed[1].split("/")[1:]), changed[2]
        return Suspects(_with_kind(joined, path, kind), path, kind)
    twice = _TWICE.match(text)
    if twice is not None:
        return Suspects(joined.rows_with_two(re.compile(_key(twice[1].rsplit("/", 1)[-1]))))
    if "surrogate" in text:
        return Suspects(joined.rows_with(_SURROGATE))
    if _ROW.search(text):
        return Suspects(invalid(joined))
    unread = _CONVERT.search(text)
    return Suspects(_with_number(joined, unread[1]) if unread else np.zeros(0, np.int64), late="not_finite")


def _with_kind(joined: Joined, path: tuple[str, ...], kind: str) -> Rows:
    """Records in which a value of this kind seems to stand under the last name of the path."""
    begins = _BEGINS.get(kind)
    names = [name for name in path if name != "[]"]
    if begins is None or not names:
        return np.zeros(0, np.int64)
    if path[-1] == "[]":
        begins = rb"\[(?:[^\]]*[,\[\s])?" + begins
    return joined.rows_with(re.compile(_key(names[-1]) + rb"\s*:\s*" + begins))


def _with_number(joined: Joined, text: str) -> Rows:
    token = text.encode()
    exact = joined.rows_with(re.compile(re.escape(token) + rb"(?=[,\]}\s])"))
    if text in ("NaN", "Infinity", "-Infinity", "Inf"):
        return np.union1d(exact, joined.rows_at(no_numbers(joined.data)))
    digits = token.lstrip(b"-")
    if len(digits) < _LONG or not digits.isdigit():
        return exact
    every = joined.rows_at(long_integers(joined.data, _LONG))
    # Long integers in every record are an id that fits; only some are too long then.
    return every if len(every) < len(joined) // 3 else exact


def _key(name: str) -> bytes:
    """The pattern of a key, as records may write it."""
    written = {json.dumps(name, ensure_ascii=False), json.dumps(name)}
    every = [re.escape(key.encode("utf-8", "surrogatepass")) for key in sorted(written)]
    return every[0] if len(every) == 1 else b"(?:" + b"|".join(every) + b")"
