"""Settings: each failure names its key, the environment wins over the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.settings import SettingsWrong, duration_us, load_settings, size_bytes

NEEDED = {"TUKANG_BROKER": "b:1", "TUKANG_BUCKET": "lake", "TUKANG_API": "http://127.0.0.1:1"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for key, value in NEEDED.items():
        monkeypatch.setenv(key, value)
    return monkeypatch


@pytest.mark.parametrize("key", list(NEEDED))
def test_a_missing_setting_is_named(environment: pytest.MonkeyPatch, key: str) -> None:
    environment.delenv(key)
    with pytest.raises(SettingsWrong, match=f"{key} is not set"):
        load_settings()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("TUKANG_MEMORY", "lots"),
        ("TUKANG_FLUSH_AGE", "60"),
        ("TUKANG_FLUSH_ROWS", "0"),
        ("TUKANG_API", "nonsense"),
        ("TUKANG_BROKER", "kafka1:99999"),
        ("TUKANG_S3_ENDPOINT", "minio:9000"),
        ("TUKANG_BROKER_PROTOCOL", "TLS"),
        ("TUKANG_BROKER_CA", "/nowhere/ca.pem"),
        ("TUKANG_PREFIX", "lake"),
        ("TUKANG_TOPICS", "^(unclosed"),
    ],
)
def test_a_wrong_setting_is_named(environment: pytest.MonkeyPatch, key: str, value: str) -> None:
    environment.setenv(key, value)
    with pytest.raises(SettingsWrong, match=key):
        load_settings()


def test_sasl_needs_its_credentials(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("TUKANG_BROKER_PROTOCOL", "SASL_SSL")
    with pytest.raises(SettingsWrong, match="TUKANG_BROKER_SASL_MECHANISM is needed"):
        load_settings()


def test_the_environment_wins_over_the_file(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "tukang.toml"
    file.write_text('group = "from-file"\nmemory = "512MiB"\nbucket = "other"\n')
    environment.setenv("TUKANG_CONFIG", str(file))
    settings = load_settings()
    assert (settings.group, settings.memory, settings.bucket) == ("from-file", 512 << 20, "lake")


def test_a_config_file_that_is_not_there_is_named(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("TUKANG_CONFIG", "/nowhere.toml")
    with pytest.raises(SettingsWrong, match="TUKANG_CONFIG"):
        load_settings()


def test_a_config_file_that_is_no_toml_is_named(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "tukang.toml"
    file.write_text('broker = nope"')
    environment.setenv("TUKANG_CONFIG", str(file))
    with pytest.raises(SettingsWrong, match=rf"TUKANG_CONFIG: {file} is not TOML"):
        load_settings()


def test_topics_are_names_or_anchored_patterns(environment: pytest.MonkeyPatch) -> None:
    import re

    environment.setenv("TUKANG_TOPICS", "orders.v1, ^pay.*$")
    pattern = re.compile(load_settings().pattern)
    assert all(pattern.match(name) for name in ("orders.v1", "payments"))
    assert not any(pattern.match(name) for name in ("ordersxv1", "orders.v10", "repay"))


@pytest.mark.parametrize(
    ("text", "value"), [("512MiB", 512 << 20), ("128MB", 128_000_000), ("7", 7), ("1.5k", 1500)]
)
def test_sizes_have_units(text: str, value: int) -> None:
    assert size_bytes(text) == value


@pytest.mark.parametrize(
    ("text", "value"), [("2s", 2_000_000), ("15min", 900_000_000), ("7d", 604_800_000_000)]
)
def test_durations_have_units(text: str, value: int) -> None:
    assert duration_us(text) == value
