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


class _Waiting:
    """An entry whose thread sleeps until it is ``woken``."""

    __slots__ = ("entry", "leads", "stored", "woken")

    def __init__(self, entry: bytes) -> None:
        self.entry = entry
        self.stored = False
        self.leads = False
        """It is this one's turn to write, for all who wait."""
        self.woken = threading.Lock()
        self.woken.acquire()


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
                self._write_waiting()

    def _wait(self, mine: _Waiting) -> None:
        while not mine.woken.acquire(timeout=self._patience_s) and not self._takes_over(mine):
            pass
        if mine.leads:
            self._write_waiting()
        if not mine.stored:  # not together with others: whose fault that was shows alone
            self._write((mine.entry,))

    def _takes_over(self, mine: _Waiting) -> bool:
        """Not while another thread has it in hand, which wakes us whatever comes of it."""
        with self._arriving:
            if mine in self._waiting:
                self._waiting.remove(mine)
                self._waiting.appendleft(mine)
                mine.leads = True
            return mine.leads

    def _write_waiting(self) -> None:
        """Write what waits, once, and leave the next turn to the next who waits, if any."""
        with self._arriving:
            together = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_TOGETHER))]
        try:
            with suppress(sqlite3.Error):
                self._write([each.entry for each in together])
                for each in together:
                    each.stored = True
        finally:
            self._pass_on()
            for each in together:
                if not each.leads:
                    each.woken.release()

    def _pass_on(self) -> None:
        with self._arriving:
            self._is_writing = bool(self._waiting)
            if self._is_writing:
                self._waiting[0].leads = True
                self._waiting[0].woken.release()
