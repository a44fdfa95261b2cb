"""One process of the embedded stack: started, waited for by a probe, logged, ended with its children.

Nothing here knows which program it runs; `deploy/seaweedfs.py`, `deploy/tansu.py` and `deploy/local.py` do.
"""

import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from mirakuru.base import Executor, cleanup_subprocesses
from mirakuru.exceptions import ProcessExitedWithError, ProcessFinishedWithError, TimeoutExpired

# Mirakuru's sweep at exit looks for the digits of our process id anywhere in a mark that holds a random UUID,
# so that it now and then kills a process of somebody else. The warden does that work exactly.
atexit.unregister(cleanup_subprocesses)

STACK_MARK = "TUKANG_STACK"
"""Environment variable that every process of a stack carries: how the warden finds those that are left."""

LEAVES = "TUKANG_LEAVES"
"""Environment variable of a process that leaves files outside its folder when it is killed: the warden removes them."""

LOOPBACK = "127.0.0.1"

_FOREIGN = ("TUKANG_", "AWS_", "FAUST_")
"""What a part must not inherit: the user's settings and credentials mean nothing in an embedded stack."""


class StackError(Exception):
    """A part did not start, or died: the message says which one, why, and what to do."""


_promised: list[socket.socket] = []


def free_ports(count: int) -> list[int]:
    """`count` different TCP ports of the loopback interface on which nobody listens now.

    From below the range that the system gives to outgoing connections: one of those would take the port of a part
    that has not started yet, or is started again. They stay bound here while this process lives: a server may listen
    all the same (SO_REUSEADDR, which servers set), but no other process is given them.
    """
    below = _first_port_of_outgoing()
    candidates = [*random.SystemRandom().sample(range(10_000, below), 1_000), *[0] * count]
    found: list[int] = []
    while len(found) < count:
        each = socket.socket()
        try:
            each.bind((LOOPBACK, candidates.pop(0)))
        except OSError:
            each.close()
            continue
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _promised.append(each)
        found.append(each.getsockname()[1])
    return found


def _first_port_of_outgoing() -> int:
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        return 32_768  # the lowest that is usual
    return first if first >= 12_000 else 32_768


def listening(port: int) -> bool:
    """Whether somebody accepts connections on this port of the loopback interface."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without settings of Tukang and AWS, plus `extra`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return inherited | dict(extra)


class Part(Executor):
    """A process of the stack: `start()` returns when ready, `end()` when it and its children are gone."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        folder: Path,
        ready: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
        port: int | None = None,
        start_seconds: float = 60,
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self.port = port
        self._ready = ready
        self._environment = clean_environment(environment or {})
        super().__init__(list(command), cwd=str(folder), timeout=start_seconds, sleep=0.05)

    @property
    def envvars(self) -> dict[str, str]:
        """Exactly the environment asked for, and mirakuru's mark, by which `stop` finds the children."""
        return self._environment | {"mirakuru_uuid": self._uuid}

    def pre_start_check(self) -> bool:
        return self.port is not None and listening(self.port)

    def after_start_check(self) -> bool:
        if self.process is not None and self.process.poll() == 0:
            raise ProcessExitedWithError(self, 0)  # mirakuru takes an exit with 0 for a start still under way
        return self._ready()

    def start(self) -> "Part":
        """Start and wait. Raises StackError in one line, with the end of the part's log behind it."""
        if self.pre_start_check():
            raise StackError(
                f"port {self.port}, wanted for {self.name}, is taken: another program listens on"
                f" {LOOPBACK}:{self.port}. End that program, or choose another port."
            )
        with self.log.open("ab") as log:
            self._stdin, self._stdout, self._stderr = subprocess.DEVNULL, log, subprocess.STDOUT
            try:
                super().start()
            except FileNotFoundError as error:
                raise StackError(
                    f"{self.name} cannot be started: the program {error.filename!r} is not there. Its package"
                    f" is not installed completely; install Tukang again."
                ) from error
            except PermissionError as error:
                raise StackError(
                    f"{self.name} cannot be started: {error.filename!r} may not be executed"
                    f" (is its file system mounted noexec?)."
                ) from error
            except ProcessExitedWithError as error:
                raise StackError(
                    f"{self.name} ended at start with exit code {error.exit_code}.{self.tail()}"
                ) from error
            except TimeoutExpired as error:
                raise StackError(
                    f"{self.name} was not ready after {self._timeout:.0f} s.{self.tail()}"
                ) from error
        return self

    def __del__(self) -> None:
        """Nothing: mirakuru would search all processes here. What is still running is the warden's."""

    def alive(self) -> bool:
        """Whether the process runs (its children are not looked at)."""
        return self.running()

    def end(self) -> int | None:
        """Ask it to stop, kill what does not. Returns its exit code, None if it was not running."""
        if self.process is None:
            return None
        if (code := self.process.poll()) is not None:  # its number may belong to somebody else by now
            self._kill_all_kids(signal.SIGTERM)
            self._clear_process()
            return code
        try:
            self.stop()
        except ProcessFinishedWithError as error:
            return int(error.exit_code)
        return 0

    def tail(self, lines: int = 15) -> str:
        """The end of its log, led in by a line that names the file; empty when it wrote nothing."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - 8192))
                last = log.read().decode(errors="replace").splitlines()[-lines:]
        except FileNotFoundError:
            return ""
        return "".join(f"\n    {line}" for line in [f"The end of {self.log}:", *last]) if last else ""


class Ward:
    """The mark of one stack, and the warden that ends all who carry it, even if this process is killed.

    Use as a context manager around the parts: on leaving it waits until no marked process is left and, if it
    was given one to remove, until the folder is gone.
    """

    def __init__(self, remove: Path | None = None) -> None:
        self.mark = uuid4().hex
        self.remove = remove
        self._warden: subprocess.Popen[Any] | None = None

    @property
    def environment(self) -> dict[str, str]:
        return {STACK_MARK: self.mark}

    def __enter__(self) -> "Ward":
        program = Path(__file__).with_name("warden.py")
        arguments = [self.mark, *([str(self.remove)] if self.remove else [])]
        self._warden = subprocess.Popen(
            [sys.executable, "-P", str(program), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in the terminal must not reach it
            env=clean_environment({}),
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._warden is not None and self._warden.stdin is not None:
            self._warden.stdin.close()
            self._warden.wait()
        if self.remove is not None:
            shutil.rmtree(self.remove, ignore_errors=True)  # if somebody killed the warden
