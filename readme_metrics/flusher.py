"""The background thread: wake, lazy start, fork, bounded close. The loop itself is ``drain``'s.

The thread looks once a second, because nothing portable wakes another process: at the drainer lock, at the hold, at
what other processes put. Within its own process ``notice`` wakes it when a batch is full.

A thread does not survive a fork, so a child starts its own; ``forks`` tells it, and under uWSGI, which forks in C, its
post-fork hook. Nothing is started, and no file is opened, in uWSGI's master, which never gives the interpreter back.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from readme_metrics import forks
from readme_metrics.errors import QueueUnavailable
from readme_metrics.guard import Guard
from readme_metrics.patching import patched_late

if TYPE_CHECKING:
    from collections.abc import Callable

    from readme_metrics.drain import Drain
    from readme_metrics.queue.contract import DurableQueue

logger = logging.getLogger("readme_metrics.flusher")

LOOK_EVERY_S: Final = 1.0
GATHER_S: Final = 0.15
"""Under load several batches leave for one wake: all that logging costs a request was 155 µs of CPU with this, and 190
with a third of it."""
START_DELAY_S: Final = 1.0
"""A master that preloads its app has forked its workers by then."""


class Flusher:
    """The thread of one queue in one process; ``stop`` is the event that also ends ``delivery``'s waits."""

    def __init__(
        self,
        queue: DurableQueue,
        drain: Drain,
        *,
        batch_length: int,
        stop: threading.Event,
        on_unavailable: Callable[[QueueUnavailable], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._drain = drain
        self._batch_length = batch_length
        self._stop = stop
        self._on_unavailable = on_unavailable
        self._clock = clock
        self._guard = Guard("sending logs in the background", "they wait in the queue, and it is tried again")
        self._serves: Callable[[], bool] | None = None
        self._begin()
        forks.watch(self)

    def _begin(self) -> None:
        """All that belongs to one process."""
        self._pid = os.getpid()
        self._life = object()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._wake = threading.Event()
        self._unseen = 0
        self._noticed = False
        self._look_at = 0.0
        self._elected = False
        self._at_work = False

    def switch(self, queue: DurableQueue, drain: Drain) -> None:
        """Go on with another queue: the first one cannot serve."""
        self._queue, self._drain = queue, drain

    @property
    def drains(self) -> bool:
        """Whether the thread runs here and goes on: it keeps the drainer's office."""
        thread = self._thread
        return self._at_work and self._pid == os.getpid() and thread is not None and thread.is_alive()

    # -- start

    def serve(self, serves: Callable[[], bool]) -> None:
        """Start soon, without waiting for traffic, here and in our children, if ``serves()`` then says so."""
        self._serves = serves
        uwsgi = sys.modules.get("uwsgi")
        if uwsgi is None:
            self._start(START_DELAY_S)
        else:
            self._serve_under_uwsgi(uwsgi)

    def _serve_under_uwsgi(self, uwsgi: Any) -> None:
        if not getattr(uwsgi, "has_threads", True):  # what came of the options; newer ones run threads without any
            with self._guard:
                logger.warning(
                    "uWSGI runs without --enable-threads: logs are stored, but nothing sends them. Add "
                    "--enable-threads, or run `python -m readme_metrics.flush` from cron"
                )
        if uwsgi.worker_id():
            self._start(START_DELAY_S)
            return
        previous = getattr(uwsgi, "post_fork_hook", None)

        def after_fork() -> None:
            if previous is not None:
                previous()
            self._ensure_running(START_DELAY_S)

        uwsgi.post_fork_hook = after_fork

    def notice(self) -> None:
        """Note an entry that was put: starts the thread where it does not run, wakes it when a batch is full."""
        self._noticed = True
        self._unseen += 1
        if self._thread is None or self._pid != os.getpid():
            self._ensure_running(0.0)
        if self._unseen >= self._batch_length:
            self._unseen = 0
            self._wake.set()

    def _ensure_running(self, delay_s: float) -> None:
        if self._pid != os.getpid():  # forked by C code, without any hook
            self._begin()
            self._noticed = True
        self._start(delay_s)

    def _start(self, delay_s: float) -> None:
        if patched_late():
            return  # before a native lock is taken
        with self._starting:
            if self._thread is not None or self._stop.is_set():
                return
            arguments = (delay_s, self._life)
            thread = threading.Thread(target=self._live, args=arguments, name="readme-metrics-flusher", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no more threads here, or the interpreter is leaving: what is put is on disk
                return
            self._thread = thread

    # -- the thread

    def _live(self, delay_s: float, life: object) -> None:
        try:
            self._run(delay_s, life)
        finally:
            threading.current_thread()  # registers it where gevent gave it a new id, or it would end in an error

    def _run(self, delay_s: float, life: object) -> None:
        is_noticed = not delay_s or self._wake.wait(delay_s) or self._noticed
        if self._life is not life:
            return  # a greenlet of the parent's goes on in a forked child
        if not is_noticed and not (self._serves and self._serves()):
            self._thread = None  # the first put starts another
            return
        self._at_work = True
        while self._life is life and not self._stop.is_set() and not patched_late():
            pause_s = LOOK_EVERY_S
            with self._guard:
                pause_s = self._turn()
            if self._wake.wait(pause_s):
                self._stop.wait(GATHER_S)
            self._wake.clear()
        if self._life is life and patched_late():
            with self._guard:
                self._queue.resign()  # it began before the patch

    def _turn(self) -> float:
        """Do what is due; how long to sleep."""
        try:
            if self._clock() >= self._look_at:
                self._look_at = self._clock() + LOOK_EVERY_S
                self._elected = self._drain.elect()
                self._queue.tend(idle=self._elected and self._drain.due_in_s() is None)
            if not self._elected:
                return LOOK_EVERY_S
            self._drain.run(everything=False)
            due_in_s = self._drain.due_in_s()
        except QueueUnavailable as error:
            self._on_unavailable(error)
            return LOOK_EVERY_S
        return max(0.0, min(due_in_s or LOOK_EVERY_S, self._look_at - self._clock()))

    # -- close

    def close(self, timeout_s: float) -> bool:
        """End the thread and, if this process logged anything, drain for at most ``timeout_s``.

        False: the thread is in the middle of a POST that hangs. It is a daemon and dies with the process, which must
        stay the drainer until then: nobody else may send that batch meanwhile.
        """
        deadline = self._clock() + timeout_s
        self._stop.set()
        self._wake.set()
        thread = self._thread
        if thread is not None and self._pid == os.getpid():
            thread.join(timeout_s)
            if thread.is_alive():
                return False
        if self._noticed:
            with self._guard, self._drain.office(max(0.0, deadline - self._clock())) as elected:
                if elected:
                    self._drain.run_in_office(everything=True, deadline=deadline)
        return True

    # -- forks

    def before_fork(self) -> None:
        """Nothing: the queue lets go of its file by itself."""

    def after_fork_in_parent(self) -> None:
        """Nothing: the thread goes on."""

    def after_fork_in_child(self) -> None:
        """Start the child's own thread where the parent served."""
        was_running = self._thread is not None
        self._begin()
        if was_running and self._serves is not None:
            self._start(START_DELAY_S)
