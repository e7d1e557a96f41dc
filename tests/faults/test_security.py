"""Security: what is denied and the key are nowhere on disk, in no POST and no log; modes are private at any umask."""

from __future__ import annotations

import base64
import os
import pickle
import stat
import threading
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from readme_metrics.config import queue_file_name
from readme_metrics.queue.durable import SqliteQueue
from tests.faults import oracle
from tests.faults.app import KEY, SECRET
from tests.faults.bench import Bench, full_only
from tests.faults.processes import gunicorn, poll
from tests.metrics_server import answer

if TYPE_CHECKING:
    from pathlib import Path


DISGUISES = [SECRET.encode(), quote(SECRET).encode(), base64.b64encode(SECRET.encode()), KEY.encode()]


class Watcher:
    """Reads every file of a directory again and again, from ``with`` to its end."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.found: set[tuple[str, bytes]] = set()
        self.looks = 0

    def look(self) -> None:
        for path in self._directory.rglob("*"):
            content = read(path)
            self.found |= {(path.name, planted) for planted in DISGUISES if planted in content}
        self.looks += 1

    def __enter__(self) -> Watcher:  # noqa: PYI034 - Self is not in Python 3.10
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.look()

    def _run(self) -> None:
        while not self._stop.wait(0.005):
            self.look()


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # a directory, or a WAL that has just gone
        return b""


def test_a_denied_value_and_the_key_are_in_no_byte_on_disk_at_any_moment_and_in_no_post(bench: Bench) -> None:
    app = bench.app(gunicorn()).start()
    bench.server.behave(answer(503))
    with Watcher(bench.queue) as watcher:
        with bench.clients(app) as clients:
            clients.wait_for(100)
            bench.server.behave(answer(400, body=b"no"))
            clients.wait_for(50)
            bench.server.behave(answer())
            clients.wait_for(100)
        assert 0 == bench.flushed("--force")[0]
        bench.wait_until_empty()
        app.stop()

    assert watcher.looks > 10
    assert set() == watcher.found
    bodies = b"".join(post.body for post in bench.server.posts)
    assert [] == [planted for planted in DISGUISES if planted in bodies]
    assert b"[REDACTED" in bodies
    bench.judge("a planted secret, searched for at every moment")


@pytest.mark.parametrize("umask", [0, pytest.param(0o022, marks=full_only), pytest.param(0o777, marks=full_only)])
def test_directory_and_files_are_private_under_any_umask(bench: Bench, umask: int) -> None:
    before = os.umask(umask)
    try:
        app = bench.app(gunicorn("--workers=1", f"--umask={umask}"))
        bench.log.touch(0o600)
        app.start()
    finally:
        os.umask(before)
    with bench.clients(app) as clients:
        clients.wait_for(30)
        modes = {path.name: mode(path) for path in bench.queue.iterdir()}
    bench.wait_until_empty()
    app.stop()

    assert 0o700 == mode(bench.queue)
    assert {0o600} == set(modes.values()), modes
    bench.judge(f"modes under umask {umask:03o}")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_queue_file_of_another_key_goes_out_under_its_own_key_only(bench: Bench) -> None:
    foreign = bench.queue / queue_file_name(bench.server.url, "the key of somebody else")
    planted = SqliteQueue(foreign, max_bytes=1 << 29)
    planted.put(b'{"_id":"planted"}')
    planted.close()
    app = bench.app(gunicorn("--workers=1")).start()
    clients = bench.clients(app)
    clients.send(30)
    bench.server.wait_for(lambda: {*clients.ids} <= {*bench.server.taken_ids})
    app.stop()

    assert "planted" not in bench.server.taken_ids
    assert ["planted"] == oracle.waiting_ids(foreign)


def test_a_row_that_was_planted_as_a_pickle_runs_no_code(bench: Bench) -> None:
    marker = bench.directory / "ran"
    path = bench.queue / queue_file_name(bench.server.url, KEY)
    planted = SqliteQueue(path, max_bytes=1 << 29)
    planted.put(pickle.dumps(Touch(marker)))
    planted.close()
    app = bench.app(gunicorn("--workers=1")).start()
    clients = bench.clients(app)
    clients.send(5)
    poll(lambda: 0 == bench.books().waiting, 20, "the end of the planted row")
    app.stop()

    assert not marker.exists()


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self._path), "w")
