"""A program that logs some requests and leaves in its own way: ``python -m tests.faults.script HOW COUNT``.

It prints the ``_id`` of each request that was answered whole, and at last ``leaving`` with the monotonic clock.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from typing import TYPE_CHECKING

from tests.faults.processes import poll

if TYPE_CHECKING:
    from collections.abc import Callable

    import flask


def ask(app: flask.Flask, count: int) -> None:
    client = app.test_client()
    for _ in range(count):
        answer = client.get("/json")
        say(answer.headers["x-documentation-url"].rpartition("/")[2])


def say(words: str) -> None:
    os.write(1, f"{words}\n".encode())


def leaving() -> None:
    say(f"leaving {time.monotonic()}")


def at_the_end(app: flask.Flask, count: int) -> None:
    ask(app, count)


def by_an_exception(app: flask.Flask, count: int) -> None:
    ask(app, count)
    sys.excepthook = lambda *_: None
    raise SystemError


def by_os_exit(app: flask.Flask, count: int) -> None:
    ask(app, count)
    leaving()
    os._exit(0)


def with_a_thread_that_goes_on(app: flask.Flask, count: int) -> None:
    """The interpreter waits for it before it tears down."""
    threading.Thread(target=ask, args=(app, count)).start()


def with_a_daemon_thread_in_the_middle(app: flask.Flask, count: int) -> None:
    ask(app, count)
    threading.Thread(target=ask, args=(app, 1_000_000), daemon=True).start()


def logging_at_exit(app: flask.Flask, count: int) -> None:
    """In a handler that was registered first, so it comes last: after ours, when no thread can start any more."""
    ask(app, count)


def without_threads(app: flask.Flask, count: int) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threading.Thread.start = refuse  # type: ignore[method-assign,assignment]  # what a full process table does
    ask(app, count)


def go_on_in_a_child() -> None:
    """The parent drains no more when the child goes on: the drainer lock is free."""
    parent = os.getpid()
    if os.fork():
        os._exit(0)
    poll(lambda: os.getppid() != parent, 10, "the parent's end")


def as_a_daemon(app: flask.Flask, count: int) -> None:
    """Logged something, then forks twice and goes on in the grandchild."""
    ask(app, count)
    for _ in range(2):
        go_on_in_a_child()
        os.setsid()
    ask(app, count)


def forked_in_the_middle_of_a_drain(app: flask.Flask, count: int) -> None:
    """Forks while a batch is in flight, and goes on in the child."""
    ask(app, count)
    drain = app.extensions["readme_metrics"]._recorder._pipeline._drain
    poll(drain._one_at_a_time.locked, 10, "a drain")
    go_on_in_a_child()
    ask(app, count)


def with_children(app: flask.Flask, count: int) -> None:
    """Forks with a warm flusher; one child leaves by its own end, one without any clean-up, and all go on."""
    ask(app, count)
    children = []
    for leave in (sys.exit, os._exit):
        child = os.fork()
        if child == 0:
            ask(app, count)
            leave(0)
        children.append(child)
        ask(app, count)
    for child in children:
        os.waitpid(child, 0)


WAYS: tuple[Callable[[flask.Flask, int], None], ...] = (
    at_the_end,
    by_an_exception,
    by_os_exit,
    with_a_thread_that_goes_on,
    with_a_daemon_thread_in_the_middle,
    logging_at_exit,
    without_threads,
    as_a_daemon,
    forked_in_the_middle_of_a_drain,
    with_children,
)


def main(how: str, count: int) -> None:
    if how == logging_at_exit.__name__:
        atexit.register(lambda: ask(app, count))
    from tests.faults.app import app  # noqa: PLC0415 - after that handler

    atexit.register(leaving)
    {way.__name__: way for way in WAYS}[how](app, count)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
