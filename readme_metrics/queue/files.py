"""The queue's directory and files: made private, checked before SQLite ever sees them.

Closing any descriptor of a database file drops all of the process's POSIX locks on it (sqlite.org/howtocorrupt.html
§2.2), so a file that this process has open is only looked at by ``stat``: another interpreter may be connected to it,
as under uWSGI with two mounts, or another app by another path.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import stat
from typing import TYPE_CHECKING, Final

from readme_metrics.errors import NotAccepted, QueueUnavailable

if TYPE_CHECKING:
    from pathlib import Path

SQLITE_MAGIC: Final = b"SQLite format 3\x00"
OPEN_FILES: Final = "/dev/fd"
"""Where Linux and macOS list the descriptors of this process."""
FIX: Final = "set queue_path (or README_METRICS_QUEUE_PATH) to a directory that this user can write"
NOT_OURS: Final = "set queue_path (or README_METRICS_QUEUE_PATH) to a directory of this user's own, or chown that one"


def prepare_directory(directory: Path) -> Path:
    """Make the directory (0700) or check the one that is there; a link to a directory is followed once, here.

    Raises ``QueueUnavailable`` with the fix, and ``NotAccepted`` while its volume is full.
    """
    try:
        _make_private(directory)
        resolved = directory.resolve(strict=True)
        status = resolved.stat()
    except FileExistsError:
        raise QueueUnavailable(f"the queue's directory {directory} is not a directory: {FIX}") from None
    except OSError as error:
        raise _refusal(f"the queue's directory {directory} cannot be made", error) from error
    if owner := stranger(status):
        raise QueueUnavailable(f"the queue's directory {resolved} belongs to {owner}: {NOT_OURS}")
    if not os.access(resolved, os.R_OK | os.W_OK | os.X_OK):
        raise QueueUnavailable(f"the queue's directory {resolved} cannot be written: {FIX}")
    return resolved


def _make_private(directory: Path) -> None:
    """Make the directory and what is missing above it, all 0700: ``parents=True`` would follow the umask there."""
    if not directory.is_dir():
        if directory != directory.parent:
            _make_private(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)
        directory.chmod(0o700)  # whatever the umask took from its owner


def stranger(status: os.stat_result) -> str | None:
    """Name of the owner, where that is not this user (root too); None: it is ours."""
    if not hasattr(os, "geteuid"):
        return None  # pragma: no cover - Windows
    return None if status.st_uid == os.geteuid() else user_name(status.st_uid)


def user_name(uid: int) -> str:
    """Name of a user, or its number where it has none."""
    try:
        import pwd  # noqa: PLC0415 - not on Windows

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError):
        return str(uid)


def readable_by_others(directory: Path) -> bool:
    """Whether other users can look into the directory."""
    return hasattr(os, "geteuid") and bool(directory.stat().st_mode & 0o077)


def prepare_file(path: Path) -> bool:
    """Make the file (0600) if it is not there; whether what is there can be a database at all.

    Raises ``QueueUnavailable`` for a link or anything else that is not a file, and for a file of another user.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600))
    except FileExistsError:
        pass  # and is not opened here
    except OSError as error:
        raise _refusal(f"the queue's file {path} cannot be opened", error) from error
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise QueueUnavailable(f"the queue's file {path} is a symbolic link, which is refused: remove it")
    if not stat.S_ISREG(status.st_mode):
        raise QueueUnavailable(f"the queue's file {path} is not a regular file: remove it")
    if owner := stranger(status):
        raise QueueUnavailable(f"the queue's file {path} belongs to {owner}: {NOT_OURS}")
    if stat.S_IMODE(status.st_mode) != 0o600:
        path.chmod(0o600)
    if not os.access(path, os.R_OK | os.W_OK):
        raise QueueUnavailable(f"the queue's file {path} cannot be written: {FIX}")
    return status.st_size == 0 or _is_open_here(status) or _first_bytes(path) == SQLITE_MAGIC


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(SQLITE_MAGIC))


def _is_open_here(status: os.stat_result) -> bool:
    """Whether this process has the file open: then it is a database, and nobody else may open and close it."""
    with contextlib.suppress(OSError):
        for descriptor in os.listdir(OPEN_FILES):  # noqa: PTH208 - numbers, not paths
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(int(descriptor)), status):
                    return True
    return False


def exists(path: Path) -> bool:
    """Whether it can be seen to be there; ``Path.exists`` raises where a directory above cannot be looked into."""
    return os.path.exists(path)  # noqa: PTH110


def queue_files(directory: Path) -> list[Path]:
    """All queue files of a directory, by name; none where there is no such directory."""
    try:
        return sorted(path for path in directory.iterdir() if path.suffix == ".sqlite" and not path.is_symlink())
    except OSError:
        return []


def lock_path(path: Path) -> Path:
    """The drainer lock's file of a queue file."""
    return path.with_suffix(".lock")


def wal_bytes(path: Path) -> int:
    """Size of the queue file's write-ahead log."""
    return size_of(path.with_name(path.name + "-wal"))


def free_bytes(directory: Path) -> float:
    """Bytes that this user may still write on the directory's volume; infinite where nobody tells."""
    try:
        volume = os.statvfs(directory)
    except (OSError, AttributeError):  # the directory is just gone; Windows
        return math.inf
    return volume.f_bavail * volume.f_frsize


def size_of(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _refusal(what: str, error: OSError) -> NotAccepted | QueueUnavailable:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return NotAccepted("no space", f"{what}: no space left on its volume")
    return QueueUnavailable(f"{what} ({error.strerror or type(error).__name__}): {FIX}")
