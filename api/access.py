"""Who asks, and what that one may: bearer tokens, their scopes and topics. Decides; `tokens.py` keeps them.

A token is looked up by its SHA-256 at every request, so that a revocation holds at once. The contract says which scopes
an operation takes (`x-scopes`). A topic that a token may not see answers as one that does not exist.
"""

import hashlib
import hmac
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flask import Request, g
from sqlalchemy import Connection, bindparam, or_, select

from api.database import Clock
from api.patterns import covers
from api.problems import Problem
from api.tables import Record, tokens

SCOPES = ("ingest", "upkeep", "load", "operate", "read")
# Bad tokens of one address in a minute, before it is told to wait.
MOST_FAILURES = 20
FAILURES_US = 60.0
# Addresses remembered at once: what a scan from everywhere may cost in memory.
MOST_ADDRESSES = 10_000


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent the request at hand. `topics` None: all."""

    name: str
    scopes: frozenset[str]
    topics: Sequence[str] | None = None

    def sees(self, topic: str) -> bool:
        return self.topics is None or covers(self.topics, topic)


NOBODY = Caller("nobody", frozenset(SCOPES))


def caller() -> Caller:
    """Who sent the request at hand."""
    found: Caller = g.caller
    return found


def digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


class Failures:
    """Bad tokens by address, to slow down who guesses. Good tokens of the same address are not touched."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: dict[str, deque[float]] = {}

    def add(self, address: str) -> bool:
        """Notes one; says whether there were too many of late."""
        now = time.monotonic()
        with self._lock:
            if address not in self._times and len(self._times) >= MOST_ADDRESSES:
                self._times.pop(next(iter(self._times)))
            times = self._times.setdefault(address, deque(maxlen=MOST_FAILURES + 1))
            times.append(now)
            return len(times) > MOST_FAILURES and now - times[0] < FAILURES_US


FIND_TOKEN = select(tokens).where(
    or_(tokens.c.hash == bindparam("hash"), tokens.c.former_hash == bindparam("hash"))
)


def find_token(connection: Connection, token: str, clock: Clock) -> Record | None:
    """The row of a token that is valid now. The clock is asked only when it matters, a round trip each time."""
    hashed = digest(token)
    row = connection.execute(FIND_TOKEN, {"hash": hashed}).one_or_none()
    if row is None or row.revoked_us is not None:
        return None
    if row.expires_us is not None and row.expires_us <= clock(connection):
        return None
    if hmac.compare_digest(bytes(row.hash), hashed):
        return row
    former = row.former_hash is not None and hmac.compare_digest(bytes(row.former_hash), hashed)
    return row if former and (row.former_until_us or 0) > clock(connection) else None


def bearer(request: Request) -> str | None:
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" and token.strip() else None


def unauthorized() -> Problem:
    return Problem("unauthorized", 401, "A valid bearer token is needed: Authorization: Bearer TOKEN.")


def forbidden(scopes: Iterable[str]) -> Problem:
    return Problem("forbidden", 403, f"The token lacks the scope: one of {', '.join(sorted(scopes))}.")


def require_topics(names: Iterable[str]) -> None:
    """Raises Problem (403) unless the caller may act on all these topics, whether they exist or not."""
    foreign = sorted(name for name in names if not caller().sees(name))
    if foreign:
        raise Problem("forbidden", 403, f"The token is not for topics {', '.join(foreign[:20])}.")
