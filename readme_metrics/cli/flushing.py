"""What ``readme-metrics flush`` does: drain a queue file in this process, or follow the process that drains it.

Who asks to stop sets ``stop``: what is in flight comes back first, so that nothing that was delivered is sent again.
"""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol

from readme_metrics.cli.figures import moment, span
from readme_metrics.cli.status_text import SILENT_S, who
from readme_metrics.delivery import Delivery
from readme_metrics.drain import Drain, Ending
from readme_metrics.errors import QueueError
from readme_metrics.queue import files, ledger, open_queue, salvage
from readme_metrics.queue.drainer_lock import read_drainer

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Generator
    from pathlib import Path

    from readme_metrics.in_flight import Send
    from readme_metrics.queue.contract import Books, DurableQueue, Hold

LOOK_EVERY_S: Final = 1.0
"""How often a follower asks again."""
FOLLOW_EVERY_S: Final = 0.1
"""How often a follower looks at the books."""
ELECT_TRIES: Final = 15
ELECT_PAUSE_S: Final = 0.02
"""Whoever looks at the drainer lock holds it for an instant: 0.3 s outlast that."""
UNBOUNDED_BYTES: Final = sys.maxsize
"""A command drops nothing: ``max_queue_bytes`` is the app's to keep."""


class Ended(Enum):
    """Why a flush ended."""

    EMPTY = "nothing waits"
    HELD = "delivery is held"
    OUT_OF_TIME = "time is up"
    STOPPED = "it was stopped"
    UNDELETED = "delivered entries cannot be deleted yet"


class Watcher(Protocol):
    """Who watches a flush."""

    def begin(self, waiting: int) -> None:
        """So many entries wait."""

    def settled(self, count: int) -> None:
        """So many more were delivered or set aside."""

    def say(self, sentence: str) -> None:
        """Something a person wants to know meanwhile."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a flush did, by the books: whichever process sent."""

    ended: Ended
    waiting: int = 0
    unsaved_files: int = 0
    """Files beside the queue's whose entries are not in it yet, and not counted."""
    delivered: int = 0
    dead: int = 0
    took_s: float = 0.0
    hold: Hold | None = None
    """The hold that ended it."""


def holds_nothing(path: Path) -> bool:
    """Whether no entry was ever stored under this name, nor set aside with a corrupt file."""
    return not files.size_of(path) and not salvage.set_aside_files(path)


def flush(
    path: Path,
    *,
    server: str,
    api_key: str,
    batch_length: int,
    timeout_s: float,
    max_time_s: float,
    force: bool,
    stop: threading.Event,
    watcher: Watcher,
) -> Result:
    """Empty a queue file, for at most ``max_time_s`` and the POSTs then under way.

    Raises ``QueueError`` where it cannot be read; what is no queue file of ours is not touched.
    """
    if holds_nothing(path):
        return Result(Ended.EMPTY)
    if path.exists():
        ledger.read_report(path)
    queue = open_queue(path, max_bytes=UNBOUNDED_BYTES)
    delivery = Delivery(server=server, api_key=api_key, timeout_s=timeout_s, stop=stop)
    try:
        return Flush(
            queue,
            path,
            delivery.send,
            batch_length=batch_length,
            timeout_s=timeout_s,
            max_time_s=max_time_s,
            stop=stop,
            watcher=watcher,
        ).run(force=force)
    finally:
        delivery.close()
        queue.close()


