"""The write-ahead log beside a queue file: how long it may grow, and when it is moved into the file.

Only who holds the drainer lock checkpoints: SQLite before 3.51.3 has a race between two of them (sqlite.org/wal.html).
Each syncs the disk, which no request shall wait for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from readme_metrics.queue import files

if TYPE_CHECKING:
    from collections.abc import Callable

    from readme_metrics.queue.sqlite import QueueFile

MIB: Final = 1024 * 1024
LIMIT_BYTES: Final = 64 * MIB
"""Above it the WAL is truncated; above twice this, entries are refused."""
BUSY_BYTES: Final = 4 * MIB
"""Above it the WAL is checkpointed in the middle of a drain: four busy processes write 30 MiB of it in a second."""
CHECKPOINT_EVERY_S: Final = 0.25
"""How often, then: each syncs the disk, which slows one put in a hundred, but a rarer one slows one in a thousand."""


class CheckpointRhythm:
    """When one drainer checkpoints; under the file's ``action_lock``."""

    def __init__(self, limit_bytes: int, clock: Callable[[], float]) -> None:
        self._limit_bytes = limit_bytes
        self._clock = clock
        self._seen_bytes = 0
        self._due_at = 0.0

    def between_batches(self, file: QueueFile) -> None:
        """Checkpoint if it is time: while a backlog drains nothing else gets its turn."""
        if self._clock() > self._due_at and files.wal_bytes(file.file) > BUSY_BYTES:
            self.look_after(file, idle=False)

    def look_after(self, file: QueueFile, *, idle: bool) -> None:
        """Checkpoint what was written; give the bytes of a WAL too long, or of an idle queue, back."""
        self._due_at = self._clock() + CHECKPOINT_EVERY_S
        seen_before, self._seen_bytes = self._seen_bytes, files.wal_bytes(file.file)
        quiet = self._seen_bytes == seen_before
        shrunk = idle and quiet and file.shrink()
        truncate = shrunk or self._seen_bytes > self._limit_bytes or bool(idle and quiet and self._seen_bytes)
        if truncate or not quiet:
            file.checkpoint(truncate=truncate)
