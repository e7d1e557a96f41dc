"""The bench of one scenario: a server, a queue directory, app servers, clients, and the judgement at the end."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from readme_metrics.errors import QueueUnavailable
from readme_metrics.queue import ledger
from tests.faults import oracle
from tests.faults.app import KEY
from tests.faults.client import Clients, get
from tests.faults.hours import BATCH_LENGTH
from tests.faults.oracle import Interruption
from tests.faults.processes import ROOT, AppServer, gunicorn, poll

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from readme_metrics.queue.contract import Books, Report
    from tests.metrics_server import MetricsServer

FULL = os.environ.get("FAULTS_FULL") == "1"
"""``scripts/faults`` runs everything at full size; the ordinary run makes do with a quick selection."""
SERVER_LAG_S = 1.0
"""A busy server may come so late to what a process sent before its death."""
OPTIONS = {"buffer_length": BATCH_LENGTH, "flush_interval": 0.2, "timeout": 2, "denylist": ["password"]}
full_only = pytest.mark.skipif(not FULL, reason="at full size only: scripts/faults")


def size(quick: int, full: int) -> int:
    """Of a scenario."""
    return full if FULL else quick


def is_the_dev_servers(traceback: str) -> bool:
    """From Python 3.12 on it has no thread for a connection that comes while it is leaving."""
    raised_by, end, _ = traceback.partition("RuntimeError: can't create new thread at interpreter shutdown")
    return bool(end) and "readme_metrics" not in raised_by


class Bench:
    """What one scenario uses; every process it starts is gone when the test is over."""

    def __init__(self, server: MetricsServer, directory: Path) -> None:
        self.server = server
        self.directory = directory
        self.queue = directory / "queue"
        self.points = directory / "points"
        self.points.mkdir()
        self.log = directory / "app.log"
        self.interruptions: list[Interruption] = []
        self.answered: list[str] = []
        """Entries whose answers came whole to others than ``clients``."""
        self._apps: list[AppServer] = []
        self._clients: list[Clients] = []
        self._flushes: list[subprocess.Popen[str]] = []

    # -- processes

    def environment(self, **options: object) -> dict[str, str]:
        """Of an app or a command."""
        return {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONHASHSEED": "0",  # Allow is written in the order of a set
            "README_API_KEY": KEY,
            "README_METRICS_SERVER": self.server.url,
            "README_METRICS_QUEUE_PATH": str(self.queue),
            "FAULTS_POINTS": str(self.points),
            "FAULTS_OPTIONS": json.dumps({**OPTIONS, **options}),
        }

    def app(self, arguments: Sequence[str], **options: object) -> AppServer:
        """An app server, not started yet."""
        self._apps.append(AppServer(arguments, self.environment(**options), self.log))
        return self._apps[-1]

    def clients(self, app: AppServer, *, threads: int = 3) -> Clients:
        """Clients, not started yet."""
        self._clients.append(Clients(app.port, threads=threads))
        return self._clients[-1]

    def flush(self, *arguments: str) -> subprocess.Popen[str]:
        """The command, running."""
        command = [sys.executable, "-m", "readme_metrics.flush", *arguments]
        flush = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=self.environment(),
        )
        self._flushes.append(flush)
        return flush

    def flushed(self, *arguments: str, deadline_s: float = 30.0) -> tuple[int, str]:
        """Exit status and words of a whole flush."""
        flush = self.flush(*arguments)
        words, _ = flush.communicate(timeout=deadline_s)
        return flush.returncode, words

    def log_of_an_app_without_a_file(self) -> str:
        """What an app says that serves and delivers from memory; that it does is seen here."""
        app = self.app(gunicorn()).start()
        clients = self.clients(app)
        clients.send(30)
        durable = json.loads(get(app.port, "/status").body)["process"]["durable"]
        self.server.wait_for(lambda: {*clients.ids} <= {*self.server.taken_ids}, 20)
        app.stop()
        assert (0, False) == (clients.cut, durable)
        return app.log_text()

    @contextlib.contextmanager
    def interrupted(self) -> Iterator[None]:
        """A process with batches in flight may die inside."""
        began = time.monotonic()
        yield
        self.interruptions.append(Interruption(began, time.monotonic() + SERVER_LAG_S))

    def end(self) -> None:
        """Leave no process."""
        for app in self._apps:
            app.end()
        for flush in self._flushes:
            with flush:  # closes its pipe and waits for it
                flush.kill()

    # -- the queue

    def report(self) -> Report:
        return ledger.read_report(oracle.queue_file(self.queue))

    def books(self) -> Books:
        return self.report().books

    def drainer(self) -> int | None:
        """The pid of the drainer."""
        with contextlib.suppress(QueueUnavailable):  # its tables are being made
            if list(self.queue.glob("*.sqlite")):
                drainer = self.report().drainer
                return drainer.pid if drainer and drainer.pid else None
        return None

    def wait_for_a_drainer(self, deadline_s: float = 10.0) -> int:
        return poll(self.drainer, deadline_s, lambda: f"a drainer: {self.report()} {self.log.read_text()[-3000:]}")

    def wait_until_empty(self, deadline_s: float = 30.0) -> None:
        poll(lambda: self.books().waiting == 0, deadline_s, lambda: f"an empty queue: {self.report()}")

    # -- the end

    def judge(
        self,
        scenario: str,
        *,
        runs: int = 1,
        in_doubt: bool = False,
        not_accepted: str = "",
        may_lose: int = 0,
        new_epoch: bool = False,
    ) -> Books:
        """All promises, once every process has ended and the queue is empty.

        ``in_doubt``: the server took batches that it did not say so of in time; those may have come again.
        ``not_accepted``: the reason for which entries were not stored, if any may be. ``may_lose``: how many
        waited in a directory that was removed. ``new_epoch``: the books began anew after some deliveries.
        """
        self.end()
        path = oracle.queue_file(self.queue)
        posts = self.server.posts
        answered = [*self.answered, *(entry_id for clients in self._clients for entry_id in clients.ids)]
        excepted = "what waited in the directory that was removed" if may_lose else ""
        finding, books = oracle.examine(
            scenario, answered=answered, posts=posts, path=path, runs=runs, excepted=excepted
        )
        finding.note()
        times = oracle.taken_at(posts)
        assert answered, "no request was answered: this shows nothing"
        assert finding.lost <= may_lose, finding
        assert books.balanced, books
        assert 0 == books.waiting, books
        assert set(books.not_accepted) <= {not_accepted}
        if not new_epoch:
            # What is dropped while it is in flight is booked once, as dropped, and may arrive all the same.
            assert books.delivered <= len(times) <= books.delivered + sum(books.dropped.values()), books
            assert len(answered) <= books.accepted + finding.dropped + may_lose
        if not in_doubt:
            assert [] == oracle.unexplained_repeats(times, self.interruptions)
            assert finding.repeated <= oracle.most_repeats(self.interruptions, BATCH_LENGTH), finding
        assert "ok" == oracle.integrity(path)
        self.judge_logs()
        return books

    def judge_logs(self) -> None:
        """Nothing of ours failed, and no log line holds the key."""
        text = self.log.read_text(errors="replace")
        assert KEY not in text
        failures = [line for line in text.splitlines() if " failed (" in line]
        tracebacks = [each for each in text.split("Traceback (most")[1:] if not is_the_dev_servers(each)]
        assert [] == failures + tracebacks, text[-5000:]
