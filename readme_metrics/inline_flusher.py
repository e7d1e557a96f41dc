"""``background_worker_mode=False``: the request that fills a batch sends it before it returns."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from readme_metrics import forks
from readme_metrics.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Callable

    from readme_metrics.drain import Drain
    from readme_metrics.queue.contract import DurableQueue

LOOK_EVERY_S: Final = 1.0
"""How often a request looks for what other processes put."""


class InlineFlusher:
    """Drains in the request, one at a time in this process; the same face as ``Flusher``."""

    drains = False
    """Nobody keeps the drainer's office between two requests."""

    def __init__(
        self,
        queue: DurableQueue,
        drain: Drain,
        *,
        batch_length: int,
        flush_interval_s: float,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._drain = drain
        self._batch_length = batch_length
        self._look_every_s = min(LOOK_EVERY_S, flush_interval_s)
        self._timeout_s = timeout_s
        self._clock = clock
        self._guard = Guard("sending logs", "they wait in the queue, and the next request tries again")
        self._look_at = 0.0
        self.after_fork_in_child()
        forks.watch(self)

    def serve(self, serves: Callable[[], bool]) -> None:
        """Nothing: requests do it."""

    def notice(self) -> None:
        """Note an entry that was put; drain if a batch is full or one has waited long enough."""
        self._noticed = True
        self._unseen += 1
        if self._unseen < self._batch_length and self._clock() < self._look_at:
            return
        with self._guard:
            self._drain_what_is_due()

    def _drain_what_is_due(self) -> None:
        self._look_at = self._clock() + self._look_every_s
        with self._drain.office(wait_s=0.0) as elected:
            if elected:
                if self._drain.due_in_s() == 0.0:
                    self._drain.run_in_office(everything=False, deadline=self._clock() + self._timeout_s)
                self._queue.tend()
        self._unseen = self._queue.backlog().count % self._batch_length

    def close(self, timeout_s: float) -> bool:
        """Drain for at most ``timeout_s`` if this process logged anything; the rest stays on disk."""
        deadline = self._clock() + timeout_s
        with self._guard:
            if self._noticed:
                with self._drain.office(timeout_s) as elected:
                    if elected:
                        self._drain.run_in_office(everything=True, deadline=deadline)
        return True

    def before_fork(self) -> None:
        """Nothing: the queue lets go of its file by itself."""

    def after_fork_in_parent(self) -> None:
        """Nothing: requests go on."""

    def after_fork_in_child(self) -> None:
        """Count anew."""
        self._unseen = 0
        self._noticed = False
