"""What an API process can be told: each failure names its key, the environment wins over the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.settings import SettingsError, load
from api.times import TimeError, format_time, parse_time
from api.units import UnitError, parse_duration, parse_size


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("TUKANG_DATABASE", "mysql://host/x"),
        ("TUKANG_DATABASE", "no url"),
        ("TUKANG_LISTEN", "8080"),
        ("TUKANG_LISTEN", "host:99999"),
        ("TUKANG_AUTH", "perhaps"),
        ("TUKANG_API_THREADS", "many"),
        ("TUKANG_API_BODY_LIMIT", "12 parsecs"),
    ],
)
def test_a_wrong_value_names_its_key(monkeypatch: pytest.MonkeyPatch, key: str, value: str) -> None:
    monkeypatch.setenv(key, value)
    with pytest.raises(SettingsError, match=f"^{key}: "):
        load()


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "tukang.toml"
    config.write_text('listen = "127.0.0.1:1"\napi_body_limit = "10MB"\nbroker = "somebody:9092"\n')
    monkeypatch.setenv("TUKANG_CONFIG", str(config))
    assert (load().port, load().api_body_limit) == (1, 10_000_000)
    monkeypatch.setenv("TUKANG_LISTEN", "[::1]:2")
    assert (load().port, load().host, load().on_loopback()) == (2, "::1", True)


def test_a_file_that_cannot_be_read_names_its_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TUKANG_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(SettingsError, match=r"^TUKANG_CONFIG: "):
        load()
    (tmp_path / "none.toml").write_text("= 1")
    with pytest.raises(SettingsError, match=r"^TUKANG_CONFIG: "):
        load()


def test_the_short_form_of_a_postgresql_url_is_taken() -> None:
    assert load(database="postgresql://me@host/db").database == "postgresql+psycopg://me@host/db"


@pytest.mark.parametrize(
    ("listen", "loopback"), [("127.0.0.1:1", True), ("localhost:1", True), ("0.0.0.0:1", False)]
)
def test_loopback_is_told_from_the_network(listen: str, loopback: bool) -> None:
    assert load(listen=listen).on_loopback() is loopback


def test_units_are_parsed_exactly() -> None:
    assert [parse_duration(text) for text in ("2s", "15min", "1h", "7d", "1.5s", "100ms")] == [
        2_000_000, 900_000_000, 3_600_000_000, 604_800_000_000, 1_500_000, 100_000,
    ]  # fmt: skip
    assert [parse_size(text) for text in ("512MiB", "128MB", "1.5kB")] == [536_870_912, 128_000_000, 1_500]
    for wrong in ("", "5", "-5s", "5 x", "1e3s", "s", "99999999999999999d", "\u0665s"):
        with pytest.raises(UnitError):
            parse_duration(wrong)


@given(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999))
def test_times_keep_their_microseconds(time_us: int) -> None:
    assert parse_time(format_time(time_us)) == time_us


def test_a_day_that_no_month_has_is_no_time() -> None:
    with pytest.raises(TimeError):
        parse_time("2026-02-30T00:00:00Z")
