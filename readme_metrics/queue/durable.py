"""The contract over a queue file: puts that wait for nobody, the drainer's verbs, and bounds on disk and memory.

What a fault costs a put: while a stranger keeps the file locked, entries go to memory (``Spill``) until it is free;
on a full volume, or with a WAL that nobody checkpoints, they are refused at the door, counted. ``keeper`` opens the
file and mends it.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import sqlite3
import threading
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn

from readme_metrics.errors import NotAccepted, QueueError, QueueUnavailable
from readme_metrics.queue import files, ledger, salvage, wal
from readme_metrics.queue.drainer_lock import read_drainer
from readme_metrics.queue.keeper import LOOK_EVERY_S, FileKeeper
from readme_metrics.queue.memory import LIMIT_BYTES
from readme_metrics.queue.schema import Fault, fault_of
from readme_metrics.queue.spill import Spill

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from readme_metrics.queue.contract import Backlog, Batch, DeadLetter, Hold, Report, Unclaimed
    from readme_metrics.queue.sqlite import QueueFile

SPARE_BYTES: Final = 4 * wal.MIB
"""Free space that must stay beside what the WAL may still add to the file: in WAL mode even a DELETE needs some. What
is put between two looks counts twice, in the WAL and in what it will add: each process may put 1 MiB."""
DELETE_BYTES: Final = wal.MIB
"""Free space without which nobody becomes the drainer: the deletes after a few POSTs need a part of it in the WAL."""
RELIEVE_EVERY_S: Final = 1.0
FROZEN_S: Final = 10.0
"""A drainer moves its lock file's time stamp once a second."""
SPINS: Final = 4
"""Tries at once: a sibling's put holds the write lock for 20 µs; who yields the core is without it for longer."""
SPIN_S: Final = 0.00003
"""Pause before each further try, about 100 µs with the kernel's slack."""


