"""``readme-metrics``: the commands that a person types. ``flask readme-metrics`` has the same ones."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import click

from readme_metrics import __version__
from readme_metrics.cli import figures, status_text
from readme_metrics.cli.base import (
    UNREADABLE,
    WRONG,
    Command,
    Failure,
    Group,
    check_place,
    common,
    leave,
    say,
    say_json,
)
from readme_metrics.cli.dead_letters import dead_letters_group
from readme_metrics.cli.doctor import FAIL, OK, WARN, examine
from readme_metrics.cli.flush import flush_command
from readme_metrics.cli.status_text import Finding, Level, Speed
from readme_metrics.errors import QueueError
from readme_metrics.queue import files, ledger, salvage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from readme_metrics.cli.place import Place
    from readme_metrics.queue.contract import Report

COLOURS: Final = {Level.WELL: "green", Level.WARNING: "yellow", Level.WRONG: "red"}
CHECK_COLOURS: Final = {OK: "green", WARN: "yellow", FAIL: "red"}
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
SAMPLE_S: Final = 1.0
"""Between two looks at the books that tell how fast a queue empties."""


@click.command("status", cls=Command)
@common
def status_command(*, place: Place, as_json: bool) -> None:
    """Tell whether anything is wrong, and show the books of every queue file in the directory.

    Exit status: 0; 1 the books of a file do not balance; 74 a file cannot be read; 77 run as another user than the
    queue's; 78 not configured; 2 usage.

    --json prints directory; queues, each with path, books (accepted, delivered, dead, dropped by reason, waiting,
    epoch, epoch_began_at, not_accepted by reason, balanced), backlog (count, size_bytes, oldest_at), hold (null, or
    until, length_s, kind, reason, timeout_s), activity (last_success_at, last_error_at, last_error,
    rejections_in_a_row, answers_with_errors), drainer (null, or pid, host, since, seen_at), file_bytes, wal_bytes,
    drains_per_s and empty_in_s (null where nothing waits, nobody drains, or a hold runs); unreadable, each with path
    and error; unsaved, the paths of files beside a queue's whose entries are not in it yet. Moments are seconds since
    1970.
    """
    check_place(place)
    reports, unreadable = _read(files.queue_files(place.directory))
    reports, speeds = measured(reports)
    if as_json:
        queues = [status_text.as_dict(report, speeds.get(report.path)) for report in reports]
        troubles = [{"path": path, "error": error} for path, error in unreadable.items()]
        unsaved = [str(path) for path in salvage.unsaved_files(place.directory)]
        say_json({"directory": str(place.directory), "queues": queues, "unreadable": troubles, "unsaved": unsaved})
    else:
        _show(place, reports, speeds, unreadable)
    if not all(report.books.balanced for report in reports):
        leave(WRONG)
    leave(UNREADABLE if unreadable else 0)


def _read(paths: Iterable[Path]) -> tuple[list[Report], dict[str, str]]:
    """The reports of files that can be read, and why the others cannot; a file made a moment ago is neither."""
    reports: list[Report] = []
    unreadable: dict[str, str] = {}
    for path in paths:
        try:
            if files.size_of(path):
                reports.append(ledger.read_report(path))
        except QueueError as error:  # noqa: PERF203 - a handful of files
            unreadable[str(path)] = str(error)
    return reports, unreadable


def measured(
    reports: list[Report],
    *,
    read: Callable[[Path], Report] = ledger.read_report,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    now: Callable[[], float] = time.time,
) -> tuple[list[Report], dict[str, Speed]]:
    """Look a second time, a second later, where entries are on their way."""
    moving = {report.path for report in reports if status_text.moving(report, now())}
    if not moving:
        return reports, {}
    began = clock()
    sleep(SAMPLE_S)
    later = [read(Path(report.path)) if report.path in moving else report for report in reports]
    elapsed_s = clock() - began
    pairs = zip(reports, later, strict=True)
    return later, {new.path: status_text.speed(old, new, elapsed_s) for old, new in pairs if new.path in moving}


def _show(place: Place, reports: list[Report], speeds: dict[str, Speed], unreadable: dict[str, str]) -> None:
    now = time.time()
    found = [Finding(Level.WRONG, f"{error}.") for error in unreadable.values()]
    found += [finding for report in reports for finding in status_text.findings(report, now)]
    found += [Finding(Level.WARNING, status_text.unsaved(path)) for path in salvage.unsaved_files(place.directory)]
    found.sort(key=lambda finding: -finding.level)
    waiting = sum(report.books.waiting for report in reports)
    for finding in found or [Finding(Level.WELL, status_text.well(waiting))]:
        say(click.style(figures.wrapped(finding.sentence), fg=COLOURS[finding.level]))
    say(f"\nDirectory {place.directory}")
    if not (reports or unreadable):
        say("No queue file is there. Is it the app's queue_path? --queue-path looks elsewhere.")
    for report in reports:
        say(f"\n{_title(place, Path(report.path).name)}")
        for line in status_text.lines(report, now, speeds.get(report.path)):
            say(line)


def _title(place: Place, name: str) -> str:
    if place.api_key is None:
        return f"Queue {name}"
    return f"Queue {name} ({'this' if name == place.file.name else 'another'} key and server)"


@click.command("doctor", cls=Command)
@common
def doctor_command(*, place: Place, as_json: bool) -> None:
    """Check this host: directory, permissions, file system, SQLite, uWSGI, gevent, key and server.

    The server is asked once, by a GET that leaves nothing there, for at most 5 s.

    Exit status: 0; 1 something would lose entries, or lets none leave; 78 not configured; 2 usage.

    --json prints directory, checks (each with name, level, text, fix); a level is ok, warn or fail.
    """
    checks = list(examine(place))
    if as_json:
        found = [dataclasses.asdict(check) for check in checks]
        say_json({"directory": str(place.directory), "checks": found})
    else:
        say(f"Directory {place.directory}\n")
    for check in () if as_json else checks:
        mark = click.style(check.level.ljust(4), fg=CHECK_COLOURS[check.level])
        fix = f"\n{figures.field('', f'fix: {check.fix}', column=19)}" if check.fix else ""
        say(f"{mark}{figures.field(check.name, check.text, indent=6, column=19)[4:]}{fix}")
    leave(WRONG if any(check.level == FAIL for check in checks) else 0)


@click.command("inspect", cls=Command)
@common
@click.option("--port", type=click.IntRange(0, 65535), default=4400, show_default=True, help="0 takes a free one.")
def inspect_command(*, place: Place, as_json: bool, port: int) -> None:
    """Start a local stand-in for ReadMe's server, with a page that shows each log as it arrives.

    It listens on 127.0.0.1 only, takes any key, and keeps nothing. Ctrl-C ends it. Given the app's key, the page shows
    the books of its queue.

    --json prints directory and url, when it listens.
    """
    try:
        from readme_metrics.inspector import serve  # noqa: PLC0415 - flask is an extra, and only this needs it
    except ImportError as error:
        message = f'the page needs flask ({error}): pip install "readme-metrics[Flask]"'
        raise Failure(message, WRONG) from error
    listening_at = f"http://127.0.0.1:{port}"

    def announce(url: str) -> None:
        nonlocal listening_at
        listening_at = url
        if as_json:
            say_json({"directory": str(place.directory), "url": url})
        else:
            say(f"Directory {place.directory}\n\nOpen {url} and start your app with\n")
            say(f"  README_METRICS_SERVER={url}\n\nCtrl-C ends it.")

    serve(port=port, announce=announce, books=lambda: _books(place, listening_at))


def _books(place: Place, url: str) -> dict[str, object] | None:
    """The books of the app that sends here; None: it has stored nothing yet, or its file is not certain."""
    if place.api_key is None:
        return None  # a file's name says whose it is only to who has the key
    ours = {dataclasses.replace(place, server=server).file for server in _addresses(place.server, url)}
    found = [path for path in files.queue_files(place.directory) if path in ours and files.size_of(path)]
    return ledger.read_report(found[0]).as_dict() if len(found) == 1 else None


def _addresses(server: str, url: str) -> set[str]:
    """The inspector's address, and the environment's where it is another way to write it."""
    named, ours = urlsplit(server), urlsplit(url)
    here = (named.scheme, named.port or 80, named.path) == (ours.scheme, ours.port, ours.path)
    return {url, server} if here and named.hostname in LOOPBACK else {url}


@click.group("readme-metrics", cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(version)s")
def main() -> None:
    """Look after the queue of logs between your API and ReadMe."""


COMMANDS: Final = (flush_command, status_command, dead_letters_group, doctor_command, inspect_command)
for command in COMMANDS:
    main.add_command(command)
