"""Dead letters for a person and for programs: a list, one letter whole, and files with their bytes."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow as pa
from rich import box
from rich.table import Table
from rich.text import Text

from ingest.printer import fitted, printer

Form = Literal["table", "json"]
ExportForm = Literal["ndjson", "raw"]

SHOWN_BYTES = 200  # of a value on each side of the place where it went wrong


def listed(tables: Iterable[pa.Table], limit: int, form: Form, out: IO[str]) -> None:
    """At most `limit` letters, without their bytes."""
    rows: list[dict[str, Any]] = []
    more = False
    for table in tables:
        for letter in table.slice(0, limit + 1 - len(rows)).to_pylist():
            rows.append(_summary(letter))
        if len(rows) > limit:
            rows, more = rows[:limit], True
            break
    if form == "json":
        json.dump(rows, out, indent=2)
        out.write("\n")
        return
    console = printer(out)
    if not rows:
        console.print("No dead letters.")
        return
    shown = Table(box=box.SIMPLE_HEAVY)
    for name, justify in (
        ("lake partition", "right"), ("offset", "right"), ("timestamp", "left"), ("reason", "left"),
        ("at byte", "right"), ("bytes", "right"), ("text", "left"),
    ):  # fmt: skip
        shown.add_column(name, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        shown.add_row(
            str(row["lake_partition"]),
            str(row["offset"]),
            (row["timestamp"] or "none")[:19].replace("T", " "),
            row["reason"],
            "" if row["at"] is None else str(row["at"]),
            "" if row["bytes"] is None else f"{row['bytes']:,}",
            Text(row["text"]),
        )
    console.print(fitted(shown, console))
    if more:
        console.print(f"... and more than {limit:,}: --limit shows them, filters say which.")


def whole(letter: dict[str, Any], out: IO[str]) -> None:
    """One letter, its bytes too: around the place where it went wrong if it is long."""
    for name, value in _summary(letter).items():
        out.write(f"{name.replace('_', ' ')}: {'none' if value is None else value}\n")
    out.write(f"key: {_readable(letter['_key'])}\n")
    for header in letter["_headers"] or ():
        out.write(f"header {header['key']}: {_readable(header['value'])}\n")
    value, at = letter["_value"], letter["_reason_at"] or 0
    if value is not None and len(value) > 2 * SHOWN_BYTES:
        start = max(0, at - SHOWN_BYTES)
        out.write(f"value, from byte {start}: {_readable(value[start : at + SHOWN_BYTES])}\n")
        return
    out.write(f"value: {_readable(value)}\n")


def exported(tables: Iterable[pa.Table], folder: Path, form: ExportForm) -> int:
    """Writes letters below `folder`; how many. `ndjson`: letters.ndjson, a line each, values as text if they are UTF-8,
    else in base64. `raw`: a file for each, with exactly its bytes, named by lake partition and offset.
    """
    folder.mkdir(parents=True, exist_ok=True)
    letters = (
        letter for table in tables for batch in table.to_batches(1_000) for letter in batch.to_pylist()
    )
    if form == "raw":
        count = 0
        for letter in letters:
            name = f"{letter['_lake_partition']}-{letter['_offset']:020}"
            (folder / name).write_bytes(letter["_value"] or b"")
            count += 1
        return count
    with (folder / "letters.ndjson").open("w", encoding="utf-8") as file:
        return sum(1 for _ in _lines(letters, file))


def _lines(letters: Iterable[dict[str, Any]], file: IO[str]) -> Iterator[None]:
    for letter in letters:
        line = _summary(letter)
        line |= _bytes("key", letter["_key"]) | _bytes("value", letter["_value"])
        line["headers"] = [
            {"name": header["key"]} | _bytes("value", header["value"]) for header in letter["_headers"] or ()
        ]
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
        yield None


def _summary(letter: dict[str, Any]) -> dict[str, Any]:
    value = letter["_value"]
    return {
        "lake_partition": letter["_lake_partition"],
        "offset": letter["_offset"],
        "timestamp": None if letter["_timestamp"] is None else letter["_timestamp"].isoformat(),
        "first_seen": letter["_first_seen"].isoformat(),
        "reason": letter["_reason"],
        "text": letter["_reason_text"],
        "at": letter["_reason_at"],
        "bytes": None if value is None else len(value),
    }


def _bytes(name: str, value: bytes | None) -> dict[str, str | None]:
    """A value by its name as text, or by `NAME_base64` where it is none."""
    if value is None:
        return {name: None}
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value).decode()}


def _readable(value: bytes | None) -> str:
    """Text with everything that a terminal would act on escaped."""
    if value is None:
        return "none"
    text = value.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
