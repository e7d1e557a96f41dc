"""A corrupt file is set aside, service goes on, and what can be read in it is saved."""

from __future__ import annotations

import contextlib
import itertools
import logging
import signal
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from readme_metrics.errors import QueueError
from readme_metrics.queue import ledger, salvage
from readme_metrics.queue.schema import PAGE_BYTES
from tests.queues import Clock, corrupt, drained, entries, entry, put_all, rows, sqlite_queue, stranger

if TYPE_CHECKING:
    from pathlib import Path

    from readme_metrics.queue.durable import SqliteQueue

MANY = 200
"""Entries of 1 KB: about 30 pages."""
SAVER: Final = """
import os, signal, sys
from pathlib import Path
from readme_metrics.queue import ledger, salvage
from readme_metrics.queue.durable import SqliteQueue
from readme_metrics.queue.sqlite import QueueFile
salvage.SETTLE_S, ledger.ROWS_AT_ONCE = 0.0, 40
def deadly(save):
    def saves(*arguments):
        save(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)
    return saves
QueueFile.save_entries, QueueFile.save_dead_letters = map(deadly, (QueueFile.save_entries, QueueFile.save_dead_letters))
queue = SqliteQueue(Path(sys.argv[1]), max_bytes=64 << 20)
assert queue.elect()
queue.tend()
queue.close()
"""
"""A program that salvages, 40 rows at a time, and dies with the first that it has saved."""


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else writes to these files."""
    monkeypatch.setattr(salvage, "SETTLE_S", 0.0)


def filled(path: Path, count: int = MANY) -> list[bytes]:
    """A closed file with entries and one dead letter; its entries."""
    queue = sqlite_queue(path)
    put_all(queue, [entry(-1), *(entry(number, 1000) for number in range(count))])
    batch = queue.claim(1, 1000)
    assert batch is not None
    queue.bury(batch, status=400, reason="400 Bad Request", answer="no")
    queue.close()
    return [entry(number, 1000) for number in range(count)]


def pages_of(path: Path, table: str) -> list[int]:
    """Numbers of a table's leaf pages, in its order; without the one that every look begins at."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        try:
            query = "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' ORDER BY path"
            return [row[0] for row in connection.execute(query, (table,))]
        except sqlite3.OperationalError:
            pytest.skip("this SQLite cannot tell where a table's pages are")


def corrupt_files(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.glob("*.corrupt-*") if not each.name.endswith(("-wal", "-shm")))


def saved(path: Path) -> tuple[SqliteQueue, list[bytes]]:
    """Serve on with the file; what could be saved of it, beside one new entry."""
    clock = Clock()
    queue = sqlite_queue(path, clock=clock)
    queue.put(b"new")
    for meet_what_a_put_does_not in (queue.report, queue.hold, queue.dead_letters, lambda: queue.claim(1000, 10**7)):
        with contextlib.suppress(QueueError):
            meet_what_a_put_does_not()
    queue.resign()
    for _ in range(3):
        clock.sleep(1)
        assert queue.elect()
        queue.tend()
    assert queue.report().books.balanced
    found = drained(queue)
    assert b"new" in found
    return queue, [each for each in found if each != b"new"]


