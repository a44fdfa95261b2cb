"""What a worker can be told: one class, each setting with its unit and default.

From the environment (`TUKANG_...`) and an optional TOML file (`TUKANG_CONFIG`, keys without the prefix and in lower
case); the environment wins. A topic's own setting in the API wins over both.
"""

from __future__ import annotations

import os
import re
import socket
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, overload

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

_UNITS_US = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "min": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}


SHORTEST_KEY = 16  # bytes


class SettingsWrong(Exception):
    """One or more settings are missing or wrong; each line names its key."""


def duration_us(text: str) -> int:
    """`2s`, `15min`, `1h`, `7d`, `500ms` in microseconds."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(us|ms|s|min|h|d)\s*", text)
    if not match:
        raise ValueError(f"{text!r} is no duration; write it like 2s, 15min, 1h or 7d")
    return round(float(match[1]) * _UNITS_US[match[2]])


def size_bytes(text: str) -> int:
    """`512MiB`, `128MB`, `1000` in bytes."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kKMGT]?)(i?)[bB]?\s*", text)
    if not match:
        raise ValueError(f"{text!r} is no size; write it like 512MiB or 128MB")
    power = " kmgt".index(match[2].lower() or " ")
    unit: int = (1024 if match[3] else 1000) ** power
    return round(float(match[1]) * unit)


def _duration(value: object) -> timedelta:
    return value if isinstance(value, timedelta) else timedelta(microseconds=duration_us(str(value)))


def _size(value: object) -> int:
    return value if isinstance(value, int) else size_bytes(str(value))


def _url(text: str) -> str:
    if not re.match(r"https?://[^/]", text):
        raise ValueError(f"{text!r} is no URL; write it like http://127.0.0.1:8470")
    return text


def _servers(text: str) -> str:
    for each in text.split(","):
        host, _, port = each.strip().rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ValueError(f"{each!r} is no server; write it like kafka1:9092, several separated by commas")
    return text


def _readable(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"the file {path} does not exist")
    return path


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Size = Annotated[ByteSize, BeforeValidator(_size)]
Url = Annotated[str, AfterValidator(_url)]
Servers = Annotated[str, AfterValidator(_servers)]
ReadableFile = Annotated[Path, AfterValidator(_readable)]


