"""The broker: how to reach it, whether it takes us, and the ids of its topics.

Here security settings become arguments of the two Kafka clients. Nothing here reads records.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from aiokafka import errors
from aiokafka.conn import collect_hosts, create_conn
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

KNOCK_SECONDS = 10.0
"""How long one server may take to answer at all."""


class BrokerRefused(Exception):
    """The broker is there and does not take us: credentials, certificate, mechanism. Waiting does not help."""


class BrokerAway(Exception):
    """No server of the broker answers. Waiting helps."""


@dataclass(frozen=True)
class BrokerSettings:
    """Where the broker is, and who we are to it. Files are read when they are needed, not before."""

    servers: str = "localhost:9092"  # bootstrap servers, host:port, separated by commas
    protocol: Protocol = "PLAINTEXT"
    sasl_mechanism: Mechanism | None = None
    username: str | None = None
    password_file: Path | None = None  # its first line is the password
    ca: Path | None = None  # PEM of the authorities that signed the broker's certificate; none: the system's
    cert: Path | None = None  # PEM of our own certificate with its chain, for mutual TLS
    key: Path | None = None  # PEM of our own key, without a passphrase

    def __post_init__(self) -> None:
        """Raises ValueError when the settings contradict each other; the message names their keys."""
        for each in self.servers.split(","):
            host, _, port = each.strip().rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) < 65536:
                raise ValueError(
                    f"TUKANG_BROKER={self.servers!r}: {each!r} is no server; it wants host:port,"
                    " several separated by commas"
                )
        if self.sasl and not (self.sasl_mechanism and self.username and self.password_file):
            raise ValueError(
                f"TUKANG_BROKER_PROTOCOL={self.protocol} also needs TUKANG_BROKER_SASL_MECHANISM,"
                " TUKANG_BROKER_USERNAME and TUKANG_BROKER_PASSWORD_FILE"
            )
        if (self.cert is None) != (self.key is None):
            raise ValueError("TUKANG_BROKER_CERT and TUKANG_BROKER_KEY go together: one of them is missing")
        if (self.ca or self.cert) and not self.tls:
            raise ValueError(
                f"TUKANG_BROKER_CA and TUKANG_BROKER_CERT mean nothing with TUKANG_BROKER_PROTOCOL={self.protocol}:"
                " set it to SSL or SASL_SSL"
            )

    @property
    def tls(self) -> bool:
        return self.protocol in ("SSL", "SASL_SSL")

    @property
    def sasl(self) -> bool:
        return self.protocol in ("SASL_PLAINTEXT", "SASL_SSL")

    def kafka_arguments(self) -> dict[str, Any]:
        """Arguments of `AIOKafkaConsumer` and `AIOKafkaProducer`. Raises BrokerRefused when a file is unusable."""
        arguments: dict[str, Any] = {"bootstrap_servers": self.servers, **self._connection()}
        return arguments

    def confluent_config(self) -> dict[str, Any]:
        """The same as configuration of confluent-kafka. Raises BrokerRefused when a file is unusable."""
        config: dict[str, Any] = {
            "bootstrap.servers": self.servers,
            "security.protocol": self.protocol.lower(),
        }
        if self.sasl:
            config |= {"sasl.mechanism": self.sasl_mechanism, "sasl.username": self.username}
            config["sasl.password"] = self._password()
        files = {
            "ssl.ca.location": self.ca,
            "ssl.certificate.location": self.cert,
            "ssl.key.location": self.key,
        }
        return config | {name: str(path) for name, path in files.items() if path is not None}

    def _connection(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {"security_protocol": self.protocol}
        if self.tls:
            arguments["ssl_context"] = self._ssl_context()
        if self.sasl:
            arguments["sasl_mechanism"] = self.sasl_mechanism
            arguments["sasl_plain_username"] = self.username
            arguments["sasl_plain_password"] = self._password()
        return arguments

    def _password(self) -> str:
        assert self.password_file is not None
        try:
            text = self.password_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BrokerRefused(f"TUKANG_BROKER_PASSWORD_FILE cannot be read: {error}") from error
        return (text.splitlines() or [""])[0]

    def _ssl_context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except OSError as error:
            raise BrokerRefused(f"TUKANG_BROKER_CA={self.ca} cannot be used: {error}") from error
        if self.cert is not None:
            try:
                context.load_cert_chain(self.cert, self.key)
            except OSError as error:
                raise BrokerRefused(
                    f"TUKANG_BROKER_CERT={self.cert} with TUKANG_BROKER_KEY={self.key} cannot be used: {error}"
                ) from error
        return context


async def knock(settings: BrokerSettings) -> None:
    """Connect to the first server that answers, and log in. The client itself tells a refusal from an absence only
    in its log, so this asks first.

    Raises BrokerRefused or BrokerAway, in one line that says what to do.
    """
    arguments = settings._connection()
    away: list[str] = []
    for host, port, _ in collect_hosts(settings.servers, randomize=False):
        where = f"{host}:{port}"
        try:
            connection = await create_conn(
                host, port, client_id="tukang", request_timeout_ms=int(KNOCK_SECONDS * 1000), **arguments
            )
        except (ssl.SSLError, errors.KafkaError, ValueError) as error:
            if reason := _refusal(settings, error):
                raise BrokerRefused(f"the broker at {where} refuses us: {reason}") from error
            away.append(f"{where} ({_absence(settings, error)})")
        except (OSError, TimeoutError) as error:
            away.append(f"{where} ({_absence(settings, error)})")
        else:
            connection.close()
            return
    raise BrokerAway(f"no server of the broker answers: {', '.join(away)}")


def _refusal(settings: BrokerSettings, error: Exception) -> str | None:
    """Why waiting does not help, or None when it may."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message}): see TUKANG_BROKER_CA and the name in the URL"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or error}): see TUKANG_BROKER_PROTOCOL and TUKANG_BROKER_CERT"
    if isinstance(error, errors.UnsupportedSaslMechanismError):
        return f"it does not offer TUKANG_BROKER_SASL_MECHANISM={settings.sasl_mechanism}"
    if isinstance(error, errors.IllegalSaslStateError):
        return f"nobody logs in at this port: is TUKANG_BROKER_PROTOCOL={settings.protocol} right for it?"
    if isinstance(error, errors.AuthenticationFailedError | errors.SaslAuthenticationFailed | ValueError):
        return (
            f"wrong user name or password for user {settings.username!r}:"
            " see TUKANG_BROKER_USERNAME and TUKANG_BROKER_PASSWORD_FILE"
        )
    return None


