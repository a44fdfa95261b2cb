"""Whom a worker and upkeep talk to, from their settings: the broker, the lake, the API."""

from __future__ import annotations

import asyncio
import logging

import tenacity

from ingest.broker import BrokerSettings
from ingest.catalog import Catalog, CatalogUnavailable, token_source
from ingest.lake import Lake, LakeUnavailable
from ingest.patience import growing_pauses
from ingest.settings import ApiSettings, LakeSettings, Settings

log = logging.getLogger(__name__)


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


def lake_of(settings: LakeSettings) -> Lake:
    """The bucket and prefix of the lake."""
    return Lake(
        settings.bucket,
        settings.prefix,
        endpoint=settings.s3_endpoint,
        sse=settings.s3_sse,
        kms_key=settings.s3_kms_key,
    )


def catalog_of(settings: ApiSettings) -> Catalog:
    """The API."""
    return Catalog(
        settings.api,
        token_source(settings.token, settings.token_file),
        ca=str(settings.api_ca) if settings.api_ca else None,
    )


async def both_there(lake: Lake, catalog: Catalog) -> None:
    """Waits until store and API answer. What they refuse (credentials, a bucket, a token) is raised."""
    store = tenacity.AsyncRetrying(**growing_pauses(log, "the object store", LakeUnavailable))
    await store(asyncio.to_thread, lake.check)
    api = tenacity.AsyncRetrying(**growing_pauses(log, "the API", CatalogUnavailable))
    await api(catalog.check)
