"""The contract in a deque: the reference for the contract's tests, and what serves where no disk can be written."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Final

from readme_metrics import forks
from readme_metrics.errors import NotAccepted
from readme_metrics.queue.contract import (
    Activity,
    Backlog,
    Batch,
    Books,
    DeadLetter,
    Hold,
    Report,
    Unclaimed,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LIMIT_BYTES: Final = 10 * 1024 * 1024
"""What a process may keep in memory: about 4,000 entries of the usual size."""


class MemoryQueue:
    """The contract without a file: what is put dies with the process, which alone sends it."""

    durable = False

    def __init__(self, *, limit_bytes: int = LIMIT_BYTES, now: Callable[[], float] = time.time) -> None:
        self._limit_bytes = limit_bytes
        self._now = now
        self._begin()
        forks.watch(self)

    def _begin(self) -> None:
        """All that belongs to one process."""
        self._mutex = threading.RLock()
        self._began_at = self._now()
        self._waiting: OrderedDict[int, tuple[bytes, float]] = OrderedDict()
        self._claimed: set[int] = set()
        self._dead: OrderedDict[int, DeadLetter] = OrderedDict()
        self._bytes = 0
        self._last_id = 0
        self._asked_up_to = 0
        self._carried = 0
        self._delivered = 0
        self._dropped: Counter[str] = Counter()
        self._not_accepted: Counter[str] = Counter()
        self._hold: Hold | None = None
        self._rejections = 0
        self._answers_with_errors = 0
        self._last_success_at: float | None = None
        self._last_error_at: float | None = None
        self._last_error: str | None = None

    def put(self, entry: bytes) -> None:
        with self._mutex:
            if self._bytes + len(entry) > self._limit_bytes:
                self._not_accepted["memory full"] += 1
                raise NotAccepted("memory full", f"{self._limit_bytes} bytes of entries wait in memory")
            self._append(entry)

    def _append(self, entry: bytes) -> None:
        self._last_id += 1
        self._waiting[self._last_id] = (entry, self._now())
        self._bytes += len(entry)

    def unclaimed(self, at_most: int) -> Unclaimed:
        with self._mutex:
            ids = [id_ for id_ in self._waiting if id_ not in self._claimed][:at_most]
            if not ids:
                return Unclaimed(0, None, asked=False)
            return Unclaimed(len(ids), self._waiting[ids[0]][1], asked=ids[0] <= self._asked_up_to)

    def claim(self, limit: int, max_bytes: int) -> Batch | None:
        with self._mutex:
            ids: list[int] = []
            size = 1  # "[", then each entry with its "," or "]"
            for id_, (entry, _) in self._waiting.items():
                if id_ in self._claimed:
                    continue
                size += len(entry) + 1
                if len(ids) == limit or (ids and size > max_bytes):
                    break
                ids.append(id_)
            self._claimed.update(ids)
            return Batch(tuple(ids), tuple(self._waiting[id_][0] for id_ in ids)) if ids else None

    def ack(self, *batches: Batch, answers_with_errors: int = 0) -> None:
        with self._mutex:
            self._delivered += sum(len(self._take_out(batch)) for batch in batches)
            self._hold = None
            self._rejections = 0
            self._answers_with_errors += answers_with_errors
            self._last_success_at = self._now()

    def _take_out(self, batch: Batch) -> list[bytes]:
        self._claimed.difference_update(batch.ids)
        gone = [self._waiting.pop(id_)[0] for id_ in batch.ids if id_ in self._waiting]
        self._bytes -= sum(map(len, gone))
        return gone

    def release(self, batch: Batch) -> None:
        with self._mutex:
            self._claimed.difference_update(batch.ids)

    def bury(self, batch: Batch, *, status: int | None, reason: str, answer: str) -> int:
        with self._mutex:
            for entry in self._take_out(batch):
                id_ = max(self._dead, default=0) + 1
                self._dead[id_] = DeadLetter(id_, entry, status, reason, answer[:2000], self._now())
                self._bytes += len(entry)
            self._rejections += bool(status)
            self._last_error_at, self._last_error = self._now(), reason
            return self._rejections

    def hold(self) -> Hold | None:
        with self._mutex:
            hold = self._hold
            if hold is not None and hold.until - self._now() > hold.length_s:
                hold = self._hold = Hold(
                    self._now() + hold.length_s, hold.length_s, hold.kind, hold.reason, hold.timeout_s
                )
            return hold

    def set_hold(self, hold: Hold) -> None:
        with self._mutex:
            self._hold = hold
            self._last_error_at, self._last_error = self._now(), hold.reason

    def end_hold(self) -> None:
        with self._mutex:
            if self._hold is not None:
                self._hold = Hold(0.0, 0.0, self._hold.kind, self._hold.reason)

    def ask_flush(self) -> None:
        with self._mutex:
            self._asked_up_to = self._last_id

    def backlog(self) -> Backlog:
        with self._mutex:
            oldest = next(iter(self._waiting.values()), None)
            return Backlog(
                len(self._waiting),
                sum(len(entry) for entry, _ in self._waiting.values()),
                oldest[1] if oldest else None,
            )

    def report(self) -> Report:
        with self._mutex:
            books = Books(
                accepted=self._last_id + self._carried,
                delivered=self._delivered,
                dead=len(self._dead),
                dropped=dict(self._dropped),
                waiting=len(self._waiting),
                epoch_began_at=self._began_at,
                not_accepted=dict(self._not_accepted),
            )
            activity = Activity(
                self._last_success_at,
                self._last_error_at,
                self._last_error,
                self._rejections,
                self._answers_with_errors,
            )
            return Report("", books, self.backlog(), self.hold(), activity, None, 0, 0)

    def dead_letters(self) -> list[DeadLetter]:
        with self._mutex:
            return list(self._dead.values())

    def requeue(self, ids: Sequence[int]) -> int:
        with self._mutex:
            letters = [self._dead.pop(id_) for id_ in sorted(set(ids)) if id_ in self._dead]
            for letter in letters:
                self._bytes -= len(letter.entry)
                self._append(letter.entry)
            self._carried -= len(letters)
            self._rejections = 0
            return len(letters)

    def purge(self, ids: Sequence[int]) -> int:
        with self._mutex:
            letters = [self._dead.pop(id_) for id_ in set(ids) if id_ in self._dead]
            self._bytes -= sum(len(letter.entry) for letter in letters)
            if letters:
                self._dropped["purged"] += len(letters)
            return len(letters)

    def elect(self) -> bool:
        return True

    def resign(self) -> None:
        with self._mutex:
            self._claimed.clear()

    def tend(self, *, idle: bool = False) -> None:
        pass  # there is no file

    def leave(self) -> None:
        pass  # what waits goes on waiting until the process ends

    def close(self) -> None:
        self.resign()

    # -- forks

    def before_fork(self) -> None:
        """No child begins in the middle of somebody's put."""
        self._mutex.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._mutex.release()

    def after_fork_in_child(self) -> None:
        """Begin empty: what waits is the parent's to send."""
        self._begin()
