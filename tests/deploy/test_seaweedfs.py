"""The embedded store does what the worker relies on."""

import botocore.exceptions
import httpx
import pytest

from deploy.seaweedfs import SeaweedFS
from tests.stack.store import Bucket

pytestmark = pytest.mark.slow


def test_an_object_comes_back_as_it_was_put(bucket: Bucket) -> None:
    bucket.client().put_object(Bucket=bucket.name, Key="fresh/a", Body=b"rows", ChecksumAlgorithm="SHA256")
    assert bucket.keys("fresh/") == ["fresh/a"]
    assert bucket.read("fresh/a") == b"rows"


def test_a_name_is_given_only_once(bucket: Bucket) -> None:
    bucket.client().put_object(Bucket=bucket.name, Key="a", Body=b"first", IfNoneMatch="*")
    with pytest.raises(botocore.exceptions.ClientError, match="PreconditionFailed"):
        bucket.client().put_object(Bucket=bucket.name, Key="a", Body=b"second", IfNoneMatch="*")
    assert bucket.read("a") == b"first"


def test_a_stranger_gets_nothing(bucket: Bucket) -> None:
    bucket.client().put_object(Bucket=bucket.name, Key="a", Body=b"rows")
    assert httpx.get(f"{bucket.endpoint}/{bucket.name}/a").status_code == 403


def test_the_bucket_asked_for_is_there_once_the_store_is_ready(store: SeaweedFS, bucket: Bucket) -> None:
    bucket.client().head_bucket(Bucket=store.bucket)
