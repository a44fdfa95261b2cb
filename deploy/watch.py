"""Follows the ledgers of some topics through the API: what was read so far, and what became of it."""

from collections import Counter
from dataclasses import dataclass, field

import httpx

FIGURES = ("consumed", "written", "duplicates", "dead_letters", "late", "lost", "tombstones")


@dataclass
class Ledger:
    """One topic's ledger, summed up to `sequence`. All figures are records; `commits` and `files` are counted."""

    topic: str
    sequence: int = 0
    totals: Counter[str] = field(default_factory=Counter)
    carried: dict[int, int] = field(default_factory=dict)

    def take(self, line: dict[str, object]) -> None:
        """Add one line. Lines come by sequence, several of one sequence in a row."""
        for name in FIGURES:
            self.totals[name] += _count(line.get(name))
        self.carried[_count(line["lake_partition"])] = _count(line.get("carried_out"))
        self.totals["commits"] += _count(line["sequence"]) != self.sequence
        self.sequence = _count(line["sequence"])

    @property
    def held_back(self) -> int:
        """Events that were read and wait for their order: `written` does not have them yet."""
        return sum(self.carried.values())


class Watch:
    """The ledgers of some topics, read on at each `look`."""

    def __init__(self, api_url: str, topics: tuple[str, ...]) -> None:
        self._client = httpx.Client(base_url=api_url, timeout=30)
        self.ledgers = [Ledger(topic) for topic in topics]

    def close(self) -> None:
        self._client.close()

    def look(self) -> None:
        """Read what was committed since the last look."""
        for ledger in self.ledgers:
            path = f"/v1/topics/{ledger.topic}/ledger"
            page: str | None = None
            after = ledger.sequence
            while True:
                query = {"after": str(after), "limit": "1000"} | ({"page": page} if page else {})
                answer = self._client.get(path, params=query)
                answer.raise_for_status()
                body = answer.json()
                for line in body["lines"]:
                    ledger.take(line)
                page = body["next_page"]
                if page is None:
                    break

    def total(self, name: str) -> int:
        return sum(ledger.totals[name] for ledger in self.ledgers)

    @property
    def held_back(self) -> int:
        return sum(ledger.held_back for ledger in self.ledgers)

    def files(self) -> Counter[str]:
        """How many live files of each kind (`rows`, `dead_letters`), and their `bytes`."""
        counted: Counter[str] = Counter()
        for ledger in self.ledgers:
            page: str | None = None
            while True:
                query = {"limit": "1000"} | ({"page": page} if page else {})
                answer = self._client.get(f"/v1/topics/{ledger.topic}/files", params=query)
                answer.raise_for_status()
                body = answer.json()
                for file in body["files"]:
                    counted[file["what"]] += 1
                    counted["bytes"] += file["bytes"]
                page = body["next_page"]
                if page is None:
                    break
        return counted


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0
