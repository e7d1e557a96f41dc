"""What must happen around a fork, for every object that asks for it.

No process may fork with an open connection to a queue file: the child's *new* connections would share the inherited
lock state of the parent's without the kernel's locks, and committed entries can be lost. Python's own hooks cover
``os.fork`` and ``multiprocessing``; a fork made by C code runs none of them, which each object notices by its pid.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol


class Forkable(Protocol):
    """An object that must know about forks; the three run in the thread that forks."""

    def before_fork(self) -> None:
        """Let go of what must not be inherited, and keep others from taking it until after."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Begin anew: no other thread exists here, and locks may be held by threads that don't."""


class Event(threading.Event):
    """An event that a forked child has anew, set if it was: a thread of the parent's may be in its lock."""

    def __init__(self) -> None:
        super().__init__()
        watch(self)

    def before_fork(self) -> None:
        """Nothing."""

    def after_fork_in_parent(self) -> None:
        """Nothing."""

    def after_fork_in_child(self) -> None:
        """Begin anew."""
        was_set = self.is_set()
        super().__init__()
        if was_set:
            self.set()


_watched: weakref.WeakSet[Forkable] = weakref.WeakSet()
_forking = threading.local()
"""Of the thread that forks, so that two threads forking at once keep apart."""


def watch(watched: Forkable) -> None:
    """Call the three methods of this object around each fork, as long as it lives."""
    _watched.add(watched)


def _before() -> None:
    _forking.watched = sorted(_watched, key=id)  # two threads that fork at once take the locks in the same order
    for watched in _forking.watched:
        watched.before_fork()


def _after() -> list[Forkable]:
    """Those whose ``before_fork`` ran, last first; none where C code forked and ran Python's hooks only after it."""
    watched: list[Forkable] = getattr(_forking, "watched", [])
    _forking.watched = []
    return watched[::-1]


def _in_parent() -> None:
    for watched in _after():
        watched.after_fork_in_parent()


def _in_child() -> None:
    for watched in _after():
        watched.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
