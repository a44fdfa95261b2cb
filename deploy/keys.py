"""Which keys of settings there are, over all packages: each ignores what it does not know, since it may be another's.

A key that is nobody's is a slip of the pen, and is told: the service would run with a default that nobody wanted.
"""

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import api.settings
import ingest.settings
import loaders.settings

PREFIX = "TUKANG_"

KEYS = {
    *ingest.settings.Settings.model_fields,
    *api.settings.ApiSettings.model_fields,
    *loaders.settings.LoaderSettings.model_fields,
}
"""As they stand in the file; in the environment in capitals, behind the prefix."""

_OTHERS = {f"{PREFIX}CONFIG", f"{PREFIX}STACK"}  # the latter marks the processes of an embedded stack

# What Kubernetes puts there for a Service whose name begins with tukang, such as TUKANG_API_PORT_8470_TCP_ADDR.
_OF_KUBERNETES = re.compile(
    r".+_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


def misspelt(environment: Mapping[str, str]) -> Iterator[str]:
    """A line for each key of the environment, and of the file that it names, which nobody reads."""
    known = {f"{PREFIX}{name.upper()}" for name in KEYS} | _OTHERS
    for key in sorted(environment):
        if key.upper().startswith(PREFIX) and key.upper() not in known and not _OF_KUBERNETES.fullmatch(key):
            yield f"{key} is no setting, and is ignored{_nearest(key.upper(), known)}"
    for key in sorted(_in_file(environment.get(f"{PREFIX}CONFIG")) - KEYS):
        yield f"{PREFIX}CONFIG: {key} is no setting, and is ignored{_nearest(key.lower(), KEYS)}"


def _in_file(name: str | None) -> set[str]:
    """The keys of the file; none when it cannot be read, which the command itself says if it wants to read it."""
    try:
        return set(tomllib.loads(Path(name).read_text())) if name else set()
    except (OSError, ValueError):
        return set()


def _nearest(key: str, known: set[str]) -> str:
    near = difflib.get_close_matches(
        key.removeprefix(PREFIX), sorted(each.removeprefix(PREFIX) for each in known), 1
    )
    return f". Did you mean {PREFIX if key.startswith(PREFIX) else ''}{near[0]}?" if near else "."
