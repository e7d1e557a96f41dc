"""Disk: locked by strangers, full, removed, replaced, read-only, of another user; through the whole path."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest

from readme_metrics.config import queue_file_name
from readme_metrics.errors import QueueUnavailable
from readme_metrics.queue import files
from readme_metrics.queue.durable import SqliteQueue
from tests.faults import oracle
from tests.faults.app import KEY
from tests.faults.client import ask, get
from tests.faults.conftest import FULL, Bench, full_only
from tests.faults.processes import gunicorn, poll
from tests.metrics_server import after, answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.faults.processes import AppServer

THREADS = 4
GTHREAD = gunicorn("--worker-class=gthread", f"--threads={THREADS}")
LOCKED_S = 4.0 if FULL else 1.0
STRANGER_WAIT_S = 0.25
BUSY_MACHINE_S = 0.5
NOBODY = 65_534


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
    bench.wait_until_empty()
    app.stop()

    assert max(under_lock) < STRANGER_WAIT_S + BUSY_MACHINE_S
    assert sum(took_s > STRANGER_WAIT_S / 2 for took_s in under_lock) <= 2 * THREADS, "the others were delayed"
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


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    mounted = tmp_path / "volume"
    mounted.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", str(mounted)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small volume")
    try:
        yield mounted
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=True)


def fill(volume: Path) -> Path:
    """To the last byte."""
    filler = volume / "filler"
    with filler.open("ab", buffering=0) as stranger, contextlib.suppress(OSError):  # no space left
        while stranger.write(bytes(65536)):
            pass
    return filler


def stores(bench: Bench, app: AppServer) -> bool:
    """Whether a request is stored now."""
    if not list(bench.queue.glob("*.sqlite")):
        get(app.port, "/json")
        return False
    with contextlib.suppress(QueueUnavailable):  # its tables are being made
        before = bench.books().accepted
        get(app.port, "/json")
        return bench.books().accepted > before
    return False


@full_only
def test_a_volume_that_is_full_from_the_start_costs_no_answer_and_recovers(bench: Bench, volume: Path) -> None:
    bench.queue = volume / "queue"
    filler = fill(volume)
    app = bench.app(gunicorn("--workers=1")).start()
    clients = bench.clients(app)
    clients.send(20)
    filler.unlink()
    poll(lambda: stores(bench, app), 10, "an entry that is stored")
    clients.send(50)
    bench.wait_until_empty()
    app.stop()

    assert 0 == clients.cut
    books = bench.judge("volume full from the start", not_accepted="no space")
    assert 50 < books.delivered
    assert 20 <= books.not_accepted["no space"]


def test_a_volume_that_fills_under_load_costs_no_answer_and_recovers(bench: Bench, volume: Path) -> None:
    bench.queue = volume / "queue"
    bench.server.behave(answer(503))
    app = bench.app(gunicorn("--workers=1")).start()
    large = json.dumps({"text": "x" * 100_000}).encode()
    clients = bench.clients(app)
    clients.send(10)
    answers = [ask(app.port, "POST", "/orders", large) for _ in range(100)]
    assert all(answers)
    assert "no space left" in app.log_text()
    bench.server.behave(answer())
    bench.wait_until_empty()
    poll(lambda: stores(bench, app), 10, "an entry that is stored")
    before = bench.books().accepted
    clients.send(40)
    bench.wait_until_empty()
    app.stop()

    assert 0 == clients.cut
    bench.answered.extend(str(each.entry_id) for each in answers if each)
    books = bench.judge("volume filled under load", not_accepted="no space")
    assert 0 < books.not_accepted["no space"]
    assert before + 40 == books.accepted


@full_only
def test_a_volume_that_is_filled_during_a_drain_sends_nothing_again(bench: Bench, volume: Path) -> None:
    bench.queue = volume / "queue"
    bench.server.behave(answer(503))
    app = bench.app(gunicorn("--workers=1")).start()
    clients = bench.clients(app)
    clients.send(200)
    bench.server.behave(after(0.02, answer()))
    bench.server.wait_for(lambda: len(bench.server.taken_ids) >= 20, 20)
    filler = fill(volume)
    bench.server.wait_for(lambda: len(set(bench.server.taken_ids)) == 200, 30)
    filler.unlink()
    bench.wait_until_empty()
    app.stop()

    bench.judge("volume filled during a drain", not_accepted="no space")


def test_a_directory_that_a_sibling_has_made_again_first_is_told_as_removed_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    queue = SqliteQueue(tmp_path / "q" / "entries.sqlite", max_bytes=1 << 29)
    queue.put(b"{}")
    shutil.rmtree(tmp_path / "q")
    files.prepare_directory(tmp_path / "q")
    queue.path.touch(0o600)
    poll(lambda: not queue.backlog().count, 5, "the end of the look at the old file")

    assert ["was removed" in message for message in caplog.messages] == [True]
    queue.close()


def test_a_directory_removed_under_a_running_app_is_made_again_and_service_goes_on(bench: Bench) -> None:
    bench.server.behave(answer(503))
    app = bench.app(gunicorn()).start()
    clients = bench.clients(app)
    clients.send(30)
    shutil.rmtree(bench.queue)
    removed_at = time.time()
    poll(lambda: get(app.port, "/json").status == 200 and bool(list(bench.queue.glob("*.sqlite"))), 10, "a queue file")
    clients.send(30)
    bench.server.behave(answer())
    bench.wait_until_empty()
    app.stop()

    assert "was removed" in app.log_text()
    books = bench.judge("directory removed under a running app", may_lose=30, new_epoch=True)
    assert removed_at < books.epoch_began_at


GARBAGE = b"this is no database " * 5000


def in_place(path: Path) -> None:
    path.write_bytes(GARBAGE)


def by_a_rename(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(GARBAGE)
    other.rename(path)


@pytest.mark.parametrize("replace", [pytest.param(in_place, marks=full_only), by_a_rename])
def test_a_file_that_becomes_garbage_is_set_aside_and_service_goes_on(
    bench: Bench, replace: Callable[[Path], None]
) -> None:
    app = bench.app(gunicorn()).start()
    clients = bench.clients(app)
    clients.send(30)
    bench.wait_until_empty()
    replace(oracle.queue_file(bench.queue))
    clients.send(60)
    poll(lambda: set_aside(bench, app), 20, "a file that was set aside")
    clients.send(60)
    poll(lambda: {*clients.ids} <= {*bench.server.taken_ids}, 20, "what came after the garbage")
    bench.wait_until_empty()
    app.stop()

    assert "it was set aside" in app.log_text()
    bench.judge(f"file replaced by garbage {replace.__name__.replace('_', ' ')}", new_epoch=True)


def set_aside(bench: Bench, app: AppServer) -> bool:
    """A corrupt page is noticed by whoever comes to it; the report comes to all of them."""
    get(app.port, "/status")
    return bool(list(bench.queue.glob("*.corrupt-*")))


@full_only
def test_garbage_found_at_the_start_is_set_aside(bench: Bench) -> None:
    files.prepare_directory(bench.queue)
    (bench.queue / queue_file_name(bench.server.url, KEY)).write_bytes(GARBAGE)
    app = bench.app(gunicorn()).start()
    clients = bench.clients(app)
    clients.send(60)
    bench.wait_until_empty()
    poll(lambda: set_aside(bench, app), 20, "a file that was set aside")
    bench.wait_until_empty()
    app.stop()

    assert "it was set aside" in app.log_text()
    bench.judge("garbage in the file's place at the start")


def test_a_file_of_a_newer_schema_is_left_alone_and_service_goes_on(bench: Bench) -> None:
    files.prepare_directory(bench.queue)
    path = bench.queue / queue_file_name(bench.server.url, KEY)
    with contextlib.closing(sqlite3.connect(path)) as newer:
        newer.execute("CREATE TABLE of_the_future (x)")
        newer.execute("PRAGMA user_version=99")
    path.chmod(0o600)
    as_it_was = path.read_bytes()
    app = bench.app(gunicorn()).start()
    clients = bench.clients(app)
    clients.send(30)
    durable = json.loads(get(app.port, "/status").body)["process"]["durable"]
    bench.server.wait_for(lambda: {*clients.ids} <= {*bench.server.taken_ids}, 20)
    app.stop()

    assert durable is False
    assert "written by a newer readme-metrics" in app.log_text()
    assert as_it_was == path.read_bytes()


def test_a_directory_that_cannot_be_written_costs_durability_only_and_the_fix_is_named(bench: Bench) -> None:
    bench.queue = bench.directory / "file" / "queue"
    (bench.directory / "file").write_text("no directory, whoever we are")
    app = bench.app(gunicorn()).start()
    clients = bench.clients(app)
    clients.send(30)
    durable = json.loads(get(app.port, "/status").body)["process"]["durable"]
    bench.server.wait_for(lambda: {*clients.ids} <= {*bench.server.taken_ids}, 20)
    app.stop()

    assert durable is False
    assert "set queue_path (or README_METRICS_QUEUE_PATH)" in app.log_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_queue_of_another_user_is_left_alone_by_root_and_flush_says_what_to_type(bench: Bench) -> None:
    app = bench.app(gunicorn()).start()
    bench.server.behave(answer(503))
    clients = bench.clients(app)
    clients.send(20)
    app.stop()
    for path in (bench.queue, *bench.queue.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    bench.server.behave(answer())
    status, words = bench.flushed("--force")
    assert 77 == status, words
    assert "sudo -u" in words
    assert [] == bench.server.taken_ids

    for path in (bench.queue, *bench.queue.iterdir()):
        os.chown(path, 0, 0)
    assert 0 == bench.flushed("--force")[0]
    bench.judge("flush by root in the queue of another user")
