"""The object store: names are used once, checksums are checked, refusals are told from absences."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from ingest.lake import Lake, LakeDamaged, LakeMissing, LakeRefused, LakeUnavailable
from ingest.small_objects import SMALL_BYTES
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


def test_an_object_is_fetched_to_a_file_and_proven_by_its_checksum(lake: Lake, tmp_path: Path) -> None:
    for size in (0, 10, SMALL_BYTES + 3):
        data = os.urandom(size)
        key = f"sealed/t/event_date=2026-01-01/{size}.parquet"
        put = lake.put(key, memoryview(data), digest(data))
        lake.fetch(put.url, tmp_path / "fetched", size, digest(data))
        assert (tmp_path / "fetched").read_bytes() == data
        assert lake._small.get("lake/" + key) == data, "by the short way"
        with pytest.raises(LakeDamaged, match="not those that were committed"):
            lake.fetch(put.url, tmp_path / "fetched", size, digest(b"other"))


def test_what_the_short_way_does_not_get_is_got_or_explained_by_boto3(
    lake: Lake, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = lake.put("a", memoryview(b"data"), digest(b"data"))
    with pytest.raises(LakeMissing):
        lake.fetch(f"s3://{bucket.name}/nothing", tmp_path / "fetched", 4, digest(b"data"))
    monkeypatch.setattr(lake, "_small", SimpleNamespace(get=lambda key: None))
    lake.fetch(put.url, tmp_path / "fetched", 4, digest(b"data"))
    assert (tmp_path / "fetched").read_bytes() == b"data"
    away = Lake(bucket.name, endpoint="http://127.0.0.1:1")
    with pytest.raises(LakeUnavailable):
        away.fetch(put.url, tmp_path / "fetched", 4, digest(b"data"))
