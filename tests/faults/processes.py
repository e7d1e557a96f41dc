"""Real app servers on 127.0.0.1, each in a process group of its own: started, killed, frozen, stopped."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
START_S = 20.0
POLL_S = 0.02


def poll(condition: Callable[[], T | None], deadline_s: float, what: str | Callable[[], str]) -> T:
    """Wait until another process has made something true, and give it; fails the test after the deadline."""
    gives_up_at = time.monotonic() + deadline_s
    while not (found := condition()):
        if time.monotonic() > gives_up_at:
            raise AssertionError(f"not within {deadline_s} s: {what if isinstance(what, str) else what()}")
        time.sleep(POLL_S)
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class AppServer:
    """One app server; ``{port}`` in its arguments is its port, the same after every start."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.port = free_port()
        self.log = log
        self._arguments = [argument.format(port=self.port) for argument in arguments]
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the master, where there is one."""
        assert self._process is not None, "it was not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, **environment: str) -> AppServer:
        """Return when it answers."""
        assert not self.running
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**self._environment, **environment},
                start_new_session=True,
            )
        poll(self._answers, START_S, lambda: f"an answer of {self._arguments}\n{self.log_text()[-3000:]}")
        return self

    def workers(self) -> list[int]:
        """Those of gunicorn that live."""
        started = re.findall(r"Booting worker with pid: (\d+)", self.log_text())
        return [pid for pid in map(int, started) if self.has(pid)]

    def has(self, pid: int) -> bool:
        """Whether that process lives and is one of ours."""
        try:
            return os.getpgid(pid) == self.pid
        except ProcessLookupError:
            return False

    def kill(self, pid: int, number: int = signal.SIGKILL) -> None:
        """Signal one of its processes."""
        if self.has(pid):
            with contextlib.suppress(ProcessLookupError):  # it has just gone by itself
                os.kill(pid, number)

    def stop(self, deadline_s: float = 20.0) -> float:
        """Ask it to leave and wait until it has; how long that took."""
        assert self._process is not None
        began = time.monotonic()
        self._process.terminate()
        try:
            self._process.wait(deadline_s)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"still there {deadline_s} s after SIGTERM\n{self.log_text()[-3000:]}") from error
        return time.monotonic() - began

    def end(self) -> None:
        """``kill -9`` of whatever is left of it."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            with contextlib.suppress(ProcessLookupError):
                poll(lambda: not _group_lives(self.pid), 10, "the end of a killed process group")

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def _answers(self) -> bool:
        assert self.running, f"{self._arguments} ended with {self._process and self._process.poll()}\n{self.log_text()}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("OPTIONS", "/json")  # is not logged
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):  # macOS: only zombies are left
        return False
    return True


def gunicorn(*arguments: str) -> list[str]:
    """Two workers, unless told otherwise."""
    command = [sys.executable, "-m", "gunicorn", "tests.faults.app:app", "--bind=127.0.0.1:{port}"]
    return [*command, "--workers=2", "--no-control-socket", "--graceful-timeout=10", *arguments]


def flask_run(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "flask", "--app", "tests.faults.app:app", "run", "--port={port}", *arguments]


def uwsgi(*arguments: str) -> list[str]:
    """Needs the program beside the interpreter; see ``UWSGI``."""
    command = [str(UWSGI), "--http-socket=127.0.0.1:{port}", "--module=tests.faults.app:app", "--master"]
    return [*command, "--processes=2", "--need-app", "--die-on-term", f"--home={sys.prefix}", *arguments]


UWSGI = Path(sys.executable).with_name("uwsgi")
