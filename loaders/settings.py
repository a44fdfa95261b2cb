"""What `tukang load` can be told: from the environment (`TUKANG_...`) and an optional TOML file (`TUKANG_CONFIG`).

The environment wins over the file. Credentials of the store come by boto3's usual ways.
"""

import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict


class SettingsWrong(Exception):
    """One or more settings are missing or wrong; each line names its key."""


class _File(PydanticBaseSettingsSource):
    """The file that TUKANG_CONFIG names. Keys of other packages are none of this one's business."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError("the file is read whole")

    def __call__(self) -> dict[str, Any]:
        name = os.environ.get("TUKANG_CONFIG")
        if not name:
            return {}
        try:
            found = tomllib.loads(Path(name).read_text())
        except OSError as error:
            raise SettingsWrong(f"TUKANG_CONFIG: {name} cannot be read: {error.strerror}") from error
        except tomllib.TOMLDecodeError as error:
            raise SettingsWrong(f"TUKANG_CONFIG: {name} is not TOML: {error}") from error
        return {key: value for key, value in found.items() if key in LoaderSettings.model_fields}


class LoaderSettings(BaseSettings):
    """Settings of `tukang load`. The key of a field is `TUKANG_` and its name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix="TUKANG_", env_ignore_empty=True, extra="ignore", frozen=True
    )

    api: str = Field(description="URL of the API, for example http://127.0.0.1:8470.")
    api_ca: Path | None = Field(
        None, description="PEM file of the authority that signed the API's certificate."
    )
    token: str | None = Field(None, description="A token with scope `load`.", repr=False)
    token_file: Path | None = Field(None, description="A file with the token; read again when it changes.")
    s3_endpoint: str | None = Field(None, description="URL of an S3-compatible store; AWS's own by default.")
    urls: Literal["s3", "presigned"] = Field(
        "s3",
        description="How to fetch files: `s3` with credentials of one's own, `presigned` with the API's.",
    )
    downloads: int = Field(8, ge=1, le=64, description="Files that are fetched at once.")
    run_bytes: int = Field(
        1_000_000_000,
        description="A run of commits ends before its files are larger; they lie on disk meanwhile.",
    )

    @field_validator("api")
    @classmethod
    def _url(cls, value: str) -> str:
        if not re.match(r"https?://[^/]", value):
            raise ValueError("must be a URL such as http://127.0.0.1:8470")
        return value

    @field_validator("api_ca", "token_file")
    @classmethod
    def _there(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"the file {value} does not exist")
        return value

    @field_validator("run_bytes", mode="before")
    @classmethod
    def _size(cls, value: Any) -> Any:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kKMGT]?)(i?)[bB]?\s*", str(value))
        if match is None:
            raise ValueError("must be a size such as 512MiB or 1GB")
        return round(float(match[1]) * (1024 if match[3] else 1000) ** " kmgt".index(match[2].lower() or " "))

    @property
    def token_source(self) -> Callable[[], str | None]:
        """The token as it is now: a file is looked at for each request."""
        file = self.token_file
        return (lambda: self.token) if file is None else lambda: file.read_text().strip()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _File(settings_cls)


def load_settings(**given: Any) -> LoaderSettings:
    """Settings from what is given, the environment and the file. Raises `SettingsWrong`, a line for each key."""
    try:
        return LoaderSettings(**given)
    except ValidationError as error:
        raise SettingsWrong("\n".join(_line(each) for each in error.errors())) from None


def _line(error: Any) -> str:
    name = str(error["loc"][0])
    if error["type"] == "missing":
        return f"TUKANG_{name.upper()} is not set: {LoaderSettings.model_fields[name].description}"
    said = error["msg"].removeprefix("Value error, ")
    # Never the value of a token.
    return f"TUKANG_{name.upper()}: {said}" + ("" if name == "token" else f" (is {error['input']!r})")
