"""The watchdog: ends a worker that lives but no longer fetches, and says why.

A member of a consumer group that sends heartbeats and reads nothing is the worst failure: nobody takes over, and
nothing is logged. A thread of its own looks at signs of life, so that a blocked event loop is seen too. It counts its
own looks instead of reading a clock: a process that was stopped and continued finds the clock far ahead and nothing
wrong.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
EXIT_CODE = 70  # "internal software error" of sysexits.h: the orchestrator starts the worker again


@dataclass(frozen=True, slots=True)
class Signs:
    """Signs of life, as of one look."""

    beats: int  # of the event loop
    drains: int  # rounds of the fetch loop
    connected: bool  # the client has started
    member: bool  # an assignment was received, perhaps an empty one
    broker_known: bool  # the group's coordinator answers: not being a member is then no outage
    dead: str | None = None  # a background task of the client that ended by itself


@dataclass(frozen=True, slots=True)
class Patience:
    """How many looks something may stand still."""

    loop: int = 30  # 60 s
    drain: int = 23  # 45 s
    member: int = 45  # 90 s: longer than a flush and a whole rebalance


class Watchdog:
    """Looks at the signs and judges them. `start` begins a daemon thread, `stop` ends it."""

    def __init__(
        self,
        signs: Callable[[], Signs],
        end: Callable[[str], None] | None = None,
        patience: Patience | None = None,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._signs = signs
        self._end = end or end_process
        self._patience = patience or Patience()
        self._look_seconds = look_seconds
        self._stopped = threading.Event()
        self._last: Signs | None = None
        self._stuck = {"loop": 0, "drain": 0, "member": 0, "dead": 0}

    def start(self) -> None:
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._look_seconds):
            if (reason := self.judge(self._signs())) and not self._stopped.is_set():
                self._end(reason)
                return

    def judge(self, now: Signs) -> str | None:
        """One look: why the process must end, or None."""
        last, self._last = self._last, now
        self._count("loop", last is not None and now.beats == last.beats)
        self._count("drain", last is not None and now.connected and now.drains == last.drains)
        self._count("member", now.connected and not now.member and now.broker_known)
        self._count("dead", now.dead is not None)
        seconds = {name: count * self._look_seconds for name, count in self._stuck.items()}
        if self._stuck["dead"] > 1:  # twice: while it stops, the client ends its tasks itself
            return f"{now.dead} of the Kafka client has ended"
        if self._stuck["loop"] >= self._patience.loop:
            return f"the event loop has been blocked for {seconds['loop']:.0f} s"
        if self._stuck["drain"] >= self._patience.drain:
            return (
                f"nothing has been drained for {seconds['drain']:.0f} s: the fetch loop or the agent is stuck"
            )
        if self._stuck["member"] >= self._patience.member:
            return f"no partitions were assigned for {seconds['member']:.0f} s, although the broker answers"
        return None

    def _count(self, name: str, still: bool) -> None:
        self._stuck[name] = self._stuck[name] + 1 if still else 0


def end_process(reason: str) -> None:
    """End this process now, without cleaning up: nothing needs it, and whatever is stuck could stop it."""
    text = f"the worker no longer fetches and ends itself: {reason}. Nothing is lost; start it again."
    logged = threading.Thread(target=log.critical, args=(text,), daemon=True)
    logged.start()
    logged.join(2)  # a stuck thread may hold the lock of a log handler
    if logged.is_alive():
        os.write(2, f"{text}\n".encode())
    os._exit(EXIT_CODE)
