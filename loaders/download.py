"""Objects of the lake to files on this machine, several at once, each checked against its SHA-256.

The only file of this package that knows boto3. It never says a URL with its query: that is a key to the object.
"""

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import httpx
import tenacity
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from loaders.feed import File

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BLOCK = 1 << 20


class DownloadRefused(Exception):
    """The store answered and will not serve this loader: wrong credentials, no such bucket."""


class ObjectGone(Exception):
    """The object is not there any more, or its presigned URL has expired: ask the feed again."""


class DownloadFailed(Exception):
    """The store did not answer, or gave other bytes than the ones committed."""


class Downloads:
    """Fetches files. Thread-safe."""

    def __init__(self, *, endpoint: str | None = None, at_once: int = 8, patience_s: float = 60) -> None:
        """`patience_s`: how long one file is tried again when the store does not answer."""
        self._endpoint = endpoint
        self._at_once = at_once
        self._patience_s = patience_s
        self._http = httpx.Client(timeout=60)
        self._making = threading.Lock()
        self._s3: S3Client | None = None

    def close(self) -> None:
        """Ends connections."""
        self._http.close()

    def fetch(
        self, files: Sequence[File], folder: Path, fetched: Callable[[int], None] = lambda _: None
    ) -> dict[int, Path]:
        """All files into the folder, by id; those that lie there already are not fetched again.

        `fetched` is told of bytes as they come, of fewer than none when a try was in vain.
        """
        ended = threading.Event()
        with ThreadPoolExecutor(self._at_once) as pool:
            futures = [
                pool.submit(self._patiently, file, folder / f"{file.id}.parquet", fetched, ended)
                for file in files
            ]
            try:
                return {file.id: future.result() for file, future in zip(files, futures, strict=True)}
            except BaseException:
                ended.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _patiently(
        self, file: File, path: Path, fetched: Callable[[int], None], ended: threading.Event
    ) -> Path:
        """`ended`: nobody waits for the file any more."""
        tries = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(DownloadFailed),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
            stop=tenacity.stop_after_delay(self._patience_s) | tenacity.stop_when_event_set(ended),
            sleep=tenacity.sleep_using_event(ended),
            reraise=True,
        )
        return tries(self._once, file, path, fetched)

    def _once(self, file: File, path: Path, fetched: Callable[[int], None]) -> Path:
        if path.exists():
            fetched(file.bytes)
            return path
        digest, size = hashlib.sha256(), 0
        part = path.with_suffix(".part")
        try:
            with part.open("wb") as out:
                for block in self._presigned(file) if file.presigned_url else self._own(file):
                    out.write(block)
                    digest.update(block)
                    size += len(block)
                    fetched(len(block))
        except (DownloadFailed, ObjectGone, DownloadRefused):
            fetched(-size)
            raise
        except OSError as error:
            fetched(-size)
            part.unlink(missing_ok=True)  # it may be what fills the disk
            raise DownloadFailed(
                f"{file.url} ({file.bytes:,} bytes) cannot be put into {path.parent}: {error.strerror}. A change's "
                "files lie there while it is loaded: make room, or set TMPDIR (a smaller TUKANG_RUN_BYTES makes "
                "runs smaller)"
            ) from error
        if digest.hexdigest() != file.sha256:
            fetched(-size)
            raise DownloadFailed(
                f"{file.url} is not what was committed: {size} bytes with another SHA-256 (committed: {file.bytes}). "
                "`tukang verify` tells whether the object is damaged."
            )
        return part.rename(path)

    def _presigned(self, file: File) -> Iterator[bytes]:
        assert file.presigned_url is not None
        try:
            with self._http.stream("GET", file.presigned_url) as answer:
                if answer.status_code in (403, 404):
                    raise ObjectGone(
                        f"{file.url}: gone, or its presigned URL has expired ({answer.status_code})"
                    )
                if not answer.is_success:
                    raise DownloadFailed(f"{file.url}: the store answered {answer.status_code}")
                yield from answer.iter_bytes(BLOCK)
        except httpx.TransportError as error:
            raise DownloadFailed(f"{file.url}: {type(error).__name__}") from None

    def _own(self, file: File) -> Iterator[bytes]:
        bucket, _, key = file.url.removeprefix("s3://").partition("/")
        try:
            body = self._client().get_object(Bucket=bucket, Key=key)["Body"]
            yield from body.iter_chunks(BLOCK)
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise DownloadRefused(
                f"{error}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or TUKANG_URLS=presigned"
            ) from error
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in ("NoSuchKey", "404"):
                raise ObjectGone(f"{file.url} is not in the store any more") from error
            if code in ("NoSuchBucket", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "403"):
                raise DownloadRefused(
                    f"the store refuses {file.url} ({code}): check the credentials that boto3 finds and "
                    "TUKANG_S3_ENDPOINT, or set TUKANG_URLS=presigned"
                ) from error
            raise DownloadFailed(f"{file.url}: {code}") from error
        except BotoCoreError as error:
            raise DownloadFailed(f"{file.url}: {error}") from error

    def _client(self) -> "S3Client":
        with self._making:  # made at the first use: who takes presigned URLs needs no credentials
            if self._s3 is None:
                self._s3 = boto3.session.Session().client(
                    "s3",
                    endpoint_url=self._endpoint,
                    config=Config(
                        retries={"total_max_attempts": 1},  # `_patiently` does that
                        s3={"addressing_style": "path"} if self._endpoint else {},
                        connect_timeout=5,
                        read_timeout=60,
                        max_pool_connections=self._at_once,
                    ),
                )
            return self._s3
