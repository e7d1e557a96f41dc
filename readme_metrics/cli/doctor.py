"""Looks for the set-up faults that would lose entries or keep them from leaving, before they bite.

Each check reads one thing and says ``ok``, ``warn`` or ``fail`` with the fix; ``fail`` is what would lose entries or
lets none leave. Nothing is written, and a queue file of another user is not opened.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from readme_metrics.cli.figures import entries, moment, size
from readme_metrics.cli.reach import Answer, reach
from readme_metrics.cli.status_text import Level, findings
from readme_metrics.errors import QueueError
from readme_metrics.patching import FIX
from readme_metrics.pipeline import CONTAINER_SIGNS
from readme_metrics.queue import files, ledger, salvage
from readme_metrics.verdict import Kind, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from readme_metrics.cli.place import Place
    from readme_metrics.queue.contract import Report

OK: Final = "ok"
WARN: Final = "warn"
FAIL: Final = "fail"
LITTLE_SPACE_BYTES: Final = 256 * 1024 * 1024
NO_SPACE_BYTES: Final = 2 * 1024 * 1024
"""About where entries are refused, whatever waits."""
NETWORK: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs", "glusterfs"})
MEMORY: Final = frozenset({"tmpfs", "ramfs"})
MOVE: Final = "set queue_path (or README_METRICS_QUEUE_PATH) to a directory on a disk of this host, or on a volume"
WAL_RESET_MENDED: Final = (3, 51, 3)
"""Before it, two overlapping checkpoints could harm a WAL (sqlite.org/wal.html); only the drainer checkpoints here."""
_LEVELS: Final = {Level.WELL: OK, Level.WARNING: WARN, Level.WRONG: FAIL}


@dataclass(frozen=True, slots=True)
class Check:
    """One finding."""

    name: str
    level: str
    text: str
    fix: str = ""


def examine(
    place: Place,
    *,
    mounts: Callable[[], str] = lambda: _read(Path("/proc/mounts")),
    ask: Callable[[str, str | None], Answer] = reach,
    now: Callable[[], float] = time.time,
) -> Iterator[Check]:
    """Every check, in an order in which a person would mend."""
    yield _key(place)
    yield from _directory(place)
    existing = _existing(place.directory)
    yield file_system(existing, mounts())
    yield space(shutil.disk_usage(existing).free)
    reports: list[Report] = []
    if place.wrong_user() is None:
        yield from _queue_files(place, reports, now())
    yield sqlite(ledger.sqlite_version())
    yield from _host()
    delivered_at = max((_delivered_at(place, report) for report in reports), default=0.0)
    yield server(place, ask(place.server, place.api_key), delivered_at, now())


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _key(place: Place) -> Check:
    if place.api_key is None:
        fix = "set README_API_KEY to the key that the app uses"
        return Check("key", WARN, "no API key was said: nothing that needs one is checked", fix)
    return Check("key", OK, f"an API key of {len(place.api_key)} characters")


# -- the directory


def _existing(directory: Path) -> Path:
    """The directory, or the nearest one above it that is there."""
    return next(path for path in (directory, *directory.parents) if files.exists(path))


def _directory(place: Place) -> Iterator[Check]:
    directory, existing = place.directory, _existing(place.directory)
    if not place.chosen and any(Path(sign).exists() for sign in CONTAINER_SIGNS):
        yield Check("directory", FAIL, f"{directory} was not chosen, and is lost with this container", MOVE)
    if not existing.is_dir():
        yield Check("directory", FAIL, f"{existing} is not a directory", files.FIX)
    elif wrong := place.wrong_user():
        level = WARN if os.geteuid() == 0 else FAIL  # root looks around; another user's app would store nothing there
        yield Check("directory", level, f"{wrong}; its queue files were not looked at", files.NOT_OURS)
    elif not os.access(existing, os.R_OK | os.W_OK | os.X_OK):
        yield Check("directory", FAIL, f"{existing} cannot be written: logs would wait in memory only", files.FIX)
    elif directory != existing:
        yield Check("directory", OK, f"{directory} is not there yet, and can be made")
    elif files.readable_by_others(directory):
        yield Check("directory", WARN, f"{directory} can be read by others", f"chmod 700 {directory}")
    else:
        yield Check("directory", OK, f"{directory} is ours alone")


def file_system(path: Path, mounts: str) -> Check:
    """Judge what kind of file system a path is on, by the text of /proc/mounts."""
    kind = _kind_of(path, mounts)
    if kind in NETWORK:
        return Check("file system", FAIL, f"{kind}: SQLite's locks cannot be trusted over a network", MOVE)
    if kind in MEMORY:
        return Check("file system", FAIL, f"{kind}: what waits is lost when this host stops", MOVE)
    if kind == "overlay":
        return Check("file system", FAIL, "overlay: what waits is lost with this container", MOVE)
    return Check("file system", OK, kind or "unknown: this system does not say")


def _kind_of(path: Path, mounts: str) -> str:
    """The kind of the last mount whose point is the longest that leads to the path."""
    best = ("", "")
    for line in mounts.splitlines():
        _device, point, kind, *_rest = [*line.split(), "", "", ""]
        point = point.replace("\\040", " ")
        if point and path.is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


def space(free_bytes: int) -> Check:
    """Judge the free space of the queue's volume."""
    text = f"{size(free_bytes)} free"
    if free_bytes < NO_SPACE_BYTES:
        return Check("space", FAIL, f"{text}: entries are not stored", "make room on the volume")
    if free_bytes < LITTLE_SPACE_BYTES:
        return Check("space", WARN, f"{text}: an outage of the server would fill it", "make room on the volume")
    return Check("space", OK, text)


