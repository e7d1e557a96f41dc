"""What stands beside a queue file and is saved into it: a corrupt one's rows, and what a process left at its end.

Two steps, because any process may meet the corruption, in a request: ``set_aside`` renames, which is instant, and
service goes on in a new file. Its rows are saved by the drainer a moment later, when every process has noticed
(a put looks at the file's identity ten times a second) and nothing is written to the old one any more.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from readme_metrics.queue import ledger, schema
from readme_metrics.queue.drainer_lock import DrainerLock

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from pathlib import Path

    from readme_metrics.queue.ledger import Gap
    from readme_metrics.queue.sqlite import QueueFile

SETTLE_S: Final = 1.0
"""After this nobody writes to a file that was set aside: a put looks every 0.1 s and waits for a lock 0.25 s."""
SLICE_S: Final = 0.1
"""How long one ``tend`` saves, so that checkpoints, the books and a fork don't wait for a large file."""
CHUNK_BYTES: Final = 4 * 1024 * 1024
PASSING: Final = ("locked", "unable to open")
"""Signs of an error that says nothing about the rows: no descriptor is free, or somebody has it locked."""
KEPT: Final = 2
"""Corrupt files kept for a person to look at."""
LEFT: Final = ".left-"
"""In the name of what a process that ended left beside a locked file."""
COMPANIONS: Final = ("-shm", "-wal", "")
"""The file itself last: a new one of its name must not find its WAL, and a saved one is found until all is renamed."""
Row = tuple[Any, ...]
"""A damaged row may hold anything, behind its id."""


def set_aside(path: Path, identity: os.stat_result, *, now: Callable[[], float] = time.time) -> bool:
    """Rename the file of that identity, with its WAL; False while another process is at it.

    No connection of this process may be open on it. Raises ``OSError``.
    """
    lock = DrainerLock(path.with_suffix(".aside"))
    if not lock.acquire():
        return False
    try:
        if path.exists() and os.path.samestat(path.stat(), identity):
            aside = path.with_name(f"{path.name}.salvage-{_stamp(now())}")
            for companion in COMPANIONS:
                with contextlib.suppress(FileNotFoundError):
                    path.with_name(path.name + companion).rename(f"{aside}{companion}")
        return True
    finally:
        lock.release()


def _stamp(moment: float) -> str:
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime(moment)) + f"{moment % 1:.6f}"[1:]


def leave_beside(path: Path, entries: Sequence[bytes], *, now: Callable[[], float] = time.time) -> None:
    """Write entries into a file of their own, whole or not at all, beside one that is locked; saved as those set aside.

    Raises ``OSError`` and ``sqlite3.Error``.
    """
    left = path.with_name(f"{path.name}{LEFT}{_stamp(now())}-{os.getpid()}")
    unfinished = left.with_name(f".{left.name}")
    os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    try:
        with contextlib.closing(sqlite3.connect(str(unfinished), isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=MEMORY")
            schema.create(connection, now=now)
            with ledger.writing(connection):
                connection.executemany(ledger.PUT, [(entry, now()) for entry in entries])
        unfinished.rename(left)
    except BaseException:
        unfinished.unlink()
        raise


def unsaved_files(directory: Path) -> list[Path]:
    """Files that were set aside, or left, and whose rows are not saved yet."""
    return [
        found
        for found in directory.glob("*.sqlite.*-*")
        if (".salvage-" in found.name or LEFT in found.name)
        and not found.name.startswith(".")
        and not found.name.endswith(("-wal", "-shm"))
    ]


def set_aside_files(path: Path) -> list[Path]:
    """Those of one queue file, oldest first."""
    return sorted(found for found in unsaved_files(path.parent) if found.name.startswith(f"{path.name}."))


def was_set_aside(path: Path, identity: os.stat_result) -> bool:
    """Whether the file of that identity was set aside, its rows saved or not."""
    for found in path.parent.glob(f"{path.name}.*-*"):
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(found.stat(), identity):
                return True
    return False


def save_rows(
    path: Path,
    file: QueueFile,
    *,
    now: Callable[[], float] = time.time,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Save what can be read in files set aside a while ago, for a while; the next call goes on.

    Only the drainer may call it. Each transaction stores a chunk of rows and which are not saved yet: broken off at
    any instant, the next goes on from there and saves nothing twice. Raises ``OSError`` and ``sqlite3.Error``.
    """
    until = clock() + SLICE_S
    for old in set_aside_files(path):
        if 0 <= now() - old.stat().st_ctime < SETTLE_S:  # below 0: the clock was set back, long ago for all we know
            continue
        with contextlib.closing(sqlite3.connect(str(old), timeout=0, isolation_level=None)) as connection:
            for table, columns, save in (
                ("queue_entries", "data, timestamp", file.save_entries),
                ("dead_letters", "entry, status, reason, answer, buried_at", file.save_dead_letters),
            ):
                for rows, gap in _readable(connection, columns, file.gap(old.name, table)):
                    save(rows, gap)
                    if clock() >= until:
                        return
            is_wanted = LEFT not in old.name or not _is_whole(connection)
        if not is_wanted:
            old.unlink()
        else:
            _keep(path, old)
        file.forget_gaps(old.name)


def _readable(connection: sqlite3.Connection, columns: str, gap: Gap) -> Iterator[tuple[list[Row], Gap]]:
    """The rows in a gap that can be read from either end, in chunks, each with the gap that it leaves."""
    query = f"SELECT rowid, {columns} FROM {gap.table} WHERE rowid > ? AND rowid < ? ORDER BY rowid"  # noqa: S608 - our names
    for rows in _chunks(connection, query, gap):
        gap = replace(gap, after=rows[-1][0])
        yield rows, gap
    for rows in _chunks(connection, f"{query} DESC", gap):
        gap = replace(gap, before=rows[-1][0])
        yield rows[::-1], gap


def _chunks(connection: sqlite3.Connection, query: str, gap: Gap) -> Generator[list[Row]]:
    rows: list[Row] = []
    size = 0
    try:
        for row in connection.execute(query, (gap.after, gap.before)):
            rows.append(row)
            size += len(row[1]) if isinstance(row[1], (bytes, str)) else 0
            if len(rows) == ledger.ROWS_AT_ONCE or size >= CHUNK_BYTES:
                yield rows
                rows, size = [], 0
    except (OverflowError, UnicodeDecodeError):
        pass  # the end of what can be read from this side
    except sqlite3.Error as error:
        if any(sign in str(error) for sign in PASSING):
            raise
    if rows:
        yield rows


def _is_whole(connection: sqlite3.Connection) -> bool:
    """Whether nothing in the file kept its rows from being read."""
    try:
        return bool(connection.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",))
    except sqlite3.Error:
        return False


def _keep(path: Path, old: Path) -> None:
    """Give a saved file its last name, and let go of the oldest beyond two."""
    for companion in COMPANIONS:
        with contextlib.suppress(FileNotFoundError):
            name = old.name.replace(".salvage-", ".corrupt-").replace(LEFT, ".corrupt-") + companion
            old.with_name(old.name + companion).rename(old.with_name(name))
    kept = sorted(
        found for found in path.parent.glob(f"{path.name}.corrupt-*") if not found.name.endswith(("-wal", "-shm"))
    )
    for surplus in kept[:-KEPT]:
        for companion in COMPANIONS:
            surplus.with_name(surplus.name + companion).unlink(missing_ok=True)
