"""Locked: a stranger that keeps the queue's file, and siblings that only seem to."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import statistics
import threading
import time
from typing import TYPE_CHECKING

from readme_metrics.queue import files
from readme_metrics.queue.durable import SqliteQueue
from tests.faults import oracle
from tests.faults.bench import FULL, Bench
from tests.faults.client import ask
from tests.faults.processes import gunicorn, poll

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


THREADS = 4
GTHREAD = gunicorn("--worker-class=gthread", f"--threads={THREADS}")
LOCKED_S = 4.0 if FULL else 1.0
STRANGER_WAIT_S = 0.25
BUSY_MACHINE_S = 0.5


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """As a backup does."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as stranger:
        stranger.execute("PRAGMA busy_timeout=5000")
        stranger.execute("BEGIN IMMEDIATE")
        yield
        stranger.execute("COMMIT")


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


def test_a_stranger_that_locks_the_file_delays_the_first_answers_only_and_every_entry_arrives(bench: Bench) -> None:
    app = bench.app(GTHREAD).start()
    with bench.clients(app, threads=THREADS) as clients:
        clients.wait_for(50)
        before = len(clients.answers)
        with locked(oracle.queue_file(bench.queue)):
            free_at = time.monotonic() + LOCKED_S
            while time.monotonic() < free_at:
                clients.wait_for(10)
            under_lock = [each.took_s for each in clients.answers[before:]]
        clients.wait_for(50)
    poll(lambda: {*clients.ids} <= {*bench.server.taken_ids}, 30, "what waited in memory")
    bench.wait_until_empty()
    app.stop()

    assert max(under_lock) < STRANGER_WAIT_S + BUSY_MACHINE_S
    assert statistics.quantiles(under_lock, n=5)[-1] < STRANGER_WAIT_S / 2, "the others were delayed"
    assert "locked by another program" in app.log_text()
    bench.judge(f"a stranger locks the file for {LOCKED_S:.0f} s")


def test_what_the_memory_for_a_locked_file_cannot_hold_is_counted(bench: Bench) -> None:
    app = bench.app(gunicorn("--workers=1")).start()
    clients = bench.clients(app)
    clients.send(10)
    bench.wait_until_empty()
    large = json.dumps({"text": "x" * 400_000}).encode()
    with locked(oracle.queue_file(bench.queue)):
        answers = [ask(app.port, "POST", "/orders", large) for _ in range(20)]
    clients.send(10)
    poll(lambda: "file locked" in bench.books().not_accepted, 10, "the figure of what was not stored")
    bench.wait_until_empty()
    app.stop()

    bench.answered.extend(str(each and each.entry_id) for each in answers)
    books = bench.judge("a locked file and its 10 MiB of memory", not_accepted="file locked")
    assert 0 < books.not_accepted["file locked"] < 20


def test_an_app_that_ends_while_the_file_is_locked_leaves_what_it_has_beside_it_for_the_next_drainer(
    bench: Bench,
) -> None:
    app = bench.app(gunicorn("--workers=2")).start()
    clients = bench.clients(app)
    clients.send(10)
    bench.wait_until_empty()
    with locked(oracle.queue_file(bench.queue)):
        clients.send(20)
        app.stop()
        status, words = bench.flushed("--max-time=1")
        assert (75, 10) == (status, len(bench.server.taken_ids)), words
    status, words = bench.flushed()

    assert 0 == status, words
    assert "they wait beside it" in app.log_text()
    bench.judge("app ends while its file is locked")


def test_a_flush_sends_nothing_while_the_file_is_locked_however_often_it_runs(bench: Bench) -> None:
    app = bench.app(gunicorn(), auto_flush=False).start()
    clients = bench.clients(app)
    clients.send(30)
    app.stop()
    with locked(oracle.queue_file(bench.queue)):
        for _ in range(2):
            status, words = bench.flushed("--max-time=1")
            assert (75, []) == (status, bench.server.taken_ids), words
    assert 0 == bench.flushed()[0]

    bench.judge("flush of a locked file")
