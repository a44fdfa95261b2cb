"""A TCP proxy of the tests' own: it stands before a server and cuts, refuses, slows or silences its connections.

It runs in a thread with an event loop of its own; all methods may be called from any thread. Bytes pass as they are,
but for `answer`, which speaks just enough HTTP to say no.
"""

import asyncio
import itertools
import socket
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import TracebackType

from deploy.part import LOOPBACK

_PIECE = 64 * 1024


class Proxy:
    """Listens on `port` and forwards to the first of `targets` that takes the connection, in turn.

    Use as a context manager, or `start` and `stop`.
    """

    def __init__(self, *targets: int, port: int = 0) -> None:
        """`targets`: ports of the loopback interface; several: one after the other in turn. `port` 0: a free one."""
        self.targets = list(targets)
        self.cuts = 0  # connections that were cut
        self.connections = 0  # that were made
        self.answered = 0  # requests that `answer` answered
        self._turn = itertools.count()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._open: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._bytes_per_second: float | None = None
        self._flowing = asyncio.Event()
        self._answer: tuple[bytes, bytes] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        # Bound at once and for good, so that nobody else takes the port while connections are refused.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._reserved.bind((LOOPBACK, port))
        self.port: int = self._reserved.getsockname()[1]

    def __enter__(self) -> "Proxy":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> "Proxy":
        """Accepts connections from now on."""
        self._thread.start()
        self.fine()
        return self

    def stop(self) -> None:
        """Cuts everything and gives the port back."""
        self._do(self._close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._reserved.close()

    def fine(self) -> None:
        """No trouble from now on: connections are accepted and bytes flow."""
        self._do(self._heal)

    def cut(self) -> None:
        """Resets all open connections; new ones are accepted."""
        self._do(self._reset)

    def refuse(self) -> None:
        """Resets all open connections, and refuses new ones: the server is away."""
        self._do(self._close)

    def slow(self, bytes_per_second: float) -> None:
        """Lets so many bytes through, in each direction of each connection."""

        def act() -> None:
            self._bytes_per_second = bytes_per_second

        self._do(act)

    def hang(self) -> None:
        """Accepts connections and bytes, and lets none through, as a network does that drops packets."""
        self._do(self._flowing.clear)

    def answer(self, method: str, status: str) -> None:
        """Answers every HTTP request of a method itself, with `status` such as `507 Insufficient Storage`."""

        def act() -> None:
            said = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            self._answer = f"{method} ".encode(), said.encode()

        self._do(act)

    def _do(self, act: Callable[[], None]) -> None:
        async def run() -> None:
            act()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def _heal(self) -> None:
        self._bytes_per_second = None
        self._answer = None
        self._flowing.set()
        if self._server is None:
            self._spawn(self._listen())

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(
            self._connected, LOOPBACK, self.port, limit=_PIECE, reuse_port=True
        )

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self._reset()

    def _reset(self) -> None:
        for pair in list(self._open):
            self.cuts += 1
            for writer in pair:
                writer.transport.abort()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there = await self._reach()
        if there is None:
            writer.transport.abort()
            return
        far_reader, far_writer = there
        pair = (writer, far_writer)
        self._open.add(pair)
        try:
            await asyncio.gather(
                self._pour(reader, far_writer, writer, asked=True),
                self._pour(far_reader, writer, writer, asked=False),
            )
        finally:
            self._open.discard(pair)
            for each in pair:
                each.transport.abort()

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection to the next target that takes one."""
        first = next(self._turn)
        for step in range(len(self.targets)):
            with suppress(OSError):
                port = self.targets[(first + step) % len(self.targets)]
                return await asyncio.open_connection(LOOPBACK, port, limit=_PIECE)
        return None

    async def _pour(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
        *,
        asked: bool,
    ) -> None:
        """Forwards one direction until its end, which is passed on. An error ends both directions."""
        try:
            while data := await source.read(_PIECE):
                await self._flowing.wait()
                if asked and self._answer is not None and data.startswith(self._answer[0]):
                    self.answered += 1
                    client.write(self._answer[1])
                    await client.drain()
                    client.close()
                    return
                if self._bytes_per_second:
                    await asyncio.sleep(len(data) / self._bytes_per_second)
                sink.write(data)
                await sink.drain()
            if sink.can_write_eof():
                sink.write_eof()
        except OSError:
            client.transport.abort()
            sink.transport.abort()
