"""The contract over a queue file: opened late, let go before a fork, and what to do when the disk does not do its part.

What a fault costs: a file that a stranger keeps locked sends entries to memory (``Spill``) until it is free; a full
volume or a WAL that nobody checkpoints refuses entries at the door, counted; a corrupt file is set aside and its rows
are saved into a new one; a file that is gone is made again. Only what cannot be mended, such as permissions, raises
``QueueUnavailable``.

Locks, in the order in which they are taken: ``_opening`` (open, close and look after the file: stops two threads
opening it, and a fork in between), then the file's own ``action_lock`` and ``tran_lock``. ``_office`` guards the
drainer lock alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import sys
import threading
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

from readme_metrics import forks
from readme_metrics.errors import NotAccepted, QueueError, QueueUnavailable
from readme_metrics.queue import files, ledger, salvage
from readme_metrics.queue.drainer_lock import DrainerLock, read_drainer
from readme_metrics.queue.memory import LIMIT_BYTES
from readme_metrics.queue.schema import Fault, fault_of
from readme_metrics.queue.spill import Spill
from readme_metrics.queue.sqlite import DRAINER_BUSY_S, Claims, QueueFile

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    from readme_metrics.queue.contract import Backlog, Batch, DeadLetter, Hold, Report, Unclaimed

T = TypeVar("T")
logger = logging.getLogger("readme_metrics.queue")

MIB: Final = 1024 * 1024
WAL_LIMIT_BYTES: Final = 64 * MIB
"""Above it the WAL is truncated; above twice this, entries are refused."""
BUSY_WAL_BYTES: Final = 4 * MIB
"""Above it the WAL is checkpointed in the middle of a drain: four busy processes write 80 MiB of it in a second."""
SPARE_BYTES: Final = MIB
"""Free space that must stay beside what the WAL may still add to the file: in WAL mode even a DELETE needs some."""
LOOK_EVERY_S: Final = 0.1
"""How often a put looks whether file, volume and WAL are still what they were: a few stats, 5 µs."""
STRANGER_WAIT_S: Final = 0.25
STRANGER_WAIT_GEVENT_S: Final = 0.05
"""How long the first request waits for a locked file; under gevent the whole process waits with it."""
SPIN_S: Final = 0.00003
"""Pause between two tries, about 90 µs with the kernel's slack: a sibling's put holds the write lock for 20 µs."""
OPENING_SPIN_S: Final = 0.001
MOST_FAILURES: Final = 3


def _gevent_runs() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


class SqliteQueue:
    """The contract over one SQLite file. Nothing is opened before the first use."""

    durable = True

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int,
        fsync: bool = False,
        wal_limit_bytes: int = WAL_LIMIT_BYTES,
        spill_bytes: int = LIMIT_BYTES,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._fsync = fsync
        self._wal_limit_bytes = wal_limit_bytes
        self._spill_bytes = spill_bytes
        self._clock = clock
        self._now = now
        self._sleep = sleep
        self._room_step = min(MIB, max_bytes // 16)
        self._epoch = 0
        self._epoch_began_at = 0.0
        self._said: set[str] = set()
        self._unavailable: QueueUnavailable | None = None
        self._begin()
        forks.watch(self)

    def _begin(self) -> None:
        """All that belongs to one process."""
        self._pid = os.getpid()
        self._file: QueueFile | None = None
        self._claims = Claims()
        self._spill = Spill(self._spill_bytes)
        self._lock = DrainerLock(files.lock_path(self.path))
        self._not_accepted: Counter[str] = Counter()
        self._refusing: NotAccepted | None = None
        self._look_at = 0.0
        self._unlooked_bytes = 0
        self._failures = 0
        self._wal_bytes = 0
        self._checkpoint_at = 0.0
        self._stranger = False
        self._opening = threading.RLock()
        self._office = threading.Lock()
        self._spilling = threading.Lock()
        self._counting = threading.Lock()

    # -- put

    def put(self, entry: bytes) -> None:
        for _ in range(2):
            file = self._ready(len(entry))
            if file is None:
                break
            try:
                if self._spill and not self._stranger:
                    self._write_spill(file, once=True)
                self._insert(file, entry)
            except sqlite3.Error as error:
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
        while True:
            self._sleep(SPIN_S)
            try:
                file.put(entry)
            except sqlite3.OperationalError as error:
                # Another thread may have met the stranger meanwhile: nobody waits on, and who comes now doesn't wait.
                if fault_of(error) is not Fault.LOCKED or self._stranger or self._clock() > deadline:
                    raise
            else:
                return

    @staticmethod
    def _stranger_wait_s() -> float:
        return STRANGER_WAIT_GEVENT_S if _gevent_runs() else STRANGER_WAIT_S

    @staticmethod
    def _drainer_busy_s() -> float:
        return STRANGER_WAIT_GEVENT_S if _gevent_runs() else DRAINER_BUSY_S

    def _patience_s(self) -> float:
        """How long to wait for what others hold: not again for a stranger that is known."""
        return 0.0 if self._stranger else self._stranger_wait_s()

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

    # -- look around, open, close

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

    def _open(self) -> QueueFile:
        """The open file of this process; opens it if need be. Raises what ``files`` and SQLite raise."""
        if self._unavailable is not None:
            raise self._unavailable
        if self._file is not None and self._file.moved():
            self._lost(self._file)
        if self._file is None:
            try:
                self._file = self._opened(self._prepared())
            except QueueUnavailable as error:
                self._unavailable = error
                raise
            except OSError as error:  # removed or replaced while we looked
                raise sqlite3.OperationalError(str(error)) from error
        return self._file

    def _prepared(self) -> Path:
        """The path of a file that can be a database at all, private."""
        directory = files.prepare_directory(self.path.parent)
        path = directory / self.path.name
        if not files.prepare_file(path):
            salvage.set_aside(path, path.stat())
            self._say("corrupt", logging.ERROR, f"the queue's file {path} was no database: it was set aside")
            files.prepare_file(path)
        self._warn_of(directory)
        return path

    def _opened(self, path: Path) -> QueueFile:
        """Open it; siblings that open it too lock it for an instant, a stranger is given no more than a put gives."""
        deadline = self._clock() + self._patience_s()
        while True:
            with self._unless_locked(until=deadline):
                file = QueueFile(
                    path, self._claims, fsync=self._fsync, epoch=self._epoch + 1, busy_s=self._drainer_busy_s()
                )
                self._recognise(file)
                return file
            self._sleep(OPENING_SPIN_S)

    def _recognise(self, file: QueueFile) -> None:
        """Forget the claims where this is another file than the one they were made in: their ids mean nothing here."""
        try:
            epoch, began_at = file.look(ledger.epoch)
        except sqlite3.Error:
            file.close()
            raise
        if began_at != self._epoch_began_at:
            self._claims = file.claims = Claims()
        self._epoch, self._epoch_began_at = epoch, began_at

    def _warn_of(self, directory: Path) -> None:
        if files.readable_by_others(directory):
            self._say(
                "directory mode",
                logging.WARNING,
                f"the queue's directory {directory} can be read by others: chmod 700 {directory}",
            )

    def _opening_failed(self, error: sqlite3.Error) -> None:
        fault = fault_of(error)
        if fault is Fault.FULL:
            self._refusing = NotAccepted("no space", f"no space left for the queue's file {self.path}")
        elif fault is Fault.CORRUPT:
            self._set_aside(self.path)
        elif fault is Fault.LOCKED:
            self._met_stranger()
        else:
            self._failed(error)

    def _failed(self, error: sqlite3.Error) -> None:
        """Count failures that nothing explains; so many with no success between cannot be mended."""
        self._failures += 1
        if self._failures >= MOST_FAILURES:
            self._unavailable = QueueUnavailable(f"the queue's file {self.path} cannot be used ({error}): {files.FIX}")

    def _obstacle(self) -> NotAccepted | None:
        """What stands against storing entries now."""
        wal_bytes = files.wal_bytes(self.path)
        if wal_bytes > self._wal_limit_bytes:
            self._relieve_wal(wal_bytes)
            wal_bytes = files.wal_bytes(self.path)
        if wal_bytes > 2 * self._wal_limit_bytes:
            drainer = read_drainer(files.lock_path(self.path))
            who = f"process {drainer.pid} drains it and does not move" if drainer else "nobody could checkpoint it"
            return NotAccepted("WAL limit", f"the WAL of the queue's file {self.path} has {wal_bytes} bytes: {who}")
        if files.free_bytes(self.path.parent) < wal_bytes + SPARE_BYTES:
            return NotAccepted("no space", f"no space left on the volume of the queue's directory {self.path.parent}")
        for reason in ("WAL limit", "no space"):
            self._hush(reason, "entries are stored again")
        return None

    def _relieve_wal(self, wal_bytes: int) -> None:
        """Truncate a WAL that nobody looks after; where another process drains, it is that one's office.

        Where this process drains, its flusher does it within a second, unless a POST keeps it: then a put does.
        """
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

    def _close_file(self, file: QueueFile) -> None:
        with self._opening, file.action_lock, file.tran_lock:
            file.close()
            if self._file is file:
                self._file = None
                self._look_at = 0.0

    def _lost(self, file: QueueFile) -> None:
        """The file of that name is another one, or none: whatever waits goes on in a new epoch."""
        if not salvage.was_set_aside(self.path, file.identity):  # a sibling may have made it again by now
            self._say(
                "removed",
                logging.ERROR,
                f"the queue's file {self.path} was removed: it is made again, what waited is lost",
            )
        self._close_file(file)

    # -- faults

    def _met(self, error: sqlite3.Error, file: QueueFile) -> bool:
        """Do what an error asks for; whether it is worth another try at once."""
        fault = fault_of(error)
        if fault is Fault.LOCKED:
            self._met_stranger()
            return False
        if self._file is not file:
            return True  # closed meanwhile, for a fork or by another thread
        if file.moved():
            self._lost(file)
            return True
        if fault is Fault.FULL:
            self._look_at = self._clock() + LOOK_EVERY_S
            self._refusing = NotAccepted("no space", f"no space left for the queue's file {self.path}")
            return True
        if fault is Fault.CORRUPT:
            return self._set_aside(file.file, file)
        self._close_file(file)
        self._failed(error)
        return True

    def _met_stranger(self) -> None:
        self._stranger = True
        self._say(
            "locked",
            logging.WARNING,
            f"the queue's file {self.path} is locked by another program (a backup, a shell): entries wait in memory",
        )

    def _set_aside(self, path: Path, file: QueueFile | None = None) -> bool:
        """Move a corrupt file out of the way; ``tend`` saves its rows into the new one."""
        try:
            identity = file.identity if file is not None else path.stat()
            if file is not None:
                self._close_file(file)
            if not salvage.set_aside(path, identity):
                return False  # another process is at it
        except OSError:
            return False
        self._say(
            "corrupt",
            logging.ERROR,
            f"the queue's file {path} is corrupt: it was set aside, and what can be read in it is saved into a new one",
        )
        return True

    def _say(self, about: str, level: int, message: str) -> None:
        """Log one line for each trouble, until it is over."""
        if about not in self._said:
            self._said.add(about)
            logger.log(level, "%s", message)

    def _hush(self, about: str, message: str) -> None:
        if about in self._said:
            self._said.discard(about)
            logger.warning("%s", message)

    # -- forks

    def before_fork(self) -> None:
        """No process forks with an open connection."""
        self._notice_fork()
        self._opening.acquire()
        self._office.acquire()
        self._inherited = self._file
        if self._inherited is not None:
            self._inherited.action_lock.acquire()
            self._inherited.tran_lock.acquire()
            self._inherited.close()

    def after_fork_in_parent(self) -> None:
        """Open again at the next use."""
        if self._inherited is not None:
            self._inherited.tran_lock.release()
            self._inherited.action_lock.release()
        self._inherited = self._file = None
        self._look_at = 0.0
        self._office.release()
        self._opening.release()

    def after_fork_in_child(self) -> None:
        """Begin anew; the drainer lock's descriptor is closed and not unlocked, which would free the parent's lock."""
        self._lock.release()
        self._inherited = None
        self._begin()

    def _notice_fork(self) -> None:
        """In a child of C code's fork, which only the pid tells: what was open in the parent is not opened, ever.

        Before any lock is taken: a thread that does not exist here may hold it, and may have been opening the file.
        """
        if self._pid == os.getpid():
            return
        was_open = self._file is not None or not self._opening.acquire(blocking=False)
        self._lock.release()
        if self._file is not None:
            self._file.close()
        self._begin()
        if was_open:
            self._unavailable = QueueUnavailable(
                "this process was forked by C code while the queue's file was open, so it cannot open it safely: "
                "start the app in the child (uWSGI: lazy-apps), or load this package after the fork"
            )

    # -- the other verbs

    def _do(self, action: Callable[[QueueFile], T]) -> T:
        """Run one action on the open file under its lock; once more where the file had to be opened again."""
        for last in (False, True):
            self._notice_fork()
            with self._opening:
                try:
                    file = self._open()
                except sqlite3.Error as error:
                    self._opening_failed(error)
                    raise self._trouble(error) from error
            try:
                with file.action_lock:
                    done = action(file)
            except sqlite3.Error as error:
                if not self._met(error, file) or last:
                    raise self._trouble(error) from error
            else:
                self._failures = 0
                return done
        raise AssertionError("unreachable: the second try returned or raised")

    def _trouble(self, error: sqlite3.Error) -> QueueError:
        return QueueError(f"the queue's file {self.path}: {error}")

    def unclaimed(self, at_most: int) -> Unclaimed:
        return self._do(lambda file: file.unclaimed(at_most))

    def claim(self, limit: int, max_bytes: int) -> Batch | None:
        return self._do(lambda file: file.claim(limit, max_bytes))

    def ack(self, batch: Batch, *, errors_in_answer: bool = False) -> None:
        try:
            self._do(partial(self._ack, batch, errors_in_answer=errors_in_answer))
        except QueueError as error:
            self._claims.note_delivery(batch)
            self._say(
                "unbooked",
                logging.WARNING,
                f"delivered entries cannot be deleted yet ({error}): they are not sent again",
            )

    def _ack(self, batch: Batch, file: QueueFile, *, errors_in_answer: bool) -> None:
        """Delete and book; while a backlog drains ``tend`` waits, so the WAL is looked after here as well."""
        file.ack(batch, errors_in_answer=errors_in_answer, now=self._now)
        if self._clock() > self._checkpoint_at and self._lock.held and files.wal_bytes(file.file) > BUSY_WAL_BYTES:
            self._checkpoint(file, idle=False)

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

    def elect(self) -> bool:
        self._do(lambda _: None)  # the directory is there, and a claim can follow
        with self._office:
            was_held = self._lock.held
            try:
                held = self._lock.acquire()
            except OSError as error:
                raise QueueError(f"the drainer lock {files.lock_path(self.path)}: {error}") from error
        if held and not was_held:
            self._claims.forget_all_but_unbooked()
        return held

    def resign(self) -> None:
        self._notice_fork()
        with self._office:
            self._claims.forget_all_but_unbooked()
            self._lock.release()

    def tend(self, *, idle: bool = False) -> None:
        file = self._look()
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
        salvage.save_rows(file.file, file)
        self._report_dropped(file.make_room(self._max_bytes))
        self._checkpoint(file, idle=idle)

    def _checkpoint(self, file: QueueFile, *, idle: bool) -> None:
        self._checkpoint_at = self._clock() + LOOK_EVERY_S
        seen_before, self._wal_bytes = self._wal_bytes, files.wal_bytes(file.file)
        quiet = self._wal_bytes == seen_before
        shrunk = idle and quiet and file.shrink()
        truncate = shrunk or self._wal_bytes > self._wal_limit_bytes or bool(idle and quiet and self._wal_bytes)
        if truncate or not quiet:
            file.checkpoint(truncate=truncate)

    def close(self) -> None:
        self._notice_fork()
        with self._opening:
            try:
                self._write_what_waits()
            except (sqlite3.Error, QueueError) as error:
                self._say(
                    "unsaved", logging.ERROR, f"{len(self._spill)} entries could not be stored in {self.path}: {error}"
                )
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

    @contextlib.contextmanager
    def _unless_locked(self, until: float) -> Generator[None]:
        """Swallow that a file is locked, while there is time to try again."""
        try:
            yield
        except sqlite3.Error as error:
            if fault_of(error) is not Fault.LOCKED or self._clock() >= until:
                raise
