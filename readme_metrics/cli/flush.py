"""``readme-metrics flush``: its options, its progress bar, its summary line and its exit status."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

import click

from readme_metrics.cli import figures
from readme_metrics.cli.base import (
    NOT_ALLOWED,
    NOT_CONFIGURED,
    REMAIN,
    Command,
    Failure,
    agreed,
    check_place,
    common,
    leave,
    named_file,
    other_queues,
    say,
    say_json,
    say_other_queues,
)
from readme_metrics.cli.flushing import Ended, Result, flush, holds_nothing
from readme_metrics.config import MOST_SECONDS
from readme_metrics.queue import ledger

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path
    from types import FrameType

    from click._termui_impl import ProgressBar  # in the types only

    from readme_metrics.cli.place import Place

MAX_TIME_S: Final = 300.0
STATUS_OF_HOLD: Final = {"refused": NOT_ALLOWED, "misdirected": NOT_CONFIGURED}


@click.command("flush", cls=Command)
@common
@click.option(
    "--max-time",
    metavar="S",
    type=click.FloatRange(0, MOST_SECONDS),
    default=MAX_TIME_S,
    show_default=True,
    help="Seconds after which no further batch is sent.",
)
@click.option("--batch-size", metavar="N", type=click.IntRange(min=1), help="Entries in one POST [default: 10].")
@click.option("--force", is_flag=True, help="End a hold, beside a running app too.")
@click.option("--file", "file_name", metavar="FILE", help="Send a queue file of an earlier key or server.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--quiet", is_flag=True, help="Say nothing but what needs mending.")
def flush_command(
    *,
    place: Place,
    as_json: bool,
    max_time: float,
    batch_size: int | None,
    force: bool,
    file_name: str | None,
    yes: bool,
    quiet: bool,
) -> None:
    """Send what waits now.

    Where another process drains, it is asked to, and its progress is followed. Where a hold runs, nothing is sent
    unless --force ends it.

    Exit status: 0 nothing waits; 75 entries remain (server away, hold, time up, or you said no); 77 the key was
    refused, or run as another user than the queue's; 78 not configured, or the server's address is wrong; 74 the queue
    cannot be read; 2 usage.

    --json prints directory, queue, ended, waiting, unsaved_files, delivered, dead, took_s, hold (null, or until,
    length_s, kind, reason, timeout_s), other_queues (each with path, waiting and dead), exit_status.
    """
    if file_name is None:
        check_place(place)  # before a key is missed: sudo has taken it out of the environment
    file = named_file(place, file_name) or place.file
    foreign = file.name != place.file.name
    place = dataclasses.replace(place, directory=file.parent)
    check_place(place, file)
    if foreign:
        _ask_for(file, place, yes=yes)
    screen = _Screen(bar=not (as_json or quiet) and sys.stdout.isatty(), words=not quiet)
    with _stopping(words=not quiet) as stop, screen:
        result = flush(
            file,
            server=place.server,
            api_key=place.key,
            batch_length=batch_size or place.batch_length,
            timeout_s=place.timeout_s,
            max_time_s=max_time,
            force=force or foreign,  # the hold of another key's file says nothing about this one
            stop=stop,
            watcher=screen,
        )
    _tell(result, file, place, as_json=as_json, quiet=quiet)
    leave(exit_status(result))


def _ask_for(file: Path, place: Place, *, yes: bool) -> None:
    """Logs of another key or server go out only if a person says so."""
    waiting = 0 if holds_nothing(file) else ledger.read_report(file).books.waiting
    question = (
        f"{figures.entries(waiting)} of {file.name} were stored under another key or server. Send them to "
        f"{place.server} with the present key?"
    )
    if waiting and not agreed(question, yes=yes):
        raise Failure(f"nothing was sent: the entries stay in {file}", REMAIN)


class _Screen:
    """Shows a flush to a person: a bar on a terminal, sentences on stderr."""

    def __init__(self, *, bar: bool, words: bool) -> None:
        self._wants_bar = bar
        self._words = words
        self._bar: ProgressBar[int] | None = None

    def __enter__(self) -> _Screen:  # noqa: PYI034 - Self is not in Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.render_finish()

    def begin(self, waiting: int) -> None:
        """Open the bar."""
        if self._wants_bar and waiting:
            self._bar = click.progressbar(length=waiting, label="Sending", show_pos=True, show_percent=True)
            self._bar.render_progress()

    def settled(self, count: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(count)

    def say(self, sentence: str) -> None:
        """Write below the bar."""
        if self._words:
            say(f"{os.linesep if self._bar is not None else ''}{sentence}", err=True)


@contextlib.contextmanager
def _stopping(*, words: bool) -> Generator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets; a second one leaves at once. The drain's own lines would tell it twice."""
    stop = threading.Event()
    drain_log = logging.getLogger("readme_metrics.drain")

    def set_stop(number: int, _: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])
        if words:  # by the descriptor: the stream may be in the middle of a write
            os.write(2, b"\nStopping: what is on its way comes back first; once more leaves at once.\n")

    before = {number: signal.signal(number, set_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    was_disabled, drain_log.disabled = drain_log.disabled, True
    try:
        yield stop
    except KeyboardInterrupt:
        raise Failure("left at once: what was not delivered stays in the queue", REMAIN) from None
    finally:
        drain_log.disabled = was_disabled
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(result: Result, file: Path, place: Place, *, as_json: bool, quiet: bool) -> None:
    status = exit_status(result)
    others = other_queues(place, file) if as_json or not quiet else []
    if as_json:
        figures_of_it = {**dataclasses.asdict(result), "ended": result.ended.value, "exit_status": status}
        say_json({"directory": str(place.directory), "queue": str(file), **figures_of_it, "other_queues": others})
    elif not quiet or status in {NOT_ALLOWED, NOT_CONFIGURED}:
        say(summary(result, file, time.time()), err=quiet)
    if not quiet:
        say_other_queues(place, others)


def exit_status(result: Result) -> int:
    """What scripts go by."""
    if result.ended is Ended.EMPTY:
        return 0
    return STATUS_OF_HOLD.get(result.hold.kind, REMAIN) if result.hold is not None else REMAIN


def summary(result: Result, file: Path, now: float) -> str:
    """One line for a person."""
    done = _done(result)
    if result.ended is not Ended.EMPTY:
        remains = f"{_remaining(result)} in {file.parent}: {_why(result, now)}."
        return f"{remains} Meanwhile: {done}." if done else remains
    if done:
        return f"Nothing waits in {file.parent} any more: {done}."
    if not file.parent.exists():
        return f"Nothing waits: {file.parent} does not exist. Is it the app's queue_path?"
    never = "" if file.exists() else ": no entry of this key and server was ever stored there"
    return f"Nothing waits in {file.parent}{never}."


def _remaining(result: Result) -> str:
    waits = f"{figures.entries(result.waiting)} {'waits' if result.waiting == 1 else 'wait'}"
    if not result.unsaved_files:
        return waits
    return f"{waits}, and more in {result.unsaved_files} set aside or left beside the file,"


def _done(result: Result) -> str:
    told = []
    if result.delivered:
        speed = f" ({figures.per_second(result.delivered / result.took_s)})" if result.took_s >= 1 else ""
        told.append(f"{figures.entries(result.delivered)} delivered in {figures.span(result.took_s)}{speed}")
    if result.dead:
        told.append(f"{figures.number(result.dead)} set aside (readme-metrics dead-letters list)")
    return ", ".join(told)


def _why(result: Result, now: float) -> str:
    if result.hold is not None:
        length = figures.span(result.hold.until - now)
        return f"delivery is held for {length} more ({result.hold.reason}); --force tries at once"
    if result.ended is Ended.OUT_OF_TIME:
        return "time is up; run it again, or give it more with --max-time"
    if result.ended is Ended.UNDELETED:
        return (
            "some are delivered and cannot be deleted yet; make room on the volume, or end the program that locks the "
            "file, and run it again"
        )
    return "it was stopped, and none is lost"
