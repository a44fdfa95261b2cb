"""The API as a worker sees it: positions, commits, schemas, reports. The contract is `api/openapi.yaml`.

A thin shell over HTTP. It retries what may be retried (nobody answers, 5xx, 429) for ever, with growing pauses that are
said in the log, and turns every other refusal into a named outcome. A repeated commit is harmless: its id is ours.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import tenacity

from ingest.patience import growing_pauses

log = logging.getLogger(__name__)

Answer = dict[str, Any]


class CatalogRefused(Exception):
    """The API answered and will not serve us: wrong token, wrong scope, a request that it does not understand."""


class CatalogUnavailable(Exception):
    """The API did not answer, or asked to come back later. Whether a request took effect is not known."""


class CommitConflict(Exception):
    """409: somebody else moved the position, the epoch is another one, or an object is too old.

    `problem` is the problem's name (`position-moved`, `epoch-moved`, `object-too-old`, ...), `body` the whole answer.
    """

    def __init__(self, problem: str, body: Answer) -> None:
        super().__init__(f"{problem}: {body.get('detail', '')}")
        self.problem = problem
        self.body = body


class CommitRefused(Exception):
    """422 (or 400): the commit breaks a law. The topic stops with that state and is not retried."""


class SchemaMoved(Exception):
    """409: somebody else registered a schema first; `current` is it."""

    def __init__(self, current: Answer) -> None:
        super().__init__(f"the schema is at version {current.get('version')}")
        self.current = current


@dataclass(frozen=True, slots=True)
class Named:
    """Of some objects: those that a commit has ever named, and those of them that were marked as gone."""

    named: frozenset[str]
    swept: frozenset[str]


class Catalog:
    """One client of the API. Coroutine-safe; `token` is called for each request, so that a token can rotate."""

    def __init__(
        self,
        url: str,
        token: Callable[[], str | None],
        *,
        ca: str | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        self._token = token
        verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=ca) if ca else True
        self._client = httpx.AsyncClient(
            base_url=f"{url.rstrip('/')}/v1",
            timeout=timeout_s,
            verify=verify,
            limits=httpx.Limits(max_connections=16, max_keepalive_connections=16),
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def check(self) -> None:
        """Raises `CatalogRefused` when the token may not do this work, `CatalogUnavailable` when nobody answers."""
        self._sound(await self._once("POST", "/positions", {"topics": []}))

    async def positions(self, topics: Sequence[Mapping[str, Any]]) -> list[Answer]:
        """The positions of `[{topic, topic_id, partitions}]`, with settings, schema version, sequence and epoch."""
        answer = await self._patiently("POST", "/positions", {"topics": list(topics)})
        return list(self._sound(answer)["topics"])

    async def commit(self, topic: str, commit: Mapping[str, Any]) -> Answer:
        """Asks for one commit until there is an answer. Raises `CommitConflict` or `CommitRefused`."""
        answer = await self._patiently("POST", f"/topics/{topic}/commits", commit)
        if answer.status_code == 409:
            body = answer.json()
            raise CommitConflict(str(body.get("type", "")).rpartition("/")[2], body)
        if answer.status_code in (400, 422):
            body = answer.json()
            raise CommitRefused(f"{body.get('title')}: {body.get('detail')}")
        return self._sound(answer)

    async def schema(self, topic: str, version: int | None = None) -> Answer:
        """One version of a topic's schema, the newest by default."""
        query = "" if version is None else f"?version={version}"
        return self._sound(await self._patiently("GET", f"/topics/{topic}/schema{query}"))

    async def register_schema(self, topic: str, schema: Mapping[str, Any]) -> Answer:
        """Compare-and-set on `schema["version"]`. Raises `SchemaMoved` with the current one."""
        body = {
            "base_version": schema["version"],
            "columns": schema["columns"],
            "decisions": schema["decisions"],
        }
        answer = await self._patiently("POST", f"/topics/{topic}/schemas", body)
        if answer.status_code == 409:
            raise SchemaMoved(answer.json()["current"])
        return self._sound(answer)

    async def topics(self) -> AsyncIterator[Answer]:
        """All topics, by name."""
        async for page in self._pages("/topics", {}):
            for topic in page["topics"]:
                yield topic

    async def topic(self, name: str) -> Answer:
        """One topic with its settings."""
        return self._sound(await self._patiently("GET", f"/topics/{name}"))

    async def periods(self, topic: str) -> list[Answer]:
        """All periods that have rows, or had."""
        return [
            period
            async for page in self._pages(f"/topics/{topic}/periods", {"only": "rows"})
            for period in page["periods"]
        ]

    async def files(self, topic: str, sequence: int, lowest: str | None) -> list[Answer]:
        """The live row files as of a sequence with rows at or after `lowest` (ISO 8601)."""
        query: dict[str, Any] = {"at": sequence} | ({"from": lowest} if lowest is not None else {})
        return [
            file
            async for page in self._pages(f"/topics/{topic}/files", query)
            for file in page["files"]
            if file["what"] == "rows"
        ]

    async def claim(self, piece: str, holder: str, seconds: int, topic: str | None = None) -> Answer | None:
        """Takes, renews or (0 seconds) gives back a piece of upkeep; None: another one holds it."""
        body = {"piece": piece, "topic": topic, "holder": holder, "seconds": seconds}
        answer = await self._patiently("POST", "/claims", body)
        return None if answer.status_code == 409 else self._sound(answer)

    async def copy(self, topic: str, after: int, *, state: bool = False) -> Answer | None:
        """Commits after a sequence as the database has them; with `state`, what stands beside them too.

        None: the head is below it, the topic lives another life.
        """
        query = f"after={after}&limit=1000" + ("&state" if state else "")
        answer = await self._patiently("GET", f"/topics/{topic}/catalog?{query}")
        return None if answer.status_code == 422 else self._sound(answer)

    async def live(self, topic: str) -> tuple[Answer, list[Answer]]:
        """The first page of the live files now, which says epoch and sequence; and all of them, of every kind."""
        pages = [page async for page in self._pages(f"/topics/{topic}/files", {})]
        return pages[0], [file for page in pages for file in page["files"]]

    async def expired(self, topic: str) -> tuple[Answer, list[Answer]]:
        """The first page of the files that may expire now, which says epoch and sequence; and all of them."""
        pages = [page async for page in self._pages(f"/topics/{topic}/expired", {})]
        return pages[0], [file for page in pages for file in page["files"]]

    async def removed(self, topic: str, after: int) -> AsyncIterator[list[Answer]]:
        """Pages of files that commits after a sequence removed, each with the time from which its object may go."""
        async for page in self._pages(f"/topics/{topic}/removed", {"after": after}):
            yield page["removed"]

    async def swept(self, topic: str, files: Sequence[int], *, lost: bool = False) -> list[str] | None:
        """Marks objects as gone, before they are deleted; their addresses. None: one of them may not go yet.
        `lost`: the store has them no more, and no grace is waited for."""
        body = {"files": list(files)} | ({"lost": True} if lost else {})
        answer = await self._patiently("POST", f"/topics/{topic}/swept", body)
        return None if answer.status_code == 409 else [each["url"] for each in self._sound(answer)["files"]]

    async def named(self, topic: str, urls: Sequence[str]) -> Named:
        """What commits say of objects, a thousand at most."""
        if not urls:
            return Named(frozenset(), frozenset())
        found = self._sound(await self._patiently("POST", f"/topics/{topic}/named", {"urls": list(urls)}))
        return Named(frozenset(found["named"]), frozenset(found.get("swept", ())))

    async def begin_erasure(self, topic: str, field: str, values: Sequence[str]) -> Answer:
        """The rule: appends made before it are refused from now on."""
        body = {"field": field, "values": list(values)}
        return self._sound(await self._patiently("POST", f"/topics/{topic}/erasures", body))

    async def erasure(self, topic: str, number: int) -> Answer:
        """How far an erasure is."""
        return self._sound(await self._patiently("GET", f"/topics/{topic}/erasures/{number}"))

    async def finish_erasure(self, topic: str, number: int, done: Mapping[str, Any]) -> Answer:
        """The signed record of what was done."""
        path = f"/topics/{topic}/erasures/{number}/record"
        return self._sound(await self._patiently("POST", path, done))

    async def loaders(self) -> list[Answer]:
        """All loaders, with what they asked for."""
        return [loader async for page in self._pages("/loaders", {}) for loader in page["loaders"]]

    async def fold(self, topic: str) -> int:
        """Has the API fold what is older than the topic's `history`; how many commits that was."""
        folded = 0
        while True:
            done = self._sound(await self._patiently("POST", f"/topics/{topic}/folds"))
            folded += int(done["commits"])
            if not done["more"]:
                return folded

    async def _pages(self, path: str, query: Mapping[str, Any]) -> AsyncIterator[Answer]:
        """All pages of a list."""
        asked = {"limit": 1000, **query}
        while True:
            page = self._sound(await self._patiently("GET", f"{path}?{httpx.QueryParams(asked)}"))
            yield page
            if not page.get("next_page"):
                return
            asked["page"] = page["next_page"]

    async def report(self, worker: str, report: Mapping[str, Any]) -> Answer:
        """A worker's report, tried once: the next one comes in ten seconds. Raises `CatalogUnavailable`."""
        return self._sound(await self._once("PUT", f"/workers/{worker}", report))

    async def _patiently(self, method: str, path: str, body: Any = None) -> httpx.Response:
        tries = tenacity.AsyncRetrying(**growing_pauses(log, "the API", CatalogUnavailable))
        answer: httpx.Response = await tries(self._once, method, path, body)
        return answer

    async def _once(self, method: str, path: str, body: Any = None) -> httpx.Response:
        token = self._token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            answer = await self._client.request(method, path, json=body, headers=headers)
        except httpx.TransportError as error:
            raise CatalogUnavailable(
                f"{method} {self._client.base_url}: {type(error).__name__} {error}; is TUKANG_API right?"
            ) from error
        if answer.status_code >= 500 or answer.status_code == 429:
            raise CatalogUnavailable(f"{method} {path} answered {answer.status_code}")
        return answer

    @staticmethod
    def _sound(answer: httpx.Response) -> Answer:
        problem = said(answer)
        if answer.is_success:
            return problem
        title, detail = problem.get("title", "no problem details"), problem.get("detail", "")
        what = f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {title}. {detail}"
        if answer.status_code in (401, 403):
            what += (
                " Set TUKANG_TOKEN or TUKANG_TOKEN_FILE to a token that may do this (tukang tokens create)."
            )
        raise CatalogRefused(what)


def said(answer: httpx.Response) -> Answer:
    """What an answer says, a problem too. Raises `CatalogRefused` when it is not Tukang's API that answered."""
    try:
        return dict(answer.json())
    except (ValueError, TypeError):
        raise CatalogRefused(
            f"{answer.request.method} {answer.request.url} was answered with {answer.status_code}, and not by"
            " Tukang's API: is TUKANG_API right?"
        ) from None


def token_source(token: str | None, file: Path | None) -> Callable[[], str | None]:
    """The token, or what stands in the file now: read again when it changes."""
    if file is None:
        return lambda: token
    read_at: tuple[int, str] = (-1, "")

    def read() -> str:
        nonlocal read_at
        try:
            changed = file.stat().st_mtime_ns
            if changed != read_at[0]:
                read_at = (changed, file.read_text().strip())
        except OSError as error:  # whoever renews it may be at it
            raise CatalogUnavailable(f"TUKANG_TOKEN_FILE: {file} cannot be read: {error.strerror}") from error
        return read_at[1]

    return read
