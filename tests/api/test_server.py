"""`tukang api` as a process: it says its address, stops in order, and says what is wrong in one line."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from deploy.part import clean_environment
from tests.stack.postgres import Postgres

ROOT = Path(__file__).parents[2]
PROGRAM = """
import logging, sys
from api.server import serve
from api.settings import SettingsError, load
logging.basicConfig(level=logging.INFO)
try:
    serve(load())
except SettingsError as error:
    sys.exit(str(error))
"""

pytestmark = pytest.mark.slow


@contextmanager
def api(**environment: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The server's process, and the lines that it has written so far."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=clean_environment({"TUKANG_LISTEN": "127.0.0.1:0", "TUKANG_AUTH": "none", **environment}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )
    lines: list[str] = []

    def follow() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)

    reader = threading.Thread(target=follow)
    reader.start()
    try:
        yield process, lines
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(60)
        reader.join()


def address(lines: list[str]) -> str:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = re.search(r"listens on (http\S+)", "".join(lines))
        if found:
            return found[1]
        time.sleep(0.02)
    raise AssertionError("".join(lines))


def test_it_serves_and_stops_in_order_with_long_polls_open(tmp_path: Path) -> None:
    with api(TUKANG_DATABASE=f"sqlite:///{tmp_path / 'x.db'}", TUKANG_API_BODY_LIMIT="1MB") as (
        process,
        lines,
    ):
        url = address(lines)
        httpx.post(f"{url}/v1/topics", json={"topic": "orders"}).raise_for_status()
        # A body whose length nobody says beforehand ends at the limit, too.
        endless = httpx.post(
            f"{url}/v1/topics",
            content=(b" " * 100_000 for _ in range(30)),
            headers={"Content-Type": "application/json"},
        )
        assert (endless.status_code, endless.json()["type"]) == (413, "/problems/too-large")
        answers: list[httpx.Response] = []
        poll = threading.Thread(
            target=lambda: answers.append(httpx.get(f"{url}/v1/topics/orders/batches?wait=30", timeout=60))
        )
        poll.start()
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        poll.join()
        assert answers[0].json()["commits"] == []


def test_it_waits_for_a_database_that_is_away(own_postgres: Postgres) -> None:
    name = own_postgres.create()
    own_postgres.stop()
    with api(TUKANG_DATABASE=own_postgres.url(name)) as (_process, lines):
        while "waiting for the database" not in "".join(lines):
            time.sleep(0.05)
        own_postgres.start()
        url = address(lines)
        httpx.post(f"{url}/v1/topics", json={"topic": "orders"}).raise_for_status()
        httpx.get(f"{url}/v1/topics/orders/batches?wait=1").raise_for_status()
        # A restart under way is told to callers as 503, and is over when the server is back.
        own_postgres.kill()
        away = httpx.get(f"{url}/v1/topics")
        assert (away.status_code, away.json()["type"]) == (503, "/problems/database-away")
        own_postgres.start()
        statuses = {httpx.get(f"{url}/v1/topics").status_code for _ in range(20)}
        assert httpx.get(f"{url}/v1/topics").json()["topics"][0]["topic"] == "orders"
        assert statuses <= {200, 503}
        while "learns of other processes' commits again" not in "".join(lines):
            time.sleep(0.05)
    said = [line for line in lines if "other processes' commits" in line]
    assert len(said) == 2  # once for the outage, however long, and once for its end


def test_a_wrong_database_is_said_in_one_line(own_postgres: Postgres, tmp_path: Path) -> None:
    for url in (own_postgres.url("nothing"), f"sqlite:///{tmp_path / 'no' / 'folder' / 'x.db'}"):
        with api(TUKANG_DATABASE=url) as (process, lines):
            assert process.wait(30) == 1
        assert lines[-1].startswith("TUKANG_DATABASE: the database cannot be opened")


def test_a_wrong_setting_is_said_in_one_line(tmp_path: Path) -> None:
    with api(TUKANG_TLS_CERT=str(tmp_path / "cert.pem")) as (process, lines):
        assert process.wait(30) == 1
    assert lines[-1].startswith("TUKANG_TLS_CERT, TUKANG_TLS_KEY:")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of this machine's loopback, which signs itself, and its key."""
    if shutil.which("openssl") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("there is no openssl")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def test_a_certificate_turns_tls_on(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    """And a client that connects without a word keeps nobody."""
    cert, key = certificate
    environment = {
        "TUKANG_DATABASE": f"sqlite:///{tmp_path / 'x.db'}", "TUKANG_TLS_CERT": str(cert), "TUKANG_TLS_KEY": str(key),
    }  # fmt: skip
    trusting = ssl.create_default_context(cafile=str(cert))
    with api(**environment) as (process, lines):
        url = address(lines)
        assert url.startswith("https://")
        port = int(url.rpartition(":")[2])
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        with httpx.Client(base_url=url, verify=trusting, timeout=20) as client:
            assert client.post("/v1/topics", json={"topic": "orders"}).status_code == 201
            found = client.get("/v1/topics/orders/batches")
            assert found.headers["Strict-Transport-Security"].startswith("max-age=")
        with pytest.raises(httpx.ConnectError, match="certificate"):
            httpx.get(f"{url}/health/live")
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/health/live")
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(cert)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health/live", verify=old)
        for each in silent:
            each.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_a_certificate_without_its_key_or_not_of_it_is_said(
    tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    cert, _ = certificate
    (tmp_path / "key.pem").write_text("no key")
    with api(TUKANG_TLS_CERT=str(cert), TUKANG_TLS_KEY=str(tmp_path / "key.pem")) as (process, lines):
        assert process.wait(30) == 1
    assert lines[-1].startswith("TUKANG_TLS_CERT, TUKANG_TLS_KEY:")
