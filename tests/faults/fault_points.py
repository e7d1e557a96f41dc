"""Steps of the drain at which a test can have the drainer killed; they cost nothing where this is not installed.

A step is armed by a file of its name. Whoever comes to the step first removes the file and dies by ``kill -9``.
"""

from __future__ import annotations

import functools
import os
import random
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from readme_metrics.delivery import Delivery
from readme_metrics.queue.durable import SqliteQueue
from readme_metrics.queue.sqlite import QueueFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

BEFORE = {
    "before claim": (SqliteQueue, "claim"),
    "before POST": (Delivery, "send"),
    "before ack": (SqliteQueue, "ack"),
}
AFTER = {
    "after claim": (SqliteQueue, "claim"),
    "after the answer": (Delivery, "send"),
    "after ack": (SqliteQueue, "ack"),
}
DURING = {"inside a checkpoint": (QueueFile, "checkpoint")}
INSIDE_THE_ACK = "inside the ack's transaction"
INSTRUCTIONS = 100
"""Of SQLite's machine, after which an ack of several entries has deleted two and an ack of one is not done."""
WITH_THE_LAST_BYTE = "with the last byte of an answer"
BY_THE_SERVER = "after the server read the body"
STEPS = (*BEFORE, *AFTER, *DURING, INSIDE_THE_ACK, BY_THE_SERVER)


def install(directory: str) -> None:
    """Wrap the product's methods in this process."""
    for step, (owner, name) in BEFORE.items():
        _wrap(owner, name, before=functools.partial(_die, Path(directory, step)))
    for step, (owner, name) in AFTER.items():
        _wrap(owner, name, after=functools.partial(_die, Path(directory, step)))
    for step, (owner, name) in DURING.items():
        _wrap(owner, name, before=functools.partial(_die_soon, Path(directory, step)))
    _die_inside_the_ack(Path(directory, INSIDE_THE_ACK))


def die_with_the_last_byte(app: WSGIApplication, directory: str) -> WSGIApplication:
    """Stand between the app and its server: when the server has sent all of a Content-Length, nothing else happens."""
    mark = Path(directory, WITH_THE_LAST_BYTE)

    def deadly(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "OPTIONS" or not mark.exists():
            return app(environ, start_response)
        left = 0

        def note_length(status: str, headers: list[tuple[str, str]], *error: Any) -> Callable[[bytes], object]:
            nonlocal left
            left = int(dict(headers)["Content-Length"])
            return start_response(status, headers, *error)

        def chunks() -> Iterator[bytes]:
            nonlocal left
            for chunk in app(environ, note_length):
                yield chunk
                left -= len(chunk)
                if left <= 0:
                    _die(mark)

        return chunks()

    return deadly


def _nothing() -> None:
    pass


def _wrap(
    owner: Any, name: str, *, before: Callable[[], None] = _nothing, after: Callable[[], None] = _nothing
) -> None:
    method = getattr(owner, name)

    @functools.wraps(method)
    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        before()
        result = method(*arguments, **keywords)
        after()
        return result

    setattr(owner, name, wrapped)


def _disarm(mark: Path) -> bool:
    try:
        mark.unlink()
    except FileNotFoundError:
        return False
    return True


def _die(mark: Path) -> None:
    if _disarm(mark):
        os.kill(os.getpid(), signal.SIGKILL)


def _die_soon(mark: Path) -> None:
    """Die at a random instant of what follows, which releases the interpreter."""
    if _disarm(mark):
        threading.Timer(random.uniform(0, 0.002), os.kill, (os.getpid(), signal.SIGKILL)).start()


def _die_inside_the_ack(mark: Path) -> None:
    settle = QueueFile.settle

    @functools.wraps(settle)
    def wrapped(file: QueueFile, *arguments: Any, **keywords: Any) -> None:
        if mark.exists() and file.claims.unbooked:
            file._getter.set_progress_handler(functools.partial(_die, mark), INSTRUCTIONS)
        settle(file, *arguments, **keywords)

    QueueFile.settle = wrapped  # type: ignore[method-assign,assignment]  # takes any
