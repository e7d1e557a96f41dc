"""Disk: locked by strangers, full, removed, replaced, read-only, of another user; through the whole path."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from typing import TYPE_CHECKING

from readme_metrics.queue import files
from readme_metrics.queue.durable import SqliteQueue

if TYPE_CHECKING:
    from pathlib import Path


def test_a_sibling_that_is_slow_but_quicker_than_any_stranger_sends_no_thread_s_entry_to_memory(tmp_path: Path) -> None:
    now = 1.0
    sleeping = threading.Lock()

    def sleep(_: float) -> None:
        nonlocal now
        with sleeping:
            now += 0.001
            if now > 1.2 and sibling.in_transaction:
                sibling.execute("COMMIT")

    files.prepare_directory(tmp_path / "q")
    queue = SqliteQueue(tmp_path / "q" / "entries.sqlite", max_bytes=1 << 29, clock=lambda: now, sleep=sleep)
    queue.put(b"{}")
    with contextlib.closing(sqlite3.connect(queue.path, check_same_thread=False, isolation_level=None)) as sibling:
        sibling.execute("BEGIN IMMEDIATE")
        threads = [threading.Thread(target=queue.put, args=(b"{}",)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)

    assert 0 == queue.kept_in_memory
    assert 3 == queue.backlog().count
    queue.close()