class ApiSettings(BaseSettings):
    """Where the API is, for `tukang status` and what else only asks it. Names in the environment: `TUKANG_` and the
    field's."""

    model_config = SettingsConfigDict(env_prefix="TUKANG_", extra="ignore", env_ignore_empty=True)

    api: Url = Field(description="URL of the API, for example http://127.0.0.1:8470.")
    api_ca: ReadableFile | None = Field(None, description="PEM file of the authority that signed the API.")
    token: str | None = Field(None, description="The worker's token, with scope `ingest`.", repr=False)
    token_file: ReadableFile | None = Field(
        None, description="A file with the token; read again when it changes."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then the TOML file."""
        sources = [init_settings, env_settings]
        if path := os.environ.get("TUKANG_CONFIG"):
            sources.append(TomlConfigSettingsSource(settings_cls, toml_file=Path(path)))
        return tuple(sources)


class LakeSettings(ApiSettings):
    """Where the lake is as well: for what works on its objects and asks no broker (`upkeep`, `dead-letters`)."""

    name: str = Field(
        default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}",
        description="The worker's name: stable over restarts keeps its partitions; never used by two at once.",
    )
    bucket: str = Field(description="The bucket of the lake.")
    prefix: str = Field("", description="What all keys begin with, for example `lake/`.")
    s3_endpoint: Url | None = Field(None, description="URL of an S3-compatible store; AWS's own by default.")
    s3_sse: Literal["AES256", "aws:kms"] | None = Field(None, description="Encryption by the store.")
    s3_kms_key: str | None = Field(None, description="The key of aws:kms.")

    hash_key_file: ReadableFile | None = Field(
        None,
        description="A file with the key of `hash`ed paths, 16 bytes at least: the same for all workers, kept secret.",
    )

    memory: Size = Field(
        ByteSize(1 << 30),
        description="What is held at most: a worker publishes, then pauses, before it goes over. The process takes"
        " more: about 250 MB, and half as much again of what it holds (thrice, at 64 MiB).",
    )
    flush_rows: int = Field(5_000_000, ge=1, description="Ready rows of a topic that are published at once.")
    flush_bytes: Size = Field(
        ByteSize(128_000_000), description="Ready bytes of a topic, in memory, that are published at once."
    )
    flush_age: Duration = Field(
        timedelta(seconds=60), description="How long a record waits at most for company."
    )

    @model_validator(mode="after")
    def _complete_lake(self) -> LakeSettings:
        if self.prefix and not self.prefix.endswith("/"):
            raise ValueError("TUKANG_PREFIX must end with /")
        if self.hash_key_file is not None and len(self.hash_key or b"") < SHORTEST_KEY:
            raise ValueError(f"TUKANG_HASH_KEY_FILE must hold {SHORTEST_KEY} bytes at least")
        return self

    @property
    def hash_key(self) -> bytes | None:
        """The key of hashed paths, if there is one; white space around it does not count."""
        return None if self.hash_key_file is None else self.hash_key_file.read_bytes().strip()


class Settings(LakeSettings):
    """The settings of `tukang worker` and `verify`."""

    broker: Servers = Field(description="Bootstrap servers of Kafka: host:port, several separated by commas.")
    broker_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How to talk to the broker."
    )
    broker_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="Needed with SASL_PLAINTEXT and SASL_SSL."
    )
    broker_username: str | None = Field(None, description="The user of SASL.")
    broker_password_file: ReadableFile | None = Field(None, description="A file with the password of SASL.")
    broker_ca: ReadableFile | None = Field(
        None, description="PEM file of the authority that signed the broker."
    )
    broker_cert: ReadableFile | None = Field(None, description="PEM file of the client's certificate (mTLS).")
    broker_key: ReadableFile | None = Field(None, description="PEM file of the client's key (mTLS).")
    broker_session_timeout: Duration = Field(
        timedelta(seconds=30),
        description="After how long without a heartbeat a worker is thrown out. Tansu: 6s.",
    )
    broker_metadata_age: Duration = Field(
        timedelta(minutes=5), description="How often the broker is asked for new topics and partitions."
    )

    topics: str = Field(
        "^(?!__).+$",
        description="Topics to take: names, or patterns that begin with ^, separated by commas.",
    )
    group: str = Field("tukang", description="The consumer group; its workers share the partitions.")

    metrics: str | None = Field(
        None, description="host:port for the worker's Prometheus metrics; none by default."
    )

    @model_validator(mode="after")
    def _complete_worker(self) -> Settings:
        if self.broker_protocol.startswith("SASL"):
            for key in ("broker_sasl_mechanism", "broker_username", "broker_password_file"):
                if getattr(self, key) is None:
                    raise ValueError(f"TUKANG_{key.upper()} is needed with {self.broker_protocol}")
        if (self.broker_cert is None) != (self.broker_key is None):
            raise ValueError("TUKANG_BROKER_CERT and TUKANG_BROKER_KEY belong together")
        if (self.broker_ca or self.broker_cert) and not self.broker_protocol.endswith("SSL"):
            raise ValueError(
                "TUKANG_BROKER_CA and TUKANG_BROKER_CERT mean nothing with"
                f" TUKANG_BROKER_PROTOCOL={self.broker_protocol}: set it to SSL or SASL_SSL"
            )
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"TUKANG_TOPICS is no valid pattern: {error}") from error
        return self

    @property
    def names(self) -> list[str]:
        """The topics that are named, not matched."""
        return [
            part for each in self.topics.split(",") if (part := each.strip()) and not part.startswith("^")
        ]

    @property
    def pattern(self) -> str:
        """The topics as one anchored pattern; names stand for themselves."""
        parts = [part.strip() for part in self.topics.split(",") if part.strip()]
        return "|".join(
            f"(?:{part.removesuffix('$')}$)" if part.startswith("^") else f"^{re.escape(part)}$"
            for part in parts
        )


Wanted = TypeVar("Wanted", bound=ApiSettings)


@overload
def load_settings(**given: Any) -> Settings: ...
@overload
def load_settings(kind: type[Wanted], **given: Any) -> Wanted: ...
def load_settings(kind: type[ApiSettings] = Settings, **given: Any) -> ApiSettings:
    """The settings of this kind, or `SettingsWrong` with a line for each key that is missing or wrong."""
    path = os.environ.get("TUKANG_CONFIG")
    if path and not Path(path).is_file():
        raise SettingsWrong(f"TUKANG_CONFIG: the file {path} does not exist")
    try:
        return kind(**given)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsWrong(f"TUKANG_CONFIG: {path} is not TOML: {error}") from None
    except ValidationError as error:
        raise SettingsWrong("\n".join(_line(item) for item in error.errors())) from None


def _line(item: Any) -> str:
    key = "TUKANG_" + "_".join(str(part) for part in item["loc"]).upper() if item["loc"] else ""
    if item["type"] == "missing":
        description = Settings.model_fields[str(item["loc"][0])].description
        return f"{key} is not set: {description}"
    text = item["msg"].removeprefix("Value error, ")
    return f"{key}: {text}" if key else text
