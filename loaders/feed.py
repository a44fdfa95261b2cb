"""A client of Tukang's metadata API for those who load a warehouse: one file to copy (httpx, tenacity, pyroaring).

    feed = Feed("https://tukang.example", token="...", loader="dwh")
    feed.register(["orders"])
    for commit in feed.batches("orders", after=sequence, epoch=epoch, wait=30).commits:
        ...                     # in one transaction of your warehouse, which keeps epoch and sequence too
    feed.tell("orders", epoch, sequence)     # operators see your lag, and retention can wait for you

What is to be done with each kind of commit, with a run of them and with the three answers of a 410 (`Behind`,
`EpochMoved`, `StartAnew`) is `change.py`. What lives here speaks HTTP and reads the contract; it knows no warehouse and
fetches no file. Synchronous; one `Feed` may be used by several threads.
"""

import base64
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import tenacity
from pyroaring import BitMap


class FeedError(Exception):
    """The API answered, and will not serve this: wrong token, unknown topic, a contract newer than this client."""


class FeedUnavailable(Exception):
    """The API did not answer, or asked to come back later, for as long as this client is patient."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What of a lake partition stays when the epoch moved: offsets below `next`, less the `carried` ones."""

    lake_partition: int
    next: int
    carried: frozenset[int] = frozenset()


class Gone(Exception):
    """410: this cursor cannot simply go on; which of the three it is says how else."""


class Behind(Gone):
    """Objects of the next commits are gone: catch up to the live files as of `sequence`."""

    def __init__(self, sequence: int) -> None:
        super().__init__(f"the next commits' objects are gone; the way goes on at sequence {sequence}")
        self.sequence = sequence


class EpochMoved(Gone):
    """The catalogue lives another life: `common` is the last sequence that both lives share.

    `cursor` is the lower of `common` and the sequence asked with; `positions` are those as of `cursor`.
    """

    def __init__(self, epoch: str, common: int, cursor: int, positions: "tuple[Kept, ...]") -> None:
        super().__init__(
            f"the topic is in epoch {epoch} now, which shares everything up to sequence {common}"
        )
        self.epoch, self.common, self.cursor, self.positions = epoch, common, cursor, positions


class StartAnew(Gone):
    """The history that this cursor needs is folded or unknown: start with an empty table."""


@dataclass(frozen=True, slots=True)
class File:
    """One Parquet object of the lake. `sequence` and `kind` are of the commit that added it."""

    id: int
    sequence: int
    kind: str
    url: str
    what: str  # "rows", "dead_letters" or "deletes"
    bytes: int
    rows: int
    sha256: str
    schema_version: int
    late: bool = False
    presigned_url: str | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """One change of a topic. `remove`: ids of files; a loader of rows has no use for them."""

    sequence: int
    kind: str
    add: tuple[File, ...]
    remove: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Batches:
    """One answer of the feed: commits in order, without a gap."""

    epoch: str
    oldest: int
    head: int
    more: bool
    commits: tuple[Commit, ...]


@dataclass(frozen=True, slots=True)
class LiveFiles:
    """The live files of a topic as of `sequence`."""

    epoch: str
    sequence: int
    files: tuple[File, ...]


@dataclass(frozen=True, slots=True)
class Registration:
    """A loader as the API knows it. `topics`: names, and patterns that begin with ^."""

    topics: tuple[str, ...]
    start: str  # "snapshot", "earliest" or "now"
    hold: bool
    mirror_expiry: bool


