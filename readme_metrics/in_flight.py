"""Batches that are being sent: one inline, several by threads that live as long as the drain that started them.

Daemon threads of our own: a ``ThreadPoolExecutor`` joins its threads at exit, which a hanging server would delay, and
takes no work there. Where no thread can start (Python 3.12 refuses at exit) batches go one after the other.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from readme_metrics.queue.contract import Batch
    from readme_metrics.verdict import Outcome


class Send(Protocol):
    """What is needed of ``Delivery``."""

    def __call__(self, entries: Sequence[bytes], *, max_attempts: int = 3, timeout_s: float | None = None) -> Outcome:
        """POST the entries; see ``Delivery.send``."""


class Limits(NamedTuple):
    """How hard one send may try."""

    max_attempts: int
    timeout_s: float


class Sent(NamedTuple):
    """A batch that was sent, and what came of it."""

    batch: Batch
    outcome: Outcome
    took_s: float


class _Job(NamedTuple):
    batch: Batch
    limits: Limits


class InFlight:
    """Used by one thread, in a ``with`` block that ends when nothing is in flight or the process is leaving."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: list[_Job] = []
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Sent | BaseException] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._count = 0

    def __enter__(self) -> InFlight:  # noqa: PYI034 - Self is not in Python 3.10
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the threads; after an error, when what they are sending has come back: nothing may be sent twice."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads if error is not None else ():
            thread.join()

    def __len__(self) -> int:
        return self._count

    def launch(self, batch: Batch, limits: Limits) -> None:
        """Send a batch; ``next`` gives what came of it."""
        self._waiting.append(_Job(batch, limits))
        self._count += 1

    def next(self) -> Sent:
        """Wait for the next that is done. Raises what ``send`` raised."""
        self._count -= 1
        if not self._threads and len(self._waiting) == 1:
            return self._sent(self._waiting.pop())
        self._hand_over()
        sent = self._results.get()
        if isinstance(sent, BaseException):
            raise sent
        return sent

    def _sent(self, job: _Job) -> Sent:
        began = time.monotonic()
        outcome = self._send(job.batch.entries, max_attempts=job.limits.max_attempts, timeout_s=job.limits.timeout_s)
        return Sent(job.batch, outcome, time.monotonic() - began)

    def _hand_over(self) -> None:
        while self._waiting:
            if len(self._threads) <= self._count:
                self._start_thread()
            job = self._waiting.pop(0)
            if self._threads:
                self._jobs.put(job)
            else:
                self._results.put(self._sent(job))

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._work, name="readme-metrics-sender", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return
        self._threads.append(thread)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._results.put(self._sent_or_error(job))

    def _sent_or_error(self, job: _Job) -> Sent | BaseException:
        try:
            return self._sent(job)
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits for it
            return error