@pytest.mark.parametrize("content", [b"garbage" * 5000, b"x", b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_set_aside_and_service_goes_on(
    path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(content)
    queue, found = saved(path)
    assert [] == found
    [kept] = corrupt_files(path)
    assert content == path.with_name(kept).read_bytes()
    assert 1 == len([record for record in caplog.records if record.levelno == logging.ERROR])
    assert "set aside" in caplog.text
    queue.close()


def test_a_file_replaced_by_garbage_under_an_open_queue_is_set_aside(path: Path) -> None:
    clock = Clock()
    queue = sqlite_queue(path, clock=clock)
    queue.put(entry(1))
    path.with_name("new").write_bytes(b"garbage" * 5000)
    path.with_name("new").replace(path)
    clock.sleep(1)
    queue.put(entry(2))
    assert entry(2) in drained(queue)
    assert 1 == len(salvage.set_aside_files(path))
    queue.close()


def test_what_stands_on_either_side_of_a_damaged_page_is_saved_into_a_new_epoch(path: Path) -> None:
    before = filled(path)
    leaves = pages_of(path, "queue_entries")
    corrupt(path, (leaves[len(leaves) // 2] - 1) * PAGE_BYTES, b"\xff" * 200)
    queue, found = saved(path)
    lost = set(before).difference(found)
    assert found == [each for each in before if each not in lost]
    assert before[0] in found
    assert before[-1] in found
    assert 1 <= len(lost) <= 2 * PAGE_BYTES // 1000
    books = queue.report().books
    assert (2, 1, True) == (books.epoch, books.dead, books.balanced)
    assert [entry(-1)] == [letter.entry for letter in queue.dead_letters()]
    assert 1 == len(corrupt_files(path))
    queue.close()


@pytest.mark.parametrize("damaged", [False, True])
def test_a_salvage_whose_process_is_killed_again_and_again_saves_nothing_twice(path: Path, damaged: bool) -> None:
    before = filled(path)
    if damaged:
        leaves = pages_of(path, "queue_entries")
        corrupt(path, (leaves[len(leaves) // 2] - 1) * PAGE_BYTES, b"\xff" * 200)
    assert salvage.set_aside(path, path.stat())
    for deaths in itertools.count():
        ended = subprocess.run([sys.executable, "-c", SAVER, str(path)], check=False, timeout=30).returncode
        if ended == 0:
            break
        assert (-signal.SIGKILL, True) == (ended, deaths < 20)
    assert deaths >= MANY // 40
    assert 1 == len(corrupt_files(path))
    queue = sqlite_queue(path)
    books, found = queue.report().books, drained(queue)
    assert [entry(-1)] == [letter.entry for letter in queue.dead_letters()]
    assert (len(set(found)), 1, True) == (len(found), books.dead, books.balanced)
    assert set(found) <= set(before)
    assert len(before) - len(found) <= damaged * 2 * PAGE_BYTES // 1000
    queue.close()
    assert [] == rows(path, "SELECT reason FROM tallies")


@pytest.mark.parametrize("cut", [100, PAGE_BYTES, 3 * PAGE_BYTES, 10 * PAGE_BYTES + 17])
def test_a_truncated_file_gives_what_is_left_of_it(path: Path, cut: int) -> None:
    before = filled(path)
    with path.open("r+b") as file:
        file.truncate(cut)
    queue, found = saved(path)
    assert set(found) <= set(before)
    queue.close()


@pytest.mark.parametrize("at", [0, 16, 18, 19, 20, 24, 28, 40, 44, 47, 52, 56, 64, 100, 103, 105, 107])
def test_service_goes_on_whatever_bit_of_the_header_flips(path: Path, at: int) -> None:
    before = filled(path, 20)
    flipped = path.read_bytes()[at] ^ 0x80
    corrupt(path, at, bytes([flipped]))
    queue, found = saved(path)
    assert set(found) <= set(before)
    queue.close()


def test_service_goes_on_whatever_page_is_gone(tmp_path: Path) -> None:
    """Some pages are met by a put, some by a claim, some by the books, some by nobody."""
    whole = tmp_path / "whole.sqlite"
    before = filled(whole, 20)
    data = whole.read_bytes()
    for page in range(len(data) // PAGE_BYTES):
        path = tmp_path / f"{page}.sqlite"
        path.write_bytes(data)
        corrupt(path, page * PAGE_BYTES, b"\x00" * PAGE_BYTES)
        queue, found = saved(path)
        assert set(found) <= set(before)
        queue.close()


def test_a_write_ahead_log_goes_with_its_file(path: Path) -> None:
    filled(path)
    queue = sqlite_queue(path)
    queue.put(entry(7))
    wal = path.with_name(path.name + "-wal")
    data, log = path.read_bytes(), wal.read_bytes()
    queue.close()
    path.write_bytes(data)
    wal.write_bytes(log)
    assert salvage.set_aside(path, path.stat())
    assert not wal.exists()
    queue, found = saved(path)
    assert entry(7) in found
    queue.close()


def test_a_file_of_another_identity_is_not_set_aside(path: Path) -> None:
    filled(path, 1)
    identity = path.stat()
    path.rename(path.with_name("other"))
    path.touch()
    assert salvage.set_aside(path, identity)
    assert path.exists()
    assert [] == salvage.set_aside_files(path)


def test_files_set_aside_at_the_same_second_keep_apart(path: Path) -> None:
    for number in range(3):
        path.write_bytes(b"%d" % number)
        assert salvage.set_aside(path, path.stat(), now=lambda number=number: 1000.25 + number / 1000)  # type: ignore[misc]
    assert [b"0", b"1", b"2"] == [each.read_bytes() for each in salvage.set_aside_files(path)]


def test_two_corrupt_files_are_kept_at_most_the_newest(path: Path) -> None:
    for number in range(4):
        path.write_bytes(b"garbage %d" % number)
        queue, _ = saved(path)
        queue.close()
        path.unlink()
    assert [b"garbage 2", b"garbage 3"] == [path.with_name(name).read_bytes() for name in corrupt_files(path)]


def test_nothing_is_saved_while_others_may_still_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(salvage, "SETTLE_S", 1000.0)
    filled(path)
    assert salvage.set_aside(path, path.stat())
    queue, found = saved(path)
    assert [] == found
    assert [] == corrupt_files(path)
    assert 1 == len(salvage.set_aside_files(path))
    queue.close()


def test_damaged_values_are_saved_as_far_as_they_go_and_once(path: Path) -> None:
    filled(path, 3)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints=1")
        connection.execute("PRAGMA writable_schema=1")
        connection.execute("UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL', '')")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE dead_letters SET reason = NULL, answer = NULL, buried_at = NULL, entry = NULL")
        connection.execute("UPDATE queue_entries SET timestamp = 'never' WHERE _id = 3")
    assert salvage.set_aside(path, path.stat())
    queue, found = saved(path)
    assert 3 == len(found)
    assert 1 == len(queue.dead_letters())
    assert 1 == len(corrupt_files(path))
    queue.close()
    assert [] == rows(path)


def test_entries_that_wait_are_not_touched_by_a_set_aside_that_is_not_theirs(path: Path) -> None:
    queue = sqlite_queue(path)
    put_all(queue, entries(3))
    queue.tend()
    assert entries(3) == drained(queue)
    queue.close()


@pytest.mark.parametrize("limit", ["ROWS_AT_ONCE", "CHUNK_BYTES"])
def test_a_large_file_is_saved_a_slice_at_a_time(path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(salvage, "SLICE_S", 0.0)
    monkeypatch.setattr(
        ledger if limit == "ROWS_AT_ONCE" else salvage, limit, 10 if limit == "ROWS_AT_ONCE" else 10_000
    )
    before = filled(path, 100)
    assert salvage.set_aside(path, path.stat())
    queue = sqlite_queue(path)
    assert queue.elect()
    found: list[bytes] = []
    for slices in itertools.count():  # noqa: B007 - how many is what is asked
        queue.tend()
        if not salvage.set_aside_files(path):
            break
        part = drained(queue)
        assert len(part) <= 10
        found += part
    assert slices >= 10
    assert before == found + drained(queue)
    assert 1 == queue.report().books.dead
    queue.close()


def test_what_cannot_be_read_for_a_reason_that_passes_is_read_when_that_is_over(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = filled(path, 10)
    assert salvage.set_aside(path, path.stat())
    [aside] = salvage.set_aside_files(path)
    queue = sqlite_queue(path)
    assert queue.elect()
    with stranger(aside, "PRAGMA locking_mode=EXCLUSIVE") as reader:
        reader.execute("BEGIN EXCLUSIVE")
        queue.tend()
        queue.tend()
        assert [aside] == salvage.set_aside_files(path)
    assert 1 == len([record for record in caplog.records if "cannot be saved now" in record.message])
    queue.tend()
    assert before == drained(queue)
    assert "can be saved again" in caplog.text
    queue.close()


def test_a_directory_that_cannot_be_listed_for_a_moment_is_no_trouble_of_the_drains(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_descriptor(*_: object) -> None:
        raise OSError(24, "Too many open files")

    queue = sqlite_queue(path)
    queue.put(entry(1))
    assert queue.elect()
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(salvage, "set_aside_files", no_descriptor)
        queue.tend()
    assert [entry(1)] == drained(queue)
    queue.close()


def test_what_was_left_beside_a_file_and_cannot_be_read_whole_is_kept_for_a_person(path: Path) -> None:
    queue = sqlite_queue(path)
    before = [entry(number, 1000) for number in range(MANY)]
    salvage.leave_beside(path, before)
    [left] = salvage.set_aside_files(path)
    leaves = pages_of(left, "queue_entries")
    corrupt(left, (leaves[len(leaves) // 2] - 1) * PAGE_BYTES, b"\xff" * 200)
    damaged = left.read_bytes()
    assert queue.elect()
    queue.tend()
    found = drained(queue)
    assert 0 < len(found) < len(before)
    assert set(found) <= set(before)
    [kept] = corrupt_files(path)
    assert damaged == path.with_name(kept).read_bytes()
    queue.close()
