"""Dangers of one file that many processes write: strangers, siblings, rows that cannot be read, opening, closing."""

from __future__ import annotations

import logging
import sqlite3
import stat
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from readme_metrics.errors import NotAccepted, QueueError, QueueUnavailable
from readme_metrics.queue import durable, keeper, ledger, salvage, schema
from readme_metrics.queue.contract import Hold
from readme_metrics.queue.sqlite import QueueFile
from tests.queues import (
    Clock,
    drained,
    entries,
    entry,
    finished,
    put_all,
    python,
    rows,
    sqlite_queue,
    stranger,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from readme_metrics.queue.durable import SqliteQueue

PUTTER = """
import sys
from pathlib import Path
from readme_metrics.queue.durable import SqliteQueue
path, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
queue = SqliteQueue(path, max_bytes=64 << 20)
print("ready", flush=True)
sys.stdin.readline()
for number in range(first, first + count):
    queue.put(b'{"_id": %d, "body": ""}' % number)
queue.close()
"""


@pytest.fixture(autouse=True)
def impatient_drainer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The drainer waits for a lock in SQLite, on the real clock."""
    monkeypatch.setattr(keeper, "DRAINER_BUSY_S", 0.01)


@pytest.fixture
def queue(path: Path, clock: Clock) -> Iterator[SqliteQueue]:
    made = sqlite_queue(path, clock=clock, sleep=clock.sleep)
    made.put(b"first")
    yield made
    made.close()


def timed(clock: Clock, queue: SqliteQueue, what: bytes) -> float:
    began = clock()
    queue.put(what)
    return clock() - began


# -- a stranger


def test_the_first_request_waits_briefly_for_a_stranger_and_the_others_not_at_all(
    queue: SqliteQueue, path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with stranger(path):
        assert 0.25 <= timed(clock, queue, entry(1)) < 0.26
        assert {0.0} == {timed(clock, queue, entry(number)) for number in range(2, 50)}
        assert 49 == queue.kept_in_memory
    assert 1 == len(caplog.records)
    assert "is locked by another program" in caplog.text


def test_under_gevent_where_the_whole_process_waits_the_first_request_waits_less(
    queue: SqliteQueue, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkey = type(sys)("gevent.monkey")
    monkey.is_module_patched = lambda _: True  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gevent.monkey", monkey)
    with stranger(path):
        assert 0.05 <= timed(clock, queue, entry(1)) < 0.06


def test_what_waited_in_memory_is_written_by_the_next_puts_when_the_file_is_free(
    queue: SqliteQueue, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with stranger(path):
        put_all(queue, entries(1200))
    put_all(queue, [b"a", b"b", b"c"])
    assert 0 < queue.kept_in_memory
    put_all(queue, [b"d", b"e"])
    assert 0 == queue.kept_in_memory
    assert sorted([b"first", *entries(1200), b"a", b"b", b"c", b"d", b"e"]) == sorted(drained(queue))
    assert "is free again" in caplog.messages[-1]


def test_what_waited_in_memory_is_written_without_traffic(queue: SqliteQueue, path: Path) -> None:
    with stranger(path):
        put_all(queue, entries(1200))
        queue.tend()
        assert 1200 == queue.kept_in_memory
    queue.tend()
    assert 0 == queue.kept_in_memory
    assert [b"first", *entries(1200)] == drained(queue)


def test_what_waited_in_memory_is_written_before_the_process_leaves(queue: SqliteQueue, path: Path) -> None:
    with stranger(path):
        put_all(queue, entries(3))
    queue.close()
    assert [b"first", *entries(3)] == rows(path)


def test_what_cannot_be_written_before_the_process_leaves_waits_beside_the_file(
    queue: SqliteQueue, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(salvage, "SETTLE_S", 0.0)
    with stranger(path):
        put_all(queue, entries(3))
        queue.close()
        [left] = salvage.set_aside_files(path)
        assert 0o600 == stat.S_IMODE(left.stat().st_mode)
        queue.close()
    told = f"3 entries could not be stored in {path} (database is locked): they wait beside it, for whoever drains it"
    assert caplog.messages[-1].startswith(told)
    assert queue.elect()
    queue.tend()
    assert [b"first", *entries(3)] == drained(queue)
    assert queue.report().books.balanced
    assert {path.name, f"{path.name}-wal", f"{path.name}-shm", path.with_suffix(".lock").name} == {
        each.name for each in path.parent.iterdir()
    }


def test_what_cannot_be_written_beside_the_file_either_is_told_and_leaves_nothing(
    queue: SqliteQueue, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(schema, "create", broken)
    with stranger(path):
        put_all(queue, entries(3))
        queue.close()
        assert [] == [each.name for each in path.parent.iterdir() if "left" in each.name]
    assert caplog.messages[-1].endswith("nor beside it (disk I/O error): they are lost")


def test_the_memory_for_that_is_bounded_and_what_it_refuses_is_counted_in_the_file_later(
    path: Path, clock: Clock
) -> None:
    queue = sqlite_queue(path, clock=clock, sleep=clock.sleep, spill_bytes=1000)
    queue.put(b"first")
    with stranger(path):
        queue.put(b"x" * 600)
        for _ in range(2):
            with pytest.raises(NotAccepted) as refusal:
                queue.put(b"x" * 600)
            assert "file locked" == refusal.value.reason
        queue.put(b"x" * 300)
    clock.sleep(1)
    put_all(queue, [b"a", b"b"])
    books = queue.report().books
    assert {"file locked": 2} == books.not_accepted
    assert (5, True) == (books.accepted, books.balanced)
    queue.close()


def test_a_stranger_that_holds_the_file_when_it_is_first_opened_costs_no_more(path: Path, clock: Clock) -> None:
    queue = sqlite_queue(path, clock=clock, sleep=clock.sleep)
    with stranger(path, "PRAGMA locking_mode=EXCLUSIVE") as other:
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        assert 0.25 <= timed(clock, queue, entry(0)) < 0.26
        for number in range(1, 20):
            assert 0.0 == timed(clock, queue, entry(number))
            clock.sleep(0.11)
        queue.tend()
        with pytest.raises(QueueError, match="locked"):
            queue.claim(1, 100)
        assert time.monotonic() - began < 2
    clock.sleep(1)
    queue.tend()
    assert entries(20) == drained(queue)
    queue.close()


def test_a_process_that_opened_nothing_yet_writes_what_it_has_in_memory_when_it_leaves(path: Path) -> None:
    clock = Clock()
    queue = sqlite_queue(path, clock=clock, sleep=clock.sleep)
    with stranger(path, "BEGIN EXCLUSIVE"):
        put_all(queue, entries(3))
    queue.close()
    assert entries(3) == rows(path)


def test_a_stranger_that_goes_while_the_first_request_waits_costs_only_that(
    queue: SqliteQueue, path: Path, clock: Clock
) -> None:
    with stranger(path) as other:

        def leave_after_a_while(seconds: float) -> None:
            clock.sleep(seconds)
            if clock() > 1000.1 and other.in_transaction:
                other.execute("COMMIT")

        queue._sleep = leave_after_a_while
        queue.put(entry(1))
        assert 0 == queue.kept_in_memory
    assert [b"first", entry(1)] == drained(queue)


def test_what_was_delivered_while_a_stranger_holds_the_file_is_not_claimed_again_and_nothing_else_is(
    queue: SqliteQueue, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put_all(queue, entries(3))
    assert queue.elect()
    batch = queue.claim(2, 1000)
    assert batch is not None
    with stranger(path):
        queue.ack(batch)
        queue.ack(batch)
        assert (0, None) == (queue.unclaimed(10).count, queue.claim(10, 1000))
        queue.resign()
        assert not queue.elect(), "what it sent now could not be deleted"
        assert 0 == queue.report().books.delivered
        assert 2 == len(caplog.records)
    assert queue.elect()
    queue.tend()
    again = queue.claim(10, 1000)
    assert again is not None
    assert entries(3)[1:] == list(again.entries)
    books = queue.report().books
    assert (2, 2, True) == (books.delivered, books.waiting, books.balanced)
    assert "delivered entries are deleted" == caplog.messages[-1]


def test_who_has_met_a_stranger_does_not_wait_for_it_again_to_become_the_drainer(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "DRAINER_BUSY_S", 5.0)
    queue = sqlite_queue(path)
    queue.put(b"first")
    with stranger(path):
        queue.put(entry(1))
        began = time.monotonic()
        assert not queue.elect()
        assert time.monotonic() - began < 2
    queue.tend()
    assert queue.elect()
    assert [b"first", entry(1)] == drained(queue)
    queue.close()


def test_a_hold_is_read_while_a_stranger_writes_though_the_clock_was_set_back(path: Path) -> None:
    queue = sqlite_queue(path)
    queue.set_hold(Hold(time.time() + 50, 60, "later", "503"))
    with stranger(path):
        assert queue.hold() is not None
        assert queue.report().hold is not None
    queue.close()


# -- siblings


def test_many_processes_open_one_new_file_and_put_while_one_drains_and_none_is_lost_or_taken_for_a_stranger(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "DRAINER_BUSY_S", 1.0)
    putters = [python(PUTTER, path, first, 500) for first in range(0, 2000, 500)]
    for putter in putters:
        assert putter.stdout is not None
        assert "ready\n" == putter.stdout.readline()
    queue = sqlite_queue(path)
    for putter in putters:
        assert putter.stdin is not None
        putter.stdin.write("\n")
        putter.stdin.flush()
    assert queue.elect()
    found: list[bytes] = []
    while any(putter.poll() is None for putter in putters):
        found += drained(queue)
        queue.tend()
    for putter in putters:
        assert "" == finished(putter)
    found += drained(queue)
    assert sorted(entries(2000)) == sorted(found)
    books = queue.report().books
    assert (2000, 2000, True) == (books.accepted, books.delivered, books.balanced)
    queue.close()


def test_a_request_meets_a_sibling_in_the_middle_of_a_write_and_waits_for_it(
    queue: SqliteQueue, path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with stranger(path) as sibling:

        def commit_at_the_third_try(seconds: float) -> None:
            clock.sleep(seconds)
            if clock() > 1000 + 2.5 * durable.SPIN_S and sibling.in_transaction:
                sibling.execute("COMMIT")

        queue._sleep = commit_at_the_third_try
        queue.put(entry(1))
    assert [] == caplog.records
    assert [b"first", entry(1)] == drained(queue)


def test_what_another_process_buried_or_dropped_meanwhile_is_booked_once(queue: SqliteQueue, path: Path) -> None:
    put_all(queue, entries(3))
    batch = queue.claim(4, 1000)
    assert batch is not None
    with closing(sqlite3.connect(path, isolation_level=None)) as sibling, ledger.writing(sibling):
        ledger.delete_entries(sibling, batch.ids[:2])
        ledger.tally(sibling, ledger.DROPPED, "queue full", 2)
    one, other = batch.halves()
    queue.bury(one, status=400, reason="400", answer="")
    queue.ack(other)
    books = queue.report().books
    assert (0, 2, {"queue full": 2}, True) == (books.dead, books.delivered, books.dropped, books.balanced)


# -- rows that cannot be read


@pytest.mark.parametrize("data", ["NULL", "'text'", "CAST(x'ff' AS TEXT)", "7", "1.5"])
def test_a_row_that_cannot_be_read_is_buried_and_not_in_the_way(queue: SqliteQueue, path: Path, data: str) -> None:
    queue.put(entry(1))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(f"UPDATE queue_entries SET data = {data} WHERE _id = 1")
    assert [entry(1)] == drained(queue)
    [letter] = queue.dead_letters()
    assert (b"", None, "the row cannot be read") == (letter.entry, letter.status, letter.reason)
    assert queue.report().books.balanced
    assert 1 == queue.requeue([letter.id])
    assert [] == drained(queue)
    assert 1 == queue.purge([letter.id for letter in queue.dead_letters()])


@pytest.mark.parametrize("timestamp", ["NULL", "'never'", "x'00ff'", "CAST(x'ff' AS TEXT)"])
def test_a_time_that_cannot_be_read_is_not_in_the_way(queue: SqliteQueue, path: Path, timestamp: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(f"UPDATE queue_entries SET timestamp = {timestamp} WHERE _id = 1")
    assert queue.unclaimed(1).oldest_at in {None, 0.0}
    assert queue.backlog().oldest_at in {None, 0.0}
    assert [b"first"] == drained(queue)


def test_only_unreadable_rows_give_no_batch_and_leave(queue: SqliteQueue, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("UPDATE queue_entries SET data = 1")
    assert queue.claim(10, 1000) is None
    assert 0 == queue.unclaimed(10).count


# -- opening and closing


def test_nothing_is_opened_before_the_first_use(path: Path) -> None:
    queue = sqlite_queue(path)
    queue.resign()
    queue.close()
    assert not path.exists()


def test_a_closed_queue_opens_again_and_keeps_its_epoch(queue: SqliteQueue, path: Path) -> None:
    queue.close()
    assert not path.with_name(path.name + "-wal").exists()
    queue.put(entry(2))
    assert 1 == queue.report().books.epoch
    assert [b"first", entry(2)] == drained(queue)


def test_a_failure_that_nothing_mends_is_told_and_not_tried_for_ever(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    queue = sqlite_queue(path, clock=clock)
    monkeypatch.setattr("readme_metrics.queue.schema.connect", broken)
    for _ in range(keeper.MOST_FAILURES + 1):
        queue.put(entry(1))
        clock.sleep(keeper.FAILING_S / keeper.MOST_FAILURES)
    with pytest.raises(QueueUnavailable, match=r"cannot be used \(disk I/O error\): set queue_path"):
        queue.put(entry(1))
    with pytest.raises(QueueUnavailable):
        queue.claim(1, 1)
    queue.close()


def test_a_quota_that_is_exceeded_for_a_while_costs_nothing(
    queue: SqliteQueue, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def over_quota(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr("readme_metrics.queue.schema.connect", over_quota)
        meanwhile.setattr(QueueFile, "put", over_quota)
        for number in range(100):
            queue.put(entry(number))
            clock.sleep(0.9 * keeper.FAILING_S / 100)
    clock.sleep(1)
    queue.tend()
    assert [b"first", *entries(100)] == drained(queue)


def test_failures_with_successes_between_are_no_reason_to_give_up(
    queue: SqliteQueue, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2 * keeper.MOST_FAILURES):
        file = queue._file
        assert file is not None
        file._getter.close()
        file._putter.close()
        queue.put(entry(number))
    assert [b"first", *entries(2 * keeper.MOST_FAILURES)] == drained(queue)


def test_a_file_that_was_closed_for_a_fork_under_many_threads_is_no_failure(queue: SqliteQueue) -> None:
    file = queue._file
    assert file is not None
    error = sqlite3.ProgrammingError("Cannot operate on a closed database.")
    queue.before_fork()
    queue.after_fork_in_parent()
    assert all(queue._met(error, file) for _ in range(2 * keeper.MOST_FAILURES))
    queue.put(entry(1))
    assert [b"first", entry(1)] == drained(queue)


def test_an_entry_survives_power_loss_where_asked_for(path: Path) -> None:
    queue = sqlite_queue(path, fsync=True)
    queue.put(entry(1))
    assert queue._file is not None
    assert (2,) == queue._file._putter.execute("PRAGMA synchronous").fetchone()
    queue.close()


def test_the_library_never_serialises_and_never_counts_rows_at_open(queue: SqliteQueue) -> None:
    assert queue._file is not None
    assert queue._file._serializer is None
    assert 0 == queue._file._count()


def test_a_file_that_is_replaced_while_it_is_opened_is_noticed(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = schema.connect

    def and_replaced(path: Path, *, fsync: bool) -> sqlite3.Connection:
        monkeypatch.setattr(schema, "connect", opened)
        connection = opened(path, fsync=fsync)
        salvage.set_aside(path, path.stat())
        sqlite_queue(path).put(b"another's")
        return connection

    queue = sqlite_queue(path, clock=clock)
    monkeypatch.setattr(schema, "connect", and_replaced)
    for number in range(3):
        queue.put(entry(number))
        clock.sleep(1)
    assert entry(2) in rows(path)
    queue.close()


def test_a_signal_in_the_instant_a_transaction_begins_leaves_none_open(path: Path) -> None:
    class Interrupted(sqlite3.Connection):
        def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
            cursor = super().execute(sql, *arguments)
            if sql.startswith("BEGIN"):
                raise KeyboardInterrupt
            return cursor

    with closing(sqlite3.connect(path, isolation_level=None, factory=Interrupted)) as connection:
        for transaction in (ledger.writing, ledger.reading):
            with pytest.raises(KeyboardInterrupt), transaction(connection):
                pass
            assert not connection.in_transaction


def test_a_log_handler_that_fails_costs_no_entry(queue: SqliteQueue, path: Path) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError(record.message)

    broken = Broken()
    logging.getLogger("readme_metrics").addHandler(broken)
    try:
        with stranger(path):
            queue.put(entry(1))
        queue.tend()
    finally:
        logging.getLogger("readme_metrics").removeHandler(broken)
    assert [b"first", entry(1)] == drained(queue)
