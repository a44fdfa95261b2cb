"""Claims: which upkeep process does which topic. They only save work; what keeps two apart for good is the commit.

A claim is held for a short time and renewed while the work lasts, so that what a killed process had begun is another's
within a minute.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from ingest.catalog import Catalog

log = logging.getLogger(__name__)

CLAIM_S = 45
GIVE_BACK_S = 3


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of one process. `holder` is unlike that of every other process, also of the same name."""

    catalog: Catalog
    holder: str
    seconds: int = CLAIM_S

    @asynccontextmanager
    async def topic(self, topic: str, work: str = "upkeep") -> AsyncIterator[bool]:
        """This work on a topic is ours inside, if it yields True; False: another process is at it."""
        piece = f"{work}/{topic}"
        if await self.catalog.claim(piece, self.holder, self.seconds, topic) is None:
            yield False
            return
        renewing = asyncio.ensure_future(self._renew(piece, topic))
        try:
            yield True
        finally:
            renewing.cancel()
            with suppress(asyncio.CancelledError):
                await renewing
            with suppress(TimeoutError):  # it ends by itself too
                await asyncio.wait_for(self.catalog.claim(piece, self.holder, 0, topic), GIVE_BACK_S)

    async def _renew(self, piece: str, topic: str) -> None:
        while True:
            await asyncio.sleep(self.seconds / 3)
            if await self.catalog.claim(piece, self.holder, self.seconds, topic) is None:
                log.warning("topic %s: our claim ran out, another process works at it too", topic)
