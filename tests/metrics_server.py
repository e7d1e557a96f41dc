"""A stand-in for ReadMe's server that can be made to do anything a server or a network does wrong.

    with MetricsServer() as server:                       # http://127.0.0.1:<port>, answers 200
        server.behave(answer(503, {"Retry-After": "7"}))  # from now on
        server.script(answer(503), reset_after_body)      # the next two, then as before
        server.go_down(); server.come_back()              # connections refused, then the same port again
        server.wait_for(lambda: len(server.taken_ids) == 10)

A behaviour is a function of one ``Call``: it reads what it wants of the request and answers as it likes. It is asked
for when the first byte of a request has come. All waits end at once when the server closes, which leaves no thread
behind. Real processes may post to it while the test looks.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from io import BufferedReader
    from types import TracebackType

Behaviour = Callable[["Call"], None]


@dataclass
class Post:
    """One request, as far as it was read."""

    at: float
    """Monotonic clock, when its first byte had come."""
    connection: int
    """Which connection it came over, counted from 1."""
    method: str = ""
    target: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    """By lower-case name."""
    body: bytes = b""
    status: int | None = None
    """What it was answered with; set before the first byte of the answer leaves."""

    @property
    def whole(self) -> bool:
        """All of the body was read."""
        return bool(self.method) and len(self.body) == int(self.headers.get("content-length", 0))

    @property
    def entries(self) -> list[dict[str, object]]:
        """The parsed body; raises where it is no JSON array of objects."""
        entries = json.loads(self.body)
        assert isinstance(entries, list)
        return entries

    @property
    def ids(self) -> list[str]:
        """The ``_id`` of each entry."""
        return [str(entry["_id"]) for entry in self.entries]

    @property
    def taken(self) -> bool:
        """Read whole and answered with 2xx."""
        return self.whole and self.status is not None and 200 <= self.status < 300


class Call:
    """One request under way, in the hands of a behaviour."""

    def __init__(self, server: MetricsServer, sock: socket.socket, reader: BufferedReader, post: Post) -> None:
        self.post = post
        self._server = server
        self._sock = sock
        self._reader = reader
        self._rest = 0
        self.ended = False
        """Nothing more comes over this connection."""

    def read_head(self) -> None:
        """Read the request line and the headers."""
        self.post.method, self.post.target, _ = self._line().split(" ", 2)
        while line := self._line():
            name, value = line.split(":", 1)
            self.post.headers[name.lower()] = value.strip()
        self._rest = int(self.post.headers.get("content-length", 0))
        self._server.changed()

    def read(self, size: int | None = None) -> None:
        """Read the body, or ``size`` bytes more of it; the head first."""
        if not self.post.method:
            self.read_head()
        wanted = self._rest if size is None else min(size, self._rest)
        self._rest -= wanted
        self.post.body += self._reader.read(wanted)
        self._server.changed()

    def answer(self, status: int = 200, headers: Mapping[str, str] | None = None, body: bytes = b"{}") -> None:
        """Answer, and keep the connection open unless a header says otherwise."""
        self.send(self.head(status, {"Content-Length": str(len(body)), **(headers or {})}) + body)

    def head(self, status: int, headers: Mapping[str, str]) -> bytes:
        """An answer's head, which a behaviour then sends as it likes; from here on the POST counts as answered."""
        self.post.status = status
        self._server.changed()
        lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._sock.sendall(data)

    def drip(self, data: bytes, every_s: float) -> None:
        """Send byte by byte."""
        for byte in data:
            self.send(bytes([byte]))
            if self.wait(every_s):
                break

    def wait(self, seconds: float | None = None) -> bool:
        """Let time pass, for ever with None; True when the server closed meanwhile."""
        return self._server.closing.wait(seconds)

    def relay(self, far: socket.socket) -> None:
        """Pass bytes both ways until one side has gone: what a proxy does after CONNECT."""
        other = {self._sock: far, far: self._sock}
        while True:
            for sock in select.select(list(other), [], [])[0]:
                data = sock.recv(65536)
                if not data:
                    return
                other[sock].sendall(data)

    def close(self) -> None:
        """Close the connection without a word."""
        self.ended = True

    def reset(self) -> None:
        """Close the connection with a TCP reset."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.ended = True

    def _line(self) -> str:
        line = self._reader.readline()
        if not line:
            raise ConnectionResetError("the client has gone")
        return line.rstrip(b"\r\n").decode("latin-1")


class MetricsServer:
    """Serves on 127.0.0.1 from ``__enter__`` to ``__exit__``; every method is safe to call from any thread."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.closing = threading.Event()
        self._tls = tls
        self._news = threading.Condition()
        self._posts: list[Post] = []
        self._behaviour: Behaviour = answer()
        self._script: deque[Behaviour] = deque()
        self._sockets: set[socket.socket] = set()
        self._threads: deque[threading.Thread] = deque()
        self._listener: socket.socket | None = None
        self._connections = self._in_flight = 0
        self.most_in_flight = 0
        """The most POSTs that were under way at once."""
        self.port = 0

    @property
    def url(self) -> str:
        """For README_METRICS_SERVER."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def posts(self) -> list[Post]:
        """Every request so far, in the order of their first bytes."""
        with self._news:
            return list(self._posts)

    @property
    def connections(self) -> int:
        """How many connections were accepted so far."""
        return self._connections

    @property
    def taken_ids(self) -> list[str]:
        """The ``_id`` of each entry that was answered with 2xx, as often as it was."""
        return [each for post in self.posts if post.taken for each in post.ids]

    def times_posted(self) -> Counter[str]:
        """How often each ``_id`` came whole, taken or not."""
        return Counter(each for post in self.posts if post.whole for each in post.ids)

    def behave(self, behaviour: Behaviour) -> None:
        """Meet every request from now on like this."""
        with self._news:
            self._behaviour = behaviour

    def script(self, *behaviours: Behaviour) -> None:
        """Meet the next requests like this, one each."""
        with self._news:
            self._script.extend(behaviours)

    def wait_for(self, predicate: Callable[[], bool], deadline_s: float = 10.0) -> None:
        """Return when it holds; it is asked at every change. Fails the test after the deadline."""
        with self._news:
            assert self._news.wait_for(predicate, deadline_s), f"not within {deadline_s} s; {len(self._posts)} posts"

    def go_down(self) -> None:
        """Refuse connections, and cut those that are open."""
        with self._news:
            listener, self._listener = self._listener, None
            for sock in self._sockets:
                with contextlib.suppress(OSError):  # its own thread has closed it
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not TLS's own, which belongs to its thread
        if listener:
            with contextlib.suppress(OSError):  # macOS calls a listening socket not connected
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def come_back(self) -> None:
        """Listen again, on the same port."""
        listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        listener.settimeout(0.2)  # where a shutdown does not wake accept()
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._start(self._accept, listener)

    def changed(self) -> None:
        """Wake who waits for something to hold."""
        with self._news:
            self._news.notify_all()

    def __enter__(self) -> MetricsServer:  # noqa: PYI034  # Self is not in typing before Python 3.11
        self.come_back()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.closing.set()
        self.go_down()
        while self._threads:
            self._threads.popleft().join(10)

    def _start(self, target: Callable[[socket.socket], None], sock: socket.socket) -> None:
        thread = threading.Thread(target=target, args=(sock,), name="metrics-server", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _accept(self, listener: socket.socket) -> None:
        while self._listener is listener:
            try:
                sock, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:  # went down
                return
            self._start(self._serve, sock)

    def _serve(self, raw: socket.socket) -> None:
        raw.settimeout(None)
        sock = self._tls.wrap_socket(raw, server_side=True, do_handshake_on_connect=False) if self._tls else raw
        with self._news:
            up = self._listener is not None
            self._connections += 1
            number = self._connections
            self._sockets.add(sock)
        try:
            with contextlib.suppress(OSError), sock.makefile("rb") as reader:  # the client has gone, or we went down
                if up:
                    self._converse(sock, reader, number)
        finally:
            with self._news:
                self._sockets.discard(sock)
                self._news.notify_all()
            sock.close()

    def _converse(self, sock: socket.socket, reader: BufferedReader, number: int) -> None:
        while not self.closing.is_set() and reader.peek(1):
            call = Call(self, sock, reader, Post(time.monotonic(), number))
            behaviour = self._begin(call.post)
            try:
                behaviour(call)
            finally:
                self._end()
            if call.ended:
                return

    def _begin(self, post: Post) -> Behaviour:
        with self._news:
            self._posts.append(post)
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
            self._news.notify_all()
            return self._script.popleft() if self._script else self._behaviour

    def _end(self) -> None:
        with self._news:
            self._in_flight -= 1
            self._news.notify_all()


def answer(status: int = 200, headers: Mapping[str, str] | None = None, body: bytes = b"{}") -> Behaviour:
    """Read all, answer this."""

    def behave(call: Call) -> None:
        call.read()
        call.answer(status, headers, body)

    return behave


def after(seconds: float, then: Behaviour) -> Behaviour:
    """Read all, let time pass, then go on."""

    def behave(call: Call) -> None:
        call.read()
        if not call.wait(seconds):
            then(call)

    return behave


def refuse_entries(guilty: Container[str], status: int = 400, body: bytes = b'{"error": "bad entry"}') -> Behaviour:
    """Refuse a batch that holds one of these ``_id``s, take any other."""

    def behave(call: Call) -> None:
        call.read()
        if any(each in guilty for each in call.post.ids):
            call.answer(status, body=body)
        else:
            call.answer()

    return behave


def too_large_above(size_bytes: int) -> Behaviour:
    """Answer 413 to a larger body, without reading it, and take any other."""

    def behave(call: Call) -> None:
        call.read_head()
        if int(call.post.headers["content-length"]) <= size_bytes:
            answer()(call)
        else:
            call.read()
            call.answer(413)

    return behave


def drip_head(every_s: float, status: int = 200) -> Behaviour:
    """The status line whole, the headers byte by byte, for ever."""

    def behave(call: Call) -> None:
        call.read()
        first, rest = call.head(status, {"X-Long": "x" * 100_000}).split(b"\r\n", 1)
        call.send(first + b"\r\n")
        call.drip(rest, every_s)

    return behave


def drip_body(every_s: float, status: int = 200, body: bytes = b" " * 100_000) -> Behaviour:
    """The head whole, the body byte by byte."""

    def behave(call: Call) -> None:
        call.read()
        call.send(call.head(status, {"Content-Length": str(len(body))}))
        call.drip(body, every_s)

    return behave


def drip_status(every_s: float) -> Behaviour:
    """A status line that never ends."""

    def behave(call: Call) -> None:
        call.read()
        call.drip(b"HTTP/1.1 200 " + b"O" * 60_000, every_s)

    return behave


def garbage(data: bytes = b"220 mail.example.com ESMTP ready\r\n") -> Behaviour:
    """Read all, answer what is not HTTP, close."""

    def behave(call: Call) -> None:
        call.read()
        call.send(data)
        call.close()

    return behave


def hang_before_reading(call: Call) -> None:
    """Read nothing, say nothing."""
    call.wait()


def hang_after_reading(call: Call) -> None:
    """Read all, say nothing."""
    call.read()
    call.wait()


def reset_before_reading(call: Call) -> None:
    """Reset as soon as something comes."""
    call.reset()


def reset_mid_body(call: Call) -> None:
    """Reset with a part of the body read."""
    call.read(10)
    call.reset()


def reset_after_body(call: Call) -> None:
    """Read all, then reset: taken or not, nobody knows."""
    call.read()
    call.reset()


def reset_mid_answer(call: Call) -> None:
    """Reset in the middle of the status line."""
    call.read()
    call.send(b"HTTP/1.1 2")
    call.reset()


def close_after_answer(call: Call) -> None:
    """Answer 200 as if the connection stayed, and close it."""
    call.read()
    call.answer()
    call.close()
