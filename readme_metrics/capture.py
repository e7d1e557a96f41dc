"""Follows one WSGI request through an app and makes its ``Exchange``.

The moment of recording, once, whichever comes first: a body at hand before the first byte; a stream with
Content-Length before the chunk that completes it; another stream before its iterator says it is over; a file before
it goes out; an aborted stream when it is closed or raises. A client that has its whole answer has its entry on disk.

Nothing here may fail the request or be seen by it: what can raise stands under a guard, and the body, its order, its
errors and its pace stay the app's own.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from werkzeug.wrappers import Response
from werkzeug.wsgi import ClosingIterator, FileWrapper

from readme_metrics.body import RequestTee, Sight, tee_request, tee_response
from readme_metrics.environ import (
    HostList,
    content_length,
    expects_no_body,
    is_chunked,
    request_headers,
    root_of,
    script_of,
    url_of,
)
from readme_metrics.exchange import NO_BODY, Body, Exchange, Group
from readme_metrics.group import read_group
from readme_metrics.guard import Guard
from readme_metrics.ids import Ids
from readme_metrics.redaction import Redaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse

    from readme_metrics.config import GroupingFunction, MetricsApiConfig

    Environ = dict[str, Any]

KEY: Final = "readme_metrics.capture"
"""Where the environ carries its capture, from the request's start to its record."""
_NOTHING: Final = Sight(0)
"""What is seen of most responses: they are at hand, whole."""
UNREAD_BODY_BYTES: Final = 64 * 1024
"""A larger request body that the view left unread is not read for the log."""


class Rule(Protocol):
    """The route that matched."""

    @property
    def rule(self) -> str:
        """Its pattern: ``/users/<int:id>``."""


class AppRequest(Protocol):
    """What capture needs of the app's request object."""

    @property
    def environ(self) -> Environ:
        """As the app sees it: corrected by a ``ProxyFix`` inside."""

    @property
    def remote_addr(self) -> str | None:
        """The client's address, likewise."""

    @property
    def url_rule(self) -> Rule | None:
        """None where no route matched."""


class Record(Protocol):
    """Where exchanges go."""

    def __call__(self, exchange: Exchange, group: Group, *mounted: Redaction) -> None:
        """Store one; ``mounted``: the lists of apps mounted in this one, which count too."""


class Capturer:
    """What all requests of one extension share; ``request_of`` finds the app's request object of an environ."""

    def __init__(
        self,
        config: MetricsApiConfig,
        record: Record,
        request_of: Callable[[Environ], AppRequest],
        *,
        wall_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        new_id: Callable[[], str] | None = None,
    ) -> None:
        self.record = record
        self.request_of = request_of
        self.wall_clock = wall_clock
        self.clock = clock
        self.new_id = new_id or Ids().new
        self.max_body_bytes = config.max_body_bytes
        self.most_unread = min(UNREAD_BODY_BYTES, config.max_body_bytes)
        self.redaction = Redaction(allowlist=config.allowlist, denylist=config.denylist)
        self.log_url = config.base_log_url and f"{config.base_log_url}/logs/"
        self.guard = Guard("capturing a request", "it is not logged")
        self._hosts = config.allowed_http_hosts and HostList(config.allowed_http_hosts)
        self._grouping_function = cast(
            "GroupingFunction", config.grouping_function
        )  # the config resolved a dotted path
        self._grouping_guard = Guard("grouping_function", "the request is not logged", level=logging.WARNING)

    def group_of(self, request: AppRequest) -> Group | None:
        """Who called; None: not to be logged."""
        if self._hosts and not self._hosts.allows(request.environ):
            return None
        with self._grouping_guard:
            group, warning = read_group(self._grouping_function(request))
            if warning is not None:
                self._grouping_guard.warn(warning)
            return group
        return None


