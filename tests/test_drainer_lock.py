"""Who drains: one process, as long as it lives, and nobody's lock is freed by another."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from readme_metrics.queue import drainer_lock
from readme_metrics.queue.drainer_lock import DrainerLock, read_drainer
from tests.queues import end, finished, python, sqlite_queue, until

if TYPE_CHECKING:
    from collections.abc import Iterator

HOLDER = """
import sys
from pathlib import Path
from readme_metrics.queue.drainer_lock import DrainerLock
lock = DrainerLock(Path(sys.argv[1]))
print(lock.acquire(), flush=True)
sys.stdin.readline()
"""
HOLDER_THAT_FORKS = """
import os, sys
from pathlib import Path
from readme_metrics.queue.durable import SqliteQueue
queue = SqliteQueue(Path(sys.argv[1]), max_bytes=1 << 20)
assert queue.elect()
name = "parent" if os.fork() else "child"
os.write(1, f"{name} {queue.elect()}\\n".encode())
sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.lock"


@pytest.fixture
def lock(path: Path) -> Iterator[DrainerLock]:
    made = DrainerLock(path)
    yield made
    made.release()


def test_one_process_holds_it_until_it_is_killed(path: Path, lock: DrainerLock) -> None:
    with python(HOLDER, path) as other:
        assert other.stdout is not None
        assert "True\n" == other.stdout.readline()
        assert not lock.acquire()
        assert not lock.held
        other.kill()
    assert lock.acquire()
    assert lock.held


def test_whoever_holds_it_keeps_it_and_shows_that_it_lives(path: Path, lock: DrainerLock) -> None:
    assert lock.acquire()
    os.utime(path, (1, 1))
    assert lock.acquire()
    assert path.stat().st_mtime > 1


def test_a_released_lock_is_free_at_once(path: Path, lock: DrainerLock) -> None:
    assert lock.acquire()
    lock.release()
    lock.release()
    assert not lock.held
    other = DrainerLock(path)
    assert other.acquire()
    assert not lock.acquire()
    other.release()


def test_a_lock_file_left_behind_by_the_dead_locks_nobody_out(path: Path, lock: DrainerLock) -> None:
    path.write_text(json.dumps({"pid": 1, "host": "gone", "since": 0}))
    assert read_drainer(path) is None
    assert lock.acquire()


def test_a_lock_on_a_file_without_a_name_is_no_lock(path: Path, lock: DrainerLock) -> None:
    assert lock.acquire()
    path.unlink()
    other = DrainerLock(path)
    assert other.acquire()
    assert not lock.acquire()
    other.release()
    assert lock.acquire()


def test_a_symbolic_link_in_its_place_is_not_followed(path: Path, lock: DrainerLock) -> None:
    target = path.with_name("target")
    path.symlink_to(target)
    with pytest.raises(OSError, match="symbolic"):
        lock.acquire()
    assert not target.exists()


def test_anyone_can_read_who_drains_since_when_and_how_lately(path: Path, lock: DrainerLock) -> None:
    assert read_drainer(path) is None
    assert lock.acquire()
    os.utime(path, (5, 5))
    drainer = read_drainer(path)
    assert drainer is not None
    assert (os.getpid(), 5.0) == (drainer.pid, drainer.seen_at)
    assert drainer.since > 0
    lock.release()
    assert read_drainer(path) is None


@pytest.mark.parametrize("signature", [b"", b"not json", b"[]", b'{"pid": "x"}', b"\xff"])
def test_whoever_holds_it_without_a_readable_signature_still_drains(
    path: Path, lock: DrainerLock, signature: bytes
) -> None:
    assert lock.acquire()
    path.write_bytes(signature)
    drainer = read_drainer(path)
    assert drainer is not None
    assert (0, "unknown") == (drainer.pid, drainer.host)


def test_its_file_is_private_whatever_the_umask(path: Path, lock: DrainerLock) -> None:
    before = os.umask(0)
    try:
        assert lock.acquire()
    finally:
        os.umask(before)
    assert 0o600 == path.stat().st_mode & 0o777


def test_only_one_queue_drains_and_a_second_takes_over_when_it_resigns(tmp_path: Path) -> None:
    with python(HOLDER, tmp_path / "queue.lock") as other:
        assert other.stdout is not None
        other.stdout.readline()
        queue = sqlite_queue(tmp_path / "queue.sqlite")
        assert not queue.elect()
        drainer = queue.report().drainer
        assert drainer is not None
        assert other.pid == drainer.pid
        finished(other)
    assert queue.elect()
    queue.close()
    assert read_drainer(tmp_path / "queue.lock") is None


def test_a_killed_drainer_is_replaced_though_its_forked_child_lives(tmp_path: Path, lock: DrainerLock) -> None:
    with python(HOLDER_THAT_FORKS, tmp_path / "queue.sqlite") as parent:
        assert parent.stdout is not None
        try:
            assert ["child False\n", "parent True\n"] == sorted(parent.stdout.readline() for _ in range(2))
            assert not lock.acquire()
            parent.kill()
            until(lock.acquire, "the lock outlived its holder")
        finally:
            end(parent)


def test_a_file_system_that_cannot_lock_costs_no_descriptor(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*_: object, **__: object) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(drainer_lock, "_try_lock", cannot)
    lock = DrainerLock(path)
    with pytest.raises(OSError, match="No locks available"):
        lock.acquire()
    before = len(list(Path("/dev/fd").iterdir()))
    for _ in range(10):
        with pytest.raises(OSError, match="No locks available"):
            lock.acquire()
    assert before == len(list(Path("/dev/fd").iterdir()))
