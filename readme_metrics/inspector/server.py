"""Sockets and threads: one listener on 127.0.0.1, a bounded thread a connection, none left behind."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from typing import TYPE_CHECKING, Final

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from readme_metrics.errors import ConfigurationError
from readme_metrics.inspector.books import read
from readme_metrics.inspector.desk import Desk, ticking
from readme_metrics.inspector.routes import Routes

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed.wsgi import WSGIApplication

    Books = Callable[[], dict[str, object] | None]

HOST: Final = "127.0.0.1"
MAX_CONNECTIONS: Final = 64
"""Connections served at once; further ones are closed unread."""
IDLE_S: Final = 30
"""A client that sends nothing for so long is let go."""
POLL_S: Final = 0.1
"""How soon ``shutdown`` is seen."""
_ANSWER_S: Final = 1
"""What a thread gets to finish its answer when the inspector leaves."""
_LEAVE_S: Final = 5
"""Longer than any thread needs to leave once its connection is cut."""


def make_server(port: int, *, books: Books | None = None) -> Inspector:
    """Listen on 127.0.0.1; port 0 takes a free one. Raises ``ConfigurationError`` where the port can't be had."""
    listener = _listen(port)
    try:
        return Inspector(listener, Desk(), books)
    finally:
        listener.close()


def serve(*, port: int, announce: Callable[[str], None], books: Books | None = None) -> None:
    """Serve until Ctrl-C.

    ``books`` is asked once a second and returns the dict of a queue's ``Report`` or of its ``Books``, or None where no
    queue is known; ``announce`` is told the address as soon as it answers.
    """
    inspector = make_server(port, books=books)
    announce(inspector.url)
    with contextlib.suppress(KeyboardInterrupt):
        inspector.serve_forever()


class Inspector:
    """The stand-in, listening from the moment it is made; serves while ``serve_forever`` runs."""

    def __init__(self, listener: socket.socket, desk: Desk, books: Books | None) -> None:
        self._desk = desk
        self._books = books
        self._server = _Server(listener, Routes(desk).app())
        self._began = self._ended = False
        self._lock = threading.Lock()  # shutdown may come before serve_forever was reached
        self.port: int = self._server.port
        self.url = f"http://{HOST}:{self.port}"

    def serve_forever(self) -> None:
        """Serve until ``shutdown`` or an exception such as ``KeyboardInterrupt``, and leave no thread behind."""
        with self._lock:
            if self._ended:
                return
            self._began = True
        ticker = threading.Thread(target=self._tick, name="readme-metrics-inspector", daemon=True)
        ticker.start()
        try:
            self._server.serve(poll_interval_s=POLL_S)
        finally:
            self._desk.close()
            self._server.leave()
            ticker.join(_LEAVE_S)

    def shutdown(self) -> None:
        """End ``serve_forever``, from another thread, and every open page and hanging POST with it."""
        self._desk.close()
        with self._lock:
            self._ended = True
        if self._began:
            self._server.shutdown()
        else:
            self._server.server_close()

    def _tick(self) -> None:
        source = self._books
        ticking(self._desk, (lambda: read(source)) if source else (lambda: None))


class _Handler(WSGIRequestHandler):
    timeout = IDLE_S

    def version_string(self) -> str:
        return "readme-metrics-inspector"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing: the page shows what arrives."""

    def log_error(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's own name
        """Say nothing of time-outs and garbage on the socket."""


class _Server(ThreadedWSGIServer):
    """Werkzeug's threaded server, with its connections bounded and known by name."""

    def __init__(self, listener: socket.socket, app: WSGIApplication) -> None:
        # A listener made here: werkzeug's own way to say that a port is taken is to end the process.
        super().__init__(HOST, 0, app, _Handler, fd=listener.fileno())
        self._open: dict[threading.Thread, socket.socket] = {}
        self._open_lock = threading.Lock()  # the listener adds, each thread takes itself out

    def serve(self, *, poll_interval_s: float) -> None:
        super().serve_forever(poll_interval_s)

    def process_request(  # type: ignore[override]  # a TCP server is handed sockets only
        self, request: socket.socket, client_address: tuple[str, int]
    ) -> None:
        thread = threading.Thread(target=self._serve_one, args=(request, client_address), daemon=True)
        with self._open_lock:
            full = len(self._open) >= MAX_CONNECTIONS
            if not full:
                self._open[thread] = request
        if full:
            self.shutdown_request(request)
        else:
            thread.start()

    def _serve_one(self, request: socket.socket, client_address: tuple[str, int]) -> None:
        try:
            self.process_request_thread(request, client_address)
        finally:
            with self._open_lock:
                del self._open[threading.current_thread()]

    def leave(self) -> None:
        """Let every thread answer what it has in hand, then cut its connection; return when all are gone."""
        for way, patience_s in ((socket.SHUT_RD, _ANSWER_S), (socket.SHUT_RDWR, _LEAVE_S)):
            with self._open_lock:
                still_open = dict(self._open)
            for connection in still_open.values():
                with contextlib.suppress(OSError):
                    connection.shutdown(way)
            deadline = time.monotonic() + patience_s
            for thread in still_open:
                thread.join(max(0.0, deadline - time.monotonic()))


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        taken = getattr(error, "errno", None) == errno.EADDRINUSE
        raise ConfigurationError(
            f"port is {port}, which {'another program uses' if taken else 'cannot be had'} ({error}); "
            "allowed: a free port from 1024 to 65535, such as --port 4401"
        ) from None
    return listener
