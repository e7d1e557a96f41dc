"""Every POST ends by its deadline, whatever the server or the network does.

``requests`` bounds each socket operation, not their sum: a server that drips holds the sender for ever, and looking up
a name is not bounded at all. So each operation here gets what is left until a deadline. No thread watches and no socket
is shut down from outside: it works the same in a thread, under gevent and while the interpreter exits.

``Line`` is one connection's worth of state, used by one thread at a time: what its POST may still take, and how far it
came. ``DeadlineAdapter`` makes ``requests`` use connections that obey their line.

SOCKS proxies bring connections of their own, which only ``requests``' time-outs bound and whose progress is not seen.
"""

from __future__ import annotations

import io
import os
import queue
import socket
import time
from collections import deque
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError  # the builtin one only from Python 3.11 on
from functools import partial
from http.client import HTTPResponse
from threading import Thread
from typing import TYPE_CHECKING, Any, ClassVar, Final

from requests.adapters import HTTPAdapter
from requests.models import PreparedRequest, Response
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, LocationParseError, NewConnectionError
from urllib3.poolmanager import PoolManager, ProxyManager

if TYPE_CHECKING:
    from collections.abc import Callable

SLACK_S: Final = 1.5
"""How far a whole POST may outlive its time-out, which counts anew once all is sent; half a second is left for us."""


class Line:
    """How long the POST under way may still take, and how far it came."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = self._latest = self._timeout_s = 0.0
        self._meanwhile: Callable[[], None] | None = None
        self._looked_up: Future[list[str]] | None = None
        self.sock: socket.socket | None = None
        """The open socket, for a forked child to let go of."""
        self.forget()

    def begin(self, timeout_s: float, meanwhile: Callable[[], None] | None = None) -> None:
        """Start the clock of one POST; ``meanwhile`` is called when all is sent, before the answer is waited for."""
        self._timeout_s = timeout_s
        self._meanwhile = meanwhile
        self._latest = self._clock() + timeout_s + SLACK_S
        self.allow(timeout_s)
        self.forget()

    def forget(self) -> None:
        """Nothing is sent yet."""
        self.reused = self.sock is not None and self.sock.fileno() >= 0
        """The connection was open before this POST."""
        self.connected = self.reused
        """There is a connection, TLS handshake included."""
        self.watched = self.reused
        """What we know of this POST is all there is to know: its connection is one of ours."""
        self.sent_whole = False
        """The kernel took the last byte of the request: the server may have it."""
        self.answered = False
        """The first byte of an answer came."""
        self.status: int | None = None
        """From the status line, whatever follows it."""

    def allow(self, seconds: float) -> None:
        """What comes now may take this long altogether, but never longer than the whole POST."""
        self._until = min(self._clock() + seconds, self._latest)

    def connecting(self) -> None:
        """No connection is open, or none that stands."""
        self.reused = self.connected = False
        self.watched = True

    def connect(self, sock: socket.socket) -> None:
        """A new connection stands; sending may take what is left of the whole POST."""
        self.connected = True
        self.answered = False  # but for a proxy
        self.sock = sock
        self._until = self._latest

    def sent(self) -> None:
        """All is sent: the time-out counts anew, from when we begin to wait."""
        self.sent_whole = True
        if self._meanwhile is not None:
            self._meanwhile()
        self.allow(self._timeout_s)

    @property
    def stale(self) -> bool:
        """Nothing came back over a connection that was open before: the server may have closed it while it was idle."""
        return self.reused and not self.answered

    @property
    def may_have_arrived(self) -> bool:
        """The server may have the whole request."""
        return self.sent_whole or not self.watched

    def left(self) -> float:
        """Seconds until the deadline; raises ``TimeoutError`` when it has passed."""
        left = self._until - self._clock()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        return left

    def addresses(self, host: str, port: int) -> list[str]:
        """Look a name up, in a daemon thread, because ``getaddrinfo`` knows no time-out.

        A look-up that hangs is awaited again by the next POST, so a line never has more than one.
        """
        self._looked_up = looked_up = self._looked_up or look_up(host, port)
        try:
            return looked_up.result(self.left())
        except FutureTimeoutError:
            raise TimeoutError("looking up the name took too long") from None
        finally:
            if looked_up.done():
                self._looked_up = None

    def close(self) -> None:
        """Close the connection."""
        if self.sock:
            self.sock.close()

    def let_go(self) -> None:
        """Close the descriptor and nothing else: in a forked child the connection is still the parent's."""
        descriptor = self.sock.detach() if self.sock else -1
        if descriptor >= 0:
            os.close(descriptor)


