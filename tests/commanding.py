"""What the tests of the commands share: a host with a queue's directory, a server and a key, and commands run on it."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import time
import uuid
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from click.testing import CliRunner

from readme_metrics.cli import main
from readme_metrics.config import queue_file_name
from readme_metrics.queue import ledger, open_queue
from readme_metrics.queue.contract import Hold
from tests.exchanges import PLAIN, entry_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from readme_metrics.queue.contract import Report

KEY = "rdme_key_of_the_commands"
OTHER_KEY = "rdme_key_of_earlier"
PLENTY_BYTES = 1 << 40
DEADLINE_S = 20.0


class Ran(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Host:
    """A queue's directory and what a command finds in the environment."""

    directory: Path
    server: str
    key: str = KEY

    @property
    def file(self) -> Path:
        return self.file_of(self.key)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "README_API_KEY": self.key,
            "README_METRICS_SERVER": self.server,
            "README_METRICS_QUEUE_PATH": str(self.directory),
            "NO_PROXY": "127.0.0.1",
        }

    def file_of(self, key: str) -> Path:
        return self.directory / queue_file_name(self.server, key)

    def put(self, count: int, *, key: str | None = None, size: int = 0) -> list[str]:
        """Store entries; their ``_id``s."""
        ids = [str(uuid.uuid4()) for _ in range(count)]
        with closing(open_queue(self.file_of(key or self.key), max_bytes=PLENTY_BYTES)) as queue:
            for id_ in ids:
                queue.put(entry_bytes(PLAIN._replace(id=id_, url=f"http://api.example/{'x' * size}")))
        return ids

    def bury(self, *, status: int = 400, answer: str = '{"error":"bad"}', key: str | None = None) -> None:
        """Set the oldest entry aside."""
        with closing(open_queue(self.file_of(key or self.key), max_bytes=PLENTY_BYTES)) as queue:
            assert queue.elect()
            batch = queue.claim(1, PLENTY_BYTES)
            assert batch is not None
            queue.bury(batch, status=status, reason=f"{status} Bad Request", answer=answer)

    def hold(self, kind: str = "later", reason: str = "503 Service Unavailable", *, key: str | None = None) -> None:
        """Begin a hold of an hour."""
        with closing(open_queue(self.file_of(key or self.key), max_bytes=PLENTY_BYTES)) as queue:
            queue.set_hold(Hold(time.time() + 3600, 3600, kind, reason))

    def report(self, key: str | None = None) -> Report:
        return ledger.read_report(self.file_of(key or self.key))

    def run(self, *arguments: str, answer: str | None = None, **environment: str | None) -> Ran:
        """Run a command in this process, without a terminal; an environment variable of None is not set."""
        apart: dict[str, Any] = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}
        result = CliRunner(**apart).invoke(main, arguments, input=answer, env={**self.environment, **environment})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(result.exit_code, result.stdout, result.stderr)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command as a process of its own; whoever calls waits for it, or kills it."""
        return self.start_python("-m", "readme_metrics", *arguments)

    def start_python(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, **self.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def ended(process: subprocess.Popen[str]) -> Ran:
    """Wait for a process."""
    with process:
        try:
            out, err = process.communicate(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return Ran(process.returncode, out, err)


def wait_until(holds: Callable[[], bool]) -> None:
    """Poll for what another process does."""
    gives_up_at = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < gives_up_at, f"not within {DEADLINE_S} s"
        time.sleep(0.01)
