"""Figure 6: four processes put into one file at a steady pace while one of them drains.

Also the program that each of them runs; prints the seconds of its puts as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.measure import joined, overall, quantile
from bench.puts import ENTRY, MIB, PLENTY
from bench.result import Row, Size, exactly
from readme_metrics.drain import Drain
from readme_metrics.flusher import Flusher
from readme_metrics.queue import open_queue
from readme_metrics.verdict import Kind, Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LOOK_EVERY_S: Final = 0.02
GOALS: Final = {250: (0.4, 2.0), 1000: (0.4, 10.0)}
"""Puts a second of each process: p99 and p99.9 in ms."""


def figure_6(size: Size) -> Iterator[Row]:
    """Latencies of all puts, and the greatest WAL."""
    for pace, (p99_ms, p999_ms) in GOALS.items():
        seconds = size.of(35, 2)
        alone, _ = run(1, pace, size.of(8, 2))
        taken, wal = run(4, pace, seconds)
        told = {f"p{share} alone ms": quantile(joined(alone), share / 100) * 1e3 for share in (50, 99, 99.9)}
        told |= {"p50 ms": quantile(joined(taken), 0.5) * 1e3, "puts a second": len(joined(taken)) / seconds}
        p99 = overall(taken, 0.99).times(1e3)
        yield Row(6, f"4 processes, {pace} puts/s each: p99", p99, "ms", p99_ms, told=told)
        told = {"greatest ms": max(joined(taken)) * 1e3}
        yield Row(6, "the same: p99.9", overall(taken, 0.999).times(1e3), "ms", p999_ms, told=told)
    yield Row(6, "the same: greatest WAL", exactly(wal / MIB), "MiB", 128)


def run(processes: int, pace: int, seconds: int) -> tuple[list[list[float]], int]:
    """Seconds of each process's put, tick by tick, and the greatest size of the WAL."""
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as ending:
        path = Path(directory) / "queue.sqlite"
        command = [sys.executable, "-m", "bench.crowd", str(path), str(pace), str(seconds)]
        started = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(processes)]
        for process in started:
            ending.callback(process.kill)
        done = threading.Event()
        greatest = [0]
        watcher = threading.Thread(target=watch, args=(path.with_name(path.name + "-wal"), done, greatest))
        watcher.start()
        taken = [json.loads(process.communicate(timeout=100)[0]) for process in started]
        done.set()
        watcher.join()
    return [list(tick) for tick in zip(*taken, strict=True)], greatest[0]


def watch(wal: Path, done: threading.Event, greatest: list[int]) -> None:
    """Note the greatest size."""
    while not done.wait(LOOK_EVERY_S):
        with contextlib.suppress(FileNotFoundError):
            greatest[0] = max(greatest[0], wal.stat().st_size)


def send(entries: Sequence[bytes], **_: Any) -> Outcome:
    """A server that answers in a millisecond."""
    time.sleep(0.001)
    return Outcome(Verdict(Kind.DELIVERED, "", 200), len(entries))


def put_steadily(path: Path, pace: int, seconds: int) -> list[float]:
    """Seconds of each put; the flusher of one of the processes drains meanwhile."""
    queue = open_queue(path, max_bytes=PLENTY, fsync=False)
    stop = threading.Event()
    drain = Drain(queue, send, batch_length=10, flush_interval_s=1, timeout_s=3, stop=stop)
    flusher = Flusher(queue, drain, batch_length=10, stop=stop, on_unavailable=lambda error: sys.exit(str(error)))
    queue.put(ENTRY)
    flusher.notice()
    time.sleep(1.0)  # until everybody has started and one drains
    taken = []
    began = time.perf_counter()
    for number in range(pace * seconds):
        due = began + number / pace
        while (now := time.perf_counter()) < due:
            time.sleep(due - now)
        queue.put(ENTRY)
        taken.append(time.perf_counter() - now)
        flusher.notice()
    flusher.close(5)
    queue.close()
    return taken


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path)
    parser.add_argument("pace", type=int)
    parser.add_argument("seconds", type=int)
    print(json.dumps(put_steadily(**vars(parser.parse_args()))))
