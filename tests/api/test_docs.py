"""`/docs` in a real browser: it shows the contract, styled, and asks nobody but this server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask import Flask, Response
from werkzeug.serving import make_server

from api.app import create_app
from api.settings import load

pytestmark = pytest.mark.slow

QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-sync", "--disable-component-update", "--disable-default-apps", "--disable-extensions",
    "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--disable-features=OptimizationHints,MediaRouter,Translate",
)  # fmt: skip


def browser() -> str:
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))),
        None,
    )
    if found is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("there is no Chromium")
    return found


@contextmanager
def served(app: Flask) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def visit(url: str, folder: Path) -> tuple[str, set[str], str]:
    """The page as the browser has made it, every address that it made the browser ask for, and the console."""
    log = folder / "net.json"
    done = subprocess.run(
        [browser(), *QUIET, f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}", "--enable-logging=stderr",
         "--virtual-time-budget=5000", "--dump-dom", url],
        capture_output=True, text=True, timeout=90, check=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(log.read_text())
    started = found["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    origin = "/".join(url.split("/")[:3])
    params = [event["params"] for event in found["events"] if event["type"] == started and "params" in event]
    # What the browser asks for itself has no page as its initiator.
    asked = {each["url"] for each in params if each.get("initiator") == origin}
    return done.stdout, asked, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def others(asked: set[str], url: str) -> set[str]:
    """Addresses of other hosts."""
    return {each for each in asked if urlsplit(each).scheme != "data" and not each.startswith(f"{url}/")}


def test_the_docs_are_readable_in_a_browser_and_ask_no_other_host(tmp_path: Path) -> None:
    app = create_app(load(database=f"sqlite:///{tmp_path / 'x.db'}", auth="none"))
    with served(app) as url:
        page, asked, console = visit(f"{url}/docs", tmp_path)
    assert "/v1/topics/{topic}/batches" in page
    assert f"{url}/docs/style.css" in asked
    assert others(asked, url) == set()
    assert console == ""  # nothing that the page's own policy forbids


def test_a_page_that_asks_another_host_is_noticed(tmp_path: Path) -> None:
    app = Flask("elsewhere")
    app.add_url_rule(
        "/", view_func=lambda: Response('<img src="http://127.0.0.2:9/x.png">', mimetype="text/html")
    )
    with served(app) as url:
        _, asked, _ = visit(f"{url}/", tmp_path)
    assert others(asked, url) == {"http://127.0.0.2:9/x.png"}
