"""One attempt: one kept-alive session, one POST within its deadline, one verdict.

Used by one thread at a time. No reason holds the key, a header's value, a body, or an address with its credentials.
"""

from __future__ import annotations

import ssl
import time
from functools import partial
from http.client import HTTPException, RemoteDisconnected
from typing import TYPE_CHECKING, Final

import requests
from requests.exceptions import InvalidSchema, InvalidURL, MissingSchema
from urllib3.exceptions import HTTPError, LocationParseError

from readme_metrics import __version__
from readme_metrics.deadline import DeadlineAdapter, Line
from readme_metrics.verdict import NoAnswer, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from requests.sessions import _Settings  # in the types only
    from urllib3 import BaseHTTPResponse

ANSWER_BYTES: Final = 64 * 1024
"""What is read of an answer's body at most."""
ANSWER_BODY_S: Final = 1.0
"""How long an answer's body is waited for once its status is known."""
DETAIL_CHARACTERS: Final = 200
"""What a reason takes of an error's own words."""
PIECE_ENTRIES: Final = 24
"""How many entries are joined at once: about 64 KB, which need no fresh memory each time."""
ADDRESS_ERRORS: Final = (InvalidURL, InvalidSchema, MissingSchema, LocationParseError)
"""The server's address, or a proxy's, cannot be used: waiting does not mend it."""


class Body:
    """Entries as one JSON array, joined piece by piece: a batch is in memory once, and a piece stays in the cache."""

    def __init__(self, entries: Sequence[bytes]) -> None:
        self._entries = entries

    def __len__(self) -> int:
        """Bytes of the whole."""
        return sum(map(len, self._entries)) + len(self._entries) + 1

    def __iter__(self) -> Iterator[bytes]:
        *others, last = self._entries
        closed = [*others, last + b"]"]
        for start in range(0, len(closed), PIECE_ENTRIES):
            first, *rest = closed[start : start + PIECE_ENTRIES]
            yield b",".join([(b"," if start else b"[") + first, *rest])


class Sender:
    """One session, its connection, and the POST that is prepared once and sent with ever new bodies."""

    def __init__(self, server: str, api_key: str, *, now: Callable[[], float] = time.time) -> None:
        self.line = Line()
        self._url = f"{server}/v1/request"
        self._api_key = api_key
        self._now = now
        self._session = requests.Session()
        self._adapter = DeadlineAdapter(self.line)
        self._prepared: tuple[requests.PreparedRequest, _Settings] | None = None

    def post(self, body: Body, timeout_s: float, meanwhile: Callable[[], None] | None = None) -> Verdict:
        """Make one attempt; every failure of the network or the server is a verdict.

        ``meanwhile`` is called while the server has it.
        """
        self.line.begin(timeout_s, meanwhile)
        try:
            answer = self._send(body, timeout_s)
        except (OSError, HTTPError) as error:  # those of requests are OSErrors; it lets some of urllib3's pass
            return judge(self.line.status, {}, b"", _why_no_answer(error, self.line), self._now())
        return judge(answer.status_code, answer.headers, self._read(answer.raw), None, self._now())

    def close(self) -> None:
        """Close the connection."""
        self.line.close()

    def _send(self, body: Body, timeout_s: float) -> requests.Response:
        """Straight to the adapter: a session would read the body of a redirect to its end, without bound."""
        self._prepared = request, settings = self._prepared or self._prepare()
        request.body = body  # type: ignore[assignment]  # urllib3 takes what it can iterate over
        request.headers["Content-Length"] = str(len(body))
        send = partial(self._adapter.send, request, timeout=timeout_s, **settings)  # type: ignore[arg-type]  # verify is set
        try:
            return send()
        except (OSError, HTTPError) as error:
            if not self.line.stale or _timed_out(error):
                raise
        self.line.forget()  # the server had closed the idle connection: that costs neither an attempt nor a wait
        return send()

    def _prepare(self) -> tuple[requests.PreparedRequest, _Settings]:
        """Once, but not before the first POST: an address that cannot be used is a verdict."""
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"readme-metrics-python/{__version__}",
            "Accept-Encoding": "identity",
        }
        auth = (self._api_key, "")  # named here, so that no .netrc takes its place
        request = self._session.prepare_request(requests.Request("POST", self._url, headers, auth=auth))
        settings = self._session.merge_environment_settings(self._url, {}, True, None, None)  # noqa: FBT003  # stream
        return request, settings

    def _read(self, answer: BaseHTTPResponse) -> bytes:
        """What comes of an answer's body within the bounds; unless that is all, the connection is closed."""
        self.line.allow(ANSWER_BODY_S)
        body = bytearray()
        try:
            while part := answer.read1(ANSWER_BYTES - len(body), decode_content=True):
                body += part
        except (OSError, HTTPError):
            answer.close()
        if len(body) >= ANSWER_BYTES:
            answer.close()
        answer.drain_conn()  # gives the connection back
        return bytes(body)


def _why_no_answer(error: Exception, line: Line) -> NoAnswer:
    errors = tuple(_chain(error))
    if any(isinstance(each, ADDRESS_ERRORS) for each in errors):
        reason = "the address cannot be used; check README_METRICS_SERVER and any HTTP(S)_PROXY"
        return NoAnswer(reason, misdirected=True)
    if _timed_out(error):
        return NoAnswer(_too_late(line), unanswered=line.may_have_arrived)
    if not line.connected:
        return NoAnswer(f"no connection: {_detail(errors)}")
    if line.answered or any(
        isinstance(each, HTTPException) and not isinstance(each, RemoteDisconnected) for each in errors
    ):
        return NoAnswer("broken answer")
    return NoAnswer("connection lost before an answer")


def _too_late(line: Line) -> str:
    if line.may_have_arrived:
        return "sent, but not answered in time"
    return "not sent whole in time" if line.connected else "no connection in time"


def _timed_out(error: Exception) -> bool:
    return any(isinstance(each, TimeoutError) for each in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what it was raised from, and so on to the first."""
    while error:
        yield error
        error = error.__cause__ or error.__context__


def _detail(errors: tuple[BaseException, ...]) -> str:
    """The words of the operating system or of TLS; others may hold an address with its credentials."""
    for error in reversed(errors):
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"{error.verify_message}; check REQUESTS_CA_BUNDLE"
        if isinstance(error, OSError) and error.strerror:
            return error.strerror[:DETAIL_CHARACTERS]
        if type(error) is OSError:  # a proxy that would not tunnel, a bundle of certificates that is not there
            return str(error)[:DETAIL_CHARACTERS]
    return type(errors[-1]).__name__
