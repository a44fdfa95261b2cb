"""All of Tukang and what it stands on, as processes of one test: Kafka, PostgreSQL, SeaweedFS, APIs and workers.

Workers reach broker, store and API through proxies, an API reaches the database through one; the test itself, its
producers and its check reach all of them directly. Nothing here decides what breaks.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
from confluent_kafka import Consumer, TopicPartition

from deploy.part import LOOPBACK, Part, StackError, Ward, free_ports
from deploy.seaweedfs import SeaweedFS
from tests.chaos.program import Program
from tests.stack.kafka import Kafka
from tests.stack.postgres import Postgres, _programs
from tests.stack.proxy import Proxy
from tests.stack.store import Bucket

DATABASE = "tukang"
SESSION_S = 6


@dataclass
class ProxiedKafka(Kafka):
    """A broker with one more listener, whose advertised address is the proxy before it."""

    inner_port: int = 0
    outer_port: int = 0

    def prepare(self) -> None:
        super().prepare()
        file = self.folder / "server.properties"
        lines = []
        for line in file.read_text().splitlines():
            name = line.partition("=")[0]
            if name == "listeners":
                line += f",PROXIED://{LOOPBACK}:{self.inner_port}"
            elif name == "advertised.listeners":
                line += f",PROXIED://{LOOPBACK}:{self.outer_port}"
            elif name == "listener.security.protocol.map":
                line += ",PROXIED:PLAINTEXT"
            lines.append(line)
        file.write_text("\n".join(lines) + "\n")


class Town:
    """Everything, started by `with`. `workers` and `apis` by name; each may be killed and started again."""

    def __init__(self, folder: Path, *, apis: int = 2, memory: str = "512MiB", **settings: str) -> None:
        """`settings`: of the workers, without TUKANG_."""
        self.folder = folder
        self.workers: dict[str, Program] = {}
        self.apis: dict[str, Program] = {}
        self._stack = ExitStack()
        self._wanted_apis = apis
        self._settings = {"MEMORY": memory, "FLUSH_AGE": "2s", **settings}
        self._lock = threading.Lock()

    def __enter__(self) -> Town:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _start(self) -> None:
        enter = self._stack.enter_context
        self.ward = enter(Ward())
        ports = free_ports(5)
        self.broker_proxy = enter(Proxy(ports[2]))
        kafka_folder = self.folder / "kafka"
        kafka_folder.mkdir()
        self.kafka = ProxiedKafka(
            kafka_folder,
            self.ward.environment,
            ports[0],
            ports[1],
            inner_port=ports[2],
            outer_port=self.broker_proxy.port,
        )
        self.kafka.prepare()
        self._stack.callback(self._stop_kafka)
        self.kafka.start()
        database_folder = Path(tempfile.mkdtemp(prefix="tukang-postgres-"))  # pytest's only root may enter
        enter(Ward(remove=database_folder))
        self.postgres = Postgres(database_folder, _programs(), ports[3], self.ward.environment)
        self.postgres.prepare()
        self._stack.callback(self.postgres.stop)
        self.postgres.start()
        self.database = self.postgres.create()
        self.database_proxy = enter(Proxy(self.postgres.port))
        store_folder = self.folder / "seaweedfs"
        store_folder.mkdir()
        self.store = SeaweedFS(store_folder, bucket="lake", environment=self.ward.environment)
        self._stack.callback(self.store.end)
        self.store.start()
        self.store_proxy = enter(Proxy(self.store.ports["s3"]))
        api_ports = free_ports(self._wanted_apis)
        self.api_proxy = enter(Proxy(*api_ports))
        self._stack.callback(self._stop_programs)
        for number, port in enumerate(api_ports, 1):
            self.start_api(f"api-{number}", port)
        self.http = httpx.Client(timeout=60)
        self._stack.callback(self.http.close)

    def _stop_kafka(self) -> None:
        self.kafka.stop()

    def _stop_programs(self) -> None:
        for program in [*self.workers.values(), *self.apis.values()]:
            program.pause(signal.SIGCONT)
            program.kill()
            program.part.end()

    @property
    def bucket(self) -> Bucket:
        """The store, reached directly."""
        keys = self.store.credentials
        return Bucket("lake", self.store.endpoint, keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"])

    def environment(self, *, direct: bool = False) -> dict[str, str]:
        """Of a worker, or with `direct` of a program that goes round the proxies."""
        broker = self.kafka.settings.servers if direct else f"{LOOPBACK}:{self.broker_proxy.port}"
        endpoint = self.store.endpoint if direct else f"http://{LOOPBACK}:{self.store_proxy.port}"
        return {
            **self.ward.environment,
            **self.bucket.environment,
            "TUKANG_S3_ENDPOINT": endpoint,
            "TUKANG_BROKER": broker,
            "TUKANG_API": self.api_url() if direct else f"http://{LOOPBACK}:{self.api_proxy.port}",
            "TUKANG_AUTH": "none",
            "TUKANG_BROKER_SESSION_TIMEOUT": f"{SESSION_S}s",
            "TUKANG_BROKER_METADATA_AGE": "3s",
            **{f"TUKANG_{key}": value for key, value in self._settings.items()},
        }

    def database_url(self) -> str:
        return self.postgres.url(self.database).replace(
            f":{self.postgres.port}/", f":{self.database_proxy.port}/"
        )

    def _run(
        self,
        name: str,
        command: list[str],
        environment: dict[str, str],
        ready: Callable[[], bool] = lambda: True,
        port: int | None = None,
    ) -> Part:
        part = Part(
            name,
            [sys.executable, "-m", "tukang", *command],
            folder=self.folder,
            ready=ready,
            environment={**self.ward.environment, **environment},
            port=port,
        )
        part.start()
        return part

    # -- APIs ----------------------------------------------------------------------------------------------------

    def start_api(self, name: str, port: int) -> None:
        """Starts an API process; returns when it serves, or at once when it is started again."""
        part = self._run(
            name,
            ["api"],
            {
                "TUKANG_DATABASE": self.database_url(),
                "TUKANG_LISTEN": f"{LOOPBACK}:{port}",
                "TUKANG_AUTH": "none",
            },
            ready=lambda: _answers(f"http://{LOOPBACK}:{port}/health/live"),
            port=port,
        )
        self.apis[name] = Program(name, part, port=port)

    def restart_api(self, name: str) -> None:
        """Starts a killed API on its port; it may have to wait for the database, as under an orchestrator."""
        program = self.apis[name]
        port = program.port
        for _ in range(30):
            try:
                program.part.end()
                self.start_api(name, port)
                return
            except StackError:
                time.sleep(1)
        raise AssertionError(f"{name} did not start again{program.part.tail(40)}")

    def api_url(self) -> str:
        """The address of an API process that answers, else of the first."""
        urls = [f"http://{LOOPBACK}:{program.port}" for program in self.apis.values()]
        return next((url for url in urls if _answers(f"{url}/health/ready")), urls[0])

    def get(self, path: str, **query: Any) -> Any:
        """An answer of an API process that answers."""
        answer = self.http.get(f"{self.api_url()}/v1{path}", params=query)
        answer.raise_for_status()
        return answer.json()

    def create(
        self, topic: str, partitions: int, config: dict[str, object] | None = None, **settings: Any
    ) -> str:
        """Registers a topic with settings of its own, then makes it at the broker."""
        self.http.post(
            f"{self.api_url()}/v1/topics", json={"topic": topic, "settings": settings}
        ).raise_for_status()
        return self.kafka.topic(topic, partitions, **(config or {}))

    def default(self, name: str, pattern: str, settings: dict[str, Any]) -> None:
        """Settings of all topics that match."""
        self.http.put(
            f"{self.api_url()}/v1/defaults/{name}",
            json={"pattern": pattern, "priority": 1, "settings": settings},
        ).raise_for_status()

    def ends(self, topic: str) -> dict[int, int]:
        """Where Kafka's log of each partition ends."""
        consumer = Consumer({"bootstrap.servers": self.kafka.settings.servers, "group.id": "the-ends"})
        try:
            found = consumer.list_topics(topic, timeout=30).topics[topic].partitions
            return {
                each: consumer.get_watermark_offsets(TopicPartition(topic, each), timeout=30)[1]
                for each in found
            }
        finally:
            consumer.close()

    # -- workers -------------------------------------------------------------------------------------------------

    def start_worker(self, name: str, **settings: str) -> Program:
        """Starts a worker, or starts it again under its name."""
        before = self.workers.get(name)
        port = free_ports(1)[0]
        part = self._run(
            name,
            ["worker"],
            {
                **self.environment(),
                "TUKANG_NAME": name,
                "TUKANG_METRICS": f"{LOOPBACK}:{port}",
                **{f"TUKANG_{key}": value for key, value in settings.items()},
            },
        )
        program = Program(name, part, port=port, starts=before.starts + 1 if before else 1)
        self.workers[name] = program
        return program

    def tails(self, lines: int = 40) -> str:
        """The ends of all logs of our own programs."""
        programs = [*self.workers.values(), *self.apis.values()]
        return "".join(f"\n{program.name}:{program.part.tail(lines)}" for program in programs)

    def wait(
        self, what: str, until: Callable[[], bool], patience_s: float = 120.0, step_s: float = 0.3
    ) -> None:
        """Waits for a state; fails with the logs' ends when it does not come."""
        end = time.monotonic() + patience_s
        while time.monotonic() < end:
            try:
                if until():
                    return
            except httpx.HTTPError:
                pass  # the API is away at the moment
            time.sleep(step_s)
        raise AssertionError(f"{what} did not happen within {patience_s:.0f} s{self.tails()}")

    def verify(self, *topics: str) -> tuple[int, str]:
        """`tukang verify --deep --caught-up`: exit code and what it printed."""
        answer = subprocess.run(
            [sys.executable, "-m", "tukang", "verify", "--deep", "--caught-up", *topics],
            env={**os.environ, **self.environment(direct=True)},
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        return answer.returncode, answer.stdout + answer.stderr


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.TransportError:
        return False
