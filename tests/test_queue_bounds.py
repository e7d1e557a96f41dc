"""Dangers of one file that many processes write: how long its write-ahead log grows, and how large it grows itself."""

from __future__ import annotations

import logging
import os
import signal
from typing import TYPE_CHECKING

import pytest

from readme_metrics.errors import NotAccepted, QueueError
from readme_metrics.queue import files, wal
from tests.queues import (
    DRAINER,
    MIB,
    Clock,
    drained,
    entries,
    entry,
    put_all,
    python,
    sqlite_queue,
)

if TYPE_CHECKING:
    from pathlib import Path


# -- the write-ahead log


def test_a_log_that_nobody_looks_after_is_truncated_by_a_put(path: Path, clock: Clock) -> None:
    queue = sqlite_queue(path, clock=clock, wal_limit_bytes=MIB)
    greatest = 0
    for number in range(300):
        queue.put(entry(number, 2000))
        greatest = max(greatest, files.wal_bytes(path))
        clock.sleep(0.11)
    assert MIB < greatest < 1.1 * MIB
    assert queue.report().drainer is None
    queue.close()


def test_where_no_lock_file_can_be_made_the_log_grows_to_its_bound_and_no_further(path: Path, clock: Clock) -> None:
    path.with_suffix(".lock").mkdir()
    queue = sqlite_queue(path, clock=clock, wal_limit_bytes=MIB)
    with pytest.raises(QueueError, match="drainer lock"):
        queue.elect()
    while files.wal_bytes(path) <= 2 * MIB:
        queue.put(entry(1, 2000))
    clock.sleep(1)
    with pytest.raises(NotAccepted, match=r"nobody could checkpoint it|drains it and is frozen") as refusal:
        queue.put(entry(1))
    assert "WAL limit" == refusal.value.reason
    queue.close()


def test_a_log_that_our_own_flusher_has_no_time_for_is_truncated_by_a_put(path: Path, clock: Clock) -> None:
    queue = sqlite_queue(path, clock=clock, wal_limit_bytes=MIB)
    assert queue.elect()
    greatest = 0
    for number in range(300):
        queue.put(entry(number, 2000))
        greatest = max(greatest, files.wal_bytes(path))
        clock.sleep(0.11)
    assert 1.5 * MIB < greatest < 1.6 * MIB
    assert queue.report().drainer is not None
    queue.close()


def test_the_drainer_truncates_a_log_above_its_limit_and_an_idle_one(path: Path, clock: Clock) -> None:
    queue = sqlite_queue(path, clock=clock, wal_limit_bytes=MIB)
    assert queue.elect()
    put_all(queue, [entry(number, 2000) for number in range(200)])
    assert files.wal_bytes(path) > MIB
    queue.tend()
    assert 0 == files.wal_bytes(path)
    queue.put(entry(1))
    queue.tend(idle=True)
    assert files.wal_bytes(path) > 0
    queue.tend(idle=True)
    assert 0 == files.wal_bytes(path)
    queue.close()


def test_the_log_stays_short_while_a_backlog_drains_and_nothing_else_gets_its_turn(path: Path, clock: Clock) -> None:
    queue = sqlite_queue(path, clock=clock, wal_limit_bytes=16 * MIB)
    assert queue.elect()
    put_all(queue, [entry(number, 2000) for number in range(800)])
    before = files.wal_bytes(path)
    assert before > wal.BUSY_BYTES
    for _ in range(800):
        batch = queue.claim(1, MIB)
        assert batch is not None
        queue.ack(batch)
        clock.sleep(wal.CHECKPOINT_EVERY_S + 0.01)
    assert files.wal_bytes(path) < 1.1 * before
    queue.close()


def test_who_is_no_drainer_leaves_the_log_alone(path: Path, clock: Clock) -> None:
    queue = sqlite_queue(path, clock=clock, wal_limit_bytes=MIB)
    put_all(queue, entries(10))
    before = files.wal_bytes(path)
    queue.tend(idle=True)
    queue.tend(idle=True)
    assert before == files.wal_bytes(path)
    queue.close()