class SqliteQueue(FileKeeper):
    """The contract over one SQLite file."""

    durable = True

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int,
        fsync: bool = False,
        wal_limit_bytes: int = wal.LIMIT_BYTES,
        spill_bytes: int = LIMIT_BYTES,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._max_bytes = max_bytes
        self._wal_limit_bytes = wal_limit_bytes
        self._spill_bytes = spill_bytes
        self._room_step = min(wal.MIB, max_bytes // 16)
        super().__init__(path, fsync=fsync, clock=clock, now=now, sleep=sleep)

    def _begin(self) -> None:
        super()._begin()
        self._spill = Spill(self._spill_bytes)
        self._not_accepted: Counter[str] = Counter()
        self._unlooked_bytes = 0
        self._relieve_at = 0.0
        self._checkpoints = wal.CheckpointRhythm(self._wal_limit_bytes, self._clock)
        self._spilling = threading.Lock()
        self._counting = threading.Lock()

    # -- put

    def put(self, entry: bytes) -> None:
        faults = 0
        while faults < 2:
            file = self._ready(len(entry))
            if file is None:
                break
            try:
                if self._spill and not self._stranger:
                    self._write_spill(file, once=True)
                self._insert(file, entry)
            except sqlite3.Error as error:
                faults += self._file is file  # closed meanwhile, for a fork: that is none
                if not self._met(error, file):
                    break
            else:
                return
        self._keep(entry)

    @property
    def kept_in_memory(self) -> int:
        """Entries that wait in memory for the file to be free."""
        return len(self._spill)

    def _ready(self, size: int) -> QueueFile | None:
        """The open file; every now and then after a look around. None: not now."""
        file = self._file
        self._unlooked_bytes += size
        if (
            file is None
            or self._unlooked_bytes > self._room_step
            or self._clock() > self._look_at
            or self._pid != os.getpid()
        ):
            file = self._look()
        if self._refusing is not None:
            self._refuse(self._refusing)
        return file

    def _insert(self, file: QueueFile, entry: bytes) -> None:
        try:
            file.put(entry)
        except sqlite3.OperationalError as error:
            if fault_of(error) is not Fault.LOCKED or self._stranger:
                raise
            self._wait_and_insert(file, entry)
        self._stranger = False
        self._failures = 0

    def _wait_and_insert(self, file: QueueFile, entry: bytes) -> None:
        """Wait for siblings, whose checkpoints may take a while; whoever first waits in vain has met a stranger."""
        deadline = self._clock() + self._stranger_wait_s()
        for tries in itertools.count():
            if tries >= SPINS:
                self._sleep(SPIN_S)
            try:
                file.put(entry)
            except sqlite3.OperationalError as error:
                # Another thread may have met the stranger meanwhile: nobody waits on, and who comes now doesn't wait.
                if fault_of(error) is not Fault.LOCKED or self._stranger or self._clock() > deadline:
                    raise
            else:
                return

    def _keep(self, entry: bytes) -> None:
        if not self._spill.add(entry):
            self._refuse(NotAccepted("file locked", "the queue's file is locked and the memory for that is full"))

    def _refuse(self, refusal: NotAccepted) -> NoReturn:
        with self._counting:
            self._not_accepted[refusal.reason] += 1
        self._say(refusal.reason, logging.ERROR, f"{refusal}: entries are not stored until that is over")
        raise refusal

    def _write_spill(self, file: QueueFile, *, once: bool) -> None:
        """Write what waited in memory, 500 entries a transaction; a request writes no more than that."""
        if not self._spilling.acquire(blocking=False):
            return  # another thread is at it
        try:
            while entries := self._spill.first(ledger.ROWS_AT_ONCE):
                file.put_many(entries, self._now)
                self._spill.forget(len(entries))
                if once:
                    break
            if not self._spill:
                self._hush("locked", "the queue's file is free again: what waited in memory is stored")
        finally:
            self._spilling.release()

    # -- look around, now and then

    def _look(self) -> QueueFile | None:
        """See that the file, its volume and its WAL are what they should be; open it where it is not open."""
        self._notice_fork()
        if self._unavailable is not None:
            raise self._unavailable
        if not self._opening.acquire(timeout=self._patience_s()):
            return self._file  # another thread is at it
        try:
            if self._clock() <= self._look_at and self._file is None:
                return None  # opening failed a moment ago
            self._look_at = self._clock() + LOOK_EVERY_S
            file = self._open()
            self._refusing = self._obstacle()
            if self._refusing is None:
                self._look_after(file)
        except NotAccepted as refusal:
            self._refusing = refusal
            return None
        except sqlite3.Error as error:
            self._opening_failed(error)
            return None
        finally:
            self._opening.release()
        return self._file

    def _obstacle(self) -> NotAccepted | None:
        """What stands against storing entries now."""
        wal_bytes = files.wal_bytes(self.path)
        if wal_bytes > self._wal_limit_bytes:
            self._relieve_wal(wal_bytes)
            wal_bytes = files.wal_bytes(self.path)
        if wal_bytes > 2 * self._wal_limit_bytes:
            what = f"the WAL of the queue's file {self.path} has {wal_bytes} bytes"
            return NotAccepted("WAL limit", f"{what}: {self._who_keeps_the_wal()}")
        if files.free_bytes(self.path.parent) < wal_bytes + SPARE_BYTES:
            return NotAccepted("no space", f"no space left on the volume of the queue's directory {self.path.parent}")
        for reason in ("WAL limit", "no space"):
            self._hush(reason, "entries are stored again")
        return None

    def _who_keeps_the_wal(self) -> str:
        drainer = read_drainer(files.lock_path(self.path))
        if drainer is None:
            return "nobody could checkpoint it"
        if self._now() - drainer.seen_at > FROZEN_S:
            return f"process {drainer.pid} drains it and does not move"
        return f"process {drainer.pid} drains it and is frozen, or another program keeps reading it (a backup, a shell)"

    def _relieve_wal(self, wal_bytes: int) -> None:
        """Truncate a WAL that nobody looks after; where another process drains, it is that one's office.

        Where this process drains, its flusher does it within a second, unless a POST keeps it: then a put does. Once a
        second: where a reader keeps the WAL, each try makes a request wait in vain.
        """
        if self._clock() < self._relieve_at:
            return
        self._relieve_at = self._clock() + RELIEVE_EVERY_S
        with self._office, contextlib.suppress(OSError):  # no lock file can be made: the limit decides
            held = self._lock.held
            if wal_bytes <= 1.5 * self._wal_limit_bytes if held else not self._lock.acquire():
                return
            try:
                if self._file is not None:
                    with self._file.action_lock:
                        self._file.checkpoint(truncate=True)
            finally:
                if not held:
                    self._lock.release()

    def _look_after(self, file: QueueFile) -> None:
        """What a put does beside putting, at most ten times a second: count refusals, keep within ``max_bytes``."""
        try:
            self._write_not_accepted(file)
            if self._unlooked_bytes > self._room_step:
                self._unlooked_bytes = 0
                self._report_dropped(file.make_room_briefly(self._max_bytes))
        except sqlite3.Error as error:
            if fault_of(error) is not Fault.LOCKED:
                self._met(error, file)

    def _write_not_accepted(self, file: QueueFile) -> None:
        if not self._not_accepted:
            return
        with self._counting:
            counted, self._not_accepted = self._not_accepted, Counter()
        try:
            file.tally_not_accepted(counted)
        except sqlite3.Error:
            with self._counting:
                self._not_accepted.update(counted)
            raise

    def _report_dropped(self, count: int) -> None:
        if count:
            self._say(
                "queue full",
                logging.WARNING,
                f"the queue holds more than max_queue_bytes ({self._max_bytes}): the oldest entries are dropped",
            )

    # -- the other verbs

    def unclaimed(self, at_most: int) -> Unclaimed:
        return self._do(lambda file: file.unclaimed(at_most))

    def claim(self, limit: int, max_bytes: int) -> Batch | None:
        # Looked at once the file is open: whoever lost the directory is no drainer of the one that was made again.
        return self._do(lambda file: None if self._lock.lost_its_name else file.claim(limit, max_bytes))

    def ack(self, *batches: Batch, answers_with_errors: int = 0) -> None:
        try:
            self._do(partial(self._ack, batches, answers_with_errors))
        except QueueError as error:
            self._claims.note_delivery(batches)
            self._say(
                "unbooked",
                logging.WARNING,
                f"delivered entries cannot be deleted yet ({error}): this process does not send them again, and sends "
                "nothing else until they are",
            )

    def _ack(self, batches: Sequence[Batch], answers_with_errors: int, file: QueueFile) -> None:
        """Delete and book; while a backlog drains ``tend`` waits, so the WAL is looked after here as well."""
        file.ack(batches, answers_with_errors, now=self._now)
        if self._lock.held:
            self._checkpoints.between_batches(file)

    def release(self, batch: Batch) -> None:
        if batch.source is self._claims:
            self._claims.give_back(batch.ids)

    def bury(self, batch: Batch, *, status: int | None, reason: str, answer: str) -> int:
        return self._do(lambda file: file.bury(batch, status=status, reason=reason, answer=answer, now=self._now))

    def hold(self) -> Hold | None:
        return self._do(lambda file: file.hold(self._now()))

    def set_hold(self, hold: Hold) -> None:
        self._do(lambda file: file.write(lambda sql: ledger.write_hold(sql, hold, now=self._now())))

    def end_hold(self) -> None:
        self._do(lambda file: file.write(ledger.end_hold))

    def ask_flush(self) -> None:
        self._do(lambda file: file.write(ledger.ask_flush))

    def backlog(self) -> Backlog:
        return self._do(lambda file: file.look(ledger.backlog))

    def report(self) -> Report:
        return self._do(lambda file: file.look(lambda sql: ledger.report(sql, file.file)))

    def dead_letters(self) -> list[DeadLetter]:
        return self._do(lambda file: file.look(ledger.dead_letters))

    def requeue(self, ids: Sequence[int]) -> int:
        return self._do(lambda file: sum(file.write(partial(ledger.requeue, ids=part)) for part in ledger.chunks(ids)))

    def purge(self, ids: Sequence[int]) -> int:
        return self._do(lambda file: sum(file.write(partial(ledger.purge, ids=part)) for part in ledger.chunks(ids)))

    # -- the drainer's office

    def _has_no_file(self) -> bool:
        """Whether the file was removed, and nothing asks for another: the next put makes it, or the next command."""
        return self._file is not None and not self._spill and self._file.moved() and not files.exists(self.path)

    def elect(self) -> bool:
        if self._has_no_file() or (self._spill and self._stranger and not self._lock.held):
            return False  # no file, or one that is locked as far as we know: whoever asks may be a request
        self._do(lambda _: None)  # the directory is there, and a claim can follow
        with self._office:
            was_held = self._lock.held
            try:
                held = self._lock.acquire()
            except OSError as error:
                raise QueueError(f"the drainer lock {files.lock_path(self.path)}: {error}") from error
        if held and not was_held:
            self._claims.forget_all_but_unbooked()
            return self._can_delete()
        return held

    def _can_delete(self) -> bool:
        """Whether the file takes deletes now: what is sent while it does not, the next drainer sends again."""
        try:
            self._do(lambda file: file.write(ledger.prove_writable))
            can = files.free_bytes(self.path.parent) >= DELETE_BYTES
        except QueueUnavailable:
            raise
        except QueueError:
            can = False
        if not can:
            self.resign()
        return can

    def resign(self) -> None:
        self._notice_fork()
        with self._office:
            self._claims.forget_all_but_unbooked()
            self._lock.release()

    def tend(self, *, idle: bool = False) -> None:
        file = None if self._has_no_file() else self._look()
        if file is None:
            return
        try:
            if self._spill:
                self._write_spill(file, once=False)
                self._stranger = False
            if self._lock.held:
                with file.action_lock:
                    self._keep_house(file, idle=idle)
        except sqlite3.Error as error:
            self._met(error, file)

    def _keep_house(self, file: QueueFile, *, idle: bool) -> None:
        file.settle(now=self._now)
        self._hush("unbooked", "delivered entries are deleted")
        self._save_rows(file)
        self._report_dropped(file.make_room(self._max_bytes))
        self._checkpoints.look_after(file, idle=idle)

    def give_up(self) -> list[bytes]:
        """Leave the drainer's office, and hand over what waits in memory: this file cannot be used any more."""
        self.resign()
        with self._spilling:
            entries = self._spill.first(len(self._spill))
            self._spill.forget(len(entries))
        return entries

    def _save_rows(self, file: QueueFile) -> None:
        """Save what stands beside the file; what keeps us from it now is no fault of the file's own."""
        try:
            salvage.save_rows(file.file, file)
            self._hush("salvage", "what stands beside the queue's file can be saved again")
        except (OSError, sqlite3.Error) as error:
            self._say(
                "salvage",
                logging.WARNING,
                f"what stands beside the queue's file {self.path} cannot be saved now ({error}): it is tried again",
            )

    def leave(self) -> None:
        self._notice_fork()
        with self._opening:
            try:
                self._write_what_waits()
            except (sqlite3.Error, QueueError) as error:
                self._leave_beside(error)

    def _leave_beside(self, why: Exception) -> None:
        """Write what waits in memory into a file beside the locked one."""
        with self._spilling:
            entries = self._spill.first(len(self._spill))
            if not entries:
                return
            what = f"{len(entries)} entries could not be stored in {self.path} ({why})"
            try:
                salvage.leave_beside(self.path, entries, now=self._now)
            except (sqlite3.Error, OSError) as error:
                self._say("unsaved", logging.ERROR, f"{what}, nor beside it ({error}): they are lost")
            else:
                self._spill.forget(len(entries))
                self._say("beside", logging.WARNING, f"{what}: they wait beside it, for whoever drains it next")

    def close(self) -> None:
        self.leave()
        with self._opening:
            if self._file is not None:
                self._close_file(self._file)
        self.resign()

    def _write_what_waits(self) -> None:
        """Write what this process has only in memory: the last chance, so it waits as long as a first put does."""
        deadline = self._clock() + self._stranger_wait_s()
        while self._spill or self._not_accepted:
            with self._unless_locked(until=deadline):
                file = self._open()
                self._write_spill(file, once=False)
                self._write_not_accepted(file)
            self._sleep(SPIN_S)
