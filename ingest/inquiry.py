"""The API as those see it who only ask: `tukang verify` and `tukang status`. Synchronous, and read-only.

A program that a person waits for does not wait for ever: an API that does not answer is asked a few times, then it is
said. What a worker does with the API lives in `catalog.py`.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import httpx
import tenacity

from ingest.catalog import CatalogRefused, CatalogUnavailable, said
from ingest.settings import ApiSettings

Answer = dict[str, Any]

_READS = 5  # of a busy topic, until two in a row show the same sequence


class TopicUnknown(Exception):
    """The API has no such topic, or the token may not see it."""


class HistoryFolded(Exception):
    """The history before sequence `oldest` is folded."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"the history before sequence {oldest} is folded")
        self.oldest = oldest


def _may_pass(error: BaseException) -> bool:
    """Who has not answered for so long will not when asked again at once: nobody is to wait four times for it."""
    return isinstance(error, CatalogUnavailable) and not isinstance(error.__cause__, httpx.ReadTimeout)


class Inquiry:
    """A reader of the API. `token` is called for each request, so that a token can rotate."""

    def __init__(
        self,
        url: str,
        token: Callable[[], str | None] = lambda: None,
        *,
        ca: str | None = None,
        tries: int = 4,
        timeout_s: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`transport` stands in for the network, for tests that have the application in the same process."""
        self._token = token
        self._tries = tries
        self._client = httpx.Client(
            base_url=f"{url.rstrip('/')}/v1",
            timeout=timeout_s,
            verify=ssl.create_default_context(cafile=ca) if ca else True,
            transport=transport,
        )

    @classmethod
    def of(cls, settings: ApiSettings, timeout_s: float = 60.0) -> Inquiry:
        """The API that the settings name."""
        from ingest.catalog import token_source

        ca = str(settings.api_ca) if settings.api_ca else None
        return cls(
            settings.api, token_source(settings.token, settings.token_file), ca=ca, timeout_s=timeout_s
        )

    def close(self) -> None:
        self._client.close()

    def topics(self) -> list[Answer]:
        """All topics, as the contract's TopicSummary, by name."""
        return list(self._pages("/topics", "topics", {"limit": 1000}))

    def loaders(self) -> list[Answer]:
        """All loaders, with how far they are behind."""
        return list(self._pages("/loaders", "loaders", {"limit": 1000}))

    def workers(self) -> list[Answer]:
        """All workers, by their newest reports."""
        return list(self._pages("/workers", "workers", {"limit": 1000}))

    def topic(self, name: str) -> Answer:
        """One topic with its partitions."""
        return self._get(f"/topics/{quote(name, safe='')}")

    def topic_as_of(self, name: str) -> Answer:
        """One topic whose positions are exactly those of its `sequence`, also while workers go on.

        The API reads the topic before its partitions: an answer stands when the next one shows the same sequence.
        """
        before = self.topic(name)
        for _ in range(_READS):
            after = self.topic(name)
            if after["sequence"] == before["sequence"]:
                return before
            before = after
        raise CatalogUnavailable(f"topic {name} was committed to faster than it could be read: try again")

    def commits(self, topic: str, after: int, to: int) -> Iterator[Answer]:
        """Commits of (after, to] with files added and ids removed, also those whose objects are gone."""
        while after < to:
            page = self._get(
                f"/topics/{quote(topic, safe='')}/batches", {"after": after, "limit": 1000, "swept": 1}
            )
            if not page["commits"]:
                return
            for commit in page["commits"]:
                if commit["sequence"] > to:
                    return
                yield commit
            after = page["commits"][-1]["sequence"]

    def oldest(self, topic: str) -> int:
        """The first sequence that the feed still has."""
        try:
            asked = {"after": 0, "limit": 1, "swept": 1}
            return int(self._get(f"/topics/{quote(topic, safe='')}/batches", asked)["oldest"])
        except HistoryFolded as folded:
            return folded.oldest

    def lines(self, topic: str, after: int, to: int) -> Iterator[Answer]:
        """Lines of the ledger of (after, to], by sequence and lake partition."""
        path = f"/topics/{quote(topic, safe='')}/ledger"
        return self._pages(path, "lines", {"after": after, "to": to, "limit": 1000})

    def files(
        self, topic: str, at: int, *, swept: bool = False, after: int | None = None
    ) -> Iterator[Answer]:
        """The live files as of a sequence; `swept`: also those whose objects are gone since. With `after`: those with
        rows committed after it, and all `deletes` files since."""
        asked = {"at": at, "limit": 1000} | ({"swept": 1} if swept else {})
        asked |= {} if after is None else {"after": after}
        return self._pages(f"/topics/{quote(topic, safe='')}/files", "files", asked)

    def _pages(self, path: str, noun: str, asked: dict[str, Any]) -> Iterator[Answer]:
        while True:
            page = self._get(path, asked)
            yield from page[noun]
            if page["next_page"] is None:
                return
            asked = {**asked, "page": page["next_page"]}

    def _get(self, path: str, asked: dict[str, Any] | None = None) -> Answer:
        tries = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
            stop=tenacity.stop_after_attempt(self._tries),
            reraise=True,
        )
        answer: httpx.Response = tries(self._once, path, asked)
        problem = said(answer)
        if answer.is_success:
            return problem
        why = f"{problem.get('title', 'no problem details')}. {problem.get('detail', '')}".strip()
        if answer.status_code == 404 and path.startswith("/topics/"):
            raise TopicUnknown(why)
        if answer.status_code == 410 and "oldest" in problem:
            raise HistoryFolded(int(problem["oldest"]))
        if answer.status_code in (401, 403):
            why += " Set TUKANG_TOKEN or TUKANG_TOKEN_FILE to a token that may read (tukang tokens create)."
        raise CatalogRefused(f"GET {path}: {answer.status_code} {why}")

    def _once(self, path: str, asked: dict[str, Any] | None) -> httpx.Response:
        token = self._token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            answer = self._client.get(path, params=asked, headers=headers)
        except httpx.TransportError as error:
            where = self._client.base_url
            raise CatalogUnavailable(
                f"the API at {where} does not answer ({type(error).__name__}): is TUKANG_API right?"
            ) from error
        if answer.status_code >= 500 or answer.status_code == 429:
            raise CatalogUnavailable(f"the API answered {answer.status_code} to GET {path}")
        return answer
