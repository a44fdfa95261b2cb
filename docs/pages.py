"""Writes docs/settings.md from the classes that read the settings, so that the page cannot be wrong.

`python -m docs.pages` writes it; a test compares. What is to be said of a setting is said where it is defined.
"""

from pathlib import Path
from typing import Any

from pydantic import ByteSize
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

import api.settings
import api.topic_settings
import ingest.settings
import loaders.settings

PAGE = Path(__file__).with_name("settings.md")

HEAD = """\
# Settings

Each service is told by environment variables, or by a TOML file that `TUKANG_CONFIG` names (the same names without
`TUKANG_`, in lower case); the environment wins. A wrong value ends the start and names its key. A key that no part of
Tukang knows is ignored, with a warning that names the nearest one.

Durations are written `500ms`, `2s`, `15min`, `1h`, `7d`, sizes `512MiB` or `128MB`; lists are separated by commas.
Credentials of the object store come in boto3's usual ways.

This page is made from the code: `make docs`.
"""

TOPIC_HEAD = """
## Topics

Kept by the API and changed while workers run: for one topic with `PATCH /v1/topics/{topic}`, for all whose name
matches a pattern with `PUT /v1/defaults/{name}`. A topic's own value wins over the worker's environment, that over
defaults by pattern. `GET /v1/topics/{topic}?explain` and `tukang topics settings TOPIC` say which rule set each value.

As code, they stand in a TOML file with a table for each topic:

```
[orders]
event_id = ["order.id"]
lateness = "5min"

["payments.eu"]
retention = "90d"
```

`tukang topics apply FILE` makes the topics that are not there, brings the others to exactly these settings (one that is
not named goes back to its default), and prints each change; topics that the file does not name stay as they are. When
one setting is wrong it says so and changes nothing. `--dry-run` says what would change, `--confirm` is wanted where
retention becomes less than half of what it was.

| setting | default | |
|---|---|---|
"""


def page() -> str:
    """The page's text."""
    topics = [
        f"| `{name}` | {'as the worker is told' if name == 'flush_rows' else _value(each.default)} | {each.about} |\n"
        for name, each in api.topic_settings.SETTINGS.items()
    ]
    return "".join(
        [
            HEAD,
            _of_class(
                "`tukang worker`, `verify`; the broker's are not needed by others but `topics backfill`",
                ingest.settings.Settings,
            ),
            _of_class("`tukang api`, `migrate`", api.settings.ApiSettings),
            _of_class("Loaders", loaders.settings.LoaderSettings),
            TOPIC_HEAD,
            *topics,
        ]
    )


def _of_class(title: str, settings: type[BaseSettings]) -> str:
    lines = [f"\n## {title}\n\n| variable | default | |\n|---|---|---|\n"]
    for name, field in settings.model_fields.items():
        lines.append(
            f"| `TUKANG_{name.upper()}` | {_default(name, field)} | {_cell(field.description or '')} |\n"
        )
    return "".join(lines)


def _default(name: str, field: Any) -> str:
    if field.default_factory is not None:
        return "host and process"
    if field.default is PydanticUndefined:
        return "**needed**"
    return _value(field.default)


def _value(value: Any) -> str:
    if value is None or value in ("", []):
        return "none"
    if isinstance(value, ByteSize):
        return f"`{value // 2**30}GiB`" if value % 2**30 == 0 else f"`{value // 10**6}MB`"
    if isinstance(value, int) and value >= 10**4:
        return f"`{value:,}`"
    if hasattr(value, "total_seconds"):
        seconds = int(value.total_seconds())
        return f"`{seconds // 60}min`" if seconds % 60 == 0 and seconds > 60 else f"`{seconds}s`"
    return f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    PAGE.write_text(page())
