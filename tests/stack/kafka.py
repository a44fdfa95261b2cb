"""A real Apache Kafka for the session: one node, free ports, jars from Maven; plain, and with TLS and SCRAM.

Topics have names of their own per test, so the session shares one broker; a test that stops a broker asks for its own.
"""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewPartitions,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from deploy.part import LOOPBACK, Part, Ward, free_ports, listening
from ingest.broker import BrokerSettings

_ROOT = Path(__file__).parents[2]
_JARS = _ROOT / "build" / "kafka-jars"
_WANTED = {
    "java": "Apache Kafka needs Java 17: apt-get install openjdk-17-jre-headless",
    "mvn": "Apache Kafka's jars come by Maven: apt-get install maven",
    "openssl": "the certificates are made by openssl: apt-get install openssl",
}
_numbers = count(1)

USER, POOR_USER, PASSWORD = "tukang", "poor", "a secret with = and spaces"


def _need(program: str) -> None:
    """Skip where a program is not there; on CI it must be."""
    if shutil.which(program) is None:
        if os.environ.get("CI") == "true":
            pytest.fail(_WANTED[program], pytrace=False)
        pytest.skip(_WANTED[program])


def _jars() -> str:
    """The class path, brought by Maven when it is not there yet."""
    _need("java")
    _JARS.parent.mkdir(exist_ok=True)
    with _JARS.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run side by side, and Maven's repository is not made for two
        if not list(_JARS.glob("kafka_2.13-*.jar")):
            _need("mvn")
            subprocess.run(
                ["mvn", "-q", "-B", "-f", _ROOT / "tests" / "stack" / "pom.xml", "dependency:copy-dependencies",
                 f"-DoutputDirectory={_JARS}.part"],
                check=True,
            )  # fmt: skip
            Path(f"{_JARS}.part").rename(_JARS)
    return f"{_JARS}/*"


