"""A real object store (SeaweedFS) for the session, and a fresh bucket for each test that asks for one."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import boto3
import botocore.config
import pytest

from deploy.part import Ward
from deploy.seaweedfs import REGION, SeaweedFS

_numbers = count(1)


@dataclass(frozen=True)
class Bucket:
    """One bucket of the store, and what a program needs to reach it."""

    name: str
    endpoint: str
    access_key: str
    secret_key: str
    region: str = REGION

    @property
    def environment(self) -> dict[str, str]:
        """For a worker's process: where the bucket is, and the credentials in boto3's usual way."""
        return {
            "TUKANG_BUCKET": self.name,
            "TUKANG_S3_ENDPOINT": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
        }

    def client(self) -> Any:
        """A boto3 S3 client."""
        return _client(self.endpoint, self.access_key, self.secret_key, self.region)

    def keys(self, prefix: str = "") -> list[str]:
        """All keys under a prefix, in order."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return [each["Key"] for page in pages for each in page.get("Contents", [])]

    def read(self, key: str) -> bytes:
        """An object's bytes."""
        body: bytes = self.client().get_object(Bucket=self.name, Key=key)["Body"].read()
        return body


@cache
def _client(endpoint: str, access_key: str, secret_key: str, region: str) -> Any:
    """One for all that have the same credentials: to make one takes longer than most requests."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name=region,
        config=botocore.config.Config(s3={"addressing_style": "path"}),
    )


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """The running store. Most tests want `bucket`."""
    folder: Path = tmp_path_factory.mktemp("store")
    with Ward(remove=folder) as ward:
        part = SeaweedFS(folder, bucket="unused", environment=ward.environment)
        part.start()
        yield part
        part.end()


@pytest.fixture
def bucket(store: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A fresh bucket; its credentials also stand in this process's environment, where boto3 looks."""
    made = Bucket(
        f"bucket-{next(_numbers)}",
        store.endpoint,
        store.credentials["AWS_ACCESS_KEY_ID"],
        store.credentials["AWS_SECRET_ACCESS_KEY"],
    )
    made.client().create_bucket(Bucket=made.name)
    for name, value in store.credentials.items():
        monkeypatch.setenv(name, value)
    yield made
    # Each bucket takes volumes of its own, of which the store has some dozens. It deletes what is in it too.
    made.client().delete_bucket(Bucket=made.name)
