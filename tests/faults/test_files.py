"""Files: removed, replaced by garbage, written by a newer release, or another user's."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from typing import TYPE_CHECKING

import pytest

from readme_metrics.config import queue_file_name
from readme_metrics.queue import files
from readme_metrics.queue.durable import SqliteQueue
from readme_metrics.queue.keeper import LOOK_EVERY_S
from tests.faults import oracle
from tests.faults.app import KEY
from tests.faults.bench import Bench, full_only
from tests.faults.client import get
from tests.faults.processes import gunicorn, poll
from tests.metrics_server import answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.faults.processes import AppServer


NOBODY = 65_534


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


def test_who_drained_a_directory_that_was_removed_claims_nothing_of_the_new_one_before_its_election(
    tmp_path: Path,
) -> None:
    """A sibling may have been elected there by now, and both would send the same entries."""
    queue = SqliteQueue(tmp_path / "q" / "entries.sqlite", max_bytes=1 << 29)
    queue.put(b"{}")
    assert queue.elect()
    shutil.rmtree(tmp_path / "q")
    poll(lambda: not queue.backlog().count, 5, "the end of the look at the old file")
    queue.put(b'{"new": 1}')

    assert queue.claim(10, 1000) is None
    assert queue.elect()
    batch = queue.claim(10, 1000)
    assert batch is not None
    assert (b'{"new": 1}',) == batch.entries
    queue.close()


def test_a_directory_removed_under_a_running_app_is_made_again_and_service_goes_on(bench: Bench) -> None:
    bench.server.behave(answer(503))
    app = bench.app(gunicorn()).start()
    clients = bench.clients(app)
    clients.send(30)
    shutil.rmtree(bench.queue)
    removed_at = time.time()
    poll(lambda: made_again(bench, app, removed_at), 10, "a queue file")
    clients.send(30)
    bench.server.behave(answer())
    bench.wait_until_empty()
    app.stop()

    assert "was removed" in app.log_text()
    books = bench.judge("directory removed under a running app", may_lose=30, new_epoch=True)
    assert removed_at < books.epoch_began_at


def made_again(bench: Bench, app: AppServer, removed_at: float) -> bool:
    """And nobody puts into the removed file any more: a put looks ten times a second whether it is still there."""
    get(app.port, "/json")
    return time.time() > removed_at + LOOK_EVERY_S and bool(list(bench.queue.glob("*.sqlite")))


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
    assert "written by a newer readme-metrics" in bench.log_of_an_app_without_a_file()
    assert as_it_was == path.read_bytes()


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
