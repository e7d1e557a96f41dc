"""The demo's API as a process, gunicorn with two workers that can be started, killed and stopped; and its clients."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import requests

HERE: Final = Path(__file__).parent
PASSWORD: Final = "correct-horse-battery-staple"  # demo_app denies it: it must never be seen again
CALLER: Final = {"X-Api-Key": "key-of-the-caller-1234"}
KINDS: Final = ("JSON", "form", "upload", "stream", "error")
CLIENTS: Final = 4
PAUSE_S: Final = 0.03  # before each request, so that a person can follow


class DemoFailed(Exception):
    """The demo cannot go on; the message says why, with the log of the process that failed."""


class Api:
    """A gunicorn master with two workers on one port of 127.0.0.1, in a process group of its own."""

    def __init__(self, port: int, log: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._log = log
        self._master: subprocess.Popen[bytes] | None = None
        self._command = [sys.executable, "-m", "gunicorn", "demo_app:app", "--workers=2", f"--bind=127.0.0.1:{port}"]
        self._command += [f"--chdir={HERE}", "--no-control-socket"]

    def start(self) -> None:
        """Return when it answers."""
        with self._log.open("wb") as log:
            self._master = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)
        gives_up_at = time.monotonic() + 20
        while not self._answers():
            if time.monotonic() > gives_up_at:
                raise self.failure("The API does not answer within 20 s")
            time.sleep(0.05)

    def kill(self) -> list[int]:
        """``kill -9`` the master, then its workers; tells which they were."""
        workers = re.findall(r"Booting worker with pid: (\d+)", self._log_text())
        pids = [self._running().pid, *map(int, workers)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # a worker that gunicorn had replaced
                os.kill(pid, signal.SIGKILL)
        self.end()
        return pids

    def stop(self) -> None:
        """Ask it to leave, and wait until it has."""
        master = self._running()
        master.terminate()
        try:
            master.wait(timeout=15)
        except subprocess.TimeoutExpired as error:
            raise self.failure("The API was asked to leave and is still there after 15 s") from error

    def end(self) -> None:
        """Leave nothing of it running, whatever state it is in."""
        if self._master is not None:
            with contextlib.suppress(ProcessLookupError):  # nothing of the group is left
                os.killpg(self._master.pid, signal.SIGKILL)
            self._master.wait()
            self._master = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._master is None or self._master.poll() is not None:
            raise self.failure("The API is not running")
        return self._master

    def _answers(self) -> bool:
        self._running()
        try:
            return requests.options(f"{self.url}/export", timeout=5).ok  # OPTIONS is not logged
        except requests.ConnectionError:
            return False

    def failure(self, words: str) -> DemoFailed:
        """Something to raise: those words, and what the API wrote since its last start."""
        last_lines = self._log_text().splitlines()[-40:]
        return DemoFailed("\n".join([f"{words}; the last lines of its log:", "", *last_lines]))

    def _log_text(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""


class Clients:
    """Callers that send what they are given to send; they stand still while the API is known to be away."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pool = ThreadPoolExecutor(CLIENTS)
        self._may_go_on = threading.Event()
        self._may_go_on.set()

    def send(self, count: int) -> list[Future[str | None]]:
        """Send so many requests of all kinds: of each, the entry's id, or None where no whole answer came."""
        return [self._pool.submit(self._send_one, KINDS[number % len(KINDS)]) for number in range(count)]

    def stand_still(self) -> None:
        """Send nothing new; what is on its way is left to its fate."""
        self._may_go_on.clear()

    def go_on(self) -> None:
        """Send the rest."""
        self._may_go_on.set()

    def end(self) -> None:
        """Leave no client running."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.go_on()
        self._pool.shutdown()

    def _send_one(self, kind: str) -> str | None:
        time.sleep(PAUSE_S)
        self._may_go_on.wait()
        try:
            answer = ask(self._url, kind)
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
            return None
        return answer.headers["x-documentation-url"].rpartition("/")[2]


def ask(url: str, kind: str) -> requests.Response:
    """One request of one kind, with its whole answer."""
    if kind == "JSON":
        return requests.post(f"{url}/orders", json={"tea": 2, "password": PASSWORD}, headers=CALLER, timeout=30)
    if kind == "form":
        form = {"user": "ada", "password": PASSWORD}
        return requests.post(f"{url}/login", data=form, headers=CALLER, timeout=30)
    if kind == "upload":
        photo = ("photo.png", os.urandom(2000), "image/png")
        return requests.post(f"{url}/photos", files={"photo": photo}, headers=CALLER, timeout=30)
    path = {"stream": "export", "error": "broken"}[kind]
    return requests.get(f"{url}/{path}", headers=CALLER, timeout=30)
