"""The object store as a worker sees it. The only file of this package that knows boto3.

Objects are put under a name never used before and are never overwritten; what they mean is said by a commit.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import boto3
import pyarrow as pa
import tenacity
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)
from obstore.auth.boto3 import Boto3CredentialProvider

from ingest.patience import growing_pauses
from ingest.position import time_to_text
from ingest.small_objects import SMALL_BYTES, SmallObjects

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)

PIECE_BYTES = 1 << 20  # of what is written to a file
DELETED_AT_ONCE = 1_000  # what one request may name

_REFUSALS = {
    "NoSuchBucket": "the bucket does not exist: create it, or set TUKANG_BUCKET",
    "InvalidAccessKeyId": "the store does not know the access key: check the credentials that boto3 finds",
    "SignatureDoesNotMatch": "the secret key is wrong: check the credentials that boto3 finds",
    "AccessDenied": "the credentials may not do this: allow s3:PutObject, s3:GetObject and s3:ListBucket",
    "403": "the credentials may not do this: check them, and the policy of the bucket",
    "404": "the bucket does not exist: create it, or set TUKANG_BUCKET",
}


class LakeRefused(Exception):
    """The store answered and will not serve us: wrong credentials, no such bucket."""


class LakeMissing(Exception):
    """The object is not in the store."""


class LakeDamaged(Exception):
    """The object is there, and is not what was committed."""


class LakeUnavailable(Exception):
    """The store did not answer, or asked to come back later. Nothing is known about the object."""


class LakeClosed(Exception):
    """The process ends: nobody waits for the store any more. Nothing is known about the object."""


@dataclass(frozen=True, slots=True)
class Put:
    """An object that is in the store: its address, and its age by the store's own clock."""

    url: str
    modified_at: str


