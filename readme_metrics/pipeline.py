"""One queue with its drain and its flusher: one for each queue file and process, shared by every app that names it.

Two queues of one process on one file would break SQLite's locks, so a registry hands out the one there is.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from readme_metrics import forks
from readme_metrics.config import queue_file_name
from readme_metrics.delivery import Delivery
from readme_metrics.drain import Drain
from readme_metrics.errors import NotAccepted, QueueError, QueueUnavailable
from readme_metrics.flusher import Flusher
from readme_metrics.guard import Guard
from readme_metrics.inline_flusher import InlineFlusher
from readme_metrics.patching import patched_late
from readme_metrics.queue import open_queue
from readme_metrics.queue.memory import MemoryQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from readme_metrics.config import MetricsApiConfig
    from readme_metrics.queue.contract import DurableQueue

logger = logging.getLogger("readme_metrics.pipeline")
_saying: Final = Guard("saying what is the matter", "it goes unsaid")
"""A log handler of the host that raises stands in nobody's way."""

FOLLOW_EVERY_S: Final = 0.05
"""How often a flush looks at the backlog that another process drains."""
CONTAINER_SIGNS: Final = ("/.dockerenv", "/run/.containerenv")
SHARED_OPTIONS: Final = (
    "buffer_length",
    "background_worker_mode",
    "timeout",
    "flush_interval",
    "auto_flush",
    "max_queue_bytes",
    "shutdown_timeout",
    "fsync",
)


class _AnyFlusher(Protocol):
    @property
    def drains(self) -> bool: ...
    def serve(self, serves: Callable[[], bool]) -> None: ...
    def notice(self) -> None: ...
    def close(self, timeout_s: float) -> bool: ...


class _NoFlusher:
    """``auto_flush=False``: something else sends."""

    drains = False

    def serve(self, serves: Callable[[], bool]) -> None:
        pass

    def notice(self) -> None:
        pass

    def close(self, timeout_s: float) -> bool:  # noqa: ARG002 - the others' face
        return True