_latest: Final[dict[tuple[str, int], Future[list[str]]]] = {}
"""The last look-up of each name, for when none can begin any more."""


def look_up(host: str, port: int, *, ahead: bool = False) -> Future[list[str]]:
    """Ask for the addresses of a name in a daemon thread; once the interpreter exits, what is known must do.

    Where no thread can start this one asks, unless that is only to know the answer ``ahead``.
    """
    found: Future[list[str]] = Future()

    def ask(flags: int = 0) -> None:
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
        except (OSError, UnicodeError) as error:
            found.set_exception(error)
        else:
            found.set_result(list(dict.fromkeys(str(answer[4][0]) for answer in answers)))

    try:
        Thread(target=ask, name="readme-metrics-look-up", daemon=True).start()
    except RuntimeError as error:
        if ahead:
            return found
        if "shutdown" not in str(error):  # too many threads, say
            ask()
        elif (host, port) in _latest:  # Python 3.12 and later start no thread while the interpreter exits
            return _latest[host, port]
        else:
            ask(socket.AI_NUMERICHOST)
            if found.exception():
                raise TimeoutError("no name can be looked up any more") from None
    _latest[host, port] = found
    return found


class _Answer(HTTPResponse):
    """An answer read through its line, which learns the status before the headers are read."""

    def __init__(self, line: Line, sock: socket.socket, *args: Any, **kwargs: Any) -> None:  # http.client's own
        self._line = line
        super().__init__(_Reader(line, sock), *args, **kwargs)  # type: ignore[arg-type]  # it only calls makefile

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]  # private, but urllib3 calls it too
        if status >= 200 and self._line.connected:  # else a proxy's answer to CONNECT
            self._line.status = status
        return version, status, reason


class _Reader(io.RawIOBase):
    """Gives each read of a socket what is left until the deadline."""

    def __init__(self, line: Line, sock: socket.socket) -> None:
        self._line = line
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # a buffer has no public type before Python 3.12
        self._sock.settimeout(self._line.left())
        count = self._raw.readinto(buffer)
        self._line.answered = self._line.answered or bool(count)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Connection(HTTPConnection):
    """A connection that obeys its line in all it does: look up, connect, tunnel, handshake, send, read."""

    def __init__(self, *args: Any, line: Line, **kwargs: Any) -> None:  # urllib3's own, which differ between versions
        super().__init__(*args, **kwargs)
        self._line = line
        self.response_class = partial(_Answer, line)  # type: ignore[assignment]  # http.client only calls it

    def _new_conn(self) -> socket.socket:
        name = self._dns_host
        try:
            sock = self._first_that_connects(self._line.addresses(name, self.port or self.default_port))
        except UnicodeError as error:
            raise LocationParseError(name) from error
        finally:
            self._dns_host = name
        try:
            sock.settimeout(self._line.left())  # bounds the TLS handshake as a whole
        except TimeoutError:
            sock.close()
            raise
        return sock

    def _first_that_connects(self, addresses: list[str]) -> socket.socket:
        """Divide what is left, so that one address that swallows everything does not hide the others."""
        for tries_left in range(len(addresses), 0, -1):
            self._dns_host = addresses[-tries_left]
            self.timeout = self._line.left() / tries_left
            try:
                return super()._new_conn()
            except (ConnectTimeoutError, NewConnectionError):
                if tries_left == 1:
                    raise
        raise socket.gaierror(socket.EAI_NONAME, "no address")

    def _tunnel(self) -> None:
        super()._tunnel()  # private, but the one place between a proxy's answer and the handshake
        if self.sock:
            self.sock.settimeout(self._line.left())

    def connect(self) -> None:
        self._line.connecting()
        super().connect()
        self._line.connect(self.sock)

    def request(self, *args: Any, **kwargs: Any) -> None:  # urllib3's own, which differ between versions
        super().request(*args, **kwargs)
        self._line.sent()

    def send(self, data: Any) -> None:  # bytes: urllib3 cut the body, http.client joined the head
        if self.sock is None:
            self.connect()
        rest = memoryview(data)
        while rest:
            self.sock.settimeout(self._line.left())
            rest = rest[self.sock.send(rest) :]