def _absence(settings: BrokerSettings, error: BaseException) -> str:
    """An error in words. A broker that hangs up at once is often spoken to in the wrong way."""
    if isinstance(error, ConnectionResetError) or str(error).endswith(" closed"):
        hint = "" if settings.cert or not settings.tls else ", and does it want TUKANG_BROKER_CERT"
        return f"it closed the connection: is TUKANG_BROKER_PROTOCOL={settings.protocol} right for this port{hint}?"
    return str(error) or type(error).__name__


class TopicIds:
    """Asks for the ids of topics: which life of a topic its name means now. One connection, opened when first used."""

    def __init__(self, settings: BrokerSettings, seconds: float = 15.0) -> None:
        self._settings = settings
        self._seconds = seconds
        self._client: AdminClient | None = None
        self._opening = threading.Lock()  # a client that nobody keeps fails the questions asked through it

    async def ask(self, topics: Iterable[str]) -> dict[str, str | None]:
        """Topic name -> its id; None: the broker knows no topic ids. A topic that is not there is left out.

        Raises BrokerAway when no answer came.
        """
        names = sorted(set(topics))
        return await asyncio.to_thread(self._ask, names) if names else {}

    def _ask(self, names: list[str]) -> dict[str, str | None]:
        with self._opening:
            if self._client is None:
                self._client = AdminClient({**self._settings.confluent_config(), "log_level": 0})
        answers: dict[str, str | None] = {}
        futures = self._client.describe_topics(TopicCollection(names), request_timeout=self._seconds)
        for name, future in futures.items():
            try:
                found = future.result().topic_id
            except KafkaException as failed:
                error = failed.args[0]
                if error.code() in _NO_TOPIC:
                    continue
                if error.code() not in _NO_IDS:
                    raise BrokerAway(f"the id of topic {name} was not told: {error.str()}") from failed
                found = None
            bits = (
                (found.get_most_significant_bits(), found.get_least_significant_bits()) if found else (0, 0)
            )
            answers[name] = str(found) if any(bits) else None
        return answers


_NO_TOPIC = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError.TOPIC_EXCEPTION)
_NO_IDS = (KafkaError._UNSUPPORTED_FEATURE, KafkaError.UNSUPPORTED_VERSION)