class Capture:
    """One request on its way through the app; follows its response as ``body.Follower``."""

    __slots__ = (
        "_asked", "_capturer", "_declared", "_environ", "_group", "_headers", "_id", "_mounted", "_open", "_request",
        "_request_tee", "_seen", "_server_start_response", "_server_write", "_started", "_started_at", "_status",
        "_wait_s",
    )  # fmt: skip

    def __init__(self, capturer: Capturer, environ: Environ, start_response: StartResponse) -> None:
        self._capturer = capturer
        self._started_at = capturer.wall_clock()
        self._started = capturer.clock()
        self._environ = environ
        self._server_start_response = start_response
        self._open = True
        self._asked = False
        self._group: Group | None = None
        self._mounted: tuple[Redaction, ...] = ()
        self._status = ""
        self._headers: list[tuple[str, str]] = []
        self._declared: int | None = None
        self._wait_s = 0.0
        self._seen = _NOTHING
        self._request_tee: RequestTee | None = None
        if not expects_no_body(environ):
            stream = environ.get("wsgi.input")
            self._request_tee = environ["wsgi.input"] = tee_request(stream, capturer.max_body_bytes, capturer.guard)
        environ[KEY] = self

    def heed(self, lists: Redaction) -> None:
        """Take out what the lists of an app mounted in this one take: it is recorded here, and only here."""
        if lists.active and lists not in self._mounted:
            self._mounted = (*self._mounted, lists)

    def ask(self) -> None:
        """Ask who called, once, while the app's request context is there."""
        if not self._asked:
            self._asked = True
            with self._capturer.guard:
                self._ask()

    def _ask(self) -> None:
        self._request = request = self._capturer.request_of(self._environ)
        self._group = self._capturer.group_of(request)
        if self._group is None:
            self._let_go()
        else:
            self._id = self._capturer.new_id()

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: OptExcInfo | None = None
    ) -> Callable[[bytes], object]:
        """The server's, seen in passing."""
        self.ask()
        if self._group is not None and self._capturer.log_url:
            headers = [*headers, ("x-documentation-url", self._capturer.log_url + self._id)]
        write = (
            self._server_start_response(status, headers)
            if exc_info is None
            else self._server_start_response(status, headers, exc_info)
        )
        self._status = status
        if not self._open:
            return write
        self._headers = headers
        self._wait_s = self._capturer.clock() - self._started
        self._declared = declared_length(headers)
        self._server_write = write
        return self._write

    def follow(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Record now what can be recorded now, and hand the body on untouched; else hand on its tee."""
        if not self._open:
            return body
        with self._capturer.guard:
            if self._status and self._recorded_at_once(body):
                return body
            return tee_response(body, self)
        return body

    def _recorded_at_once(self, body: Iterable[bytes]) -> bool:
        if self._declared == 0 or self._has_no_body():
            self._record(NO_BODY)
            return True
        whole = None if self._seen.size else body_at_hand(body, self._declared, self._capturer.max_body_bytes)
        if whole is None and is_file(body, self._environ):
            whole = Body(None, self._declared)
        if whole is not None:
            self._record(whole)
        return whole is not None

    def passing(self, chunk: bytes) -> None:
        """Record before the chunk that completes a Content-Length."""
        if self._open:
            with self._capturer.guard:
                if self._seen is _NOTHING:
                    self._seen = Sight(self._capturer.max_body_bytes)
                self._seen.add(chunk)
                if self._declared is not None and self._seen.size >= self._declared:
                    self._record(self._whole())

    def ended(self) -> None:
        """Record before the iterator says it is over."""
        with self._capturer.guard:
            self._record(self._whole())

    def broke(self) -> None:
        """Record an exception on its way out; where nothing was handed on, servers answer 500 in the app's place."""
        if self._seen is not _NOTHING:  # an empty chunk sends the headers too
            self._cut_short()
        elif self._open:
            with self._capturer.guard:
                self.ask()
                self._status, self._headers = "500 INTERNAL SERVER ERROR", []
                self._wait_s = self._wait_s or self._capturer.clock() - self._started
                self._record(NO_BODY, aborted=True)

    def stopped(self) -> None:
        """StopIteration tells gunicorn that a websocket is over, unless it came from a view or behind an answer."""
        if self._asked:
            self.broke()
        else:
            self._let_go()

    def closing(self) -> None:
        """Record what was not over when the server let go of it."""
        if self._status:
            self._cut_short()
        else:
            self.broke()

    def _cut_short(self) -> None:
        with self._capturer.guard:
            self._record(Body(None, self._seen.size), aborted=True)

    def _write(self, data: bytes) -> None:
        self.passing(data)
        self._server_write(data)

    def _whole(self) -> Body:
        return NO_BODY if self._has_no_body() else self._seen.body()

    def _record(self, body: Body, *, aborted: bool = False) -> None:
        if not self._open:
            return
        self._let_go()
        if self._group is not None:
            self._capturer.record(
                self._exchange(body, self._request_body(aborted=aborted)), self._group, *self._mounted
            )

    def _exchange(self, body: Body, request_body: Body) -> Exchange:
        request = self._request
        environ = request.environ
        root = root_of(environ)
        url = url_of(environ, root)
        rule = request.url_rule
        page = url.partition("?")[0] if rule is None else f"{root}{script_of(environ)}{rule.rule}"
        code, _, text = self._status.partition(" ")
        return Exchange(
            self._id,
            self._started_at,
            self._wait_s * 1000,
            (self._capturer.clock() - self._started) * 1000,
            request.remote_addr or "",
            environ["REQUEST_METHOD"],
            url,
            page,
            environ.get("SERVER_PROTOCOL", ""),
            request_headers(environ),
            request_body,
            int(code),
            text,
            tuple(self._headers),
            body,
        )

    def _request_body(self, *, aborted: bool) -> Body:
        tee, environ = self._request_tee, self._environ
        if tee is None:
            return NO_BODY
        declared = content_length(environ)
        if declared and not aborted and may_read_rest(environ, self._status) and declared <= self._capturer.most_unread:
            with suppress(Exception):  # the client left, the view closed the stream, or there is none
                tee.read_rest(declared)
        return tee.body(declared, chunked=is_chunked(environ))

    def _has_no_body(self) -> bool:
        return has_no_body(self._environ.get("REQUEST_METHOD"), self._status)

    def _let_go(self) -> None:
        """Nothing is recorded after this; the environ and its capture no longer hold each other."""
        self._open = False
        self._environ.pop(KEY, None)


def has_no_body(method: str | None, status: str) -> bool:
    """Whether HTTP leaves the body out of this answer (RFC 9110 §6.4.1)."""
    return method == "HEAD" or status[:3] in {"204", "304"} or status[:1] == "1"


def declared_length(headers: Iterable[tuple[str, object]]) -> int | None:
    """The answer's Content-Length."""
    for name, value in headers:
        if name.lower() == "content-length":
            if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:
                return int(value)
            return None
    return None


def may_read_rest(environ: Environ, status: str) -> bool:
    """Whether a small body that the view left unread may be read for the log.

    Not behind an error: a client that was refused may stall. Not after ``Expect``: it may wait to be asked.
    """
    return status[:1] in {"2", "3"} and "HTTP_EXPECT" not in environ


def is_file(body: object, environ: Environ) -> bool:
    """Whether the server may send this as a file, past any tee: its own wrapper, or whatever can be read."""
    wrapper = environ.get("wsgi.file_wrapper")
    own = isinstance(wrapper, type) and isinstance(body, wrapper)
    return own or isinstance(body, FileWrapper) or hasattr(body, "read")


def body_at_hand(body: object, declared: int | None, max_bytes: int) -> Body | None:
    """The whole body, if it is a sequence in memory that nobody has to wait for; reads no stream."""
    chunks = _response_of(body) if type(body) is ClosingIterator else body
    if type(chunks) is list and len(chunks) == 1 and type(chunks[0]) is bytes:  # what nearly every answer is
        octets = chunks
    elif not isinstance(chunks, (list, tuple)) or not all(isinstance(chunk, (bytes, str)) for chunk in chunks):
        return None
    else:
        octets = [chunk.encode() if isinstance(chunk, str) else chunk for chunk in chunks]
    size = sum(map(len, octets))
    if declared is not None and declared != size:  # somebody changed it on its way
        return None
    return Body(b"".join(octets) if size <= max_bytes else None, size)


def _response_of(body: ClosingIterator) -> object:
    """What a werkzeug ``Response`` iterates over: its iterator holds the response's ``close`` as its last callback."""
    callbacks = body._callbacks  # noqa: SLF001  # nothing public tells a sequence's iterator from a stream's; tested
    response = getattr(callbacks[-1], "__self__", None) if callbacks else None
    if not isinstance(response, Response):
        return None
    kind = type(response)
    is_plain = kind.iter_encoded is Response.iter_encoded and kind.get_app_iter is Response.get_app_iter
    return response.response if is_plain else None
