"""The books, the hold and the dead letters as SQL: each function takes a connection and says what it changes.

``report`` reads everything in one read transaction and *counts* rows, so that the check of the books can fail.
Functions named as verbs change rows and are called inside the transaction of whoever calls them.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from readme_metrics.errors import QueueUnavailable
from readme_metrics.queue import files, schema
from readme_metrics.queue.contract import Activity, Backlog, Books, DeadLetter, Hold, Report
from readme_metrics.queue.drainer_lock import read_drainer

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from pathlib import Path

ROWS_AT_ONCE: Final = 500
"""Rows a write transaction deletes at most: none of ours takes longer than 20 ms."""
PUT_AT: Final = "CAST(timestamp AS REAL)"
"""A damaged row may hold anything there."""
DROPPED: Final = "dropped"
NOT_ACCEPTED: Final = "not accepted"
ANSWER_CHARACTERS: Final = 2000
HIGHEST_ID: Final = (1 << 63) - 1
LAST_ID: Final = "MAX((SELECT last_id FROM ledger), (SELECT COALESCE(MAX(_id), 0) FROM queue_entries))"
"""The highest id ever given."""
PUT: Final = f"INSERT INTO queue_entries (_id, data, timestamp) VALUES (1 + {LAST_ID}, ?, ?)"  # noqa: S608 - our words


@dataclass(frozen=True, slots=True)
class Gap:
    """What of a salvaged file's table is not saved yet: the rows between two ids."""

    source: str
    """Name of the file."""
    table: str
    after: int
    before: int


def put_together(count: int) -> str:
    """Insert so many entries under the next ids, in one statement."""
    rows = ", ".join(f"({place}, ?, ?)" for place in range(1, count + 1))
    return (
        "INSERT INTO queue_entries (_id, data, timestamp) "  # noqa: S608 - our words
        f"SELECT last.id + column1, column2, column3 FROM (SELECT {LAST_ID} AS id) AS last, (VALUES {rows})"
    )


@contextlib.contextmanager
def reading(connection: sqlite3.Connection) -> Generator[None]:
    """One read transaction: everything inside sees the same instant."""
    try:
        connection.execute("BEGIN")
        yield
    finally:
        if connection.in_transaction:
            connection.execute("COMMIT")


@contextlib.contextmanager
def writing(connection: sqlite3.Connection) -> Generator[None]:
    """One write transaction, rolled back on any error."""
    try:
        connection.execute("BEGIN IMMEDIATE")  # inside: a signal's handler may raise when it has just begun
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full volume has rolled back by itself
            connection.execute("ROLLBACK")
        raise


def chunks(ids: Sequence[int]) -> Iterable[Sequence[int]]:
    """Cut ids into what one transaction may delete."""
    return (ids[start : start + ROWS_AT_ONCE] for start in range(0, len(ids), ROWS_AT_ONCE))


def ranges(ids: Iterable[int]) -> Generator[Sequence[int]]:
    """Cut ids into what has no gap and one transaction may delete."""
    ordered = sorted(ids)
    while ordered:
        size = min(len(ordered), ROWS_AT_ONCE)
        if ordered[size - 1] - ordered[0] >= size:
            size = next(place for place in range(size) if ordered[place] != ordered[0] + place)
        yield ordered[:size]
        del ordered[:size]


def _delete(connection: sqlite3.Connection, table: str, key: str, ids: Sequence[int]) -> int:
    marks = ",".join("?" * len(ids))
    return connection.execute(f"DELETE FROM {table} WHERE {key} IN ({marks})", ids).rowcount  # noqa: S608 - our names


def delete_entries(connection: sqlite3.Connection, ids: Sequence[int]) -> int:
    """Delete entries by id; how many were there."""
    return _delete(connection, "queue_entries", "_id", ids)


def delete_dead_letters(connection: sqlite3.Connection, ids: Sequence[int]) -> int:
    """Delete dead letters by id; how many were there."""
    return _delete(connection, "dead_letters", "id", ids)


def tally(connection: sqlite3.Connection, kind: str, reason: str, count: int) -> None:
    """Add to a figure by reason."""
    connection.execute(
        "INSERT INTO tallies VALUES (?, ?, ?) ON CONFLICT (kind, reason) DO UPDATE SET count = count + excluded.count",
        (kind, reason, count),
    )


def tallies(connection: sqlite3.Connection, kind: str) -> dict[str, int]:
    """Read figures by reason."""
    return dict(connection.execute("SELECT reason, count FROM tallies WHERE kind = ?", (kind,)))


def read_gap(connection: sqlite3.Connection, source: str, table: str) -> Gap:
    """Read what of a salvaged file's table is not saved yet."""
    found = tallies(connection, source)
    return Gap(source, table, found.get(f"{table} after", -1), found.get(f"{table} before", HIGHEST_ID))


