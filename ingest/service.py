"""`tukang worker`: from settings to a running worker; waits for what is not there yet, refuses what will not do."""

from __future__ import annotations

import gc

from ingest.allocator import give_back
from ingest.broker import BrokerRefused
from ingest.catalog import CatalogRefused
from ingest.internals import InternalsChanged
from ingest.lake import LakeRefused
from ingest.parties import both_there, broker_of, catalog_of, lake_of
from ingest.settings import Settings
from ingest.worker import Worker

REFUSALS = (BrokerRefused, CatalogRefused, InternalsChanged, LakeRefused)


async def serve(settings: Settings) -> None:
    """Runs a worker until SIGTERM. Raises one of `REFUSALS`, in one line that says what to do."""
    give_back(settings.memory)
    # A chunk is tens of thousands of objects without cycles: the collector would walk them again and again for nothing.
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)
    lake, catalog = lake_of(settings), catalog_of(settings)
    await both_there(lake, catalog)
    await Worker(settings, lake, catalog, broker_of(settings)).run()
