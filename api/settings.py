"""What an API process can be told: from the environment (`TUKANG_...`) and an optional TOML file.

The environment wins over the file. Each failure names its key. What a topic can be told is in `topic_settings.py`.
"""

import ipaddress
import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from api.units import UnitError, parse_size


class SettingsError(Exception):
    """A setting is missing or wrong; the message names its key, what it is and what it must be."""


class _Toml(PydanticBaseSettingsSource):
    """The file that TUKANG_CONFIG names. Keys that other packages read are none of this one's business."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError("the file is read whole")

    def __call__(self) -> dict[str, Any]:
        path = os.environ.get("TUKANG_CONFIG")
        if not path:
            return {}
        try:
            with Path(path).open("rb") as file:
                found = tomllib.load(file)
        except OSError as error:
            raise SettingsError(f"TUKANG_CONFIG: {path} cannot be read: {error.strerror}") from error
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"TUKANG_CONFIG: {path} is not TOML: {error}") from error
        return {name: value for name, value in found.items() if name in ApiSettings.model_fields}


class ApiSettings(BaseSettings):
    """Settings of `tukang api`. The key of a field is `TUKANG_` and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="TUKANG_", extra="ignore", frozen=True)

    database: str = Field(
        "sqlite:///tukang.db", description="SQLAlchemy URL: sqlite:///FILE or postgresql://..."
    )
    database_connections: int = Field(16, ge=1, le=1000, description="Connections of one process, at most.")
    listen: str = Field("127.0.0.1:8470", description="host:port; port 0 takes a free one.")
    auth: Literal["token", "none"] = Field("token", description="`none` only on loopback.")
    s3_endpoint: str | None = Field(None, description="Of the store, for presigned URLs; else AWS's own.")
    api_processes: int = Field(1, ge=1, le=64, description="Processes behind the one address.")
    api_threads: int = Field(
        640, ge=8, le=10_000, description="Requests at once in one process, long polls too."
    )
    api_body_limit: int = Field(64 * 10**6, description="Largest request body, a size.")
    api_proxies: int = Field(
        0, ge=0, le=10, description="Proxies in front whose X-Forwarded-For is believed."
    )
    api_stop_after: int = Field(25, ge=1, le=3600, description="Seconds that requests get to end at a stop.")
    tls_cert: Path | None = Field(
        None, description="Certificate chain in PEM; with TUKANG_TLS_KEY it turns TLS on."
    )
    tls_key: Path | None = Field(None, description="Private key in PEM.")

    @field_validator("database")
    @classmethod
    def _database(cls, value: str) -> str:
        try:
            url = make_url(value)
        except ArgumentError as error:
            raise ValueError("must be a URL such as sqlite:///tukang.db or postgresql://host/name") from error
        if url.get_backend_name() not in ("sqlite", "postgresql"):
            raise ValueError(f"knows sqlite and postgresql, not {url.get_backend_name()}")
        # The one PostgreSQL driver that is installed; the short form of the URL is what people write.
        return (
            value.replace(url.drivername, "postgresql+psycopg", 1)
            if url.drivername == "postgresql"
            else value
        )

    @field_validator("listen")
    @classmethod
    def _listen(cls, value: str) -> str:
        host, colon, port = value.rpartition(":")
        if not colon or not host or not port.isdecimal() or int(port) > 65535:
            raise ValueError("must be host:port, such as 127.0.0.1:8470")
        return value

    @field_validator("api_body_limit", mode="before")
    @classmethod
    def _size(cls, value: Any) -> Any:
        if isinstance(value, str) and not value.isdecimal():
            try:
                return parse_size(value)
            except UnitError as error:
                raise ValueError(str(error)) from error
        return value

    @property
    def host(self) -> str:
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])

    def on_loopback(self) -> bool:
        """Whether nobody but this machine can reach the address."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _Toml(settings_cls)


def load(**given: Any) -> ApiSettings:
    """Settings from what is given, the environment and the file. Raises SettingsError, one line for each key."""
    try:
        return ApiSettings(**given)
    except ValidationError as error:
        lines = [
            f"TUKANG_{str(item['loc'][0]).upper()}: {item['msg'].removeprefix('Value error, ')} (is {item['input']!r})"
            for item in error.errors()
        ]
        raise SettingsError("\n".join(lines)) from None
