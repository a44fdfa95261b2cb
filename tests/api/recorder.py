"""What real clients ask the API, written down with its answers; and asked again, of the API as it is now.

A recording is a list of exchanges in their order. Played again, the epoch is another one: what an answer names anew
(an epoch, a page's token) is put in the place of the old in all that is asked later.
"""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from flask import Flask
from flask.testing import FlaskClient

UNRECORDED = "X-Not-Recorded"  # header of requests that are the test's own
RECORDING = Path(__file__).parent / "recorded" / "requests.json"


class Recorder:
    """WSGI before an application: notes each exchange under /v1. One at a time, so that their order is the true one."""

    def __init__(self, app: Flask) -> None:
        self._app = app.wsgi_app
        self._lock = threading.Lock()
        self.exchanges: list[dict[str, Any]] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if "HTTP_X_NOT_RECORDED" in environ or not path.startswith("/v1"):
            return self._app(environ, start_response)
        environ["HTTP_ACCEPT_ENCODING"] = "identity"
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        statuses: list[int] = []

        def note(status: str, headers: Any, *rest: Any) -> Any:
            statuses.append(int(status[:3]))
            return start_response(status, headers, *rest)

        with self._lock:
            at_us = time.time_ns() // 1000
            answer = b"".join(self._app(environ, note))
            headers = {"If-Match": environ["HTTP_IF_MATCH"]} if "HTTP_IF_MATCH" in environ else {}
            self.exchanges.append(
                {
                    "client": environ.get("HTTP_USER_AGENT", ""),
                    "at_us": at_us,
                    "method": environ["REQUEST_METHOD"],
                    "path": path,
                    "query": environ.get("QUERY_STRING", ""),
                    "headers": headers,
                    "body": json.loads(body) if body else None,
                    "status": statuses[0],
                    "answer": json.loads(answer) if answer else None,
                }
            )
        return [answer]

    def write(self, release: str, path: Path = RECORDING) -> None:
        """One exchange a line, so that two recordings can be compared."""
        lines = ",\n".join(json.dumps(each, sort_keys=True) for each in self.exchanges)
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'{{"release": {json.dumps(release)}, "exchanges": [\n{lines}\n]}}\n')


class Player:
    """Asks again what was recorded, and says where an answer lacks what the client then found in it."""

    def __init__(self, client: FlaskClient, set_clock: Callable[[int], None]) -> None:
        self._client = client
        self._set_clock = set_clock
        self._now: dict[str, str] = {}  # a text of the recording -> what stands for it now

    def play(self, exchange: dict[str, Any]) -> list[str]:
        """Differences, none when the client would not notice."""
        self._set_clock(exchange["at_us"])
        query = exchange["query"]
        for old, new in self._now.items():
            query = query.replace(old, new)
        asked = f"{exchange['method']} {exchange['path']}"
        found = self._client.open(
            exchange["path"],
            method=exchange["method"],
            query_string="&".join(
                "wait=0" if part.startswith("wait=") else part for part in query.split("&")
            ),
            json=self._renewed(exchange["body"]),
            headers=exchange["headers"],
        )
        if found.status_code != exchange["status"]:
            return [f"{asked}: {found.status_code}, was {exchange['status']}: {found.get_data(as_text=True)}"]
        answer = json.loads(found.get_data() or b"null")
        return [f"{asked}: {text}" for text in self._missing(exchange["answer"], answer, "")]

    def _renewed(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._renewed(each) for name, each in value.items()}
        if isinstance(value, list):
            return [self._renewed(each) for each in value]
        return self._now.get(value, value) if isinstance(value, str) else value

    def _missing(self, old: Any, new: Any, where: str) -> list[str]:
        """What the recorded answer has and the new one has not, or has of another kind."""
        if isinstance(old, dict) and isinstance(new, dict):
            lost = [f"{where}/{name} is gone" for name in old if name not in new]
            common = [name for name in old if name in new]
            return lost + [
                each for name in common for each in self._missing(old[name], new[name], f"{where}/{name}")
            ]
        if isinstance(old, list) and isinstance(new, list):
            if len(old) != len(new):
                return [f"{where} has {len(new)} entries, had {len(old)}"]
            pairs = enumerate(zip(old, new, strict=True))
            return [each for at, pair in pairs for each in self._missing(*pair, f"{where}/{at}")]
        if isinstance(old, str) and isinstance(new, str):
            if old != new and where.rpartition("/")[2] in ("epoch", "next_page"):
                self._now[old] = new
            return []
        numbers = isinstance(old, int | float) and isinstance(new, int | float)
        return [] if numbers or type(old) is type(new) else [f"{where} is {new!r}, was {old!r}"]
