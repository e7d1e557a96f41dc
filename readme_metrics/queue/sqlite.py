"""One open queue file.

Set-up, connections and locks are persist-queue's ``SQLiteQueue``; whole-batch claim and ack, books, hold and dead
letters are ours.

The plain ``SQLiteQueue`` and not its ack queue: with two processes on one file that claims rows twice, and acks an
entry in two transactions that grow with every acked row kept. Here one process drains, and what it claimed is in its
memory: ``Claims``.

Two connections: ``_putter`` for puts, under ``tran_lock``, by threads together; ``_getter`` for everything else, under
``action_lock``. Both belong to the process that opened them: see ``forks``. Errors are SQLite's; ``durable`` knows what
they mean.
"""

from __future__ import annotations

import ctypes
import os
import time
from typing import TYPE_CHECKING, Final, TypeVar

from persistqueue import SQLiteQueue

from readme_metrics.queue import files, ledger, schema
from readme_metrics.queue.contract import Batch, Unclaimed
from readme_metrics.queue.group_commit import MOST_TOGETHER, GroupCommit

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from readme_metrics.queue.contract import Hold
    from readme_metrics.queue.ledger import Gap

T = TypeVar("T")

DRAINER_BUSY_S: Final = 1.0
"""How long the drainer waits for the write lock: it may, a request may not."""
CHECKPOINT_BUSY_S: Final = 0.05
"""How long a truncating checkpoint waits for readers: writers wait with it."""
SHRINK_ABOVE_BYTES: Final = 8 * 1024 * 1024
SHRINK_BELOW_BYTES: Final = 1024 * 1024
"""Live bytes that a VACUUM may copy: puts wait meanwhile."""
MOST_VARIABLES: Final = 900
"""Question marks in a statement, which SQLite before 3.32 limits to 999; taken rows beyond it are counted as unclaimed,
which ``claim`` finds out."""
ROOM_BUSY_S: Final = 0.02
"""How long one request may drop entries for; it does so once in as many bytes as it then has to drop."""
PUTS: Final = ("", ledger.PUT, *map(ledger.put_together, range(2, MOST_TOGETHER + 1)))
"""By how many entries they insert."""


