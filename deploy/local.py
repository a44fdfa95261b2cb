"""The embedded stack: Tansu, SeaweedFS, the API on SQLite and one worker, as processes in one folder.

For trying and developing, on one machine and from pip alone. Everything listens on loopback only, so the API asks
for no token. All ports are free ones unless told otherwise. When the owner of a stack ends, however, so does the
stack.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx

from deploy.part import LOOPBACK, Part, StackError, Ward, clean_environment, free_ports
from deploy.seaweedfs import SeaweedFS
from deploy.tansu import Tansu

NEEDED_BYTES = 1_000_000_000
"""Free space below which a stack does not start."""

FULL_SHARE = 0.01
"""Of a disk: SeaweedFS writes no more when less of it is free."""


class Stack:
    """A running stack. Enter it, start its parts, use `environment` for commands, leave it."""

    def __init__(
        self,
        folder: Path,
        *,
        topics: str,
        remove: bool = False,
        broker: str | None = None,
        store: SeaweedFS | None = None,
        bucket: str = "lake",
        needed_bytes: int = NEEDED_BYTES,
    ) -> None:
        """`broker` (bootstrap servers) and `store` are running ones to use instead of its own."""
        self._needed_bytes = needed_bytes
        self.folder = folder
        self.bucket = bucket
        self._topics = topics
        self._ward = Ward(remove=folder if remove else None)
        self._open = ExitStack()
        self._api_port = free_ports(1)[0]
        self._tansu = Tansu(folder, environment=self._ward.environment)
        self.bootstrap = broker or self._tansu.bootstrap
        self.store = store or SeaweedFS(folder, bucket=bucket, environment=self._ward.environment)
        self.parts: list[Part] = []

    @property
    def api_url(self) -> str:
        return f"http://{LOOPBACK}:{self._api_port}"

    @property
    def environment(self) -> dict[str, str]:
        """What every command of Tukang needs to work with this stack."""
        return {
            "TUKANG_BROKER": self.bootstrap,
            "TUKANG_BROKER_SESSION_TIMEOUT": "6s",  # a join at Tansu takes half of it
            "TUKANG_TOPICS": self._topics,
            "TUKANG_NAME": "embedded",
            "TUKANG_BUCKET": self.bucket,
            "TUKANG_S3_ENDPOINT": self.store.endpoint,
            "TUKANG_API": self.api_url,
            "TUKANG_AUTH": "none",
            "TUKANG_DATABASE": f"sqlite:///{self.folder / 'catalogue.db'}",
            "TUKANG_LISTEN": f"{LOOPBACK}:{self._api_port}",
        } | self.store.credentials

    def __enter__(self) -> "Stack":
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(13, "not writable")
            disk = shutil.disk_usage(self.folder)
        except OSError as error:
            raise StackError(f"the folder {self.folder} cannot be used: {error.strerror}.") from error
        needed = self._needed_bytes + disk.total * FULL_SHARE
        if disk.free < needed:
            raise StackError(
                f"{self.folder} has {disk.free / 1e9:.1f} GB free, and the stack wants {needed / 1e9:.1f} GB:"
                f" make room, or choose a folder on another disk."
            )
        self._open.enter_context(self._ward)
        self._open.callback(self.stop)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def start_broker(self) -> None:
        self._start(self._tansu)

    def start_store(self) -> None:
        self._start(self.store)

    def start_api(self) -> None:
        """Start the API; its database is made when it starts."""
        self._start(self._tukang("api", port=self._api_port, ready=self._api_ready))

    def start_worker(self, ready: Callable[[], bool] = lambda: True) -> None:
        """Start a worker. By default it is not waited for: what it does shows in the ledger."""
        self._start(self._tukang("worker", ready=ready))

    def check(self) -> None:
        """Raise StackError if a part that was started runs no longer, or the disk is full."""
        disk = shutil.disk_usage(self.folder)
        if disk.free < disk.total * FULL_SHARE:
            raise StackError(
                f"the disk of {self.folder} is full ({disk.free / 1e6:.0f} MB free), and SeaweedFS writes no more:"
                f" make room, or choose a folder on another disk."
            )
        for part in self.parts:
            if not part.alive():
                raise StackError(f"{part.name} ended, and should not have.{part.tail()}")

    def run(self, *arguments: str, width: int = 100) -> "subprocess.CompletedProcess[str]":
        """Run a command of Tukang against this stack, and return what it said, `width` columns wide."""
        return subprocess.run(
            [sys.executable, "-m", "tukang", *arguments],
            env=clean_environment(
                self._python_path() | self.environment | self._ward.environment | {"COLUMNS": str(width)}
            ),
            capture_output=True,
            text=True,
            check=False,
        )

    def write_environment(self) -> Path:
        """A file for a shell: `. FILE`, and every command of Tukang works with this stack."""
        path = self.folder / "environment"
        path.touch(mode=0o600)
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in self.environment.items()]
        # `make run` installs into an environment of the clone, which nobody has on the path.
        lines.append(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"\n')
        path.write_text("".join(lines))
        return path

    def stop(self) -> None:
        """Stop all parts, the worker first: it still wants to publish what is ready."""
        workers = [part for part in self.parts if part.name == "worker"]
        others = [part for part in self.parts if part.name != "worker"]
        for part in workers:
            part.end()
        with ThreadPoolExecutor(max_workers=4) as pool:
            list(pool.map(Part.end, others))
        self.parts.clear()

    def _start(self, part: Part) -> None:
        self.parts.append(part)
        part.start()

    def _tukang(self, command: str, ready: Callable[[], bool], port: int | None = None) -> Part:
        return Part(
            command,
            [sys.executable, "-m", "tukang", command],
            folder=self.folder,
            ready=ready,
            environment=self._python_path() | self.environment | self._ward.environment,
            port=port,
        )

    def _api_ready(self) -> bool:
        try:
            return httpx.get(f"{self.api_url}/health/ready", timeout=2).is_success
        except httpx.TransportError:
            return False

    @staticmethod
    def _python_path() -> dict[str, str]:
        """This very code, installed or not, also in a process that runs in another folder."""
        return {"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONUNBUFFERED": "1"}
