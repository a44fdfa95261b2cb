"""Small objects, got with a third of boto3's work: where thousands are fetched, that work is most of it.

boto3 says where the store is and who we are, and has the last word: what is not got here, it gets, or tells why not.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from obstore import get
from obstore.exceptions import BaseError
from obstore.store import S3Store

if TYPE_CHECKING:
    from obstore.auth.boto3 import Boto3CredentialProvider

log = logging.getLogger(__name__)

SMALL_BYTES = 8 << 20  # of an object that is held whole


class SmallObjects:
    """Reads objects of one bucket. Thread-safe, and lets other threads run meanwhile."""

    def __init__(
        self, bucket: str, *, endpoint: str, region: str, credentials: Boto3CredentialProvider | None
    ) -> None:
        """`credentials` None: none were found, and nothing is got."""
        self._store: S3Store | None = None
        if credentials is not None:
            self._store = S3Store(
                bucket,
                endpoint=endpoint,
                region=region,
                credential_provider=credentials,
                client_options={
                    "allow_http": endpoint.startswith("http://"),
                    "connect_timeout": timedelta(seconds=5),
                    "timeout": timedelta(seconds=60),
                },
                retry_config={"max_retries": 0},
            )

    def get(self, key: str) -> bytes | None:
        """The bytes of an object; None: not by this way."""
        if self._store is None:
            return None
        try:
            return get(self._store, key).bytes().to_bytes()
        except (BaseError, OSError) as error:
            log.debug("%s: %s", key, error)
            return None
