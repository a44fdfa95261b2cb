"""Presigned URLs against the real store: they work, with ranges, expire, and are never written down."""

from __future__ import annotations

import importlib.util
import logging
import time
from pathlib import Path

import duckdb
import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api.app import create_app
from api.settings import load
from tests.api.conftest import World
from tests.stack.store import Bucket

pytestmark = pytest.mark.slow


def read_with_duckdb(url: str) -> tuple[int, int]:
    """Rows and sum of `n` of a Parquet file over HTTP, as an analyst reads it."""
    package = importlib.util.find_spec("duckdb_extension_httpfs")
    assert package is not None
    assert package.submodule_search_locations is not None
    folder = Path(next(iter(package.submodule_search_locations)))
    connection = duckdb.connect()
    extension = folder / "extensions" / f"v{duckdb.__version__}" / "httpfs.duckdb_extension"
    connection.load_extension(str(extension))
    found = connection.execute("SELECT count(*), sum(n) FROM read_parquet(?)", [url]).fetchone()
    assert found is not None
    return found[0], found[1]


def test_presigned_urls_read_objects_until_they_expire(
    world: World, bucket: Bucket, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", bucket.region)
    caplog.set_level(logging.INFO)
    maker = world.maker()
    world.send("PATCH", "/topics/orders", {"settings": {"presigned_for": "1min"}})
    body = maker.append()
    url = f"s3://{bucket.name}/fresh/orders/one-rows.parquet"
    body["files"][0]["url"] = url
    maker.send(body)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"n": list(range(10))}), sink)
    content = sink.getvalue().to_pybytes()
    bucket.client().put_object(Bucket=bucket.name, Key="fresh/orders/one-rows.parquet", Body=content)
    app = create_app(load(database=world.url, auth="none", s3_endpoint=bucket.endpoint), world.clock)
    client = app.test_client()
    found = client.get("/v1/topics/orders/batches?urls=presigned")
    assert found.headers["Cache-Control"] == "no-store"
    [file] = found.get_json()["commits"][0]["add"]
    assert file["url"] == url
    assert file["presigned_expires_at"] == "2026-01-01T09:01:00Z"
    signed = file["presigned_url"]
    assert httpx.get(signed).content == content
    part = httpx.get(signed, headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, b"PAR1")
    assert httpx.put(signed, content=b"x").status_code == 403
    client.put("/v1/loaders/l", json={"topics": ["orders"], "from": "earliest"})
    [topic] = client.get("/v1/loaders/l/batches?urls=presigned").get_json()["topics"]
    assert httpx.get(topic["commits"][0]["add"][0]["presigned_url"]).content == content
    [file] = client.get("/v1/topics/orders/files?urls=presigned").get_json()["files"]
    assert read_with_duckdb(file["presigned_url"]) == (10, 45)
    short = app.extensions["tukang"].signer.sign(url, 1_000_000, 0)[0]
    time.sleep(2.5)
    assert httpx.get(short).status_code == 403
    lines = client.get("/v1/audit?action=presigned").get_json()["audit"]
    assert [(line["topic"], line["after"]) for line in lines] == [
        ("orders", {"files": 1, "from": 1, "to": 1})
    ] * 3
    # What this test's own client logs is not the API's.
    said = " ".join(record.getMessage() for record in caplog.records if record.name != "httpx")
    for secret in ("X-Amz-Signature", "Signature="):
        assert secret not in said
        assert secret not in client.get("/v1/audit").get_data(as_text=True)


def test_without_credentials_the_api_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", f"{tmp_path}/none")
    monkeypatch.setenv("AWS_CONFIG_FILE", f"{tmp_path}/none")
    world.maker().commit()
    refused = world.get("/topics/orders/batches", 503, urls="presigned")
    assert refused["type"] == "/problems/cannot-sign"
    assert world.get("/audit", action="presigned")["audit"] == []