# -- its files


def _queue_files(place: Place, reports: list[Report], now: float) -> Iterator[Check]:
    """Check every queue file; adds the reports of those that can be read."""
    if place.api_key is not None and place.file.is_symlink():
        yield Check("queue file", FAIL, f"{place.file.name} is a symbolic link, which is refused", f"rm {place.file}")
    for path in files.queue_files(place.directory):
        yield from _queue_file(place, path, reports, now)
    for unsaved in salvage.unsaved_files(place.directory):
        text = f"{unsaved.name} holds logs that are not in the queue yet"
        yield Check("queue file", WARN, text, "start the app, or run readme-metrics flush")
    for corrupt in sorted(place.directory.glob("*.corrupt-*")):
        if not corrupt.name.endswith(("-wal", "-shm")):
            text = f"{corrupt.name} was corrupt: what could be read in it was saved"
            yield Check("queue file", WARN, text, f"check the disk, then rm {corrupt}*")


def _queue_file(place: Place, path: Path, reports: list[Report], now: float) -> Iterator[Check]:
    name = "queue file"
    if wrong := place.wrong_user(path):
        yield Check(name, FAIL, wrong, f"chown it to the user of the app, or rm {path}")
        return
    try:
        report = ledger.read_report(path)
    except QueueError as error:
        yield Check(name, FAIL, str(error), "the app sets a corrupt file aside at its next request")
        return
    reports.append(report)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        yield Check(name, WARN, f"{path.name} can be read by others", f"chmod 600 {path}")
    found = findings(report, now)
    for finding in found:
        yield Check(name, _LEVELS[finding.level], f"{path.name}: {finding.sentence}")
    if place.api_key is not None and path.name != place.file.name and report.books.waiting:
        text = f"{path.name} holds {entries(report.books.waiting)} of another key or server"
        yield Check(name, WARN, text, f"readme-metrics flush --file {path}")
    elif not found:
        yield Check(name, OK, f"{path.name}: its books balance, {entries(report.books.waiting)} waiting")


def _delivered_at(place: Place, report: Report) -> float:
    """When the server last took a batch under this key; 0: never, or another key's."""
    ours = place.api_key is not None and Path(report.path).name == place.file.name
    return (report.activity.last_success_at or 0.0) if ours else 0.0


# -- the host


def sqlite(version: tuple[int, ...]) -> Check:
    """Judge SQLite's version."""
    text = ".".join(map(str, version))
    if version < WAL_RESET_MENDED:
        text += "; its rare WAL reset bug needs two checkpoints at once, and here one process makes them all"
    return Check("SQLite", OK, text)


def _host() -> Iterator[Check]:
    if version := _installed("uwsgi"):
        text = f"uWSGI {version} is installed: one that runs no threads stores logs and sends none"
        yield Check("uWSGI", OK, text, "older ones need --enable-threads (or --threads N)")
    if version := _installed("gevent"):
        text = f"gevent {version} is installed: it must patch before anything else is imported"
        yield Check("gevent", OK, text, f"gunicorn --worker-class gevent does, but with --preload {FIX}")


def _installed(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


# -- the server


def server(place: Place, answer: Answer, delivered_at: float, now: float) -> Check:
    """Judge what a GET brought back: reachable, the key refused, or something else that answers there."""
    name = "server"
    if answer.status is None:
        fix = "check README_METRICS_SERVER, the network, HTTP(S)_PROXY; meanwhile entries wait and none is lost"
        return Check(name, WARN, f"{place.server} cannot be reached: {answer.error}", fix)
    verdict = judge(answer.status, {}, answer.body, None, now)
    if verdict.kind is Kind.REFUSED and place.api_key is not None:
        return Check(
            name, FAIL, f"{place.server} refuses the key ({answer.status})", "check README_API_KEY (the api_key option)"
        )
    if verdict.kind is Kind.MISDIRECTED and (answer.status < 400 or b"<html" in answer.body.lower()):
        fix = "check README_METRICS_SERVER and any HTTP(S)_PROXY"
        return Check(name, FAIL, f"{place.server} answers like a web site, not like ReadMe ({answer.status})", fix)
    if verdict.kind is Kind.LATER:
        fix = "wait; meanwhile entries wait too and none is lost"
        return Check(name, WARN, f"{place.server} is in trouble ({answer.status})", fix)
    if delivered_at:
        return Check(name, OK, f"{place.server} answers, and took a batch under this key {moment(delivered_at, now)}")
    return Check(
        name, OK, f"{place.server} answers ({answer.status}); only a first batch tells whether it takes the key"
    )
