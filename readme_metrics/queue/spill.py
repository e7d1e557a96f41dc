"""What waits in memory while a stranger keeps the queue's file locked: bounded, first in first out."""

from __future__ import annotations

import threading
from collections import deque


class Spill:
    """Entries that are not on disk yet. Thread-safe; a process that dies loses them, which the promises say."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._mutex = threading.Lock()
        self._entries: deque[bytes] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: bytes) -> bool:
        """Keep an entry; False where there is no room."""
        with self._mutex:
            if self._bytes + len(entry) > self._limit_bytes:
                return False
            self._entries.append(entry)
            self._bytes += len(entry)
            return True

    def first(self, count: int) -> list[bytes]:
        """The oldest entries, which stay until ``forget``."""
        with self._mutex:
            return [self._entries[position] for position in range(min(count, len(self._entries)))]

    def forget(self, count: int) -> None:
        """Let go of the oldest entries: they are on disk."""
        with self._mutex:
            for _ in range(count):
                self._bytes -= len(self._entries.popleft())
