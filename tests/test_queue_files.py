"""The queue's directory and files: private, ours, no links; what is not is refused with the fix, or left alone."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from readme_metrics.errors import NotAccepted, QueueUnavailable
from readme_metrics.queue import files, ledger
from tests.queues import Clock, drained, entries, entry, put_all, rows, sqlite_queue

if TYPE_CHECKING:
    from readme_metrics.queue.durable import SqliteQueue


NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away and mount volumes")
SOMEBODY = 65_534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "q" / "queue.sqlite"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_everything_we_make_is_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "state" / "q" / "queue.sqlite"
    before = os.umask(umask)
    try:
        queue = sqlite_queue(path)
        queue.put(entry(1))
        assert queue.elect()
        assert {0o700} == {mode(path.parent), mode(path.parent.parent)}
        found = {each.name: mode(each) for each in path.parent.iterdir()}
        assert {0o600} == set(found.values())
        assert {"queue.sqlite", "queue.sqlite-wal", "queue.sqlite-shm", "queue.lock"} == set(found)
    finally:
        os.umask(before)
    queue.close()


def test_a_directory_that_exists_keeps_its_mode_and_one_warning_says_who_can_read_it(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir(mode=0o755)
    path.parent.chmod(0o755)
    queue = sqlite_queue(path)
    for _ in range(2):
        queue.put(entry(1))
        queue.close()
    assert 0o755 == mode(path.parent)
    assert [f"the queue's directory {path.parent} can be read by others: chmod 700 {path.parent}"] == caplog.messages


def test_a_file_that_others_could_read_is_made_private(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.touch(mode=0o644)
    queue = sqlite_queue(path)
    queue.put(entry(1))
    assert 0o600 == mode(path)
    queue.close()


def test_a_link_to_a_directory_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    queue = sqlite_queue(tmp_path / "link" / "queue.sqlite")
    queue.put(entry(1))
    queue.close()
    assert [entry(1)] == rows(tmp_path / "real" / "queue.sqlite")


def test_a_link_in_place_of_the_file_is_refused(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    target = path.with_name("target")
    path.symlink_to(target)
    queue = sqlite_queue(path)
    for _ in range(2):
        with pytest.raises(QueueUnavailable, match="symbolic link, which is refused: remove it"):
            queue.put(entry(1))
    assert not target.exists()


def test_a_pipe_in_place_of_the_file_is_refused_and_holds_nobody_up(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    os.mkfifo(path)
    with pytest.raises(QueueUnavailable, match="not a regular file: remove it"):
        sqlite_queue(path).put(entry(1))


def test_a_file_in_place_of_the_directory_is_refused_with_the_fix(path: Path) -> None:
    path.parent.touch()
    with pytest.raises(QueueUnavailable, match=r"is not a directory: set queue_path"):
        sqlite_queue(path).put(entry(1))


@NEEDS_ROOT
def test_another_users_directory_is_refused_by_root_too_with_the_fix(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    os.chown(path.parent, SOMEBODY, -1)
    owner = files.user_name(SOMEBODY)
    with pytest.raises(QueueUnavailable, match=rf"belongs to {owner}: set queue_path .* or chown that one"):
        sqlite_queue(path).put(entry(1))
    assert [] == list(path.parent.iterdir())


@NEEDS_ROOT
def test_another_users_file_is_refused_with_the_fix(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.touch()
    os.chown(path, SOMEBODY, -1)
    with pytest.raises(QueueUnavailable, match=rf"belongs to {files.user_name(SOMEBODY)}: set queue_path"):
        sqlite_queue(path).put(entry(1))


def test_a_user_without_a_name_is_named_by_number() -> None:
    assert "123456789" == files.user_name(123_456_789)


def test_a_directory_that_cannot_be_made_is_refused_with_the_fix() -> None:
    with pytest.raises(QueueUnavailable, match=r"cannot be made .*: set queue_path"):
        files.prepare_directory(Path("/proc/readme-metrics/q"))


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_a_file_of_a_newer_release_is_left_as_it_is(path: Path, journal: str) -> None:
    queue = sqlite_queue(path)
    queue.put(entry(1))
    queue.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode={journal}")
        connection.execute("PRAGMA user_version=2")
    before = path.read_bytes()
    with pytest.raises(QueueUnavailable, match=r"schema version 2, .* knows 1: upgrade"):
        queue.put(entry(2))
    with pytest.raises(QueueUnavailable):
        ledger.read_report(path)
    queue.close()
    assert before == path.read_bytes()


def test_a_directory_removed_under_an_open_queue_is_made_again(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    queue = sqlite_queue(path, clock=clock)
    assert queue.elect()
    put_all(queue, entries(3))
    shutil.rmtree(path.parent)
    clock.sleep(1)
    put_all(queue, entries(2))
    assert queue.elect()
    books = queue.report().books
    assert (2, 2, 2, True) == (books.accepted, books.waiting, books.epoch, books.balanced)
    assert entries(2) == drained(queue)
    assert 1 == len([record for record in caplog.records if record.levelno == logging.ERROR])
    assert "was removed: it is made again, what waited is lost" in caplog.text
    queue.close()


def test_a_removed_directory_is_made_again_by_the_next_put_and_not_before_it_or_at_exit(path: Path) -> None:
    queue = sqlite_queue(path)
    assert queue.elect()
    shutil.rmtree(path.parent)
    assert not queue.elect()
    queue.tend()
    queue.close()
    assert not path.parent.exists()
    queue.put(entry(1))
    assert queue.elect()
    assert [entry(1)] == drained(queue)
    queue.close()


def test_a_batch_in_flight_when_the_file_was_removed_settles_nothing_in_the_new_one(path: Path) -> None:
    queue = sqlite_queue(path)
    put_all(queue, entries(4))
    acked, buried = queue.claim(2, 1000), queue.claim(2, 1000)
    assert acked is not None
    assert buried is not None
    shutil.rmtree(path.parent)
    queue.tend()
    queue.close()
    new = [entry(number) for number in range(10, 14)]
    put_all(queue, new)
    in_flight = queue.claim(4, 1000)
    assert in_flight is not None
    queue.ack(acked)
    queue.bury(buried, status=400, reason="400", answer="")
    queue.release(buried)
    assert queue.claim(4, 1000) is None
    assert queue.report().books.balanced
    queue.release(in_flight)
    assert new == drained(queue)
    queue.close()


def test_no_descriptor_stays_open(path: Path) -> None:
    queue = sqlite_queue(path)

    def open_and_close() -> None:
        assert queue.elect()
        queue.put(entry(1))
        queue.tend()
        queue.close()

    open_and_close()
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 - names of descriptors, not files
    for _ in range(200):
        open_and_close()
    assert len(before) == len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - likewise


def test_the_report_of_a_file_that_nobody_has_open_changes_nothing(path: Path) -> None:
    queue = sqlite_queue(path)
    put_all(queue, entries(2))
    queue.close()
    before = path.read_bytes()
    assert 2 == ledger.read_report(path).books.waiting
    assert before == path.read_bytes()


def test_queue_files_are_listed_and_links_are_not(path: Path) -> None:
    assert [] == files.queue_files(path.parent)
    path.parent.mkdir()
    path.touch()
    path.with_name("link.sqlite").symlink_to(path)
    path.with_name("queue.lock").touch()
    assert [path] == files.queue_files(path.parent)


# -- a volume that is full


def fill(filler: Path) -> None:
    """Take every byte that is left, as another program would."""
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass


def put_until_refused(queue: SqliteQueue, clock: Clock, reason: str) -> int:
    """Put large entries until one is refused; how many were stored."""
    for stored in range(1000):
        try:
            queue.put(entry(stored, 20_000))
        except NotAccepted as refusal:
            return stored if refusal.reason == reason else -1
        clock.sleep(1)
    return -1


def test_a_full_volume_refuses_entries_counts_them_and_recovers_by_itself(volume: Path) -> None:
    clock = Clock()
    queue = sqlite_queue(volume / "queue.sqlite", clock=clock)
    assert queue.elect()
    stored = put_until_refused(queue, clock, "no space")
    batch = queue.claim(3, 1_000_000)
    assert batch is not None
    queue.ack(batch)  # space is short, not gone: what was delivered can still be deleted
    assert 3 == queue.report().books.delivered
    assert stored - 3 == len(drained(queue))
    queue.tend(idle=True)
    queue.tend(idle=True)
    clock.sleep(1)
    queue.put(entry(stored))
    books = queue.report().books
    assert {"no space": 1} == books.not_accepted
    assert (stored + 1, True) == (books.accepted, books.balanced)
    queue.close()


def test_what_is_put_between_two_looks_leaves_the_space_to_move_it_into_the_file_and_to_delete_it(
    volume: Path,
) -> None:
    """It counts twice: it takes space in the WAL, and will take as much in the file."""
    queue = sqlite_queue(volume / "queue.sqlite", clock=Clock())  # a clock that stands: only bytes make it look
    assert queue.elect()
    stored = 0
    with contextlib.suppress(NotAccepted):
        while True:
            queue.put(entry(stored, 1_000_000))
            stored += 1
    queue.tend()
    assert stored == len(drained(queue))
    books = queue.report().books
    assert (stored, 0, True) == (books.delivered, books.waiting, books.balanced)
    queue.close()


def test_what_was_delivered_while_a_stranger_fills_the_volume_is_not_claimed_again_and_nothing_else_is(
    volume: Path,
) -> None:
    clock = Clock()
    queue = sqlite_queue(volume / "queue.sqlite", clock=clock)
    assert queue.elect()
    put_all(queue, entries(20))
    batch = queue.claim(10, 1_000_000)
    assert batch is not None
    filler = volume / "filler"
    fill(filler)
    queue.ack(batch)
    put_until_refused(queue, clock, "no space")
    assert (0, None) == (queue.unclaimed(10).count, queue.claim(10, 1_000_000))
    queue.resign()
    assert not queue.elect()
    filler.unlink()
    clock.sleep(1)
    assert queue.elect()
    queue.tend()
    assert 10 == queue.report().books.delivered
    assert entries(20)[10:] == list((queue.claim(10, 1_000_000) or batch).entries)
    assert queue.report().books.balanced
    queue.close()


def test_a_volume_that_is_full_before_the_first_put_refuses_and_recovers(volume: Path) -> None:
    clock = Clock()
    filler = volume / "filler"
    fill(filler)
    queue = sqlite_queue(volume / "q" / "queue.sqlite", clock=clock)
    with pytest.raises(NotAccepted) as refusal:
        queue.put(entry(1))
    assert "no space" == refusal.value.reason
    filler.unlink()
    clock.sleep(1)
    queue.put(entry(2))
    assert [entry(2)] == drained(queue)
    queue.close()