@dataclass
class Kafka:
    """A broker of one node. `stop` and `start` keep its log and its ports."""

    folder: Path
    environment: Mapping[str, str]
    port: int
    controller_port: int
    secure_port: int | None = None
    mutual_port: int | None = None
    part: Part | None = None

    @property
    def settings(self) -> BrokerSettings:
        """How to reach the plain listener."""
        return BrokerSettings(servers=f"{LOOPBACK}:{self.port}")

    @property
    def secure(self) -> BrokerSettings:
        """How to reach the TLS listener, as the user that it knows."""
        return BrokerSettings(
            servers=f"{LOOPBACK}:{self.secure_port}",
            protocol="SASL_SSL",
            sasl_mechanism="SCRAM-SHA-512",
            username=USER,
            password_file=self.folder / "password",
            ca=self.folder / "ca.pem",
        )

    @property
    def poor(self) -> BrokerSettings:
        """A user that it knows and that may do nothing, unless a test allows it."""
        return replace(self.secure, username=POOR_USER)

    @property
    def mutual(self) -> BrokerSettings:
        """How to reach the listener that wants a certificate of its clients, with one."""
        files = {
            "ca": self.folder / "ca.pem",
            "cert": self.folder / "client.crt",
            "key": self.folder / "client.key",
        }
        return BrokerSettings(servers=f"{LOOPBACK}:{self.mutual_port}", protocol="SSL", **files)

    def start(self) -> None:
        """Start the process and wait until it answers."""
        self.part = Part(
            "kafka",
            [
                "java",
                "-Xmx512m",
                "-XX:TieredStopAtLevel=1",
                "-cp",
                _jars(),
                "kafka.Kafka",
                "server.properties",
            ],
            folder=self.folder,
            ready=self._answers,
            environment=self.environment,
        )
        self.part.start()

    def stop(self) -> None:
        """Stop the process in order."""
        if self.part is not None:
            self.part.end()
            self.part = None

    def kill(self) -> None:
        """Kill the process."""
        if self.part is not None and self.part.process is not None:
            self.part.process.kill()
            self.part.process.wait()
            self.part.end()
            self.part = None

    def admin(self) -> AdminClient:
        return AdminClient(self.settings.confluent_config())

    def topic(self, name: str | None = None, partitions: int = 1, **config: object) -> str:
        """A new topic; `config` with underscores for dots."""
        name = name or f"topic-{next(_numbers)}"
        settings = {key.replace("_", "."): str(value) for key, value in config.items()}
        admin = self.admin()  # kept: the answer dies with its client
        admin.create_topics([NewTopic(name, partitions, 1, config=settings)])[name].result(30)
        return name

    def delete(self, topic: str) -> None:
        admin = self.admin()
        admin.delete_topics([topic])[topic].result(30)

    def add_partitions(self, topic: str, total: int) -> None:
        admin = self.admin()
        admin.create_partitions([NewPartitions(topic, total)])[topic].result(30)

    def delete_records(self, topic: str, before: int, partition: int = 0) -> None:
        """Let the log begin at an offset, as retention does."""
        admin = self.admin()
        wanted = TopicPartition(topic, partition, before)
        admin.delete_records([wanted])[wanted].result(30)

    def allow(self, what: str, kind: str, name: str, user: str = POOR_USER) -> None:
        """Let a user do something, as `("READ", "GROUP", "name")`."""
        admin = self.admin()
        binding = AclBinding(
            ResourceType[kind], name, ResourcePatternType.LITERAL, f"User:{user}", "*",
            AclOperation[what], AclPermissionType.ALLOW,
        )  # fmt: skip
        admin.create_acls([binding])[binding].result(30)

    def _answers(self) -> bool:
        if not listening(self.port):
            return False
        try:
            return bool(self.admin().list_topics(timeout=2).brokers)
        except KafkaException:
            return False

    def prepare(self) -> None:
        """Certificates, settings, and the formatted log."""
        listeners = [f"PLAINTEXT://{LOOPBACK}:{self.port}", f"CONTROLLER://{LOOPBACK}:{self.controller_port}"]
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{LOOPBACK}:{self.controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL",
            "log.dirs": str(self.folder / "log"),
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "offsets.topic.num.partitions": "4",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "message.max.bytes": str(16 * 2**20),
            "log.cleaner.backoff.ms": "500",
            "log.retention.check.interval.ms": "1000",
            "log.initial.task.delay.ms": "500",
        }
        format_options: list[str] = []
        if self.secure_port is not None:
            listeners += [f"SASL_SSL://{LOOPBACK}:{self.secure_port}", f"SSL://{LOOPBACK}:{self.mutual_port}"]
            self._certificates()
            (self.folder / "password").write_text(f"{PASSWORD}\n", encoding="utf-8")
            settings |= {
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": f"User:ANONYMOUS;User:{USER};User:CN=client",
                "sasl.enabled.mechanisms": "SCRAM-SHA-512",
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": str(self.folder / "broker.pem"),
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(self.folder / "ca.pem"),
                "listener.name.ssl.ssl.client.auth": "required",
                "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config":
                    "org.apache.kafka.common.security.scram.ScramLoginModule required;",
            }  # fmt: skip
            for user in (USER, POOR_USER):
                format_options += ["--add-scram", f'SCRAM-SHA-512=[name="{user}",password="{PASSWORD}"]']
        settings["listeners"] = ",".join(listeners)
        settings["advertised.listeners"] = ",".join(each for each in listeners if "CONTROLLER" not in each)
        text = "".join(f"{key}={value}\n" for key, value in settings.items())
        (self.folder / "server.properties").write_text(text)
        subprocess.run(
            ["java", "-cp", _jars(), "kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ",
             "-c", "server.properties", *format_options],
            cwd=self.folder, check=True, capture_output=True, text=True,
        )  # fmt: skip

    def _certificates(self) -> None:
        def openssl(*arguments: str) -> None:
            subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=Test CA",
                "-keyout", "ca.key", "-out", "ca.pem")  # fmt: skip
        (self.folder / "name.ext").write_text(f"subjectAltName=IP:{LOOPBACK}")
        for name in ("broker", "client"):
            openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out",
                    f"{name}.csr")  # fmt: skip
            openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                    "-days", "2", "-extfile", "name.ext", "-out", f"{name}.crt")  # fmt: skip
        parts = ("broker.key", "broker.crt", "ca.pem")
        (self.folder / "broker.pem").write_text("".join((self.folder / each).read_text() for each in parts))


def _running(folder: Path, secure: bool) -> Iterator[Kafka]:
    _jars()
    if secure:
        _need("openssl")
    folder.mkdir(exist_ok=True)
    with Ward(remove=folder) as ward:
        ports = free_ports(4 if secure else 2)
        kafka = Kafka(folder, ward.environment, *ports)
        kafka.prepare()
        kafka.start()
        yield kafka
        kafka.stop()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """The running broker. Do not stop it: `own_kafka` is for that."""
    yield from _running(tmp_path_factory.mktemp("kafka"), secure=False)


@pytest.fixture(scope="session")
def secure_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A broker with more listeners, SASL_SSL with SCRAM-SHA-512 and mutual TLS, and with access control."""
    yield from _running(tmp_path_factory.mktemp("secure-kafka"), secure=True)


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[Kafka]:
    """A broker for one test alone, which may stop it."""
    yield from _running(tmp_path / "kafka", secure=False)
