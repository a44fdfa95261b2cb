"""`live/TOPIC.json`: the live files of a topic for readers without the API; written over after each change upkeep made.

A reader that holds the document has `read_grace` to read what it names. It says as of which commit it is: rows
committed later are in the lake already and not in it yet.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ingest.lake import Lake, patiently

VERSION = 1
_FIELDS = ("url", "rows", "bytes", "sha256", "schema_version", "lowest", "highest", "late")


def live_document(
    topic: str,
    epoch: str,
    sequence: int,
    files: Sequence[Mapping[str, Any]],
    schema: Mapping[str, Any],
    complete_until: str | None,
    written_at: str,
) -> dict[str, Any]:
    """The document: `files` of rows and `dead_letters`, each by address, with what a reader needs to choose."""

    def shown(what: str) -> list[dict[str, Any]]:
        return [{name: file[name] for name in _FIELDS} for file in files if file["what"] == what]

    return {
        "version": VERSION,
        "topic": topic,
        "epoch": epoch,
        "sequence": sequence,
        "complete_until": complete_until,
        "written_at": written_at,
        "columns": schema["columns"],
        "files": shown("rows"),
        "dead_letters": shown("dead_letters"),
    }


def write_live(lake: Lake, document: Mapping[str, Any]) -> None:
    """Writes it under its fixed name; blocks until the store has it."""
    data = json.dumps(document, separators=(",", ":")).encode()
    for attempt in patiently():
        with attempt:
            lake.write(f"live/{document['topic']}.json", data)