class _TlsConnection(_Connection, HTTPSConnection):
    """The same over TLS."""


class _Shelf:
    """Where a pool keeps its one idle connection: without a lock, which a forked child could inherit locked."""

    def __init__(self, maxsize: int) -> None:
        self._idle: deque[object] = deque()
        self._maxsize = maxsize

    def put(self, connection: object, **_: object) -> None:
        if len(self._idle) >= self._maxsize:
            raise queue.Full
        self._idle.append(connection)

    def get(self, **_: object) -> object:
        try:
            return self._idle.pop()
        except IndexError:
            raise queue.Empty from None

    def qsize(self) -> int:
        return len(self._idle)


class _Pool(HTTPConnectionPool):
    """Makes connections that obey a line."""

    QueueCls = _Shelf  # type: ignore[assignment]  # all that a pool calls
    connection: ClassVar[type[_Connection]] = _Connection

    def __init__(self, *args: Any, line: Line, **kwargs: Any) -> None:  # urllib3's own
        self.ConnectionCls = partial(self.connection, line=line)  # type: ignore[assignment]  # a pool only calls it
        super().__init__(*args, **kwargs)


class _TlsPool(_Pool, HTTPSConnectionPool):
    """The same over TLS."""

    connection = _TlsConnection


class DeadlineAdapter(HTTPAdapter):
    """Carries the POSTs of one line, to one address with the same settings; one thread at a time."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._pool: Any = None
        self._target: str | None = None
        super().__init__(pool_connections=1, pool_maxsize=1)

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:  # requests' own
        """Find the pool, once: requests would work out its key for each POST."""
        self._pool = self._pool or super().get_connection_with_tls_context(*args, **kwargs)
        return self._pool

    def request_url(self, *args: Any, **kwargs: Any) -> str:  # requests' own
        """Find what follows POST, once: requests would cut the address up for each."""
        self._target = self._target or super().request_url(*args, **kwargs)
        return self._target

    def build_response(self, req: PreparedRequest, resp: Any) -> Response:
        """What is read of it here, and by a session; requests would also read its cookies and guess its encoding."""
        response = Response()
        response.request, response.url = req, req.url or ""
        response.status_code, response.headers, response.raw = resp.status, resp.headers, resp
        return response

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # requests' own
        """For direct connections; called by ``requests`` once."""
        super().init_poolmanager(*args, **kwargs)
        self._bind(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:  # requests' own
        """For connections by a proxy; called by ``requests`` for each POST."""
        manager = super().proxy_manager_for(proxy, **kwargs)
        if isinstance(manager, ProxyManager):  # not SOCKS, whose pools know how to speak it
            self._bind(manager)
        return manager

    def _bind(self, manager: PoolManager) -> None:
        manager.pool_classes_by_scheme = {
            "http": partial(_Pool, line=self._line),  # type: ignore[dict-item]  # a manager only calls it
            "https": partial(_TlsPool, line=self._line),  # type: ignore[dict-item]  # likewise
        }
