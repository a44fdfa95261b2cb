"""gunicorn's threaded worker, guarded against clients that are slow or gone, and quick to answer long polls at a stop.

Threads are for requests. A connection without a word has none; one that does not end its request's head, or does not
take its answer, is cut when its time is over, so that nobody holds more than a socket, and that not for long. Tokens
are checked between head and body: whoever may take the longer time is known.
"""

import errno
import selectors
import socket
import time
from functools import partial
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker  # type: ignore[import-untyped]

from api.process import EXTENSION, Process

# From the first byte to the end of the head, the handshake of TLS included; and before the first byte.
HEAD_SECONDS = 10.0
# From there until the answer is taken: a large body, a long poll, a large answer, each over a slow line.
REQUEST_SECONDS = 300.0
# How often somebody looks whose time is over.
LOOK_SECONDS = 0.5
# What a client that went away between two of its packets leaves behind.
PASSING = (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK)


class PollingWorker(ThreadWorker):  # type: ignore[misc]
    """One process of the API's server."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._due: dict[
            TConn, float
        ] = {}  # connections that a thread reads or writes, and until when (monotonic)
        self._looked = 0.0

    def handle_exit(self, sig: int, frame: Any) -> None:
        process: Process = self.wsgi.extensions[EXTENSION]
        process.heads.stop()
        super().handle_exit(sig, frame)

    def accept(self, listener: socket.socket) -> None:
        """Lets the poller wait for the first byte; gunicorn would let a thread do so for five seconds."""
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno in PASSING:
                return
            raise
        self.nr_conns += 1
        conn = TConn(self.cfg, client, address, listener.getsockname())
        conn.timeout = time.monotonic() + HEAD_SECONDS
        self.pending_conns.append(conn)
        self.poller.register(client, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def handle(self, conn: TConn) -> Any:
        self._due[conn] = time.monotonic() + HEAD_SECONDS
        try:
            return super().handle(conn)
        finally:
            self._due.pop(conn, None)

    def handle_request(self, req: Any, conn: TConn) -> Any:
        self._due[conn] = time.monotonic() + REQUEST_SECONDS
        return super().handle_request(req, conn)

    def murder_pending(self) -> None:
        """Called often: ends what is overdue. A thread that reads there finds the end of the stream."""
        super().murder_pending()
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        for conn, due in list(self._due.items()):
            if due < now:
                try:
                    # Not the method of a TLS socket, which takes its session from under the thread that uses it.
                    socket.socket.shutdown(conn.sock, socket.SHUT_RDWR)
                except OSError as error:
                    if error.errno not in (errno.ENOTCONN, errno.EBADF):  # it has just ended by itself
                        raise

    def _cap_keepalive(self, deadline: float) -> None:
        """At a stop nobody waits for connections that have said nothing, either."""
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)