@dataclass(frozen=True, slots=True)
class Look:
    """What the store says of an object: its size, and the SHA-256 that it checked at the put, if it keeps one."""

    bytes: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """An object as a listing shows it."""

    url: str
    bytes: int
    modified_us: int  # by the store's clock


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart upload that was not ended."""

    url: str
    id: str
    begun_us: int


class Lake:
    """A bucket and a prefix. Thread-safe; all calls block and belong in threads."""

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint: str | None = None,
        sse: str | None = None,
        kms_key: str | None = None,
        connections: int = 16,
    ) -> None:
        self.bucket = bucket
        self.prefix = prefix
        self._closed = False
        self._encryption: dict[str, Any] = {}
        if sse:
            self._encryption["ServerSideEncryption"] = sse
        if kms_key:
            self._encryption["SSEKMSKeyId"] = kms_key
        self._session = boto3.session.Session()
        self._client: S3Client = self._session.client(
            "s3",
            endpoint_url=endpoint,
            config=Config(
                # Tried again by the caller under a new name: a second put of the same name would find the first.
                retries={"total_max_attempts": 1},
                s3={"addressing_style": "path"} if endpoint else {},
                connect_timeout=5,
                read_timeout=60,
                max_pool_connections=connections,
                request_checksum_calculation="when_required",
            ),
        )

    def close(self) -> None:
        """Every call from now on raises `LakeClosed`: threads that wait for the store would keep the process alive."""
        self._closed = True

    def url(self, key: str) -> str:
        """The s3:// address of a key below the prefix."""
        return f"s3://{self.bucket}/{self.prefix}{key}"

    def check(self) -> None:
        """Raises `LakeRefused` when bucket or credentials are wrong, `LakeUnavailable` when nobody answers."""
        self._call("look at the bucket", lambda: self._client.head_bucket(Bucket=self.bucket))

    def put(self, key: str, data: memoryview, sha256: str) -> Put:
        """Uploads under a name never used before; the store checks the SHA-256 and refuses a name that is taken."""
        name = self.prefix + key
        checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
        self._call(
            f"put {self.url(key)}",
            lambda: self._client.put_object(
                Bucket=self.bucket,
                Key=name,
                Body=cast(IO[bytes], pa.BufferReader(data)),
                ContentLength=len(data),
                ContentType="application/vnd.apache.parquet",
                ChecksumSHA256=checksum,
                IfNoneMatch="*",
                **self._encryption,
            ),
        )
        head = self._call(
            f"look at {self.url(key)}", lambda: self._client.head_object(Bucket=self.bucket, Key=name)
        )
        modified_us = int(head["LastModified"].timestamp()) * 1_000_000
        return Put(self.url(key), time_to_text(modified_us) or "")

    def look(self, url: str) -> Look:
        """What the store says of an object without its bytes. Raises `LakeMissing`."""
        bucket, _, key = url.removeprefix("s3://").partition("/")
        head = self._call(
            f"look at {url}",
            lambda: self._client.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED"),
        )
        checksum = head.get("ChecksumSHA256", "")
        whole = len(checksum) == 44  # else none, or one of the parts of a multipart upload
        return Look(head["ContentLength"], base64.b64decode(checksum).hex() if whole else None)

    def listing(self, key: str) -> Iterator[str]:
        """The s3:// addresses of all objects whose key, below the prefix, begins with `key`."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self.prefix + key
        )
        of_pages = iter(pages)
        while page := self._call(f"list {self.url(key)}", lambda: next(of_pages, None)):
            yield from (f"s3://{self.bucket}/{each['Key']}" for each in page.get("Contents", ()))

    def objects(self, key: str, after: str = "") -> Iterator[Found]:
        """All objects whose key, below the prefix, begins with `key`, with size and age; `after`: behind this key."""
        behind: dict[str, Any] = {"StartAfter": self.prefix + after} if after else {}
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self.prefix + key, **behind
        )
        of_pages = iter(pages)
        while page := self._call(f"list {self.url(key)}", lambda: next(of_pages, None)):
            for each in page.get("Contents", ()):
                modified_us = int(each["LastModified"].timestamp()) * 1_000_000
                yield Found(f"s3://{self.bucket}/{each['Key']}", each["Size"], modified_us)

    def folders(self, key: str) -> list[str]:
        """The names right below a key that ends with `/` which have objects below them."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self.prefix + key, Delimiter="/"
        )
        of_pages, found = iter(pages), list[str]()
        while page := self._call(f"list {self.url(key)}", lambda: next(of_pages, None)):
            found += [each["Prefix"].split("/")[-2] for each in page.get("CommonPrefixes", ())]
        return found

    def uploads(self, key: str) -> Iterator[Upload]:
        """Multipart uploads to keys that begin so, below the prefix, which were begun and not ended."""
        pages = self._client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self.bucket, Prefix=self.prefix + key
        )
        of_pages = iter(pages)
        while page := self._call(f"list uploads to {self.url(key)}", lambda: next(of_pages, None)):
            for each in page.get("Uploads", ()):
                begun_us = int(each["Initiated"].timestamp()) * 1_000_000
                yield Upload(f"s3://{self.bucket}/{each['Key']}", each["UploadId"], begun_us)

    def abort(self, upload: Upload) -> None:
        """Ends a multipart upload that nobody will end."""
        key = upload.url.removeprefix(f"s3://{self.bucket}/")
        self._call(
            f"abort the upload to {upload.url}",
            lambda: self._client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload.id),
        )

    def write(self, key: str, data: bytes, kind: str = "application/json") -> None:
        """Writes a document that has a fixed name, over what was there. Never for objects that commits name."""
        self._call(
            f"write {self.url(key)}",
            lambda: self._client.put_object(
                Bucket=self.bucket, Key=self.prefix + key, Body=data, ContentType=kind, **self._encryption
            ),
        )

    def delete(self, urls: Sequence[str]) -> None:
        """Deletes objects of this bucket; one that is not there is no error. For the sweep alone."""
        for begin in range(0, len(urls), DELETED_AT_ONCE):
            keys = [url.removeprefix(f"s3://{self.bucket}/") for url in urls[begin : begin + DELETED_AT_ONCE]]
            answer = self._call(
                f"delete {len(keys)} objects",
                lambda keys=keys: self._client.delete_objects(
                    Bucket=self.bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
                ),
            )
            if errors := answer.get("Errors"):
                raise LakeRefused(
                    f"cannot delete {errors[0].get('Key')}: {errors[0].get('Message')}; allow s3:DeleteObject"
                )

    def versioned(self) -> bool:
        """Whether the bucket keeps what is deleted, as an older version."""
        answer = self._call(
            "ask whether the bucket has versions",
            lambda: self._client.get_bucket_versioning(Bucket=self.bucket),
        )
        return bool(answer.get("Status") == "Enabled")

    def versions(self, key: str) -> Iterator[tuple[str, str]]:
        """Address and version of everything that a bucket with versions still has below a key, deleted or not."""
        pages = self._client.get_paginator("list_object_versions").paginate(
            Bucket=self.bucket, Prefix=self.prefix + key
        )
        of_pages = iter(pages)
        while page := self._call(f"list versions of {self.url(key)}", lambda: next(of_pages, None)):
            for each in page.get("Versions", ()):
                yield f"s3://{self.bucket}/{each['Key']}", each["VersionId"]

    def now_us(self) -> int:
        """The store's own clock, to the second."""
        answer = self._call("look at the bucket", lambda: self._client.head_bucket(Bucket=self.bucket))
        said = answer["ResponseMetadata"]["HTTPHeaders"]["date"]
        return int(parsedate_to_datetime(said).timestamp()) * 1_000_000

    def get(self, url: str, start: int | None = None, end: int | None = None) -> bytes:
        """The bytes of an object, or of its range [start, end)."""
        bucket, _, key = url.removeprefix("s3://").partition("/")
        extra: dict[str, Any] = {} if start is None else {"Range": f"bytes={start}-{(end or 0) - 1}"}
        return self._call(  # type: ignore[no-any-return]
            f"get {url}", lambda: self._client.get_object(Bucket=bucket, Key=key, **extra)["Body"].read()
        )

    def fetch(self, url: str, path: Path, size: int, sha256: str) -> None:
        """Writes an object of `size` bytes to a file, a piece at a time where it is large. Raises `LakeDamaged` when it
        has another checksum.
        """
        bucket, _, key = url.removeprefix("s3://").partition("/")

        def pieces() -> Iterator[bytes]:
            small = self._small.get(key) if size <= SMALL_BYTES and bucket == self.bucket else None
            if small is not None:
                yield small
            else:
                yield from self._client.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(PIECE_BYTES)

        def act() -> str:
            digest = hashlib.sha256()
            with path.open("wb") as file:
                for piece in pieces():
                    digest.update(piece)
                    file.write(piece)
            return digest.hexdigest()

        if self._call(f"get {url}", act) != sha256:
            raise LakeDamaged(f"{url}: its bytes are not those that were committed (SHA-256)")

    @cached_property
    def _small(self) -> SmallObjects:
        return SmallObjects(
            self.bucket,
            endpoint=self._client.meta.endpoint_url,
            region=self._client.meta.region_name,
            # Asked anew so often: what boto3 renews is good for ten minutes at least.
            credentials=Boto3CredentialProvider(self._session, ttl=timedelta(minutes=5))
            if self._session.get_credentials()
            else None,
        )

    def get_version(self, url: str, version: str | None) -> bytes:
        """The bytes of an object, or of one version of it."""
        bucket, _, key = url.removeprefix("s3://").partition("/")
        extra: dict[str, Any] = {} if version is None else {"VersionId": version}
        return self._call(  # type: ignore[no-any-return]
            f"get {url}", lambda: self._client.get_object(Bucket=bucket, Key=key, **extra)["Body"].read()
        )

    def _call(self, doing: str, act: Any) -> Any:
        if self._closed:
            raise LakeClosed(f"did not {doing}: the process ends")
        try:
            return act()
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise LakeRefused(
                f"cannot {doing}: {error}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from error
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code == "NoSuchKey" or (code == "404" and error.operation_name != "HeadBucket"):
                raise LakeMissing(f"cannot {doing}: the object is not there") from error
            if code in _REFUSALS:
                raise LakeRefused(f"cannot {doing}: {_REFUSALS[code]} ({code})") from error
            raise LakeUnavailable(f"cannot {doing}: {error}") from error
        except ParamValidationError:
            raise  # our defect: waiting does not help
        except BotoCoreError as error:
            raise LakeUnavailable(f"cannot {doing}: {error}") from error


def patiently() -> tenacity.Retrying:
    """Growing pauses for as long as the store is away, each said in the log."""
    return tenacity.Retrying(**growing_pauses(log, "the object store", LakeUnavailable))