class Feed:
    """One loader's view of the API."""

    def __init__(
        self,
        url: str,
        *,
        token: str | Callable[[], str | None] | None = None,
        loader: str,
        urls: str = "s3",
        ca: str | None = None,
        patience_s: float | None = 60,
        timeout_s: float = 60,
        on_wait: Callable[[str], None] = lambda _: None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`token` may be a function, so that it can rotate. `urls`: "s3" or "presigned". `patience_s`: how long to
        ask an API that does not answer, None for ever; `on_wait` is told each time. `timeout_s`: how long one answer
        may take (a long poll takes 30). `ca`: a PEM file.
        """
        self.loader = loader
        self.urls = urls
        self._token = token if callable(token) else lambda: token
        self._told: dict[str, int | None] = {}  # topic -> the cursor that the API has
        self._holder: str | None = None
        self._patience_s = patience_s
        self._on_wait = on_wait
        self._http = httpx.Client(
            base_url=f"{url.rstrip('/')}/v1",
            timeout=timeout_s,
            verify=ssl.create_default_context(cafile=ca) if ca else True,
            transport=transport,
        )

    def close(self) -> None:
        self._http.close()

    def register(
        self,
        topics: Sequence[str],
        *,
        start: str = "snapshot",
        hold: bool = False,
        mirror_expiry: bool = False,
    ) -> Registration:
        """Registers this loader for topics (names, or patterns that begin with ^), or changes what it is told.

        `start`: "snapshot", "earliest" or "now", for topics without a cursor. `hold`: retention waits for this loader.
        `mirror_expiry`: rows that expire in the lake are to leave the warehouse too.
        """
        body = {"topics": list(topics), "from": start, "hold": hold, "mirror_expiry": mirror_expiry}
        return self._registered(self._sound(self._ask("PUT", self._own(), json=body)))

    def registration(self) -> Registration | None:
        """What the API knows of this loader; None: it is not registered."""
        answer = self._ask("GET", self._own())
        # Any other server has no such page either: only Tukang's 404 says that the loader is not registered.
        return (
            None
            if answer.status_code == 404 and _of_tukang(answer)
            else self._registered(self._sound(answer))
        )

    def waiting(self, wait: int = 0) -> list[str]:
        """Topics with commits that this loader has not told of yet, longest waiting first: one poll for all of them."""
        answer = self._sound(self._ask("GET", self._own("/batches"), params={"wait": wait}))
        return [each["topic"] for each in answer["topics"]]

    def topics(self) -> list[str]:
        """All topics that the token may see."""
        return [each["topic"] for page in self._pages("/topics", {"limit": 1000}) for each in page["topics"]]

    def batches(
        self, topic: str, after: int, *, epoch: str | None = None, limit: int = 100, wait: int = 0
    ) -> Batches:
        """Commits after a sequence; `wait` holds the answer up to 30 s until there is one. Raises `Gone`."""
        asked: dict[str, Any] = {"after": after, "limit": limit, "wait": wait, "what": "rows"}
        body = self._sound(self._ask("GET", f"/topics/{topic}/batches", params=self._query(asked, epoch)))
        commits = tuple(
            Commit(each["sequence"], each["kind"], tuple(map(_file, each["add"])), tuple(each["remove"]))
            for each in body["commits"]
        )
        return Batches(body["epoch"], body["oldest"], body["head"], body["more"], commits)

    def place(self, topic: str) -> tuple[str, int]:
        """Epoch and sequence where the API has this loader's cursor of a topic; 0 where it has none yet."""
        found = self._sound(self._ask("GET", self._own()))["cursors"]
        for each in found:
            if each["topic"] == topic:
                return each["epoch"], each["sequence"] or 0
        body = self._sound(self._ask("GET", f"/topics/{topic}/files", params={"limit": 1}))
        return body["epoch"], 0

    def files(
        self,
        topic: str,
        *,
        at: int | None = None,
        after: int | None = None,
        epoch: str | None = None,
        what: str | None = None,
    ) -> LiveFiles:
        """The live files as of a sequence (default: now), all pages; see the contract for `after`. Raises `Gone`."""
        asked = {"at": at, "after": after, "what": what, "limit": 1000}
        pages = self._pages(f"/topics/{topic}/files", self._query(asked, epoch))
        found = [file for page in pages for file in page["files"]]
        return LiveFiles(pages[0]["epoch"], pages[0]["sequence"], tuple(map(_file, found)))

    def schema(self, topic: str, version: int | None = None) -> dict[str, Any]:
        """The columns and types of a version, the newest by default, with the reasons of decisions."""
        params = {} if version is None else {"version": version}
        return self._sound(self._ask("GET", f"/topics/{topic}/schema", params=params))

    def tell(self, topic: str, epoch: str, sequence: int, *, reset: bool = False) -> None:
        """Tells the API how far the warehouse is. `reset`: also when the API believes that it is further."""
        move = {"epoch": epoch, "from": self._told.get(topic), "to": sequence, "reset": reset}
        holder = {} if self._holder is None else {"holder": self._holder}
        while True:
            answer = self._ask("PUT", self._own("/cursors"), json={**holder, "cursors": {topic: move}})
            if answer.status_code == 410:
                return  # the catalogue lives another life: the next change will find out
            if answer.status_code != 409 or "cursors" not in answer.json():
                break
            stored = answer.json()["cursors"][topic]
            self._told[topic] = stored["sequence"]
            if stored["epoch"] == epoch and (stored["sequence"] or 0) >= sequence:
                return  # another process of this loader was faster
            move |= {"from": stored["sequence"], "reset": stored["epoch"] != epoch}
        self._sound(answer)
        self._told[topic] = sequence

    def lease(self, holder: str, seconds: int) -> bool:
        """Takes, renews or (0 seconds) gives back the right to be this loader's one process. False: another has it.

        Only for warehouses that cannot keep the cursor in the transaction that changes the rows.
        """
        answer = self._ask("POST", self._own("/lease"), json={"holder": holder, "seconds": seconds})
        self._holder = None if answer.status_code == 409 or not seconds else holder
        return answer.status_code != 409 and bool(self._sound(answer))

    def _registered(self, body: dict[str, Any]) -> Registration:
        self._told = {each["topic"]: each["sequence"] for each in body["cursors"]}
        return Registration(tuple(body["topics"]), body["from"], body["hold"], body["mirror_expiry"])

    def _own(self, path: str = "") -> str:
        return f"/loaders/{self.loader}{path}"

    def _query(self, asked: dict[str, Any], epoch: str | None) -> dict[str, Any]:
        urls = None if self.urls == "s3" else self.urls
        return {
            name: value
            for name, value in {**asked, "epoch": epoch, "urls": urls}.items()
            if value is not None
        }

    def _pages(self, path: str, asked: dict[str, Any]) -> list[dict[str, Any]]:
        """All pages of a list."""
        pages = [self._sound(self._ask("GET", path, params=asked))]
        while (page := pages[-1]["next_page"]) is not None:
            pages.append(self._sound(self._ask("GET", path, params={**asked, "page": page})))
        return pages

    def _ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Asks until there is an answer, with growing pauses. Raises `FeedUnavailable` when patience ends."""

        def say(state: tenacity.RetryCallState) -> None:
            self._on_wait(str(state.outcome and state.outcome.exception()))

        tries = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(FeedUnavailable),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=10),
            stop=tenacity.stop_never
            if self._patience_s is None
            else tenacity.stop_after_delay(self._patience_s),
            before_sleep=say,
            reraise=True,
        )
        return tries(self._once, method, path, **request)

    def _once(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            token = self._token()
        except OSError as error:  # whoever renews the file may be at it
            raise FeedUnavailable(f"the token cannot be read: {error}") from error
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            answer = self._http.request(method, path, headers=headers, **request)
        except httpx.TransportError as error:
            raise FeedUnavailable(
                f"{self._http.base_url}: {type(error).__name__} {error}; is TUKANG_API right?"
            ) from error
        if answer.status_code >= 500 or answer.status_code == 429:
            raise FeedUnavailable(f"{method} {path} answered {answer.status_code}")
        return answer

    @staticmethod
    def _sound(answer: httpx.Response) -> dict[str, Any]:
        if answer.is_success and not answer.content:
            return {}
        if not _of_tukang(answer):
            raise FeedError(
                f"{answer.request.method} {answer.request.url}: {answer.status_code}, and not by Tukang's API;"
                " is TUKANG_API right?"
            )
        problem: dict[str, Any] = answer.json()
        if answer.is_success:
            return problem
        if answer.status_code == 410:
            raise _gone(problem)
        what = f"{answer.request.method} {answer.request.url.path} answered {answer.status_code}"
        said = f"{problem.get('title', '')}. {problem.get('detail', '')}"
        cure = (
            " The token is missing, wrong, or may not load this topic."
            if answer.status_code in (401, 403)
            else ""
        )
        raise FeedError(f"{what}: {said}{cure}")


def _of_tukang(answer: httpx.Response) -> bool:
    """Whether the answer is of the kind that the contract promises; whoever else listens there sends another."""
    kind = answer.headers.get("content-type", "").partition(";")[0]
    return bool(kind == ("application/json" if answer.is_success else "application/problem+json"))


def _gone(problem: dict[str, Any]) -> Gone:
    name = str(problem.get("type", "")).rpartition("/")[2]
    if name == "behind":
        return Behind(problem["sequence"])
    if name == "epoch-moved" and "common" in problem:
        positions = tuple(map(_kept, problem["positions"]))
        return EpochMoved(problem["epoch"], problem["common"], problem["cursor"], positions)
    return StartAnew(str(problem.get("detail", "the history that this cursor needs is gone")))


def _kept(position: dict[str, Any]) -> Kept:
    end = position["next"] or 0
    distances = BitMap.deserialize(base64.b64decode(position["carried"])) if position["carried"] else BitMap()
    return Kept(position["lake_partition"], end, frozenset(end - distance for distance in distances))


def _file(each: dict[str, Any]) -> File:
    return File(
        each["id"], each["sequence"], each["kind"], each["url"], each["what"], each["bytes"], each["rows"],
        each["sha256"], each["schema_version"], each["late"], each.get("presigned_url"),
    )  # fmt: skip