def write_gap(connection: sqlite3.Connection, gap: Gap) -> None:
    """Note what is left to save."""
    connection.executemany(
        "INSERT OR REPLACE INTO tallies VALUES (?, ?, ?)",
        [(gap.source, f"{gap.table} after", gap.after), (gap.source, f"{gap.table} before", gap.before)],
    )


def forget_gaps(connection: sqlite3.Connection, source: str) -> None:
    """Forget a file that is saved."""
    connection.execute("DELETE FROM tallies WHERE kind = ?", (source,))


def book_delivery(connection: sqlite3.Connection, ids: Sequence[int], answers_with_errors: int, *, now: float) -> None:
    """Delete the delivered rows of a range that has no gap, book them and forget the hold, in one statement."""
    connection.execute("INSERT INTO deliveries VALUES (?, ?, ?, ?)", (ids[0], ids[-1], answers_with_errors, now))


def read_hold(connection: sqlite3.Connection) -> Hold | None:
    """Read the hold row as it stands."""
    row = connection.execute("SELECT until, length_s, kind, reason, timeout_s FROM hold").fetchone()
    return Hold(*row) if row else None


def write_hold(connection: sqlite3.Connection, hold: Hold, *, now: float) -> None:
    """Begin a hold; its reason is the last error."""
    row = (hold.until, hold.length_s, hold.kind, hold.reason, hold.timeout_s)
    connection.execute("INSERT OR REPLACE INTO hold VALUES (1, ?, ?, ?, ?, ?)", row)
    connection.execute("UPDATE ledger SET last_error = ?, last_error_at = ?", (hold.reason, now))


def end_hold(connection: sqlite3.Connection) -> None:
    """End the hold; the row stays until a delivery, so that the next batch goes alone."""
    connection.execute("UPDATE hold SET until = 0, length_s = 0, timeout_s = NULL")


def ask_flush(connection: sqlite3.Connection) -> None:
    """Ask that what waits now be sent without waiting for more."""
    connection.execute("UPDATE ledger SET asked_up_to = (SELECT COALESCE(MAX(_id), 0) FROM queue_entries)")


def write_dead_letter(
    connection: sqlite3.Connection, entry: bytes | None, *, status: int | None, reason: str, answer: str, now: float
) -> None:
    """Set one entry aside."""
    connection.execute(
        "INSERT INTO dead_letters (entry, status, reason, answer, buried_at) VALUES (?, ?, ?, ?, ?)",
        (entry, status, reason, answer[:ANSWER_CHARACTERS], now),
    )


def dead_letters(connection: sqlite3.Connection) -> list[DeadLetter]:
    """Read all dead letters, oldest first."""
    rows = connection.execute("SELECT id, entry, status, reason, answer, buried_at FROM dead_letters ORDER BY id")
    return [
        DeadLetter(id_, entry if isinstance(entry, bytes) else b"", status, reason, answer, buried_at)
        for id_, entry, status, reason, answer, buried_at in rows
    ]


def purge(connection: sqlite3.Connection, ids: Sequence[int]) -> int:
    """Delete dead letters and book them as dropped: purged."""
    count = delete_dead_letters(connection, ids)
    if count:
        tally(connection, DROPPED, "purged", count)
    return count


def requeue(connection: sqlite3.Connection, ids: Sequence[int]) -> int:
    """Move dead letters to the end of the queue; they get an id twice, which ``carried`` takes back."""
    marks = ",".join("?" * len(ids))
    entries = connection.execute(f"SELECT entry FROM dead_letters WHERE id IN ({marks}) ORDER BY id", ids)  # noqa: S608 - question marks
    count = connection.executemany(PUT, ((entry, time.time()) for (entry,) in entries)).rowcount
    delete_dead_letters(connection, ids)
    connection.execute("UPDATE ledger SET carried = carried - ?, rejections_in_a_row = 0", (count,))
    return count


def live_bytes(connection: sqlite3.Connection) -> int:
    """Bytes of the file's pages that hold something."""
    pages: int = connection.execute("PRAGMA page_count").fetchone()[0]
    free: int = connection.execute("PRAGMA freelist_count").fetchone()[0]
    return (pages - free) * schema.PAGE_BYTES


