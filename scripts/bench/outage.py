"""Figure 10: memory over very many requests with the server down, then drained.

Also the program that answers the requests: it prints its greatest resident size, in bytes, after the first requests,
after all of them, and when told by a line of input that the server is back, after the drain.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench import server
from bench.result import Row, Size, exactly
from bench.web import Sdk, ask

if TYPE_CHECKING:
    from collections.abc import Iterator

FIRST: Final = 1_000
MIB: Final = 1 << 20
DRAIN_S: Final = 80


def figure_10(size: Size) -> Iterator[Row]:
    """Growth of the greatest resident size since the first thousand requests."""
    with server.running("refusing") as away, tempfile.TemporaryDirectory() as queue:
        environment = os.environ | {"README_METRICS_SERVER": away.url, "README_METRICS_QUEUE_PATH": queue}
        command = [sys.executable, "-m", "bench.outage", str(size.of(100_000, 3_000))]
        with subprocess.Popen(command, env=environment, stdin=-1, stdout=-1, text=True) as program:
            try:
                assert program.stdout is not None
                first, down = int(program.stdout.readline()), int(program.stdout.readline())
                with server.running(port=away.port) as back:
                    end_hold(Path(queue))
                    drained = int(program.communicate("back\n", timeout=90)[0])
                    delivered = back.count()
            finally:
                program.kill()
    told = {
        "MiB grown while down": (down - first) / MIB,
        "MiB at the start": first / MIB,
        "delivered": float(delivered),
    }
    yield Row(10, "memory over 100,000 requests without server", exactly((drained - first) / MIB), "MiB", 20, told=told)


def end_hold(directory: Path) -> None:
    """As an operator may who does not want to wait for its end."""
    (path,) = directory.glob("*.sqlite")
    with contextlib.closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as connection:
        connection.execute("DELETE FROM hold")


def resident() -> int:
    """The greatest so far, in bytes."""
    greatest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return greatest if sys.platform == "darwin" else greatest * 1024


def main(requests: int) -> None:
    """Answer them, say how large that made us, drain."""
    sdk = Sdk()
    for number in range(1, requests + 1):
        ask(sdk.app)
        if number == FIRST:
            print(resident(), flush=True)
    print(resident(), flush=True)
    sys.stdin.readline()
    sdk.settle(DRAIN_S)
    print(resident(), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
