"""The object store: names are used once, checksums are checked, refusals are told from absences."""

from __future__ import annotations

import hashlib

import pytest

from ingest.lake import Lake, LakeMissing, LakeRefused, LakeUnavailable
from tests.stack.store import Bucket

pytestmark = pytest.mark.slow


@pytest.fixture
def lake(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Lake:
    for key, value in bucket.environment.items():
        monkeypatch.setenv(key, value)
    return Lake(bucket.name, "lake/", endpoint=bucket.endpoint)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_an_object_is_put_under_the_prefix_and_read_by_its_address(lake: Lake, bucket: Bucket) -> None:
    put = lake.put("fresh/t/1.parquet", memoryview(b"0123456789"), digest(b"0123456789"))
    assert put.url == f"s3://{bucket.name}/lake/fresh/t/1.parquet"
    assert put.modified_at.endswith("Z")
    assert lake.get(put.url) == b"0123456789"
    assert lake.get(put.url, 2, 5) == b"234"


def test_an_object_is_never_overwritten(lake: Lake) -> None:
    put = lake.put("a", memoryview(b"first"), digest(b"first"))
    with pytest.raises(LakeUnavailable, match="PreconditionFailed"):
        lake.put("a", memoryview(b"other"), digest(b"other"))
    assert lake.get(put.url) == b"first"


def test_a_body_that_does_not_match_its_checksum_is_not_stored(lake: Lake, bucket: Bucket) -> None:
    with pytest.raises(LakeUnavailable):
        lake.put("b", memoryview(b"body"), digest(b"other"))
    assert bucket.keys() == []


def test_a_missing_object_is_told_from_a_store_that_is_away(lake: Lake, bucket: Bucket) -> None:
    with pytest.raises(LakeMissing):
        lake.get(f"s3://{bucket.name}/nothing")
    away = Lake("lake", endpoint="http://127.0.0.1:1")
    with pytest.raises(LakeUnavailable):
        away.check()


def test_a_missing_bucket_and_wrong_credentials_are_refusals_in_one_line(
    lake: Lake, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.check()
    with pytest.raises(LakeRefused, match="TUKANG_BUCKET"):
        Lake("no-such-bucket", endpoint=bucket.endpoint).check()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(LakeRefused, match="credentials"):
        Lake(bucket.name, endpoint=bucket.endpoint).check()