def _hold(connection: sqlite3.Connection) -> None:
    """Keep it from being closed by the garbage collector or at exit, in whatever process.

    In a child of C code's fork that would drop locks and unlink the WAL under those who really have the file open.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _let_go(connection: sqlite3.Connection) -> None:
    ctypes.pythonapi.Py_DecRef(ctypes.py_object(connection))


class Claims:
    """Which rows the drainer has taken; lives as long as the file, across reconnections of the same process.

    ``after``: every row up to this id is taken or gone. ``unbooked``: delivered, but the deletion could not be written
    yet; never claimed again, deleted by ``settle``. Until then nothing more is claimed: a crash repeats no more than
    what was in flight.
    """

    def __init__(self) -> None:
        self.taken: set[int] = set()
        self.after = 0
        self.unbooked: set[int] = set()

    def take(self, ids: Sequence[int]) -> None:
        """Note a claim, in ascending order."""
        self.taken.update(ids)
        self.after = max(ids, default=self.after)

    def give_back(self, ids: Iterable[int]) -> None:
        """Note a release."""
        for id_ in set(ids).difference(self.unbooked):
            self.taken.discard(id_)
            self.after = min(self.after, id_ - 1)

    def note_delivery(self, batches: Iterable[Batch]) -> None:
        """Note that these are never to be claimed again, only to be deleted."""
        for batch in batches:
            if batch.source is self:
                self.taken.update(batch.ids)
                self.unbooked.update(batch.ids)

    def forget_all_but_unbooked(self) -> None:
        """Note that another process may have drained meanwhile."""
        self.taken = set(self.unbooked)
        self.after = 0


class QueueFile(SQLiteQueue):
    """One open queue file of this process."""

    _getter: sqlite3.Connection  # type: ignore[assignment]  # the library says None, until it has connected
    _putter: sqlite3.Connection  # type: ignore[assignment]  # likewise

    def __init__(self, path: Path, claims: Claims, *, fsync: bool, epoch: int, busy_s: float = DRAINER_BUSY_S) -> None:
        self.file = path
        self.claims = claims
        self.pid = os.getpid()
        self._held: list[sqlite3.Connection] = []
        self._fsync = fsync
        self._epoch = epoch
        self._busy_s = busy_s
        self._group_commit = GroupCommit(self._insert)
        self.identity = path.stat()  # before it is opened: if it is replaced meanwhile, ``moved`` tells
        try:
            super().__init__(
                str(path.parent),
                name="entries",
                multithreading=True,
                serializer=None,  # entries are bytes already; the library's default is pickle, which could run code
                db_file_name=path.name,
            )
            self._be_patient(busy_s)
            for statement in schema.DELIVERIES:
                self._getter.execute(statement)
        except BaseException:
            self.close()
            raise

    # -- what the library's own would do otherwise

    def _new_db_connection(self, path: str, multithreading: bool, timeout: float) -> sqlite3.Connection:  # noqa: ARG002, FBT001 - the library's signature
        connection = schema.connect(self.file, fsync=self._fsync)
        try:
            schema.create(connection, epoch=self._epoch)
        except BaseException:
            connection.close()
            raise
        _hold(connection)
        self._held.append(connection)
        return connection

    def put(self, item: bytes, block: bool = True) -> int:  # noqa: ARG002, FBT001, FBT002 - the library's signature
        """Insert, in a transaction of its own or with what other threads put meanwhile; how many: 1."""
        self._group_commit.put(item)
        return 1

    def _insert(self, entries: Sequence[bytes]) -> None:
        """Insert in one statement and transaction; the library's way round costs a cursor, a commit and an event."""
        now = time.time()
        values: list[object] = []
        for entry in entries:
            values += (entry, now)
        with self.tran_lock:
            self._putter.execute(PUTS[len(entries)], values)

    def _count(self) -> int:
        return 0  # the library counts every row at open, for a figure that nobody reads

    def close(self) -> None:
        """Close both connections, in the process that opened them; elsewhere they stay, and stay held."""
        while self._held and self.pid == os.getpid():
            connection = self._held.pop()
            connection.close()
            _let_go(connection)

    def __del__(self) -> None:
        self.close()

    def moved(self) -> bool:
        """Whether the name no longer leads to the file that is open."""
        try:
            return not os.path.samestat(self.identity, os.stat(self.file))  # noqa: PTH116 - hot, half the cost
        except OSError:
            return True

    # -- the drainer's verbs, under action_lock

    def unclaimed(self, at_most: int) -> Unclaimed:
        """Look at what could be claimed."""
        if self.claims.unbooked:
            return Unclaimed(0, None, asked=False)
        after = self.claims.after
        taken = sorted(id_ for id_ in self.claims.taken if id_ > after)[:MOST_VARIABLES]
        count, first = self._getter.execute(
            "SELECT COUNT(*), MIN(_id) FROM (SELECT _id FROM queue_entries WHERE _id > ? "  # noqa: S608 - question marks
            f"AND _id NOT IN ({','.join('?' * len(taken))}) ORDER BY _id LIMIT ?)",
            (after, *taken, at_most),
        ).fetchone()
        oldest = f"SELECT {ledger.PUT_AT}, asked_up_to >= _id FROM queue_entries, ledger WHERE _id = ?"  # noqa: S608 - our words
        put_at, asked = (count and self._getter.execute(oldest, (first,)).fetchone()) or (None, False)
        return Unclaimed(count, put_at, asked=bool(asked))

    def claim(self, limit: int, max_bytes: int) -> Batch | None:
        """Take the oldest unclaimed rows, reading no further than they fill a batch; none while any are unbooked."""
        if self.claims.unbooked:
            return None
        taken = self.claims.taken
        ids: list[int] = []
        entries: list[bytes] = []
        unreadable: list[int] = []
        size = 1  # "[", then each entry with its "," or "]"
        rows = self._getter.execute(
            "SELECT _id, CASE typeof(data) WHEN 'blob' THEN data END FROM queue_entries WHERE _id > ? ORDER BY _id",
            (self.claims.after,),
        )
        for id_, entry in rows:
            if id_ in taken:
                continue
            if entry is None:
                unreadable.append(id_)
                continue
            size += len(entry) + 1
            if ids and size > max_bytes:
                break
            ids.append(id_)
            entries.append(entry)
            if len(ids) == limit:
                break
        rows.close()
        if unreadable:
            self._bury(dict.fromkeys(unreadable), status=None, reason="the row cannot be read", answer="")
        self.claims.take(ids)
        return Batch(tuple(ids), tuple(entries), self.claims) if ids else None

    def ack(self, batches: Iterable[Batch], answers_with_errors: int, *, now: Callable[[], float] = time.time) -> None:
        """Delete delivered rows and book them; on an error they are remembered as delivered, and it is raised."""
        self.claims.note_delivery(batches)
        self.settle(answers_with_errors, now=now)

    def settle(self, answers_with_errors: int = 0, *, now: Callable[[], float] = time.time) -> None:
        """Delete and book whatever is delivered and not booked yet."""
        unbooked = self.claims.unbooked
        for ids in ledger.ranges(unbooked):
            ledger.book_delivery(self._getter, ids, answers_with_errors, now=now())
            unbooked.difference_update(ids)
            self.claims.taken.difference_update(ids)
            answers_with_errors = 0

    def bury(
        self, batch: Batch, *, status: int | None, reason: str, answer: str, now: Callable[[], float] = time.time
    ) -> int:
        """Move claimed rows to the dead letters; how many lone rejections in a row that makes."""
        if batch.source is self.claims:
            rows = dict(zip(batch.ids, batch.entries, strict=True))
            self._bury(rows, status=status, reason=reason, answer=answer, now=now)
        return ledger.activity(self._getter).rejections_in_a_row

    def _bury(
        self,
        rows: Mapping[int, bytes | None],
        *,
        status: int | None,
        reason: str,
        answer: str,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Move rows to the dead letters, but for those that were dropped meanwhile: nobody is booked twice."""
        with ledger.writing(self._getter):
            for id_, entry in rows.items():
                if ledger.delete_entries(self._getter, [id_]):
                    ledger.write_dead_letter(
                        self._getter, entry, status=status, reason=reason, answer=answer, now=now()
                    )
            self._getter.execute(
                "UPDATE ledger SET rejections_in_a_row = rejections_in_a_row + ?", (int(bool(status)),)
            )
            self._getter.execute("UPDATE ledger SET last_error = ?, last_error_at = ?", (reason, now()))
        self.claims.taken.difference_update(rows)

    def hold(self, now: float) -> Hold | None:
        """Read the hold; where the clock was set back, cut it to its own length."""
        hold = ledger.read_hold(self._getter)
        if hold is not None and hold.until - now > hold.length_s:
            self._getter.execute("UPDATE hold SET until = ?", (now + hold.length_s,))
            hold = ledger.read_hold(self._getter)
        return hold

    def write(self, change: Callable[[sqlite3.Connection], int | None]) -> int:
        """Run one change of the ledger's in one transaction."""
        with ledger.writing(self._getter):
            return change(self._getter) or 0

    def look(self, at: Callable[[sqlite3.Connection], T]) -> T:
        """Run one look of the ledger's."""
        return at(self._getter)

    # -- housekeeping, under action_lock, by the drainer only

    def make_room(self, max_bytes: int) -> int:
        """Drop the oldest dead letters, then the oldest entries, until the file holds less; how many."""
        return ledger.drop_down_to(self._getter, max_bytes)

    def checkpoint(self, *, truncate: bool) -> None:
        """Move the WAL into the file; truncating also gives its bytes back, and makes writers wait meanwhile."""
        self._getter.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if not truncate:
            return
        self._be_patient(CHECKPOINT_BUSY_S)
        try:  # little is left to move by now, which writers wait for
            self._getter.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            self._be_patient(self._busy_s)

    def _be_patient(self, busy_s: float) -> None:
        self._getter.execute(f"PRAGMA busy_timeout={int(busy_s * 1000)}").close()

    def shrink(self) -> bool:
        """Give the file's bytes back where next to nothing is left in it; whether it did."""
        size = files.size_of(self.file)
        if size <= SHRINK_ABOVE_BYTES or ledger.live_bytes(self._getter) > SHRINK_BELOW_BYTES:
            return False
        self._getter.execute("VACUUM")
        return True

    def gap(self, source: str, table: str) -> Gap:
        """What of a salvaged file's table is not saved yet."""
        return ledger.read_gap(self._getter, source, table)

    def save_entries(self, rows: list[tuple[object, ...]], gap: Gap) -> int:
        """Store entries of a salvaged file, and which gap that leaves."""
        with ledger.writing(self._getter):
            self._getter.executemany(ledger.PUT, [row[1:] for row in rows])
            ledger.write_gap(self._getter, gap)
        return len(rows)

    def save_dead_letters(self, rows: list[tuple[object, ...]], gap: Gap) -> int:
        """Store dead letters of a salvaged file, which never passed this file's sequence, and which gap that leaves."""
        with ledger.writing(self._getter):
            self._getter.executemany(
                "INSERT INTO dead_letters (entry, status, reason, answer, buried_at) "
                "VALUES (?, ?, COALESCE(?, ''), COALESCE(?, ''), COALESCE(?, 0))",
                [row[1:] for row in rows],
            )
            self._getter.execute("UPDATE ledger SET carried = carried + ?", (len(rows),))
            ledger.write_gap(self._getter, gap)
        return len(rows)

    def forget_gaps(self, source: str) -> None:
        """A salvaged file is saved."""
        ledger.forget_gaps(self._getter, source)

    # -- anyone's, on the connection that never waits

    def make_room_briefly(self, max_bytes: int) -> int:
        """Drop as ``make_room`` does, for a short while: a request may do it."""
        with self.tran_lock:
            return ledger.drop_down_to(self._putter, max_bytes, for_s=ROOM_BUSY_S)

    def put_many(self, entries: list[bytes], now: Callable[[], float] = time.time) -> None:
        """Store entries that waited in memory, in one transaction."""
        with self.tran_lock, ledger.writing(self._putter):
            self._putter.executemany(ledger.PUT, [(entry, now()) for entry in entries])

    def tally_not_accepted(self, counted: Mapping[str, int]) -> None:
        """Write how many entries never became rows, by reason."""
        with self.tran_lock, ledger.writing(self._putter):
            for reason, count in counted.items():
                ledger.tally(self._putter, ledger.NOT_ACCEPTED, reason, count)
