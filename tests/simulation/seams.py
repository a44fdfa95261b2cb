"""Where the production code meets the simulated world: what is put in the place of what, for as long as a run lasts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from ingest import beats, drain, lake_object, positioning, publish, remember, source, topic, worker
from ingest.log_limits import Limits
from tests.simulation import events, store
from tests.simulation.plan import Plan
from tests.simulation.process import Process
from tests.simulation.scheduler import Scheduler
from tests.simulation.source import SimulatedSource


class NoApp:
    """In the place of the Faust app: chunks go to the agent's body without it (`source.Channel`)."""

    def channel(self) -> None:
        return None

    def agent(self, channel: None) -> Any:
        return lambda body: body


class BrokerAnswers:
    """In the place of `ingest.broker.TopicIds`."""

    def __init__(self, process: Process) -> None:
        self.process = process

    async def ask(self, names: list[str]) -> dict[str, str | None]:
        return {name: await self.process.world.ask_topic_id(self.process, name) for name in names}


class LogAnswers:
    """In the place of `ingest.log_limits.LogLimits`."""

    def __init__(self, process: Process) -> None:
        self.process = process

    async def ask(self, topic: str) -> Limits:
        await asyncio.sleep(0.01)
        return Limits(retention_ms=self.process.world.plan.retention_ms)


@contextmanager
def seams(scheduler: Scheduler, plan: Plan) -> Iterator[None]:
    """The world of one seed in the place of the real one."""

    def process() -> Process:
        running = scheduler.running
        assert running is not None, "no process runs now"
        return running.process

    random.seed(plan.seed)  # the pauses of tenacity
    places: list[tuple[Any, str, Any]] = [
        (drain, "records", events.records),
        (topic, "decode", events.decode),
        (publish, "encode", store.encode),
        (lake_object, "patiently", store.patiently),
        (remember, "_read", store.read),
        (worker, "now_us", lambda: process().clock.now_us()),
        (worker, "secrets", SimpleNamespace(randbits=lambda bits: process().randbits(bits))),
        (worker, "TopicIds", lambda _: BrokerAnswers(process())),
        (worker, "LogLimits", lambda _: LogAnswers(process())),
        (worker, "ThreadPoolExecutor", lambda _, name: name),
        (worker, "make_app", lambda *_: NoApp()),
        (worker, "ChunkSource", lambda app, channel, owner, **_: SimulatedSource(process(), owner)),
        (worker, "time", SimpleNamespace(monotonic=lambda: scheduler.now)),
        (worker, "OPEN_WAIT_S", 0.5),
        (worker, "RETRY_STOPPED_S", 3.0),
        (positioning, "BEAT_SECONDS", 0.9),
        (source, "FLUSH_SECONDS", 5.0),
        (beats, "BEAT_S", 0.3),
        (beats, "WATCH_LOGS_S", 1.2 if plan.retention_ms else 7.0),
        (beats, "REPORT_S", 4.0),
    ]
    with ExitStack() as stack:
        for owner, name, value in places:
            stack.enter_context(patch.object(owner, name, value))
        yield
