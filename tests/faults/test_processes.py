"""Processes: masters that die, workers that come and go, forks everywhere, a drainer that freezes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.faults.bench import Bench, full_only, size
from tests.faults.client import get
from tests.faults.processes import ROOT, UWSGI, flask_run, gunicorn, poll, uwsgi

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("preload", [True, pytest.param(False, marks=full_only)])
def test_a_killed_master_and_workers_that_leave_one_by_one_lose_nothing(bench: Bench, preload: bool) -> None:
    app = bench.app(gunicorn("--workers=3", *["--preload"] * preload)).start()
    with bench.clients(app) as clients:
        clients.wait_for(100)
        bench.wait_for_a_drainer()
        poll(lambda: 3 == len(app.workers()), 20, "three workers")
        workers = app.workers()
        with bench.interrupted():
            app.kill(app.pid)
            poll(lambda: not any(app.has(worker) for worker in workers), 20, "workers that notice")
        app.start()
        clients.wait_for(50)
    bench.wait_until_empty()
    app.stop()

    bench.judge("master killed, workers exit one by one" + ", --preload" * preload)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "arguments",
    [
        [],
        pytest.param(["--worker-class=gthread", "--threads=4"], marks=full_only),
        pytest.param(["--worker-class=gevent"], marks=full_only),
        pytest.param(["--preload"], marks=full_only),
    ],
)
def test_workers_that_are_replaced_after_some_requests_lose_and_repeat_nothing(
    bench: Bench, arguments: list[str]
) -> None:
    app = bench.app(gunicorn("--max-requests=40", "--max-requests-jitter=20", *arguments)).start()
    with bench.clients(app) as clients:
        clients.wait_for(size(250, 1500), deadline_s=90)
    bench.wait_until_empty()
    app.stop()

    bench.judge(" ".join(["workers replaced, --max-requests", *arguments]))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("in_time", [True, False])
def test_gevent_with_preload_delivers_whether_it_patches_in_time_or_the_master_has_to_send(
    bench: Bench, tmp_path: Path, *, in_time: bool
) -> None:
    config = tmp_path / "gunicorn.conf.py"
    config.write_text("from gevent import monkey; monkey.patch_all()" if in_time else "")
    app = bench.app(gunicorn("--worker-class=gevent", "--preload", f"--config={config}")).start()
    with bench.clients(app) as clients:
        clients.wait_for(100)
        assert in_time or bench.wait_for_a_drainer() == app.pid
    bench.wait_until_empty()
    app.stop()

    said = app.log_text().count("monkey.patch_all()` at the top of gunicorn.conf.py")
    assert said in ({0} if in_time else {1, 2})
    bench.judge("gunicorn gevent --preload, patched " + ("in time" if in_time else "late: the master sends"))


def test_workers_that_are_asked_to_leave_one_by_one_lose_and_repeat_nothing(bench: Bench) -> None:
    app = bench.app(gunicorn("--workers=4")).start()
    with bench.clients(app) as clients:
        clients.wait_for(50)
        for worker in app.workers():
            app.kill(worker, signal.SIGTERM)
            poll(lambda worker=worker: not app.has(worker), 15, "a worker that leaves")  # type: ignore[misc]  # a default
            clients.wait_for(30)
    bench.wait_until_empty()
    app.stop()

    bench.judge("workers asked to leave one by one")


def test_a_process_that_leaves_without_any_clean_up_loses_nothing(bench: Bench) -> None:
    app = bench.app(gunicorn()).start()
    with bench.clients(app) as clients:
        clients.wait_for(50)
        with bench.interrupted():
            before = app.workers()
            get(app.port, "/exit")
            poll(lambda: not all(app.has(worker) for worker in before), 15, "a worker that leaves")
        clients.wait_for(50)
    bench.wait_until_empty()
    app.stop()

    bench.judge("os._exit in a worker")


def test_a_fork_inside_a_request_loses_nothing_of_parent_or_child(bench: Bench) -> None:
    forks = size(5, 50)
    app = bench.app(gunicorn("--worker-class=gthread", "--threads=4")).start()
    with bench.clients(app) as clients:
        clients.wait_for(30)
        answers = [get(app.port, "/fork") for _ in range(forks)]
    bench.wait_until_empty()
    app.stop()

    bench.answered.extend(str(answer.entry_id) for answer in answers)
    books = bench.judge("fork inside a request", runs=forks)
    assert len(clients.answers) + 2 * forks == books.accepted


@full_only
def test_a_frozen_drainer_is_named_and_costs_nothing(bench: Bench) -> None:
    app = bench.app(gunicorn()).start()
    with bench.clients(app) as clients:
        clients.wait_for(50)
        drainer = bench.wait_for_a_drainer()
        with bench.interrupted():
            app.kill(drainer, signal.SIGSTOP)
            try:
                poll(lambda: frozen_for(bench) > 5.5, 20, "a drainer that does not move")
                words = status(bench)
                clients.wait_for(20)
            finally:
                app.kill(drainer, signal.SIGCONT)
    bench.wait_until_empty()
    app.stop()

    assert str(drainer) in words
    assert "frozen" in words or "not move" in words, words
    bench.judge("drainer frozen and thawed")


def frozen_for(bench: Bench) -> float:
    drainer = bench.report().drainer
    return time.time() - drainer.seen_at if drainer else 0.0


def status(bench: Bench) -> str:
    command = [sys.executable, "-m", "readme_metrics", "status"]
    ended = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=bench.environment(),
        check=False,
    )
    return ended.stdout + ended.stderr


def test_the_reloader_restarts_the_app_under_load_and_nothing_is_lost(bench: Bench) -> None:
    trigger = bench.directory / "trigger.py"
    trigger.touch()
    app = bench.app(flask_run("--debug", f"--extra-files={trigger}")).start()
    with bench.clients(app) as clients:
        for _ in range(size(1, 5)):
            clients.wait_for(30)
            before = app.log_text().count("Restarting with")
            trigger.write_text(f"# {before}")
            poll(lambda before=before: app.log_text().count("Restarting with") > before, 20, "a restart")  # type: ignore[misc]  # a default
        clients.wait_for(30)
    bench.wait_until_empty()
    app.stop()

    bench.judge("flask run, reloaded under load", runs=size(1, 5))


@full_only
@pytest.mark.timeout(120)
@pytest.mark.skipif(not UWSGI.exists(), reason="no uWSGI beside this Python: scripts/faults builds it")
@pytest.mark.parametrize("arguments", [[], ["--lazy-apps"], ["--enable-threads"], ["--lazy-apps", "--enable-threads"]])
def test_under_uwsgi_nothing_is_lost(bench: Bench, arguments: list[str]) -> None:
    app = bench.app(uwsgi(*arguments)).start()
    with bench.clients(app) as clients:
        clients.wait_for(size(150, 1000))
    nothing_sends = "uWSGI runs without --enable-threads" in app.log_text()  # newer ones run threads without being told
    if not nothing_sends:
        bench.wait_until_empty()
    app.stop()

    assert not (nothing_sends and "--enable-threads" in arguments)
    assert 0 == bench.flushed()[0]
    bench.judge(" ".join(["uwsgi", *arguments]))


@full_only
@pytest.mark.skipif(not UWSGI.exists(), reason="no uWSGI beside this Python: scripts/faults builds it")
def test_under_uwsgi_killed_workers_and_a_killed_master_lose_nothing(bench: Bench) -> None:
    app = bench.app(uwsgi("--enable-threads")).start()
    with bench.clients(app) as clients:
        for _ in range(size(2, 10)):
            clients.wait_for(50)
            with bench.interrupted():
                app.kill(bench.wait_for_a_drainer())
        clients.wait_for(50)
        with bench.interrupted():
            app.end()
        app.start()
        clients.wait_for(50)
    bench.wait_until_empty()
    app.stop()

    bench.judge("uwsgi --enable-threads, kills", runs=size(3, 11))
