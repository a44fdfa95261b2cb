"""What a loader is told, and that every failure names its key."""

from pathlib import Path

import pytest

from loaders.settings import LoaderSettings, SettingsWrong, load_settings


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*LoaderSettings.model_fields, "config"):
        monkeypatch.delenv(f"TUKANG_{name.upper()}", raising=False)


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tukang.toml"
    file.write_text('api = "http://file:1"\nrun_bytes = "2GiB"\nbroker = "of the worker"\n')
    monkeypatch.setenv("TUKANG_CONFIG", str(file))
    assert load_settings().api == "http://file:1"
    monkeypatch.setenv("TUKANG_API", "http://environment:2")
    settings = load_settings()
    assert (settings.api, settings.run_bytes) == ("http://environment:2", 2 << 30)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("TUKANG_API", "not a url"),
        ("TUKANG_URLS", "ftp"),
        ("TUKANG_DOWNLOADS", "0"),
        ("TUKANG_RUN_BYTES", "many"),
        ("TUKANG_TOKEN_FILE", "nowhere"),
        ("TUKANG_CONFIG", "nowhere.toml"),
    ],
)
def test_a_wrong_value_names_its_key(key: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUKANG_API", "http://127.0.0.1:1")
    monkeypatch.setenv(key, value)
    with pytest.raises(SettingsWrong, match=key):
        load_settings()


def test_a_missing_value_names_its_key() -> None:
    with pytest.raises(SettingsWrong, match="TUKANG_API is not set"):
        load_settings()


def test_a_token_in_a_file_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    token = load_settings(api="http://127.0.0.1:1", token_file=file).token_source
    assert token() == "first"
    file.write_text("second\n")
    assert token() == "second"
