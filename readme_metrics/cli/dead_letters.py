"""``readme-metrics dead-letters``: look at what the server refused and why, send it again, delete it."""

from __future__ import annotations

import contextlib
import functools
import json
import time
from typing import TYPE_CHECKING, Final

import click

from readme_metrics.cli import figures
from readme_metrics.cli.base import (
    WRONG,
    Failure,
    Group,
    agreed,
    check_place,
    common,
    named_file,
    other_queues,
    say,
    say_json,
    say_other_queues,
)
from readme_metrics.cli.flushing import UNBOUNDED_BYTES, holds_nothing
from readme_metrics.queue import ledger, open_queue

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from pathlib import Path

    from readme_metrics.cli.place import Place
    from readme_metrics.queue.contract import DeadLetter, DurableQueue

NONE: Final = "No dead letters."


def file_option(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``--file``; it gets ``file``: that one, or the queue file of this place."""

    @click.option("--file", "file_name", metavar="FILE", help="Look into a queue file of an earlier key or server.")
    @functools.wraps(command)
    def with_file(place: Place, file_name: str | None, **options: object) -> None:
        check_place(place)
        command(place=place, file=named_file(place, file_name) or place.only_file(), **options)

    return with_file


@click.group("dead-letters", cls=Group)
def dead_letters_group() -> None:
    """Look at what the server refused and why; send it again; delete it.

    Works beside a running app. Without a key it looks at the only queue file of the directory.
    """


@dead_letters_group.command("list")
@common
@file_option
def list_command(*, place: Place, file: Path, as_json: bool) -> None:
    """List the dead letters, oldest first.

    --json prints directory, queue, dead_letters (each with id, status, reason, answer, buried_at, size_bytes, request).
    """
    with _queue(place, file) as queue:
        letters = queue.dead_letters() if queue else []
    if as_json:
        say_json({**_where(file), "dead_letters": [_as_dict(letter) for letter in letters]})
        return
    _say_where(place, file)
    say(_table(letters, time.time()) if letters else NONE)


@dead_letters_group.command("show")
@common
@file_option
@click.argument("id_", metavar="ID", type=int)
def show_command(*, place: Place, file: Path, as_json: bool, id_: int) -> None:
    """Show one dead letter: why it was refused, what the server answered, and the entry.

    --json prints directory, queue, id, status, reason, answer, buried_at, size_bytes, request, entry.
    """
    with _queue(place, file) as queue:
        letter = _chosen(queue.dead_letters() if queue else [], [id_])[0]
    if as_json:
        say_json({**_where(file), **_as_dict(letter), "entry": _entry(letter)})
        return
    _say_where(place, file)
    say(figures.field("ID", str(letter.id), indent=0))
    say(figures.field("set aside", figures.moment(letter.buried_at, time.time()), indent=0))
    say(figures.field("reason", figures.printable(letter.reason), indent=0))
    say(figures.field("answer", figures.printable(letter.answer) or "none", indent=0))
    say(figures.printable(json.dumps(_entry(letter), indent=2, ensure_ascii=False)))


@dead_letters_group.command("requeue")
@common
@file_option
@click.argument("ids", metavar="[ID]...", type=int, nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All of them.")
def requeue_command(*, place: Place, file: Path, as_json: bool, ids: tuple[int, ...], everything: bool) -> None:
    """Put dead letters back into the queue, at its end: they are sent again.

    --json prints directory, queue, requeued.
    """
    if everything == bool(ids):
        raise click.UsageError("Name the dead letters, or say --all.")
    with _queue(place, file) as queue:
        letters = _chosen(queue.dead_letters() if queue else [], ids)
        count = queue.requeue([letter.id for letter in letters]) if queue and letters else 0
    if as_json:
        say_json({**_where(file), "requeued": count})
        return
    _say_where(place, file)
    say(f"{figures.entries(count)} back in the queue; readme-metrics flush sends at once." if count else NONE)


@dead_letters_group.command("purge")
@common
@file_option
@click.argument("ids", metavar="[ID]...", type=int, nargs=-1)
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge_command(*, place: Place, file: Path, as_json: bool, ids: tuple[int, ...], yes: bool) -> None:
    """Delete dead letters for good: those named, or all; booked as dropped: purged.

    Exit status: 0; 1 you said no; 2 usage, or no terminal to ask and no --yes.

    --json prints directory, queue, purged.
    """
    with _queue(place, file) as queue:
        letters = _chosen(queue.dead_letters() if queue else [], ids)
        what = figures.dead_letters(len(letters))
        if letters and not agreed(f"Delete {what} for good?", yes=yes):
            raise Failure("nothing was deleted", WRONG)
        count = queue.purge([letter.id for letter in letters]) if queue and letters else 0
    if as_json:
        say_json({**_where(file), "purged": count})
        return
    _say_where(place, file)
    say(f"{figures.dead_letters(count)} deleted." if count else NONE)


@contextlib.contextmanager
def _queue(place: Place, file: Path) -> Generator[DurableQueue | None]:
    """The queue, open; None where there is none yet. What is no queue file of ours is not touched."""
    check_place(place, file)
    if holds_nothing(file):
        yield None
        return
    if file.exists():
        ledger.read_report(file)
    queue = open_queue(file, max_bytes=UNBOUNDED_BYTES)
    try:
        yield queue
    finally:
        queue.close()


def _chosen(letters: Iterable[DeadLetter], ids: Sequence[int]) -> list[DeadLetter]:
    """Those with these ids, or all; an id that is none is a usage error."""
    by_id = {letter.id: letter for letter in letters}
    unknown = [str(id_) for id_ in ids if id_ not in by_id]
    if unknown:
        raise click.UsageError(f"No dead letter {', '.join(unknown)}: readme-metrics dead-letters list.")
    return [by_id[id_] for id_ in dict.fromkeys(ids or by_id)]


def _where(file: Path) -> dict[str, str]:
    return {"directory": str(file.parent), "queue": str(file)}


def _say_where(place: Place, file: Path) -> None:
    say(f"Queue {file}")
    say_other_queues(place, other_queues(place, file))


def _table(letters: Iterable[DeadLetter], now: float) -> str:
    rows = [
        (
            str(letter.id),
            figures.span(now - letter.buried_at),
            figures.size(len(letter.entry)),
            figures.one_line(letter.reason, 24),
            _request(letter),
        )
        for letter in letters
    ]
    return figures.table(("ID", "AGE", "SIZE", "REASON", "REQUEST"), rows)


def _as_dict(letter: DeadLetter) -> dict[str, object]:
    return {
        "id": letter.id,
        "status": letter.status,
        "reason": letter.reason,
        "answer": letter.answer,
        "buried_at": letter.buried_at,
        "size_bytes": len(letter.entry),
        "request": _request(letter),
    }


def _entry(letter: DeadLetter) -> object:
    """The entry, decoded; as text where it is no JSON."""
    text = letter.entry.decode("utf-8", "replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _request(letter: DeadLetter) -> str:
    """Method and URL, where the entry has them."""
    try:
        request = json.loads(letter.entry)["request"]["log"]["entries"][0]["request"]
        return f"{request['method']} {request['url']}"
    except (ValueError, LookupError, TypeError, RecursionError):
        return "unreadable"