def drop_down_to(
    connection: sqlite3.Connection,
    max_bytes: int,
    *,
    for_s: float = math.inf,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Drop the oldest until the file holds less, or time is up; how many. A transaction for each chunk."""
    dropped = 0
    deadline = clock() + for_s
    while (excess := live_bytes(connection) - max_bytes) > 0 and clock() < deadline:
        count = _drop_oldest(connection, excess)
        if not count:
            break
        dropped += count
    return dropped


def _drop_oldest(connection: sqlite3.Connection, excess_bytes: int) -> int:
    """Delete the oldest dead letters, else the oldest entries, as many as hold those bytes, one chunk; how many."""
    for columns, delete in (
        ("id, length(entry) FROM dead_letters", delete_dead_letters),
        ("_id, length(data) FROM queue_entries", delete_entries),
    ):
        with writing(connection):
            oldest = connection.execute(f"SELECT {columns} ORDER BY 1 LIMIT {ROWS_AT_ONCE // 5}")
            ids = list(_first_of(oldest, excess_bytes))
            if ids:
                delete(connection, ids)
                tally(connection, DROPPED, "queue full", len(ids))
                return len(ids)
    return 0


def _first_of(rows: Iterable[tuple[int, int | None]], size: int) -> Generator[int]:
    """Ids of the first rows that together have this size."""
    for id_, length in rows:
        yield id_
        size -= length or 0
        if size <= 0:
            return


def backlog(connection: sqlite3.Connection, waiting: int | None = None) -> Backlog:
    """What waits: from the figures, not by counting rows, unless the caller has; bytes are those of the live pages."""
    with contextlib.nullcontext() if connection.in_transaction else reading(connection):
        count = waiting if waiting is not None else _waiting_by_the_figures(connection)
        oldest = connection.execute(f"SELECT {PUT_AT} FROM queue_entries ORDER BY _id LIMIT 1").fetchone()  # noqa: S608 - our words
        return Backlog(count, live_bytes(connection) if count else 0, oldest[0] if oldest else None)


def _accepted(connection: sqlite3.Connection) -> int:
    accepted: int = connection.execute(f"SELECT {LAST_ID} + carried FROM ledger").fetchone()[0]  # noqa: S608 - our words
    return accepted


def _waiting_by_the_figures(connection: sqlite3.Connection) -> int:
    gone: int = connection.execute(
        "SELECT delivered + (SELECT COUNT(*) FROM dead_letters) "
        "+ (SELECT COALESCE(SUM(count), 0) FROM tallies WHERE kind = ?) FROM ledger",
        (DROPPED,),
    ).fetchone()[0]
    return _accepted(connection) - gone


def books(connection: sqlite3.Connection) -> Books:
    """The figures, rows counted."""
    epoch, began_at, delivered = connection.execute("SELECT epoch, epoch_began_at, delivered FROM ledger").fetchone()
    return Books(
        accepted=_accepted(connection),
        delivered=delivered,
        dead=connection.execute("SELECT COUNT(*) FROM dead_letters").fetchone()[0],
        dropped=tallies(connection, DROPPED),
        waiting=connection.execute("SELECT COUNT(*) FROM queue_entries").fetchone()[0],
        epoch=epoch,
        epoch_began_at=began_at,
        not_accepted=tallies(connection, NOT_ACCEPTED),
    )


def prove_writable(connection: sqlite3.Connection) -> None:
    """Write a page that says what it said; raises where the file is locked or its volume full."""
    connection.execute("UPDATE ledger SET last_id = last_id")


def epoch(connection: sqlite3.Connection) -> tuple[int, float]:
    """Number of the books' epoch and when it began, which no two files have in common."""
    number, began_at = connection.execute("SELECT epoch, epoch_began_at FROM ledger").fetchone()
    return int(number), float(began_at)


def activity(connection: sqlite3.Connection) -> Activity:
    """What delivery last did."""
    return Activity(
        *connection.execute(
            "SELECT last_success_at, last_error_at, last_error, rejections_in_a_row, answers_with_errors FROM ledger"
        ).fetchone()
    )


def report(connection: sqlite3.Connection, path: Path) -> Report:
    """Everything ``status`` shows, in one read transaction."""
    with reading(connection):
        counted = books(connection)
        return Report(
            path=str(path),
            books=counted,
            backlog=backlog(connection, counted.waiting),
            hold=read_hold(connection),
            activity=activity(connection),
            drainer=read_drainer(files.lock_path(path)),
            file_bytes=files.size_of(path),
            wal_bytes=files.wal_bytes(path),
        )


def sqlite_version() -> tuple[int, ...]:
    """Version of the SQLite library that this Python runs on."""
    return sqlite3.sqlite_version_info


def read_report(path: Path) -> Report:
    """Read the report of a queue file that this process has not open; changes nothing in it.

    Raises ``QueueUnavailable`` where it is no queue file of ours.
    """
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, isolation_level=None)
        ) as connection:
            connection.execute("PRAGMA query_only=1")
            schema.check_version(connection, path)
            return report(connection, path)
    except sqlite3.Error as error:
        raise QueueUnavailable(f"the queue's file {path} cannot be read ({error})") from error
