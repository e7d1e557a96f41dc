"""Clients that know which answers they got whole."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.faults.app import SECRET

if TYPE_CHECKING:
    from types import TracebackType

ORDER = json.dumps({"tea": 2, "password": SECRET}).encode()
KINDS = (
    ("GET", "/json", b""),
    ("POST", "/orders?password=" + SECRET, ORDER),
    ("GET", "/stream", b""),
    ("GET", "/sized-stream", b""),
    ("GET", "/fails", b""),
    ("GET", "/not-there", b""),
)
TIMEOUT_S = 15.0
PACE_S = 0.002
RETRY_S = 0.05
"""After a refused connection."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that came whole."""

    status: int
    entry_id: str | None
    """None where it was not logged, or nobody can tell whether it came whole."""
    body: bytes
    took_s: float


def ask(port: int, method: str, path: str, body: bytes = b"", content_type: str = "application/json") -> Answer | None:
    """One request; None where no whole answer came."""
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        headers = {"Content-Type": content_type, "password": SECRET} if body else {}
        connection.request(method, path, body or None, headers)
        response = connection.getresponse()
        tells_its_end = (
            response.chunked or response.length is not None
        )  # uWSGI's streams end by a close, as a kill does
        whole = response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    page = response.getheader("x-documentation-url") if tells_its_end else None
    return Answer(response.status, page and page.rpartition("/")[2], whole, time.monotonic() - began)


def get(port: int, path: str) -> Answer:
    """One request that must be answered."""
    answer = ask(port, "GET", path)
    assert answer is not None, f"no answer for {path}"
    return answer


class Clients:
    """Several threads that send requests of all kinds from ``with`` to its end."""

    def __init__(self, port: int, *, threads: int = 3) -> None:
        self._port = port
        self._news = threading.Condition()
        self._stop = threading.Event()
        self.answers: list[Answer] = []
        self.cut = 0
        """Requests without a whole answer."""
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(threads)]

    def __enter__(self) -> Clients:  # noqa: PYI034 - Self is not in Python 3.10
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def ids(self) -> list[str]:
        """Of the entries whose answers came whole."""
        return [answer.entry_id for answer in self.answers if answer.entry_id]

    def wait_for(self, more: int, deadline_s: float = 30.0) -> None:
        """Return when so many more answers have come."""
        with self._news:
            wanted = len(self.answers) + more
            assert self._news.wait_for(lambda: len(self.answers) >= wanted, deadline_s), (
                f"{len(self.answers)} answers of {wanted} within {deadline_s} s"
            )

    def send(self, count: int) -> None:
        """So many requests, one after the other, by the calling thread."""
        for method, path, body in itertools.islice(itertools.cycle(KINDS), count):
            self._note(ask(self._port, method, path, body))

    def _run(self, number: int) -> None:
        for method, path, body in itertools.islice(itertools.cycle(KINDS), number, None):
            answer = ask(self._port, method, path, body)
            self._note(answer)
            if self._stop.wait(RETRY_S if answer is None else PACE_S):
                return

    def _note(self, answer: Answer | None) -> None:
        with self._news:
            if answer is None:
                self.cut += 1
            else:
                self.answers.append(answer)
            self._news.notify_all()
