"""Group commit: threads that put at the same time share a transaction.

Where one thread writes, the others need not each wait for a commit of their own behind it: whoever is done writing
writes all that came meanwhile, at once, and wakes them. With ``fsync`` that is one disk flush for eight requests. It is
fair, too: a lock goes to whoever asks while it is free, mostly to the thread that just had it.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MOST_TOGETHER: Final = 8
"""Entries in one transaction: what a thread does for others delays its own request."""
PATIENCE_S: Final = 1.0
"""After which whoever waits for a turn takes it: the thread that had it may have been ended in the middle of it."""

_FAILURES: Final = (sqlite3.Error, MemoryError, OverflowError)
"""Of an execute; the last two are of entries too large, alone or together."""


class _Waiting:
    """An entry whose thread sleeps until it is ``woken``: settled, or because it is its turn to write."""

    __slots__ = ("entry", "settled", "stored", "woken")

    def __init__(self, entry: bytes) -> None:
        self.entry = entry
        self.settled = False
        """Somebody has tried to write it."""
        self.stored = False
        self.woken = threading.Lock()
        self.woken.acquire()

    def wake(self) -> None:
        """Under ``_arriving``: two may want to."""
        if self.woken.locked():
            self.woken.release()


class GroupCommit:
    """Puts entries through ``write``, which stores some in one transaction or raises; several threads may be in it."""

    def __init__(self, write: Callable[[Sequence[bytes]], object], *, patience_s: float = PATIENCE_S) -> None:
        self._write = write
        self._patience_s = patience_s
        self._arriving = threading.Lock()  # stops a thread from waiting for a writer who has just seen nobody wait
        self._is_writing = False
        self._waiting: deque[_Waiting] = deque()

    def put(self, entry: bytes) -> None:
        """Return once the entry is stored; raises what ``write`` raised for it alone."""
        with self._arriving:
            mine = _Waiting(entry) if self._is_writing else None
            if mine:
                self._waiting.append(mine)
            self._is_writing = True
        if mine:
            self._wait(mine)
            return
        try:
            self._write((entry,))
        finally:
            with self._arriving:
                self._is_writing = others_wait = bool(self._waiting)
            if others_wait:
                self._write_together(None)

    def _wait(self, mine: _Waiting) -> None:
        while not mine.settled:
            mine.woken.acquire(timeout=self._patience_s)
            if not mine.settled:
                self._write_together(mine)
        if not mine.stored:  # not together with others: whose fault that was shows alone
            self._write((mine.entry,))

    def _write_together(self, mine: _Waiting | None) -> None:
        """Write ours, unless another has it in hand, with others that wait; then it is the turn of the next."""
        together: list[_Waiting] = []
        try:
            self._take(together, mine)
            if together:
                with suppress(*_FAILURES):
                    self._write([each.entry for each in together])
                    for each in together:
                        each.stored = True
        finally:
            self._settle(together)

    def _take(self, together: list[_Waiting], mine: _Waiting | None) -> None:
        with self._arriving:
            if mine:
                if mine not in self._waiting:
                    return
                self._waiting.remove(mine)
                together.append(mine)
            while self._waiting and len(together) < MOST_TOGETHER:
                together.append(self._waiting.popleft())

    def _settle(self, together: list[_Waiting]) -> None:
        with self._arriving:
            for each in together:
                each.settled = True
                each.wake()
            self._is_writing = bool(self._waiting)
            if self._is_writing:
                self._waiting[0].wake()
