"""Presigned URLs: the only file of the API that knows boto3, and it makes no request to the store.

The client is made with the first URL: importing boto3 takes longer than starting the rest.
"""

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from api.settings import ApiSettings
from api.times import format_time

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client


class NoCredentialsError(Exception):
    """The API has no credentials for the store, so it can sign nothing."""


class Signer:
    """Signs URLs to read objects, with the credentials that boto3 finds in its usual ways."""

    def __init__(self, settings: ApiSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._client: S3Client | None = None
        self._credentials: Any = None

    def _signing_client(self) -> "S3Client":
        with self._lock:
            if self._client is None:
                import boto3
                from botocore.config import Config

                session = boto3.Session()
                self._credentials = session.get_credentials()
                if self._credentials is None:
                    raise NoCredentialsError
                endpoint = self._settings.s3_endpoint
                self._client = session.client(
                    "s3",
                    endpoint_url=endpoint,
                    region_name=session.region_name or "us-east-1",
                    config=Config(
                        signature_version="s3v4", s3={"addressing_style": "path" if endpoint else "auto"}
                    ),
                )
            return self._client

    def add_url(self, file: dict[str, Any], valid_us: int, now_us: int) -> None:
        """Gives a file of an answer its two presigned fields."""
        url, expires_us = self.sign(file["url"], valid_us, now_us)
        file["presigned_url"], file["presigned_expires_at"] = url, format_time(expires_us)

    def sign(self, url: str, valid_us: int, now_us: int) -> tuple[str, int]:
        """A URL to GET an object (s3://bucket/key), and until when it works: the earlier of its own end and that of the
        credentials that signed it, in microseconds since 1970. Raises NoCredentialsError.
        """
        client = self._signing_client()
        bucket, _, key = url.removeprefix("s3://").partition("/")
        seconds = max(valid_us // 1_000_000, 1)
        signed = client.generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=seconds
        )
        expires_us = now_us + seconds * 1_000_000
        # Temporary credentials carry their end; botocore renews them behind this object.
        end = getattr(self._credentials, "_expiry_time", None)
        if isinstance(end, datetime):
            expires_us = min(
                expires_us, int((end - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000)
            )
        return signed, expires_us
