"""Counts three times, by what clients got, by what the server took and by the books, and compares.

Lost: answered whole, and neither taken by the server, nor waiting, nor a dead letter, nor dropped and counted.
Repeated: taken by the server more than once; allowed only across a kill or a cut (``Interruption``).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sqlite3
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from readme_metrics.drain import WIDTH
from readme_metrics.queue import ledger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from readme_metrics.queue.contract import Books, DeadLetter
    from tests.metrics_server import Post

TABLE = "FAULTS_TABLE"
"""Environment: the file that collects one line of JSON for each scenario."""


@dataclass(frozen=True, slots=True)
class Interruption:
    """When a process may have died with batches in flight, on the monotonic clock."""

    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of the table."""

    scenario: str
    runs: int
    answered: int
    delivered: int
    repeated: int
    lost: int
    buried: int
    dropped: int
    books: str
    excepted: str
    """Which of the two exceptions to promise 1 this is; empty: nothing may be lost."""

    def note(self) -> None:
        """Add it to the table, if one is being made."""
        if TABLE in os.environ:
            with Path(os.environ[TABLE]).open("a") as table:
                table.write(json.dumps(asdict(self)) + "\n")


def taken_at(posts: Sequence[Post]) -> dict[str, list[float]]:
    """When the server took each entry."""
    times: defaultdict[str, list[float]] = defaultdict(list)
    for post in posts:
        if post.taken:
            for entry_id in post.ids:
                times[entry_id].append(post.at)
    return times


def unexplained_repeats(times: dict[str, list[float]], interruptions: Sequence[Interruption]) -> list[str]:
    """Entries taken again although no process died in between."""
    return [
        entry_id
        for entry_id, ats in times.items()
        for first, second in itertools.pairwise(ats)
        if not any(first <= each.ended and second >= each.began for each in interruptions)
    ]


def most_repeats(interruptions: Sequence[Interruption], batch_length: int) -> int:
    """Each death may repeat what was in flight."""
    return len(interruptions) * WIDTH * batch_length


def queue_file(directory: Path) -> Path:
    """The one queue file there."""
    files = sorted(directory.glob("*.sqlite"))
    assert len(files) == 1, files
    return files[0]


def books(directory: Path) -> Books:
    """The figures of the one queue file there, rows counted."""
    return ledger.read_report(queue_file(directory)).books


def ids_in(path: Path, table: str, column: str) -> list[str]:
    """The ``_id`` of each entry in a table."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [str(json.loads(entry)["_id"]) for (entry,) in connection.execute(f"SELECT {column} FROM {table}")]


def dead_letters(path: Path) -> list[DeadLetter]:
    """With status and answer."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return ledger.dead_letters(connection)


def dead_ids(path: Path) -> list[str]:
    """The dead letters."""
    return ids_in(path, "dead_letters", "entry")


def waiting_ids(path: Path) -> list[str]:
    """The entries that wait."""
    return ids_in(path, "queue_entries", "data")


def integrity(path: Path) -> str:
    """What SQLite says of the file; no process may have it open."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        found: str = connection.execute("PRAGMA integrity_check").fetchone()[0]
        return found


def examine(
    scenario: str, *, answered: Sequence[str], posts: Sequence[Post], path: Path, runs: int, excepted: str = ""
) -> tuple[Finding, Books]:
    """Count one scenario whose processes have ended."""
    times = taken_at(posts)
    counted = ledger.read_report(path).books
    there = {*dead_ids(path), *waiting_ids(path)}
    dropped = sum(counted.dropped.values()) + sum(counted.not_accepted.values())
    missing = [entry_id for entry_id in answered if entry_id not in times and entry_id not in there]
    finding = Finding(
        scenario=scenario,
        runs=runs,
        answered=len(answered),
        delivered=len(times),
        repeated=sum(len(ats) - 1 for ats in times.values()),
        lost=max(0, len(missing) - dropped),
        buried=counted.dead,
        dropped=dropped,
        books="balance" if counted.balanced else "DO NOT BALANCE",
        excepted=excepted,
    )
    return finding, counted
