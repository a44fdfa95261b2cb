"""What operators ask the API for: topics and their settings, pause and resume, gaps and resets accepted, loaders.

A thin client of the contract: nothing is decided here. Refusals are told in one line.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from ingest.catalog import CatalogRefused, CatalogUnavailable, said, token_source
from ingest.settings import ApiSettings

Answer = dict[str, Any]


class NotThere(CatalogRefused):
    """There is none of that name, or the token may not see it."""


@dataclass(frozen=True, slots=True)
class _Planned:
    """One request that brings a topic to its settings, and what is said of it."""

    topic: str
    method: str
    path: str
    body: Answer
    headers: dict[str, str]
    lines: list[str]


class Operator:
    """The API as an operator sees it. Raises `CatalogRefused` or `CatalogUnavailable`."""

    def __init__(self, settings: ApiSettings) -> None:
        self._token = token_source(settings.token, settings.token_file)
        self._client = httpx.Client(
            base_url=f"{settings.api.rstrip('/')}/v1",
            timeout=30,
            verify=str(settings.api_ca) if settings.api_ca else True,
        )

    def topics(self) -> Iterator[Answer]:
        """All topics, by name."""
        return self._pages("/topics", "topics")

    def act(self, topic: str, action: str, body: Mapping[str, Any] | None = None) -> Answer:
        """`pause`, `resume`, `accept-gap`, `accept-reset` (with `from`)."""
        return self._ask("POST", f"/topics/{quote(topic, safe='')}/{action}", json=body)

    def settings(self, topic: str) -> Answer:
        """A topic's settings, each with what set it."""
        answer = self._ask("GET", f"/topics/{quote(topic, safe='')}", params={"explain": "1"})
        explained: Answer = answer["explained"]
        return explained

    def apply(self, file: Path, *, dry_run: bool, confirm: bool = False) -> Iterator[str]:
        """Brings topics to the settings of a TOML file (a table for each topic); a line for each change.

        A setting of a topic that its table does not name goes back to the defaults. All is tried first: when one
        change would be refused, none is made. `confirm`: also changes of retention that want a second word.
        """
        planned = [self._planned(topic, wanted, confirm) for topic, wanted in _tables(file).items()]
        refused = []
        for each in planned:
            try:
                self._make(each, dry_run=True)
            except CatalogRefused as refusal:
                refused.append(f"{each.topic}: {refusal}")
        if refused:
            raise CatalogRefused("\n".join([*refused, "Nothing was changed."]))
        for each in planned:
            if not dry_run:
                try:
                    self._make(each, dry_run=False)
                except (CatalogRefused, CatalogUnavailable) as error:  # since it was tried
                    raise type(error)(
                        f"{each.topic}: {error} What is said above is changed; --dry-run says what is not."
                    ) from error
            yield from each.lines

    def _planned(self, topic: str, wanted: Answer, confirm: bool) -> _Planned:
        try:
            now = self._ask("GET", f"/topics/{quote(topic, safe='')}")
        except NotThere:
            line = f"{topic}: new, with {len(wanted)} settings"
            return _Planned(topic, "POST", "/topics", {"topic": topic, "settings": wanted}, {}, [line])
        own = {name: now["settings"][name] for name in now["settings_own"]}
        changes = {name: wanted.get(name) for name in {*own, *wanted} if own.get(name) != wanted.get(name)}
        lines = [
            f"{topic}: {name} = {own.get(name, '(default)')} -> {'(default)' if value is None else value}"
            for name, value in sorted(changes.items())
        ]
        body = {"settings": changes} | ({"confirm": True} if confirm else {})
        seen = {"If-Match": f'"{now["settings_version"]}"'}
        return _Planned(topic, "PATCH", f"/topics/{quote(topic, safe='')}", body, seen, lines)

    def _make(self, planned: _Planned, *, dry_run: bool) -> None:
        if planned.lines:
            tried = {"dry_run": ""} if dry_run else {}
            self._ask(planned.method, planned.path, json=planned.body, headers=planned.headers, params=tried)

    def loaders(self) -> Iterator[Answer]:
        """All loaders, by name, with how far behind they are."""
        return self._pages("/loaders", "loaders")

    def cursors(self, loader: str) -> Iterator[Answer]:
        """The cursors of a loader with their lag, by topic."""
        return self._pages(f"/loaders/{quote(loader, safe='')}", "cursors")

    def hold(self, loader: str, hold: bool) -> Answer:
        """Whether retention and the sweep wait for the loader; what else it is told stays."""
        path = f"/loaders/{quote(loader, safe='')}"
        told = self._ask("GET", path, params={"limit": 1})
        kept = {name: told[name] for name in ("topics", "from", "mirror_expiry")}
        return self._ask("PUT", path, json={**kept, "hold": hold})

    def remove_loader(self, loader: str) -> None:
        """Takes a loader away with its cursors; nothing waits for it any more."""
        self._ask("DELETE", f"/loaders/{quote(loader, safe='')}")

    def _pages(self, path: str, noun: str) -> Iterator[Answer]:
        page: str | None = None
        while True:
            answer = self._ask("GET", path, params={"limit": 1000} | ({"page": page} if page else {}))
            yield from answer[noun]
            page = answer["next_page"]
            if page is None:
                return

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
        if answer.is_success and not answer.content:
            return {}
        problem = said(answer)
        if answer.is_success:
            return problem
        refusal = NotThere if answer.status_code == 404 else CatalogRefused
        raise refusal(
            f"{problem.get('title', 'No problem details')} ({answer.status_code}). {problem.get('detail', '')}"
        )


def _tables(file: Path) -> dict[str, dict[str, Any]]:
    """Topic -> its settings. Raises ValueError that names the file."""
    try:
        found = tomllib.loads(file.read_text())
    except ValueError as error:  # of TOML, or of UTF-8
        raise ValueError(f"{file} is not TOML: {error}") from error
    if lone := next((name for name, value in found.items() if not isinstance(value, dict)), None):
        raise ValueError(
            f"{file}: {lone!r} stands in no table; a topic's settings follow its name, like [orders]"
        )
    return found
