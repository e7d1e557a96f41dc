"""One batch, one POST, a few quick retries inside a deadline: what came of it is an ``Outcome``, never an exception.

Knows bytes and HTTP, not the queue. Quick retries cover seconds; minutes to days are the caller's holds. Nothing here
logs, and no reason holds a key, a header's value or a body.
"""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from tenacity import RetryCallState, Retrying, retry_if_result, stop_after_attempt
from tenacity.nap import sleep_using_event
from tenacity.wait import wait_exponential, wait_random

from readme_metrics.deadline import look_up
from readme_metrics.sender import Body, Sender
from readme_metrics.verdict import Kind, Outcome, Verdict

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

RETRY_WINDOW_S: Final = 3.0
"""No attempt of one ``send`` starts later than this after its first."""
BACKOFF: Final = wait_exponential(multiplier=0.25, max=2.0) + wait_random(0, 0.25)
"""Two backoffs of at most 0.5 and 0.75 s leave most of the window to the attempts."""
SHORTEST_TIMEOUT_S: Final = 0.001
"""What a caller gets who has no time left: a verdict at once."""


class Delivery:
    """Sends batches to one server under one key; any number of threads at once, each over a kept-alive session.

    ``stop`` ends retries and the waits between them, not an attempt. ``clock`` is monotonic, ``now`` the wall clock.
    """

    def __init__(
        self,
        *,
        server: str,
        api_key: str,
        timeout_s: float,
        stop: threading.Event,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self._server = server
        self._timeout_s = timeout_s
        self._stop = stop
        self._clock = clock
        self._sleep = sleep or sleep_using_event(stop)
        self._senders = _Senders(partial(Sender, server, api_key, now=now))
        self._closed = False

    def send(
        self,
        entries: Sequence[bytes],
        *,
        max_attempts: int = 3,
        timeout_s: float | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Outcome:
        """POST the entries as one JSON array; every attempt ends within the time-out and 2 s more.

        ``meanwhile`` is called by this thread while the server has the first attempt.
        """
        body = Body(entries)
        time_out_s = self._timeout_s if timeout_s is None else max(timeout_s, SHORTEST_TIMEOUT_S)
        window_ends = self._clock() + RETRY_WINDOW_S
        first = self._post(body, time_out_s, meanwhile)
        if max_attempts == 1 or not _worth_a_retry(first, window_ends - self._clock()):
            return Outcome(first, 1)  # nearly every one
        verdicts: list[Verdict] = []

        def attempt() -> Verdict:
            if not verdicts:
                verdicts.append(first)
            elif not self._stop.is_set():  # closing cuts the wait short and makes no further attempt
                verdicts.append(self._post(body, time_out_s))
            return verdicts[-1]

        return Outcome(self._retrying(max_attempts, window_ends)(attempt), len(verdicts))

    def look_up_ahead(self) -> None:
        """Begin to look the server's name up, for a process that may send only when it leaves: then it is too late."""
        with suppress(Exception):  # no such address: the POST tells
            parts = urlsplit(self._server)
            look_up(parts.hostname or "", parts.port or {"http": 80}.get(parts.scheme, 443), ahead=True)

    def close(self) -> None:
        """Close the kept-alive sessions; those in use close when their POST ends."""
        self._closed = True
        self._senders.close_idle()

    def _retrying(self, max_attempts: int, window_ends: float) -> Retrying:
        def wait_s(state: RetryCallState) -> float:
            return max(_verdict_of(state).retry_after_s, min(BACKOFF(state), window_ends - self._clock()))

        return Retrying(
            retry=retry_if_result(lambda verdict: _worth_a_retry(verdict, window_ends - self._clock())),
            wait=wait_s,
            stop=stop_after_attempt(max_attempts),
            sleep=self._sleep,
            retry_error_callback=_verdict_of,
        )

    def _post(self, body: Body, timeout_s: float, meanwhile: Callable[[], None] | None = None) -> Verdict:
        senders = self._senders = self._senders.of_this_process()
        sender = senders.take()
        try:
            return sender.post(body, timeout_s, meanwhile)
        finally:
            senders.put_back(sender)
            if self._closed:
                senders.close_idle()


def _verdict_of(state: RetryCallState) -> Verdict:
    verdict: Verdict = state.outcome.result()  # type: ignore[union-attr]  # only asked after an attempt
    return verdict


def _worth_a_retry(verdict: Verdict, window_s: float) -> bool:
    """Not where the server may have it, nor before the server wants to be asked again."""
    return verdict.kind is Kind.LATER and not verdict.unanswered and max(verdict.retry_after_s, 0.001) <= window_s


class _Senders:
    """The sessions of one process: as many as ever sent at once. No lock, which a forked child could inherit locked."""

    def __init__(self, make: Callable[[], Sender]) -> None:
        self._make = make
        self._pid = os.getpid()
        self._idle: deque[Sender] = deque()
        self._all: list[Sender] = []

    def of_this_process(self) -> _Senders:
        """Itself; in a forked child new ones, after the descriptors of the parent's connections were closed."""
        if self._pid == os.getpid():
            return self
        for sender in self._all:
            sender.line.let_go()
        return _Senders(self._make)

    def take(self) -> Sender:
        """The one that was used last, whose connection is the most likely to stand."""
        try:
            return self._idle.pop()
        except IndexError:
            sender = self._make()
            self._all.append(sender)
            return sender

    def put_back(self, sender: Sender) -> None:
        """Keep it, with its connection, for the next POST."""
        self._idle.append(sender)

    def close_idle(self) -> None:
        """Close what is not in use; two threads may do so at once."""
        with suppress(IndexError):
            while True:
                sender = self._idle.pop()
                self._all.remove(sender)
                sender.close()
