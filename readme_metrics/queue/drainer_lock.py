"""Who may claim: many processes put, one drains.

An OS lock on a file beside the queue, because the kernel frees it at the instant its holder dies: no leases, no clocks.
``flock`` itself rather than a library around it, because three things must be exactly so:

- the lock belongs to the open file description, so a forked child that kept the inherited descriptor would keep the
  lock alive after its parent died, and ``LOCK_UN`` in the child would free the *parent's* lock: a child closes it;
- a child that was forked without any hook (C code) is recognised by its pid and closes it too;
- the file may be removed under us with its directory: a lock on a file that has no name guards nothing.

The file holds the drainer's pid, host and time of election; its time stamp moves while the drainer lives, so that
``status`` can tell a frozen one.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from typing import TYPE_CHECKING

from readme_metrics.queue.contract import Drainer

if TYPE_CHECKING:
    from pathlib import Path

if sys.platform == "win32":  # pragma: no cover - written portably, not tested there
    import msvcrt

    def _try_lock(descriptor: int, *, shared: bool = False) -> bool:  # noqa: ARG001 - there is one kind only
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # far behind the text, which others may read
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(descriptor: int, *, shared: bool = False) -> bool:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


class DrainerLock:
    """The lock of one queue file; not thread-safe, its queue's mutex guards it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._pid = 0

    @property
    def held(self) -> bool:
        """Whether this very process holds it."""
        return self._descriptor is not None and self._pid == os.getpid()

    @property
    def lost_its_name(self) -> bool:
        """Whether it is held on a file that was removed: another process may hold the one of that name by now."""
        return self.held and self._descriptor is not None and not self._is_the_file_of_that_name(self._descriptor)

    def acquire(self) -> bool:
        """Take it, or keep it and move its time stamp; never waits. Raises ``OSError`` where no file can be made."""
        self._forget_what_is_not_ours()
        if self._descriptor is not None:
            os.utime(self._descriptor if os.utime in os.supports_fd else self._path)
            return True
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        descriptor = os.open(self._path, flags, 0o600)
        locked = False
        try:
            locked = _try_lock(descriptor) and self._is_the_file_of_that_name(descriptor)
        finally:
            if not locked:
                os.close(descriptor)
        if not locked:
            return False
        if hasattr(os, "fchmod"):
            os.fchmod(descriptor, 0o600)  # whatever the umask took from its owner
        self._descriptor, self._pid = descriptor, os.getpid()
        self._sign(descriptor)
        return True

    def release(self) -> None:
        """Let another process take it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)  # frees the lock: no other process has this open file description

    def _forget_what_is_not_ours(self) -> None:
        """Close a descriptor that a fork left us, or one whose file has lost its name."""
        if self._descriptor is not None and not (self.held and self._is_the_file_of_that_name(self._descriptor)):
            self.release()

    def _is_the_file_of_that_name(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat(follow_symlinks=False))
        except OSError:  # no file of that name, or another thread has just let go
            return False

    def _sign(self, descriptor: int) -> None:
        text = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}).encode()
        with contextlib.suppress(OSError):  # a full volume: the lock holds without its signature
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, text, 0) if hasattr(os, "pwrite") else os.write(descriptor, text)


def read_drainer(path: Path) -> Drainer | None:
    """Tell who drains the queue file whose lock file this is; None: nobody. Takes nothing and waits for nothing."""
    try:
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None
    try:
        if _try_lock(descriptor, shared=True):  # shared: two who look at once don't take each other for a drainer
            return None  # nobody held it; closing frees it again
        signed = json.loads(os.read(descriptor, 4096) or b"{}")
        seen_at = os.fstat(descriptor).st_mtime
        return Drainer(int(signed["pid"]), str(signed["host"]), float(signed["since"]), seen_at)
    except (OSError, ValueError, KeyError, TypeError):
        return Drainer(0, "unknown", 0.0, 0.0)
    finally:
        os.close(descriptor)
