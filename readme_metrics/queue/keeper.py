"""One queue file kept open by one process: opened late, let go before a fork, mended or replaced when it breaks.

What a fault costs: a file that a stranger keeps locked is tried again later; a corrupt file is set aside, and its rows
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
import threading
from typing import TYPE_CHECKING, Final, TypeVar

from readme_metrics import forks
from readme_metrics.errors import NotAccepted, QueueError, QueueUnavailable
from readme_metrics.patching import patched
from readme_metrics.queue import files, ledger, salvage
from readme_metrics.queue.drainer_lock import DrainerLock
from readme_metrics.queue.schema import Fault, fault_of
from readme_metrics.queue.sqlite import DRAINER_BUSY_S, Claims, QueueFile

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

T = TypeVar("T")
logger = logging.getLogger("readme_metrics.queue")

LOOK_EVERY_S: Final = 0.1
"""How often a put looks whether file, volume and WAL are still what they were: a few stats, 5 µs."""
STRANGER_WAIT_S: Final = 0.25
STRANGER_WAIT_GEVENT_S: Final = 0.05
"""How long the first request waits for a locked file; under gevent the whole process waits with it."""
OPENING_SPIN_S: Final = 0.001
MOST_FAILURES: Final = 3
FAILING_S: Final = 30.0
"""A quota or a network may come back; meanwhile entries wait in memory."""


class FileKeeper:
    """The file behind a ``SqliteQueue``. Nothing is opened before the first use."""

    def __init__(
        self,
        path: Path,
        *,
        fsync: bool,
        clock: Callable[[], float],
        now: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self.path = path
        self._fsync = fsync
        self._clock = clock
        self._now = now
        self._sleep = sleep
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
        self._lock = DrainerLock(files.lock_path(self.path))
        self._refusing: NotAccepted | None = None
        self._look_at = 0.0
        self._failures = 0
        self._failing_since = 0.0
        self._stranger = False
        self._opening = threading.RLock()
        self._office = threading.Lock()

    def _do(self, action: Callable[[QueueFile], T]) -> T:
        """Run one action on the open file under its lock; once more after a fault that was mended.

        A file that was closed meanwhile, for a fork, is no fault: it is opened as often as that happens.
        """
        faults = 0
        while True:
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
                faults += self._file is file
                if not self._met(error, file) or faults > 1:
                    raise self._trouble(error) from error
            else:
                self._failures = 0
                return done

    def _trouble(self, error: sqlite3.Error) -> QueueError:
        return QueueError(f"the queue's file {self.path}: {error}")

    # -- open, close

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

    @contextlib.contextmanager
    def _unless_locked(self, until: float) -> Generator[None]:
        """Swallow that a file is locked, while there is time to try again."""
        try:
            yield
        except sqlite3.Error as error:
            if fault_of(error) is not Fault.LOCKED or self._clock() >= until:
                raise

    def _warn_of(self, directory: Path) -> None:
        if files.readable_by_others(directory):
            self._say(
                "directory mode",
                logging.WARNING,
                f"the queue's directory {directory} can be read by others: chmod 700 {directory}",
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

    # -- how long to wait for others

    @staticmethod
    def _stranger_wait_s() -> float:
        return STRANGER_WAIT_GEVENT_S if patched() else STRANGER_WAIT_S

    @staticmethod
    def _drainer_busy_s() -> float:
        return STRANGER_WAIT_GEVENT_S if patched() else DRAINER_BUSY_S

    def _patience_s(self) -> float:
        """How long to wait for what others hold: not again for a stranger that is known."""
        return 0.0 if self._stranger else self._stranger_wait_s()

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
        """Count failures that nothing explains; so many, for so long, with no success between cannot be mended."""
        self._failures += 1
        if self._failures == 1:
            self._failing_since = self._clock()
        if self._failures >= MOST_FAILURES and self._clock() - self._failing_since >= FAILING_S:
            self._unavailable = QueueUnavailable(f"the queue's file {self.path} cannot be used ({error}): {files.FIX}")

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
            with contextlib.suppress(Exception):  # the host's log handler: an entry matters more
                logger.log(level, "%s", message)

    def _hush(self, about: str, message: str) -> None:
        if about in self._said:
            self._said.discard(about)
            with contextlib.suppress(Exception):
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
        closed, self._inherited = self._inherited, None
        self._file = None  # before its locks: who waits for one shall see that the file was closed
        if closed is not None:
            closed.tran_lock.release()
            closed.action_lock.release()
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