class Flush:
    """One flush of one queue file."""

    def __init__(
        self,
        queue: DurableQueue,
        path: Path,
        send: Send,
        *,
        batch_length: int,
        timeout_s: float,
        max_time_s: float,
        stop: threading.Event,
        watcher: Watcher,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._queue = queue
        self._path = path
        self._stop = stop
        self._watcher = watcher
        self._clock = clock
        self._now = now
        self._sleep = sleep
        self._began = clock()
        self._deadline = self._began + max_time_s
        self._said: set[str] = set()
        self._forgives = False
        self._drain = Drain(
            queue,
            send,
            batch_length=batch_length,
            flush_interval_s=0.0,
            timeout_s=timeout_s,
            stop=stop,
            on_settled=watcher.settled,
        )

    def run(self, *, force: bool) -> Result:
        """Drain or follow until nothing waits, a hold runs, or time is up."""
        before = self._queue.report().books
        if force:
            self._queue.end_hold()
            self._forgives = True
        if not self._held():
            self._watcher.begin(before.waiting)
        ended: Ended | None = None
        while ended is None:
            ended = self._drain_all() if self._elect() else self._follow()
        return self._result(ended, before, self._queue.report().books)

    def _result(self, ended: Ended, before: Books, after: Books) -> Result:
        same = before.epoch == after.epoch
        return Result(
            ended,
            waiting=after.waiting,
            unsaved_files=len(salvage.set_aside_files(self._path)),
            delivered=after.delivered - (before.delivered if same else 0),
            dead=max(0, after.dead - (before.dead if same else 0)),
            took_s=self._clock() - self._began,
            hold=self._drain.hold() if ended is Ended.HELD else None,
        )

    def _elect(self) -> bool:
        for _ in range(ELECT_TRIES):
            if self._queue.elect():
                return True
            if not self._left_s():
                break  # a file that is locked costs a second each
            self._sleep(ELECT_PAUSE_S)
        return False

    def _held(self) -> bool:
        hold = self._queue.hold()
        return hold is not None and hold.until > self._now()

    def _why_stopped(self) -> Ended:
        return Ended.OUT_OF_TIME if self._clock() >= self._deadline else Ended.STOPPED

    def _is_empty(self, waiting: int) -> bool:
        return not waiting and not salvage.set_aside_files(self._path)

    # -- as the drainer

    def _drain_all(self) -> Ended | None:
        """Send everything; None: another process took the office over."""
        with self._office():
            while True:
                ending = self._drain.run(everything=True, deadline=self._deadline)
                waiting = self._queue.backlog().count
                if self._is_empty(waiting):
                    return Ended.EMPTY
                if ending is Ending.HELD:
                    return Ended.HELD
                if ending is Ending.STOPPED or not self._left_s():
                    return self._why_stopped() if self._stop.is_set() or not self._left_s() else None
                if not waiting:
                    self._stop.wait(FOLLOW_EVERY_S)  # what stands beside the file is saved when it has settled
                self._queue.tend()
                if waiting and not self._queue.unclaimed(1).count:
                    return Ended.UNDELETED

    @contextlib.contextmanager
    def _office(self) -> Generator[None]:
        """Be the drainer: tend the queue before, and leave the file small."""
        self._queue.tend()
        try:
            yield
        finally:
            for _ in range(2):  # the second one sees that the WAL does not grow, and gives back what is not needed
                self._queue.tend(idle=not self._queue.backlog().count)
            self._queue.resign()

    def _left_s(self) -> float:
        return max(0.0, self._deadline - self._clock())

    # -- beside the drainer

    def _follow(self) -> Ended | None:
        """Ask the process that drains, and watch the books; None: it has gone, and we are the drainer."""
        waited = self._queue.backlog().count
        ask_at = self._clock()
        while True:
            waiting = self._queue.backlog().count
            if waiting < waited:
                self._watcher.settled(waited - waiting)
            waited = waiting
            if ended := self._reason_to_leave(waiting):
                return ended
            if self._clock() >= ask_at:
                ask_at = self._clock() + LOOK_EVERY_S
                if self._left_s() and self._queue.elect():
                    return None
                self._ask()
            if self._stop.wait(min(FOLLOW_EVERY_S, self._left_s())) or not self._left_s():
                return self._why_stopped()

    def _reason_to_leave(self, waiting: int) -> Ended | None:
        if self._is_empty(waiting):
            return Ended.EMPTY
        return Ended.HELD if self._held() and not self._forgiven() else None

    def _forgiven(self) -> bool:
        """With --force, end one hold more: its attempt may have begun before we came, when the server was away."""
        forgives, self._forgives = self._forgives, False
        if forgives:
            self._queue.end_hold()
        return forgives

    def _ask(self) -> None:
        with contextlib.suppress(QueueError):  # a stranger has the file locked: asked again in a second
            if self._left_s():
                self._queue.ask_flush()
        drainer = read_drainer(files.lock_path(self._path))
        if drainer is not None:
            self._say_once("who", f"{who(drainer)} drains this queue since {moment(drainer.since, self._now())}")
            silent_s = self._now() - drainer.seen_at
            if silent_s > SILENT_S:
                self._say_once("silent", f"{who(drainer)} gave no sign of life for {span(silent_s)}")

    def _say_once(self, about: str, sentence: str) -> None:
        if about not in self._said:
            self._said.add(about)
            self._watcher.say(sentence)
