"""Files come as they were committed, or not at all."""

import hashlib
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loaders.download import DownloadFailed, DownloadRefused, Downloads, ObjectGone
from loaders.feed import File
from tests.stack.store import Bucket

pytestmark = pytest.mark.slow


def put(bucket: Bucket, number: int, data: bytes, **other: object) -> File:
    key = f"fresh/orders/{number}.parquet"
    bucket.client().put_object(Bucket=bucket.name, Key=key, Body=data)
    digest = hashlib.sha256(data).hexdigest()
    found = {
        "id": number,
        "sequence": 1,
        "kind": "append",
        "url": f"s3://{bucket.name}/{key}",
        "what": "rows",
    }
    return File(**{**found, "bytes": len(data), "rows": 1, "sha256": digest, "schema_version": 0, **other})  # type: ignore[arg-type]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A disk that is full behind so many bytes of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def downloads(bucket: Bucket) -> Downloads:
    return Downloads(endpoint=bucket.endpoint, patience_s=0.5)


def test_files_come_in_parallel_and_their_bytes_are_told(
    bucket: Bucket, downloads: Downloads, tmp_path: Path
) -> None:
    files = [put(bucket, number, bytes([number]) * 3_000_000) for number in range(1, 13)]
    told: list[int] = []
    paths = downloads.fetch(files, tmp_path, told.append)
    assert sum(told) == 36_000_000
    assert all(paths[file.id].read_bytes() == bytes([file.id]) * 3_000_000 for file in files)


def test_a_file_that_lies_there_is_not_fetched_again(
    bucket: Bucket, downloads: Downloads, tmp_path: Path
) -> None:
    file = put(bucket, 1, b"abc")
    downloads.fetch([file], tmp_path)
    bucket.client().delete_object(Bucket=bucket.name, Key="fresh/orders/1.parquet")
    assert downloads.fetch([file], tmp_path)[1].read_bytes() == b"abc"


def test_other_bytes_than_the_committed_ones_are_refused(
    bucket: Bucket, downloads: Downloads, tmp_path: Path
) -> None:
    told: list[int] = []
    with pytest.raises(DownloadFailed, match="another SHA-256"):
        downloads.fetch([put(bucket, 1, b"abc", sha256="0" * 64)], tmp_path, told.append)
    assert sum(told) == 0


def test_a_full_disk_is_said_and_what_fills_it_is_taken_away(
    bucket: Bucket, downloads: Downloads, tmp_path: Path
) -> None:
    file = put(bucket, 1, bytes(6_000_000))
    told: list[int] = []
    with files_of_at_most(3_000_000), pytest.raises(DownloadFailed, match=f"{tmp_path}.*set TMPDIR"):
        downloads.fetch([file], tmp_path, told.append)
    assert list(tmp_path.iterdir()) == []
    assert sum(told) == 0
    assert downloads.fetch([file], tmp_path)[1].stat().st_size == 6_000_000


def test_a_presigned_url_is_used_without_credentials_and_its_end_is_an_object_gone(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = put(bucket, 3, b"abc")
    put(bucket, 1, b"abc")
    signed = bucket.client().generate_presigned_url(
        "get_object", Params={"Bucket": bucket.name, "Key": "fresh/orders/1.parquet"}
    )
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    downloads = Downloads(endpoint=bucket.endpoint, patience_s=0.5)
    file = put(bucket, 1, b"abc", presigned_url=signed)
    assert downloads.fetch([file], tmp_path)[1].read_bytes() == b"abc"
    cut = put(bucket, 2, b"abc", presigned_url=signed.replace("Signature=", "Signature=0"))
    with pytest.raises(ObjectGone) as error:
        downloads.fetch([cut], tmp_path)
    assert "Signature" not in str(error.value)
    with pytest.raises(DownloadRefused, match="TUKANG_URLS=presigned"):
        downloads.fetch([plain], tmp_path)


def test_a_swept_object_is_gone_and_a_wrong_bucket_refused(
    bucket: Bucket, downloads: Downloads, tmp_path: Path
) -> None:
    file = put(bucket, 1, b"abc")
    bucket.client().delete_object(Bucket=bucket.name, Key="fresh/orders/1.parquet")
    with pytest.raises(ObjectGone):
        downloads.fetch([file], tmp_path)
    elsewhere = put(bucket, 2, b"abc", url="s3://nobody-made-this/2.parquet")
    with pytest.raises(DownloadRefused, match="NoSuchBucket"):
        downloads.fetch([elsewhere], tmp_path)


def test_a_store_that_is_away_is_a_failure_after_patience(bucket: Bucket, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        away = Downloads(endpoint=f"http://127.0.0.1:{unused.getsockname()[1]}", patience_s=0.5)
        with pytest.raises(DownloadFailed):
            away.fetch([put(bucket, 1, b"abc")], tmp_path)
