"""The queue file's own tables beside persist-queue's, how a connection is set up, and what SQLite's errors mean.

``queue_entries`` is persist-queue's: ``_id``, ``data``, ``timestamp``, but without AUTOINCREMENT, which writes a page
of its own with each put. No id is given twice all the same: the next is one more than the highest there is and than the
ledger's ``last_id``, the highest that was ever deleted, which a trigger keeps, so that nobody's DELETE goes past it.
Ours:

- ``ledger``, one row: what is not a row any more. ``accepted`` is the highest id ever given (so the put path has no
  counter of its own) plus ``carried``: dead letters taken over from a salvaged file, less entries requeued, which get
  an id twice.
- ``tallies``: drops by reason, and beside the books what was never accepted, by reason, and while a file is salvaged
  how far that is.
- ``hold``, no row or one.
- ``dead_letters``.

Who writes into ``deliveries``, a view of the drainer's connection, has a range of entries deleted and booked: one
statement, so that the write lock is never held by a thread that waits for the interpreter.
"""

from __future__ import annotations

import sqlite3
import time
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from readme_metrics.errors import QueueUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

VERSION: Final = 1
PAGE_BYTES: Final = 2048
"""Put, claim and ack of a 2.7 KB entry cost 24 µs, 30 with pages of 4 or 8 KB, and a third of the WAL that 8 KB cost;
an entry of 100 KB costs 290 µs, 190 with pages of 8 KB."""

TABLES: Final = """
CREATE TABLE IF NOT EXISTS queue_entries (_id INTEGER PRIMARY KEY, data BLOB, timestamp FLOAT);
CREATE TABLE IF NOT EXISTS ledger (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  epoch INTEGER NOT NULL,
  epoch_began_at REAL NOT NULL,
  last_id INTEGER NOT NULL DEFAULT 0,
  carried INTEGER NOT NULL DEFAULT 0,
  delivered INTEGER NOT NULL DEFAULT 0,
  asked_up_to INTEGER NOT NULL DEFAULT 0,
  rejections_in_a_row INTEGER NOT NULL DEFAULT 0,
  answers_with_errors INTEGER NOT NULL DEFAULT 0,
  last_success_at REAL,
  last_error_at REAL,
  last_error TEXT
);
CREATE TABLE IF NOT EXISTS tallies (
  kind TEXT NOT NULL,
  reason TEXT NOT NULL,
  count INTEGER NOT NULL,
  PRIMARY KEY (kind, reason)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hold (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  until REAL NOT NULL,
  length_s REAL NOT NULL,
  kind TEXT NOT NULL,
  reason TEXT NOT NULL,
  timeout_s REAL
);
CREATE TABLE IF NOT EXISTS dead_letters (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  entry BLOB,
  status INTEGER,
  reason TEXT NOT NULL,
  answer TEXT NOT NULL,
  buried_at REAL NOT NULL
);
"""
TRIGGER: Final = """
CREATE TRIGGER IF NOT EXISTS entry_goes BEFORE DELETE ON queue_entries
WHEN OLD._id > (SELECT last_id FROM ledger) BEGIN UPDATE ledger SET last_id = OLD._id; END
"""
DELIVERIES: Final = (
    "CREATE TEMP VIEW deliveries (first_id, last_id, answers_with_errors, at) AS SELECT 0, 0, 0, 0",
    """
CREATE TEMP TRIGGER delivered INSTEAD OF INSERT ON deliveries BEGIN
  UPDATE ledger SET last_id = MAX(last_id, NEW.last_id);
  DELETE FROM queue_entries WHERE _id BETWEEN NEW.first_id AND NEW.last_id;
  UPDATE ledger SET delivered = delivered + changes(), rejections_in_a_row = 0, last_success_at = NEW.at,
    answers_with_errors = answers_with_errors + NEW.answers_with_errors;
  DELETE FROM hold WHERE id = 1;
END
""",
)
"""The connection's own and not in the file, whose schema has to fit into one page: a damaged file that has this page
can be salvaged. That ``last_id`` is moved first spares ``entry_goes`` its work for each row; the hold goes by id,
because emptying a table writes its page, empty or not."""


class Fault(Enum):
    """What an error of SQLite means for us."""

    LOCKED = auto()
    """Somebody else writes, or a stranger holds the file."""
    FULL = auto()
    CORRUPT = auto()
    GONE = auto()
    """The file, its directory or its volume is not what it was."""


_SIGNS: Final = (
    ("locked", Fault.LOCKED),
    ("full", Fault.FULL),
    ("malformed", Fault.CORRUPT),
    ("not a database", Fault.CORRUPT),
    ("corrupt", Fault.CORRUPT),
    ("unsupported file format", Fault.CORRUPT),
    ("readonly", Fault.CORRUPT),  # says the header; that the file can be written was seen before it was opened
)
"""By message: Python 3.10 shows no error code, and the messages are the same in every SQLite."""


def fault_of(error: sqlite3.Error) -> Fault:
    """Classify an error of SQLite; what is none of the others means that the file is not what it was."""
    message = str(error)
    return next((fault for sign, fault in _SIGNS if sign in message), Fault.GONE)


def connect(path: Path, *, fsync: bool) -> sqlite3.Connection:
    """Open one connection that never waits, with our settings; their order matters before the first table exists."""
    connection = sqlite3.connect(
        str(path), timeout=0, isolation_level=None, check_same_thread=False, cached_statements=64
    )
    try:
        check_version(connection, path)  # before WAL mode, which is written into the file
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode=WAL").close()
        connection.execute(f"PRAGMA synchronous={'FULL' if fsync else 'NORMAL'}")
        # A checkpoint syncs the disk for 5 ms and more: never in a producer, only where we say so.
        connection.execute("PRAGMA wal_autocheckpoint=0").close()
        connection.execute("PRAGMA secure_delete=OFF").close()
    except BaseException:
        connection.close()
        raise
    return connection


def check_version(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file that a newer release wrote, before anything is changed in it."""
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found > VERSION:
        raise QueueUnavailable(
            f"the queue's file {path} has schema version {found}, written by a newer readme-metrics; this one knows "
            f"{VERSION}: upgrade readme-metrics, or set another queue_path"
        )


def create(connection: sqlite3.Connection, *, epoch: int = 1, now: Callable[[], float] = time.time) -> None:
    """Make our tables where they are missing, in one transaction."""
    if connection.execute("PRAGMA user_version").fetchone()[0] == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in (*TABLES.split(";"), TRIGGER):
            connection.execute(statement)
        connection.execute("INSERT OR IGNORE INTO ledger (id, epoch, epoch_began_at) VALUES (1, ?, ?)", (epoch, now()))
        connection.execute(f"PRAGMA user_version={VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
