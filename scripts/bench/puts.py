"""Figures 5, 9 and 11: the queue by itself, in one process."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.measure import joined, quantile, ratios, spread, take_turns, timed
from bench.result import Row, Size, exactly
from readme_metrics.queue import open_queue, schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from readme_metrics.queue.contract import DurableQueue

ENTRY: Final = b'{"_id":"5f0c1b4e-8f4c-4a3f-9a3e-2f6f4f7f9a10","body":"' + b"x" * 2544 + b'"}'
PLENTY: Final = 1 << 40
MIB: Final = 1 << 20
INSERT: Final = "INSERT INTO queue_entries (data, timestamp) VALUES (?, ?)"
BATCH: Final = 10


@contextlib.contextmanager
def a_queue(directory: str, name: str = "ours", max_bytes: int = PLENTY) -> Iterator[DurableQueue]:
    """Closed at the end."""
    queue = open_queue(Path(directory) / f"{name}.sqlite", max_bytes=max_bytes, fsync=False)
    try:
        yield queue
    finally:
        queue.close()


def figure_5(size: Size) -> Iterator[Row]:
    """A put beside a bare INSERT with the same pragmas into the same schema, and beside an append."""
    with tempfile.TemporaryDirectory() as directory, a_queue(directory) as queue, contextlib.ExitStack() as closing:
        with a_queue(directory, "bare") as other:
            other.put(ENTRY)  # makes the schema
        connection = closing.enter_context(contextlib.closing(bare_connection(Path(directory) / "bare.sqlite")))
        appended = os.open(Path(directory) / "appended", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        closing.callback(os.close, appended)
        actions: list[Callable[[], object]] = [
            lambda: queue.put(ENTRY),
            lambda: connection.execute(INSERT, (ENTRY, time.time())),
            lambda: os.write(appended, ENTRY),
        ]
        take_turns(actions, slices=1, per_slice=100)
        put, insert, append = take_turns(actions, slices=size.of(400, 10), per_slice=50)
    told = {name: quantile(joined(slices), 0.5) * 1e6 for name, slices in
            (("put us", put), ("insert us", insert), ("write(2) us", append))}  # fmt: skip
    yield Row(5, "put of 2.6 KB / bare INSERT, p50", ratios(put, insert), "x", 1.3, told=told)


def bare_connection(path: Path) -> sqlite3.Connection:
    """To an existing queue file, with the settings of our own connections that count for a writer."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA wal_autocheckpoint=0").close()
    assert connection.execute("PRAGMA page_size").fetchone() == (schema.PAGE_BYTES,)
    return connection


def figure_9(size: Size) -> Iterator[Row]:
    """A queue with very many entries beside one with a thousand."""
    many, few = size.of(1_000_000, 5_000), 1_000
    with tempfile.TemporaryDirectory() as directory:
        for name, count in (("many", many), ("few", few)):
            fill(directory, name, count)
        opened = [timed(lambda: open_and_close(directory, "many")) for _ in range(size.of(9, 3))]
        with a_queue(directory, "many") as large, a_queue(directory, "few") as small:
            large.elect(), small.elect()
            puts = take_turns([lambda: large.put(ENTRY), lambda: small.put(ENTRY)], slices=40, per_slice=25)
            claims = take_turns([lambda: claim(large), lambda: claim(small)], slices=40, per_slice=5)
    told = {"entries": float(many), "put us": quantile(joined(puts[0]), 0.5) * 1e6}
    yield Row(9, "put with 1,000,000 waiting / 1,000", ratios(puts[0], puts[1]), "x", 1.25, told=told)
    told = {"claim of 10 us": quantile(joined(claims[0]), 0.5) * 1e6}
    yield Row(9, "claim of 10, likewise", ratios(claims[0], claims[1]), "x", 1.25, told=told)
    yield Row(9, "open with 1,000,000 waiting", spread(opened).times(1e3), "ms", 50)


def fill(directory: str, name: str, count: int) -> None:
    """By one statement; a put each would take longer than the figure may."""
    with a_queue(directory, name) as queue:
        queue.put(ENTRY)
    with contextlib.closing(bare_connection(Path(directory) / f"{name}.sqlite")) as connection:
        step = 20_000  # a transaction of tens of MiB, so that the WAL stays small
        for start in range(1, count, step):
            rows = min(step, count - start)
            connection.execute(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
                "INSERT INTO queue_entries (data, timestamp) SELECT ?, ? FROM n",
                (rows, ENTRY, time.time()),
            )
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def open_and_close(directory: str, name: str) -> None:
    """Open, with the first look that needs the file."""
    with a_queue(directory, name) as queue:
        queue.hold()


def claim(queue: DurableQueue) -> None:
    """And give it back, so that the next finds the same."""
    batch = queue.claim(BATCH, 4 * MIB)
    assert batch is not None
    queue.release(batch)


def figure_11(size: Size) -> Iterator[Row]:
    """The file after very many entries came and went, a hundred at a time, as a drainer tends it."""
    count = size.of(100_000, 2_000)
    with tempfile.TemporaryDirectory() as directory, a_queue(directory) as queue:
        queue.elect()
        for _ in range(count // 100):
            come_and_go(queue, 100)
        for _ in range(count // 20):
            queue.put(ENTRY)
        greatest = on_disk(directory)
        come_and_go(queue, 0)
        for _ in range(4):
            queue.tend(idle=True)
        left = on_disk(directory)
    told = {"entries": float(count), "MiB while 5 % waited": greatest / MIB}
    yield Row(11, "files after 100,000 came and went", exactly(left / MIB), "MiB", 10, told=told)


def come_and_go(queue: DurableQueue, count: int) -> None:
    """Put so many, then empty the queue."""
    for _ in range(count):
        queue.put(ENTRY)
    while batch := queue.claim(100, 4 * MIB):
        queue.ack(batch)
    queue.tend()


def on_disk(directory: str) -> int:
    """Bytes of everything there."""
    return sum(path.stat().st_size for path in Path(directory).iterdir())
