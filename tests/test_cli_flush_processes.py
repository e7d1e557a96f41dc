"""``flush`` beside other processes: an app that drains, another flush, and signals at the worst moment."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from readme_metrics.queue.drainer_lock import read_drainer
from readme_metrics.queue.files import lock_path
from tests.commanding import DEADLINE_S, KEY, Host, ended, wait_until
from tests.metrics_server import Call, MetricsServer, after, answer, hang_after_reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

APP = f"""
import sys
import flask
from readme_metrics import MetricsApiConfig
from readme_metrics.flask_readme import ReadMeMetrics

app = flask.Flask("api")
app.add_url_rule("/", view_func=lambda: "owl")
config = MetricsApiConfig({KEY!r}, lambda _: {{"api_key": "caller"}}, buffer_length=1000, flush_interval=600)
ReadMeMetrics(config, app)
client = app.test_client()
for line in sys.stdin:
    for _ in range(int(line)):
        client.get("/")
    print("done", flush=True)
"""
"""An app that answers as many requests as it is told, and would send them in ten minutes."""


@pytest.fixture
def host(tmp_path: Path, server: MetricsServer) -> Host:
    return Host(tmp_path / "queue", server.url)


@contextmanager
def killed_at_last(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    with process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def app_that_drains(host: Host) -> Iterator[Callable[[int], None]]:
    """A running app that holds the drainer lock; gives the function that makes it log so many requests."""
    with killed_at_last(host.start_python("-c", APP)) as app:
        assert app.stdin is not None
        assert app.stdout is not None

        def log(count: int) -> None:
            assert app.stdin is not None
            assert app.stdout is not None
            app.stdin.write(f"{count}\n")
            app.stdin.flush()
            assert "done\n" == app.stdout.readline()

        log(1)
        wait_until(lambda: _pid_of_drainer(host) == app.pid)
        yield log


def _pid_of_drainer(host: Host) -> int | None:
    drainer = read_drainer(lock_path(host.file))
    return drainer.pid if drainer else None


def _all_delivered_once(host: Host, server: MetricsServer, count: int) -> None:
    books = host.report().books
    assert (count, count, 0, True) == (books.accepted, books.delivered, books.waiting, books.balanced)
    assert count == len(server.taken_ids) == len(set(server.taken_ids))


def test_two_flushes_beside_a_running_app_send_nothing_twice_and_both_end_well(
    host: Host, server: MetricsServer
) -> None:
    server.behave(after(0.05, answer()))
    with app_that_drains(host) as log:
        log(99)
        flushes = [host.start("flush", "--batch-size", "5") for _ in range(2)]
        ran = [ended(flush) for flush in flushes]
    assert [0, 0] == [each.status for each in ran]
    _all_delivered_once(host, server, 100)
    assert any("drains this queue since" in each.err for each in ran)


def test_two_flushes_alone_send_nothing_twice_and_both_end_well(host: Host, server: MetricsServer) -> None:
    host.put(100)
    server.behave(after(0.05, answer()))
    flushes = [host.start("flush") for _ in range(2)]
    assert [0, 0] == [ended(flush).status for flush in flushes]
    _all_delivered_once(host, server, 100)


def test_force_ends_a_hold_beside_a_running_app_and_follows_it(host: Host, server: MetricsServer) -> None:
    server.behave(answer(503, {"Retry-After": "3600"}))
    with app_that_drains(host) as log:
        log(9)
        assert 75 == host.run("flush").status
        posts = len(server.posts)
        server.behave(answer())
        assert (75, posts) == (host.run("flush").status, len(server.posts))
        assert 0 == host.run("flush", "--force").status
    _all_delivered_once(host, server, 10)


def test_force_ends_also_the_hold_of_an_attempt_that_began_before_it(host: Host, server: MetricsServer) -> None:
    goes_on = threading.Event()

    def refuse_late(call: Call) -> None:
        call.read()
        assert goes_on.wait(DEADLINE_S)
        call.answer(503, {"Retry-After": "3600"})

    server.behave(refuse_late)
    with app_that_drains(host) as log:
        log(9)
        with killed_at_last(host.start("flush")):
            server.wait_for(lambda: len(server.posts) == 1)
            with killed_at_last(host.start("flush", "--force")) as forced:
                assert forced.stderr is not None
                assert "drains this queue since" in forced.stderr.readline()
                server.behave(answer())
                goes_on.set()
                assert 0 == ended(forced).status
    _all_delivered_once(host, server, 10)


def test_force_ends_the_hold_of_a_server_that_is_away_twice_and_not_for_ever(host: Host, server: MetricsServer) -> None:
    server.behave(answer(503, {"Retry-After": "3600"}))
    with app_that_drains(host):
        assert 75 == host.run("flush").status
        posts = len(server.posts)
        assert 75 == host.run("flush", "--force").status
    assert posts + 2 == len(server.posts)


def test_a_flush_that_follows_one_that_is_killed_takes_over(host: Host, server: MetricsServer) -> None:
    ids = host.put(50)
    server.behave(after(0.3, answer()))
    with (
        killed_at_last(host.start("flush", "--batch-size", "1")) as first,
        killed_at_last(host.start("flush", "--batch-size", "1")) as second,
    ):
        server.wait_for(lambda: len(server.posts) > 3)
        drains, follows = (first, second) if _pid_of_drainer(host) == first.pid else (second, first)
        assert follows.stderr is not None
        assert f"process {drains.pid} on " in follows.stderr.readline()
        drains.kill()
        server.behave(answer())
        assert 0 == ended(follows).status
    assert set(ids) == set(server.taken_ids)
    assert len(server.taken_ids) - len(ids) <= 4  # the batches that were in flight
    assert host.report().books.balanced


@pytest.mark.parametrize("taken", [1, 6, 101])
@pytest.mark.parametrize(("number", "repeats"), [(signal.SIGKILL, 4), (signal.SIGINT, 0)])
def test_a_flush_ended_in_full_course_repeats_what_was_in_flight_at_most(
    host: Host, server: MetricsServer, number: signal.Signals, taken: int, repeats: int
) -> None:
    ids = host.put(1000)
    with killed_at_last(host.start("flush", "--batch-size", "1")) as flush:
        server.wait_for(lambda: len(server.posts) > taken)
        flush.send_signal(number)
        ended(flush)
    assert host.report().books.balanced
    assert len(server.taken_ids) < len(ids)
    assert 0 == host.run("flush", "--batch-size", "100").status
    assert set(ids) == set(server.taken_ids)
    assert len(server.taken_ids) - len(ids) <= repeats
    assert host.report().books.balanced


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_waits_for_what_is_on_its_way_and_says_how_many_stay(
    host: Host, server: MetricsServer, number: signal.Signals
) -> None:
    ids = host.put(50)
    server.behave(after(0.2, answer()))
    with killed_at_last(host.start("flush", "--batch-size", "1")) as flush:
        server.wait_for(lambda: len(server.posts) > 3)
        flush.send_signal(number)
        ran = ended(flush)
    waiting = host.report().books.waiting
    assert 75 == ran.status
    assert f"{waiting} entries wait in {host.directory}: it was stopped, and none is lost." in ran.out
    assert "Traceback" not in ran.err
    server.behave(answer())
    assert 0 == host.run("flush").status
    assert sorted(ids) == sorted(server.taken_ids)


def test_a_second_ctrl_c_leaves_at_once(host: Host, server: MetricsServer) -> None:
    host.put(5)
    server.behave(hang_after_reading)
    with killed_at_last(host.start("flush")) as flush:
        server.wait_for(lambda: len(server.posts) == 1)
        flush.send_signal(signal.SIGINT)
        assert flush.stderr is not None
        while "Stopping" not in flush.stderr.readline():
            pass
        flush.send_signal(signal.SIGINT)
        ran = ended(flush)
    assert (75, 5) == (ran.status, host.report().books.waiting)
    assert "left at once: what was not delivered stays in the queue" in ran.err
    assert "Traceback" not in ran.err


def test_a_frozen_drainer_is_named_and_the_flush_ends_when_its_time_is_up(host: Host) -> None:
    with app_that_drains(host):
        pid = _pid_of_drainer(host)
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        os.utime(lock_path(host.file), (0, 0))
        ran = host.run("flush", "--max-time", "0.3")
        told = host.run("status").out
    assert 75 == ran.status
    assert f"process {pid} on " in ran.err
    assert "gave no sign of life for" in ran.err
    assert f"process {pid} on " in told.splitlines()[0]
    assert "it is frozen, or waits for a slow server" in " ".join(told.split())


@pytest.mark.parametrize("module", [("readme_metrics.flush",), ("readme_metrics", "flush")])
def test_it_runs_as_a_module_too(host: Host, server: MetricsServer, module: tuple[str, ...]) -> None:
    host.put(1)
    assert 0 == ended(host.start_python("-m", *module)).status
    assert 1 == len(server.taken_ids)


def test_a_person_at_a_terminal_sees_a_bar(host: Host) -> None:
    host.put(30)
    shown = _in_a_terminal(host, "flush")
    assert re.search(r"Sending +\[#+\] +30/30 +100%", shown)
    assert "30 entries delivered" in shown


def test_a_person_at_a_terminal_is_asked_before_another_keys_logs_go_out(host: Host, server: MetricsServer) -> None:
    host.put(3, key="rdme_old")
    shown = _in_a_terminal(host, "flush", "--file", host.file_of("rdme_old").name, answer=b"n\n")
    assert "3 entries of " in shown
    assert "nothing was sent" in shown
    assert [] == server.posts
    assert "3 entries delivered" in _in_a_terminal(
        host, "flush", "--file", host.file_of("rdme_old").name, answer=b"y\n"
    )


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colour_is_for_terminals_that_want_it(
    host: Host, monkeypatch: pytest.MonkeyPatch, no_color: str, *, coloured: bool
) -> None:
    host.put(1)
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    assert coloured == ("\x1b[32mAll is well" in _in_a_terminal(host, "status"))
    assert "\x1b" not in host.run("status").out


def _in_a_terminal(host: Host, *arguments: str, answer: bytes = b"") -> str:
    """What a command shows on a terminal of its own."""
    near, far = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "readme_metrics", *arguments],
        env={**os.environ, **host.environment, "COLUMNS": "100"},
        stdin=far,
        stdout=far,
        stderr=far,
    ) as process:
        os.close(far)
        os.write(near, answer)
        shown = b""
        with suppress(OSError):  # Linux says EIO when the other side has gone
            while part := os.read(near, 65536):
                shown += part
        process.wait(DEADLINE_S)
    os.close(near)
    return shown.decode()