def test_behind_a_frozen_drainer_entries_are_refused_counted_and_the_process_is_named(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    queue = sqlite_queue(path, clock=clock, wal_limit_bytes=MIB)
    with python(DRAINER, path) as drainer:
        assert drainer.stdout is not None
        assert "drains\n" == drainer.stdout.readline()
        os.kill(drainer.pid, signal.SIGSTOP)
        stored = 0
        while files.wal_bytes(path) <= 2 * MIB:
            queue.put(entry(stored, 2000))
            stored += 1
        clock.sleep(1)
        for _ in range(3):
            with pytest.raises(
                NotAccepted, match=f"process {drainer.pid} drains it and is frozen, or another"
            ) as refusal:
                queue.put(entry(0))
            assert "WAL limit" == refusal.value.reason
        assert 1 == len([record for record in caplog.records if record.levelno == logging.ERROR])
        drainer.kill()
    clock.sleep(1)
    queue.put(entry(stored))
    clock.sleep(1)
    queue.put(entry(stored + 1))
    books = queue.report().books
    assert ({"WAL limit": 3}, stored + 2, True) == (books.not_accepted, books.waiting, books.balanced)
    assert "entries are stored again" in caplog.text
    queue.close()


# -- its size


def test_above_its_bound_the_oldest_entries_are_dropped_counted_and_said_once(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    queue = sqlite_queue(path, clock=clock, max_bytes=MIB)
    put_all(queue, [entry(number, 2000) for number in range(2000)])
    books = queue.report().books
    assert books.balanced
    assert books.dropped["queue full"] + books.waiting == 2000
    assert 0.7 * MIB < queue.backlog().size_bytes < 1.2 * MIB
    assert entry(1999, 2000) == drained(queue)[-1]
    assert 1 == len(caplog.records)
    assert "more than max_queue_bytes" in caplog.text
    queue.close()


def test_small_entries_are_bounded_too_though_nobody_drains(path: Path, clock: Clock) -> None:
    queue = sqlite_queue(path, clock=clock, max_bytes=MIB)
    put_all(queue, [entry(number) for number in range(30_000)])
    assert queue.backlog().size_bytes < 1.2 * MIB
    queue.close()


def test_large_entries_make_no_more_room_than_is_needed(path: Path, clock: Clock) -> None:
    queue = sqlite_queue(path, clock=clock, max_bytes=MIB)
    put_all(queue, [entry(number, 100_000) for number in range(20)])
    assert queue.elect()
    queue.tend()
    assert 0.7 * MIB < queue.backlog().size_bytes <= MIB
    queue.close()


def test_dead_letters_are_dropped_before_entries(path: Path, clock: Clock) -> None:
    queue = sqlite_queue(path, clock=clock, max_bytes=MIB)
    put_all(queue, [entry(number, 100_000) for number in range(8)])
    batch = queue.claim(4, MIB)
    assert batch is not None
    queue.bury(batch, status=400, reason="400", answer="")
    put_all(queue, [entry(number, 100_000) for number in range(8, 12)])
    assert queue.elect()
    queue.tend()
    books = queue.report().books
    assert 8 == books.waiting
    assert books.dead < 4
    assert {"queue full": 4 - books.dead} == books.dropped
    assert books.balanced
    queue.close()


def test_a_batch_in_flight_may_be_dropped_and_is_booked_once(path: Path, clock: Clock) -> None:
    queue = sqlite_queue(path, clock=clock, max_bytes=MIB)
    put_all(queue, [entry(number, 100_000) for number in range(8)])
    batch = queue.claim(4, MIB)
    assert batch is not None
    put_all(queue, [entry(number, 100_000) for number in range(8, 20)])
    older, newer = batch.halves()
    queue.ack(older)
    queue.bury(newer, status=400, reason="400", answer="")
    assert queue.report().books.balanced
    queue.close()


def test_a_file_that_was_large_shrinks_when_it_is_idle_and_empty(path: Path, clock: Clock) -> None:
    queue = sqlite_queue(path, clock=clock)
    put_all(queue, [entry(number, 100_000) for number in range(100)])
    assert queue.elect()
    queue.tend()
    drained(queue)
    for _ in range(4):
        queue.tend(idle=True)
    assert files.size_of(path) < MIB
    assert 0 == files.wal_bytes(path)
    queue.put(entry(1))
    assert 101 == queue.report().books.accepted
    queue.close()
