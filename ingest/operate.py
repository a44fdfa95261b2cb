"""What operators ask the API for: topics and their settings, pause and resume, gaps and resets accepted.

A thin client of the contract: nothing is decided here. Refusals are told in one line.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from ingest.catalog import CatalogRefused, CatalogUnavailable, token_source
from ingest.settings import Settings

Answer = dict[str, Any]


class Operator:
    """The API as an operator sees it. Raises `CatalogRefused` or `CatalogUnavailable`."""

    def __init__(self, settings: Settings) -> None:
        self._token = token_source(settings.token, settings.token_file)
        self._client = httpx.Client(
            base_url=f"{settings.api.rstrip('/')}/v1",
            timeout=30,
            verify=str(settings.api_ca) if settings.api_ca else True,
        )

    def topics(self) -> Iterator[Answer]:
        """All topics, by name."""
        page: str | None = None
        while True:
            answer = self._ask("GET", "/topics", params={"limit": 1000} | ({"page": page} if page else {}))
            yield from answer["topics"]
            page = answer["next_page"]
            if page is None:
                return

    def act(self, topic: str, action: str, body: Mapping[str, Any] | None = None) -> Answer:
        """`pause`, `resume`, `accept-gap`, `accept-reset` (with `from`)."""
        return self._ask("POST", f"/topics/{quote(topic, safe='')}/{action}", json=body)

    def settings(self, topic: str) -> Answer:
        """A topic's settings, each with what set it."""
        answer = self._ask("GET", f"/topics/{quote(topic, safe='')}", params={"explain": "1"})
        explained: Answer = answer["explained"]
        return explained

    def apply(self, file: Path, *, dry_run: bool) -> Iterator[str]:
        """Brings topics to the settings of a TOML file (a table for each topic); a line for each change.

        A setting of a topic that its table does not name goes back to the defaults.
        """
        for topic, wanted in tomllib.loads(file.read_text()).items():
            try:
                now = self._ask("GET", f"/topics/{quote(topic, safe='')}")
            except CatalogRefused:
                yield f"{topic}: new, with {len(wanted)} settings"
                if not dry_run:
                    self._ask("POST", "/topics", json={"topic": topic, "settings": wanted})
                continue
            own = {name: now["settings"][name] for name in now["settings_own"]}
            changes = {
                name: wanted.get(name) for name in {*own, *wanted} if own.get(name) != wanted.get(name)
            }
            for name, value in sorted(changes.items()):
                yield f"{topic}: {name} = {own.get(name, '(default)')} -> {'(default)' if value is None else value}"
            if changes and not dry_run:
                self._ask(
                    "PATCH",
                    f"/topics/{quote(topic, safe='')}",
                    json={"settings": changes},
                    headers={"If-Match": f'"{now["settings_version"]}"'},
                )

    def _ask(self, method: str, path: str, **request: Any) -> Answer:
        headers = dict(request.pop("headers", {}))
        if token := self._token():
            headers["Authorization"] = f"Bearer {token}"
        try:
            answer = self._client.request(method, path, headers=headers, **request)
        except httpx.TransportError as error:
            raise CatalogUnavailable(
                f"the API at {self._client.base_url} does not answer: {error}; is TUKANG_API right?"
            ) from error
        if answer.is_success:
            return dict(answer.json())
        try:
            problem = answer.json()
        except ValueError:
            problem = {"title": answer.reason_phrase, "detail": ""}
        raise CatalogRefused(f"{problem['title']} ({answer.status_code}). {problem.get('detail', '')}")
