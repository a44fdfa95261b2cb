"""An operator's commands against a real API: settings as code, pause, and refusals in one line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from deploy.part import clean_environment
from tests.stack.services import Services

pytestmark = pytest.mark.slow


def tukang(services: Services, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tukang", *arguments],
        env=clean_environment(services.environment),
        cwd=services.folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_settings_are_applied_from_a_file_after_a_dry_run(services: Services) -> None:
    services.create("orders", lateness="5min", flush_rows=7)
    file = services.folder / "topics.toml"
    file.write_text('[orders]\nlateness = "1h"\n[payments]\nevent_id = ["id"]\n')
    said = tukang(services, "topics", "apply", str(file), "--dry-run")
    assert said.splitlines() == [
        "orders: flush_rows = 7 -> (default)",
        "orders: lateness = 5min -> 1h",
        "payments: new, with 1 settings",
    ]
    assert services.get("/topics/orders")["settings"]["lateness"] == "5min"
    assert tukang(services, "topics", "apply", str(file)) == said
    assert services.get("/topics/orders")["settings_own"] == ["lateness"]
    assert services.get("/topics/payments")["settings"]["event_id"] == ["id"]
    assert tukang(services, "topics", "apply", str(file)) == ""
    assert "lateness = 1h\t(topic)" in tukang(services, "topics", "settings", "orders")


def test_a_file_with_one_wrong_setting_changes_nothing(services: Services) -> None:
    services.create("orders")
    file = services.folder / "topics.toml"
    file.write_text('[orders]\nlateness = "1h"\n[payments]\nlatness = "1h"\n[refunds]\nperiod = "year"\n')
    for arguments in (["--dry-run"], []):
        said = tukang(services, "topics", "apply", str(file), *arguments, code=2).splitlines()
        assert [line.partition(":")[0] for line in said] == ["payments", "refunds", "Nothing was changed."]
    assert services.get("/topics/orders")["settings_own"] == []


def test_retention_is_cut_only_with_a_second_word(services: Services) -> None:
    services.create("orders", retention="90d from commit")
    file = services.folder / "topics.toml"
    file.write_text('[orders]\nretention = "7d from commit"\n')
    assert "`confirm`" in tukang(services, "topics", "apply", str(file), code=2)
    tukang(services, "topics", "apply", str(file), "--confirm")
    assert services.get("/topics/orders")["settings"]["retention"] == "7d from commit"


def test_a_topic_is_paused_and_resumed(services: Services) -> None:
    services.create("orders")
    assert tukang(services, "topics", "pause", "orders") == "orders: paused\n"
    assert tukang(services, "topics", "list").split() == ["topic", "state", "rows", "orders", "paused", "0"]
    assert tukang(services, "topics", "resume", "orders") == "orders: unknown\n"


def test_loaders_are_listed_held_and_removed(services: Services) -> None:
    services.create("orders")
    told = {"topics": ["orders"], "from": "earliest", "mirror_expiry": True}
    services.http.put("/loaders/dwh", json=told).raise_for_status()
    assert tukang(services, "loaders", "list").splitlines() == [
        "loader  topics behind  commits behind  rows behind  retention",
        "dwh                 0               0            0  -",
    ]
    assert tukang(services, "loaders", "hold", "dwh") == "dwh: hold\n"
    assert tukang(services, "loaders", "list").split()[-1] == "waits"
    assert tukang(services, "loaders", "show", "dwh").splitlines() == [
        "topic   cursor  head  rows behind  waiting since",
        "orders       0     0            0  -",
    ]
    held = services.get("/loaders/dwh")
    assert {name: held[name] for name in told} == told
    tukang(services, "loaders", "release", "dwh")
    assert not services.get("/loaders/dwh")["hold"]
    tukang(services, "loaders", "remove", "dwh")
    assert tukang(services, "loaders", "list") == ""
    assert "There is no loader dwh" in tukang(services, "loaders", "remove", "dwh", code=2)


def test_refusals_are_one_line_each(services: Services) -> None:
    assert tukang(services, "topics", "pause", "nothing", code=2).count("\n") == 1
    services.environment["TUKANG_API"] = "http://127.0.0.1:1"
    assert "TUKANG_API" in tukang(services, "topics", "list", code=2)
