"""`tukang worker`: from settings to a running worker; waits for what is not there yet, refuses what will not do."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from ingest.allocator import give_back
from ingest.broker import BrokerRefused, BrokerSettings
from ingest.catalog import Catalog, CatalogRefused, CatalogUnavailable, token_source
from ingest.internals import InternalsChanged
from ingest.lake import Lake, LakeRefused, LakeUnavailable
from ingest.settings import Settings
from ingest.worker import Worker

log = logging.getLogger(__name__)

REFUSALS = (BrokerRefused, CatalogRefused, InternalsChanged, LakeRefused)
LONGEST_PAUSE_S = 10.0


def broker_of(settings: Settings) -> BrokerSettings:
    """Where the broker is, and who we are to it."""
    return BrokerSettings(
        servers=settings.broker,
        protocol=settings.broker_protocol,
        sasl_mechanism=settings.broker_sasl_mechanism,
        username=settings.broker_username,
        password_file=settings.broker_password_file,
        ca=settings.broker_ca,
        cert=settings.broker_cert,
        key=settings.broker_key,
    )


def lake_of(settings: Settings) -> Lake:
    """The bucket and prefix of the lake."""
    return Lake(
        settings.bucket,
        settings.prefix,
        endpoint=settings.s3_endpoint,
        sse=settings.s3_sse,
        kms_key=settings.s3_kms_key,
    )


def catalog_of(settings: Settings) -> Catalog:
    """The API."""
    return Catalog(
        settings.api,
        token_source(settings.token, settings.token_file),
        ca=str(settings.api_ca) if settings.api_ca else None,
    )


async def serve(settings: Settings) -> None:
    """Runs a worker until SIGTERM. Raises one of `REFUSALS`, in one line that says what to do."""
    give_back(settings.memory)
    # A chunk is tens of thousands of objects without cycles: the collector would walk them again and again for nothing.
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)
    lake, catalog = lake_of(settings), catalog_of(settings)
    await wait_for("the object store", lambda: asyncio.to_thread(lake.check), LakeUnavailable)
    await wait_for("the API", catalog.check, CatalogUnavailable)
    await Worker(settings, lake, catalog, broker_of(settings)).run()


async def wait_for(what: str, ask: Callable[[], Awaitable[Any]], away: type[Exception]) -> None:
    """Asks until it answers, with growing pauses, each said in the log."""
    pause = 0.2
    while True:
        try:
            await ask()
        except away as error:
            log.warning("waiting for %s: %s; next try in %.1f s", what, error, pause)
            await asyncio.sleep(pause)
            pause = min(pause * 1.6, LONGEST_PAUSE_S)
        else:
            return
