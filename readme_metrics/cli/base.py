"""What all commands share: their options, their words on the terminal, and what an error's exit status is.

Exit status: 0 done; 1 the books do not balance, a check failed, or you said no to a purge; 2 usage; 74 a queue file
cannot be read; 75 entries remain; 77 the key was refused, or this is another user than the queue's; 78 not configured,
or the server's address is wrong.
"""

from __future__ import annotations

import functools
import io
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click

from readme_metrics.cli.figures import dead_letters, entries
from readme_metrics.cli.place import Place, place_of_environment
from readme_metrics.errors import ConfigurationError, MetricsError, QueueError
from readme_metrics.queue import ledger

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

WRONG: Final = 1
USAGE: Final = 2
"""Click's own."""
UNREADABLE: Final = 74
REMAIN: Final = 75
NOT_ALLOWED: Final = 77
NOT_CONFIGURED: Final = 78

PLACE: Final = "readme_metrics.place"
"""Where in click's ``meta`` the ``flask`` command leaves the way to find the app's own place."""


class Failure(MetricsError):
    """Ends a command with a message on stderr and this exit status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Command(click.Command):
    """A command whose errors have the exit status that scripts rely on."""

    def invoke(self, ctx: click.Context) -> object:
        """Run it; a character that the terminal's encoding lacks is shown escaped."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(ctx)
        except (MetricsError, PermissionError) as error:
            say(f"Error: {error}", err=True)
            ctx.exit(_status_of(error))


def _status_of(error: Exception) -> int:
    if isinstance(error, Failure):
        return error.status
    return NOT_CONFIGURED if isinstance(error, ConfigurationError) else UNREADABLE


class Group(click.Group):
    """A group of such commands."""

    command_class = Command


def common(command: Callable[..., T]) -> Callable[..., T]:
    """Give a command ``--queue-path``, ``--api-key`` and ``--json``; it gets ``place`` and ``as_json``."""

    @click.option("--queue-path", metavar="DIR", help="The queue's directory [env: README_METRICS_QUEUE_PATH].")
    @click.option(
        "--api-key",
        metavar="KEY",
        help="The ReadMe API key. Arguments show in ps: better set the environment variable [env: README_API_KEY].",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
    @functools.wraps(command)
    def with_place(queue_path: str | None, api_key: str | None, **options: object) -> T:
        return command(place=_place(queue_path, api_key), **options)

    return with_place


def _place(queue_path: str | None, api_key: str | None) -> Place:
    find: Callable[[str | None, str | None], Place] = click.get_current_context().meta.get(PLACE, place_of_environment)
    return find(queue_path, api_key)


def say(text: str, *, err: bool = False) -> None:
    """Print; colour only on a terminal, and not where NO_COLOR is set."""
    click.echo(text, err=err, color=False if os.environ.get("NO_COLOR") else None)


def say_json(data: object) -> None:
    """Print one JSON object."""
    say(json.dumps(data, indent=2))


def leave(status: int) -> NoReturn:
    """End with this exit status."""
    click.get_current_context().exit(status)


def agreed(question: str, *, yes: bool) -> bool:
    """Ask a person; without a terminal and without ``--yes`` it is a usage error."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Without a terminal, --yes says so.")
    return click.confirm(question)


def check_place(place: Place, file: Path | None = None) -> None:
    """Stop where the directory or the file is another user's, root's visit included, or cannot be used."""
    if wrong := place.wrong_user(file):
        raise Failure(wrong, NOT_ALLOWED)
    if unreadable := place.unreadable():
        raise Failure(unreadable, UNREADABLE)


def other_queues(place: Place, file: Path) -> list[dict[str, Any]]:
    """The directory's other queue files that hold entries or dead letters, as ``--json`` shows them."""
    found: list[dict[str, Any]] = []
    for path in place.other_files(file):
        try:
            books = ledger.read_report(path).books
        except QueueError as error:
            say(str(error), err=True)
            continue
        if books.waiting or books.dead:
            found.append({"path": str(path), "waiting": books.waiting, "dead": books.dead})
    return found


def say_other_queues(place: Place, others: list[dict[str, Any]]) -> None:
    """Point them out, on stderr."""
    for other in others:
        for what, command in (
            (other["waiting"] and entries(other["waiting"]), "flush"),
            (other["dead"] and dead_letters(other["dead"]), "dead-letters list"),
        ):
            if what:
                told = f"{what} of another key or server in {place.directory}"
                say(f"{told}: readme-metrics {command} --file {other['path']}", err=True)


def named_file(place: Place, name: str | None) -> Path | None:
    """The path that ``--file`` gives, or the name of a file in the queue's directory."""
    if name is None:
        return None
    for path in (Path(name).expanduser(), place.directory / name):
        if path.exists():
            return path.parent.resolve() / path.name
    raise click.UsageError(f"--file is {name}, which is neither here nor in {place.directory}.")
