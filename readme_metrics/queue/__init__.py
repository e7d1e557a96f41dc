"""The durable queue: ``contract`` says what it promises, ``open_queue`` gives the one over a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from readme_metrics.queue.durable import SqliteQueue


def open_queue(path: Path, *, max_bytes: int, fsync: bool = False) -> SqliteQueue:
    """Give the queue over this file; nothing is opened before its first use. One object a file and process."""
    from readme_metrics.queue.durable import SqliteQueue  # noqa: PLC0415 - the backend's libraries load when it is used

    return SqliteQueue(path, max_bytes=max_bytes, fsync=fsync)
