"""Upkeep as processes, forked from one that has everything imported, so that one can live for half a second."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["ingest.upkeep.run", "ingest.service"])


def start(target: Callable[..., None], *arguments: object) -> ForkServerProcess:
    """Runs a function of a module in a process of its own."""
    process = _context.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def start_upkeep(environment: Mapping[str, str], log: str) -> ForkServerProcess:
    """Starts an upkeep process with these settings, which goes round until it is ended."""
    return start(_run, dict(environment), log)


def upkeep_once(environment: Mapping[str, str], log: str) -> str:
    """`tukang upkeep --once` in a process of its own; what it said."""
    said = Path(log)
    said.write_text("")
    process = start(_run, dict(environment), log, True)
    process.join(120)
    assert process.exitcode == 0, said.read_text()
    return said.read_text()


def _run(environment: dict[str, str], log: str, once: bool = False) -> None:
    import logging

    from ingest.settings import load_settings
    from ingest.upkeep.run import Pace, serve

    os.environ.update(environment)
    sys.stderr = open(log, "a", buffering=1)  # noqa: SIM115, PTH123
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(process)d %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    asyncio.run(serve(load_settings(), once=once, pace=Pace(round_s=0.1, claim_s=1, copy_s=0.5)))