class Pipeline:
    """Queue, delivery, drain and flusher of one queue file in this process."""

    def __init__(self, config: MetricsApiConfig) -> None:
        self.config = config
        self._stop = forks.Event()
        self._file_queue = open_queue(
            Path(str(config.queue_path)) / queue_file_name(config.server, config.api_key),
            max_bytes=config.max_queue_bytes,
            fsync=config.fsync,
        )
        self._queue: DurableQueue = self._file_queue
        self._delivery = Delivery(
            server=config.server, api_key=config.api_key, timeout_s=config.timeout, stop=self._stop
        )
        self._drain = self._new_drain()
        self._flusher = self._new_flusher()
        self._flushing = Guard("flush", "entries wait in the queue, or in memory", level=logging.WARNING)
        self._begin()
        forks.watch(self)

    def _begin(self) -> None:
        self._counting = threading.Lock()
        self._falling_back = threading.Lock()
        self._captured = self._stored = 0

    def _new_drain(self) -> Drain:
        return Drain(
            self._queue,
            self._delivery.send,
            batch_length=self.config.buffer_length,
            flush_interval_s=self.config.flush_interval,
            timeout_s=self.config.timeout,
            stop=self._stop,
        )

    def _new_flusher(self) -> _AnyFlusher:
        config = self.config
        if not config.auto_flush:
            return _NoFlusher()
        if config.background_worker_mode:
            return Flusher(
                self._queue,
                self._drain,
                batch_length=config.buffer_length,
                stop=self._stop,
                on_unavailable=self._fall_back,
            )
        return InlineFlusher(
            self._queue,
            self._drain,
            batch_length=config.buffer_length,
            flush_interval_s=config.flush_interval,
            timeout_s=config.timeout,
        )

    def serve(self, serves: Callable[[], bool]) -> None:
        """Send what an earlier run left, soon and without traffic, if ``serves()`` then says that we serve."""
        self._flusher.serve(serves)

    def put(self, entry: bytes) -> None:
        """Store one entry and tell the flusher; the queue counts and logs what it does not accept."""
        stored = self._is_stored(entry)
        with self._counting:
            is_first = not self._captured
            self._captured += 1
            self._stored += stored
        if is_first and self.config.auto_flush and sys.version_info >= (3, 12):
            self._delivery.look_up_ahead()  # at exit no thread starts there
        if stored:
            self._flusher.notice()

    def _is_stored(self, entry: bytes) -> bool:
        try:
            self._queue.put(entry)
        except QueueUnavailable as error:
            self._fall_back(error)
            return self._is_stored(entry)
        except NotAccepted:
            return False
        return True

    def _fall_back(self, error: QueueUnavailable) -> None:
        """Serve from memory until the next start: this queue's file can never be opened."""
        with self._falling_back:
            if not self._queue.durable:
                return
            with _saying:
                logger.error("%s. Until the next start logs wait in memory only, at most 10 MiB", error)
            memory = MemoryQueue()
            for entry in self._file_queue.give_up():
                with contextlib.suppress(NotAccepted):  # counted
                    memory.put(entry)
            self._queue = memory
            self._drain = self._new_drain()
            if isinstance(self._flusher, Flusher):
                self._flusher.switch(self._queue, self._drain)
            else:
                self._flusher = self._new_flusher()

    def flush(self, timeout_s: float) -> int:
        """Drain now, for at most ``timeout_s``; how many entries still wait, as far as that can be known."""
        deadline = time.monotonic() + timeout_s
        with self._flushing:
            try:
                self._flush(deadline)
            except QueueUnavailable as error:
                self._fall_back(error)
                self._flush(deadline)
        kept: int = getattr(self._queue, "kept_in_memory", 0)
        with self._flushing:
            return self._queue.backlog().count + kept
        return kept

    def _flush(self, deadline: float) -> None:
        self._queue.tend()
        wait_s = max(0.0, deadline - time.monotonic())
        with self._drain.office(wait_s, keep=lambda: self._flusher.drains) as elected:
            if elected:
                self._drain.run_in_office(everything=True, deadline=deadline)
        if not elected:
            self._follow(deadline)

    def _follow(self, deadline: float) -> None:
        """Another process drains, or the file is locked: ask, and watch."""
        with contextlib.suppress(QueueError):  # locked
            self._queue.ask_flush()
        if patched_late():
            return  # our events would hold up every greenlet
        while self._queue.backlog().count and time.monotonic() < deadline and not self._stop.wait(FOLLOW_EVERY_S):
            hold = self._queue.hold()
            if hold is not None and hold.until > time.time():
                return

    def status(self) -> dict[str, Any]:
        """The queue's report and this process's own figures."""
        try:
            report = self._queue.report()
        except QueueUnavailable as error:
            self._fall_back(error)
            report = self._queue.report()
        own = {
            "pid": os.getpid(),
            "captured": self._captured,
            "stored": self._stored,
            "kept_in_memory": getattr(self._queue, "kept_in_memory", report.books.waiting),
            "durable": self._queue.durable,
        }
        return {**report.as_dict(), "process": own}

    def close(self, timeout_s: float) -> None:
        """Leave: a last, bounded flush; then let go of every file."""
        left = self._flusher.close(timeout_s)
        self._stop.set()
        if left:
            self._queue.close()
            self._delivery.close()
        else:
            self._queue.leave()

    def before_fork(self) -> None:
        """Nothing: the queue lets go of its file by itself."""

    def after_fork_in_parent(self) -> None:
        """Nothing."""

    def after_fork_in_child(self) -> None:
        """Count anew, with locks that no thread of the parent's holds."""
        self._begin()


_pipelines: dict[tuple[str, str, str], Pipeline] = {}
_registry = threading.Lock()


def pipeline_for(config: MetricsApiConfig) -> Pipeline:
    """The pipeline of this directory, server and key in this process; opens no file."""
    key = (os.path.realpath(str(config.queue_path)), config.server, config.api_key)
    with _registry:
        pipeline = _pipelines.get(key)
        if pipeline is None:
            if not _pipelines:
                atexit.register(_close_all)
            _warn_of_container(config)
            pipeline = _pipelines[key] = Pipeline(config)
        else:
            _warn_of_differences(pipeline.config, config)
        return pipeline


def _warn_of_differences(first: MetricsApiConfig, second: MetricsApiConfig) -> None:
    different = [option for option in SHARED_OPTIONS if getattr(first, option) != getattr(second, option)]
    if different:
        with _saying:
            logger.warning(
                "two apps of this process share one queue but differ in %s: the first one's values are used",
                ", ".join(different),
            )


def _warn_of_container(config: MetricsApiConfig) -> None:
    if config.queue_path_is_default and any(Path(sign).exists() for sign in CONTAINER_SIGNS):
        with _saying:
            logger.warning(
                "this runs in a container without queue_path: the queue in %s is lost with the container. Set "
                "queue_path (or README_METRICS_QUEUE_PATH) to a directory on a volume",
                config.queue_path,
            )


def _close_all() -> None:
    """At exit: every pipeline leaves within its own time-out, counted from the same moment."""
    began = time.monotonic()
    for pipeline in _pipelines.values():
        pipeline.close(max(0.0, began + pipeline.config.shutdown_timeout - time.monotonic()))
