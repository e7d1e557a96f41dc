"""What the queue's tests share: entries, a clock that only moves when told, strangers, and real processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from readme_metrics.queue.durable import SqliteQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from readme_metrics.queue.contract import DurableQueue

MIB: Final = 1024 * 1024
PATIENCE_S: Final = 15.0
"""How long a real process may take for what it usually does at once."""
DRAINER: Final = """
import sys
from pathlib import Path
from readme_metrics.queue.durable import SqliteQueue
queue = SqliteQueue(Path(sys.argv[1]), max_bytes=64 << 20)
assert queue.elect()
print("drains", flush=True)
sys.stdin.readline()
"""
"""A program that becomes the drainer of a file and then waits."""


class Clock:
    """A monotonic clock that moves when someone sleeps by it."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def entry(number: int, size: int = 0) -> bytes:
    """One entry that no other number makes."""
    return json.dumps({"_id": number, "body": "x" * size}).encode()


def entries(count: int) -> list[bytes]:
    return [entry(number) for number in range(count)]


def put_all(queue: DurableQueue, what: list[bytes]) -> None:
    for each in what:
        queue.put(each)


def drained(queue: DurableQueue) -> list[bytes]:
    """Claim and ack everything."""
    found: list[bytes] = []
    while (batch := queue.claim(100, MIB)) is not None:
        found.extend(batch.entries)
        queue.ack(batch)
    return found


def rows(path: Path, query: str = "SELECT data FROM queue_entries ORDER BY _id") -> list[Any]:
    """The first column as another program sees it; for a file that no queue of this process has open."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return [row[0] for row in connection.execute(query)]


@contextlib.contextmanager
def stranger(path: Path, begin: str = "BEGIN IMMEDIATE") -> Iterator[sqlite3.Connection]:
    """Another program that keeps the file locked."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute(begin)
        yield connection
    finally:
        connection.close()


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for what another process does."""
    deadline = time.monotonic() + PATIENCE_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, what
        pause.wait(0.005)


def python(code: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start Python on a piece of code; its arguments are in ``sys.argv``.

    Warnings are errors, but for Python 3.12's of forks beside threads: to make just those is what some tests are for.
    """
    return subprocess.Popen(
        [
            sys.executable,
            "-W",
            "error",
            "-W",
            "ignore:This process:DeprecationWarning",
            "-c",
            code,
            *map(str, arguments),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def finished(process: subprocess.Popen[str], *, status: int = 0, quiet: bool = True) -> str:
    """Wait until a process has left as it should; what it printed."""
    with process:
        try:
            out, complaints = process.communicate(timeout=PATIENCE_S)
        finally:
            end(process)
    assert (status, "") == (process.returncode, complaints if quiet else ""), complaints
    return out


def end(process: subprocess.Popen[str]) -> None:
    """Kill a process with all that it forked."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def corrupt(path: Path, at: int, data: bytes) -> None:
    """Overwrite bytes of a file that nobody has open."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def open_files() -> int:
    """How many this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


def sqlite_queue(path: Path, **options: Any) -> SqliteQueue:
    return SqliteQueue(path, **{"max_bytes": 64 * MIB, **options})
