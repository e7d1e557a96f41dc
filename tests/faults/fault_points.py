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
from readme_metrics.queue import ledger
from readme_metrics.queue.durable import SqliteQueue
from readme_metrics.queue.sqlite import QueueFile

if TYPE_CHECKING:
    from collections.abc import Callable

BEFORE = {
    "before claim": (SqliteQueue, "claim"),
    "before POST": (Delivery, "send"),
    "before ack": (SqliteQueue, "ack"),
    "inside the ack's transaction": (ledger, "book_delivery"),
}
AFTER = {
    "after claim": (SqliteQueue, "claim"),
    "after the answer": (Delivery, "send"),
    "after ack": (SqliteQueue, "ack"),
}
DURING = {"inside a checkpoint": (QueueFile, "checkpoint")}
BY_THE_SERVER = "after the server read the body"
STEPS = (*BEFORE, *AFTER, *DURING, BY_THE_SERVER)


def install(directory: str) -> None:
    """Wrap the product's methods in this process."""
    for step, (owner, name) in BEFORE.items():
        _wrap(owner, name, before=functools.partial(_die, Path(directory, step)))
    for step, (owner, name) in AFTER.items():
        _wrap(owner, name, after=functools.partial(_die, Path(directory, step)))
    for step, (owner, name) in DURING.items():
        _wrap(owner, name, before=functools.partial(_die_soon, Path(directory, step)))


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
