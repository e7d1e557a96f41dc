"""Batches that are being sent by a few threads, or inline where somebody waits.

Daemon threads of our own: a ``ThreadPoolExecutor`` joins its threads at exit, which a hanging server would delay, and
takes no work there. They start when there is work for one more, and then wait for the next. Where no thread can start
(Python 3.12 refuses at exit) batches go one after the other.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from readme_metrics.verdict import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from readme_metrics.queue.contract import Batch
    from readme_metrics.verdict import Outcome


class Send(Protocol):
    """What is needed of ``Delivery``."""

    def __call__(
        self,
        entries: Sequence[bytes],
        *,
        max_attempts: int = 3,
        timeout_s: float | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Outcome:
        """POST the entries; see ``Delivery.send``."""


class Limits(NamedTuple):
    """How hard one send may try."""

    max_attempts: int
    timeout_s: float
    inline: bool
    """Send in the thread that asks for what came of it: a request or an exit, which has no time for another."""


class Sent(NamedTuple):
    """A batch that was sent, and what came of it."""

    batch: Batch
    outcome: Outcome
    took_s: float

    @property
    def delivered(self) -> bool:
        """The server took it."""
        return self.outcome.verdict.kind is Kind.DELIVERED


class _Job(NamedTuple):
    batch: Batch
    limits: Limits


class InFlight:
    """Used by one thread at a time, in one process; a forked child makes its own.

    ``meanwhile`` is called by that thread while the server has what it sends inline.
    """

    def __init__(self, send: Send, meanwhile: Callable[[], None]) -> None:
        self._send = send
        self._meanwhile = meanwhile
        self._inline: list[_Job] = []
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Sent | BaseException] = queue.SimpleQueue()
        self._threads = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def launch(self, batch: Batch, limits: Limits) -> None:
        """Send a batch; ``next`` gives what came of it."""
        self._count += 1
        job = _Job(batch, limits)
        if limits.inline or not (self._threads >= self._count or self._start_thread()):
            self._inline.append(job)
        else:
            self._jobs.put(job)

    @property
    def ready(self) -> bool:
        """Whether ``next`` has something to give, or to do, at once."""
        return bool(self._inline) or not self._results.empty()

    def recall(self) -> list[Batch]:
        """Take back what nobody has begun to send."""
        recalled = [job.batch for job in self._inline]
        self._count -= len(recalled)
        self._inline.clear()
        return recalled

    def next(self, timeout_s: float) -> Sent | None:
        """Wait for the next that is done; None: not yet. Raises what ``send`` raised."""
        try:
            sent = (
                self._attempted(self._inline.pop(0), self._meanwhile)
                if self._inline and self._results.empty()
                else self._results.get(timeout=timeout_s)
            )
        except queue.Empty:
            return None
        self._count -= 1
        if isinstance(sent, BaseException):
            raise sent
        return sent

    def abandon(self, *, wait: bool) -> list[Sent]:
        """What has come back and, with ``wait``, will: then nothing is in flight, and nothing is sent twice at once."""
        back: list[Sent] = []
        while self._count and (wait or not self._results.empty()):
            sent = self._results.get()
            self._count -= 1
            if isinstance(sent, Sent):
                back.append(sent)
        return back

    def _attempted(self, job: _Job, meanwhile: Callable[[], None] | None = None) -> Sent | BaseException:
        began = time.monotonic()
        entries, limits = job.batch.entries, job.limits
        try:
            outcome = self._send(
                entries, max_attempts=limits.max_attempts, timeout_s=limits.timeout_s, meanwhile=meanwhile
            )
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits for it
            return error
        return Sent(job.batch, outcome, time.monotonic() - began)

    def _start_thread(self) -> bool:
        thread = threading.Thread(target=self._work, name="readme-metrics-sender", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return self._threads > 0
        self._threads += 1
        return True

    def _work(self) -> None:
        while True:
            self._results.put(self._attempted(self._jobs.get()))
