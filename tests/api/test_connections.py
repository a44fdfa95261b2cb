"""Clients that are slow, silent or gone: they keep no thread, whoever else asks is answered."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.api import test_server
from tests.api.test_server import address, api

pytestmark = pytest.mark.slow

THREADS = 8
BEGINNINGS = {
    "nothing": b"",
    "half a head": b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Half: ",
    "half a body": b"POST /v1/topics HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Content-Length: 100\r\n\r\n{",
}
HURRY = "import api.connections\napi.connections.HEAD_SECONDS, api.connections.REQUEST_SECONDS = 2.0, 5.0\n"


def test_clients_that_do_not_end_what_they_begin_keep_nobody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A server whose patience is two seconds, and five for a whole request."""
    monkeypatch.setattr(test_server, "PROGRAM", HURRY + test_server.PROGRAM)
    environment = {
        "TUKANG_DATABASE": f"sqlite:///{tmp_path / 'x.db'}",
        "TUKANG_API_THREADS": str(THREADS),
    }
    with api(**environment) as (process, lines):
        url = address(lines)
        place = ("127.0.0.1", int(url.rpartition(":")[2]))
        for said, beginning in BEGINNINGS.items():
            held = [socket.create_connection(place, timeout=30) for _ in range(THREADS)]
            for each in held:
                each.sendall(beginning)
            assert httpx.get(f"{url}/health/live", timeout=30).status_code == 200, said
            for each in held:
                assert each.recv(1) == b"", f"{said}: the server has not ended it"
                each.close()
        _drip(place)
        # What comes slowly and ends in time is taken.
        found = httpx.post(
            f"{url}/v1/topics", content=_slowly(), headers={"Content-Type": "application/json"}, timeout=30
        )
        assert found.status_code == 201
        # Nobody waits at a stop for who has said nothing.
        silent = [socket.create_connection(place) for _ in range(3)]
        process.terminate()
        assert process.wait(20) == 0
        for each in silent:
            each.close()
    assert "Traceback" not in "".join(lines)


def _drip(place: tuple[str, int]) -> None:
    """A head that comes byte by byte, each soon after the other, until the server has had enough."""
    with socket.create_connection(place, timeout=30) as drip:
        ended = threading.Event()

        def listen() -> None:
            drip.recv(1)
            ended.set()

        listener = threading.Thread(target=listen)
        listener.start()
        drip.sendall(b"GET /health/live HTTP/1.1\r\nX-Long: ")
        patience = time.monotonic() + 30
        while not ended.wait(0.1):
            assert time.monotonic() < patience
            try:
                drip.sendall(b"a")
            except OSError:
                break
        listener.join(30)


def _slowly() -> Iterator[bytes]:
    for part in (b'{"topic": ', b'"ord', b'ers"}'):
        yield part
        time.sleep(0.2)
