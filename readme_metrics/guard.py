"""Keeps our failures out of the host app: catch, log once per reason, count, go on.

A ``Guard`` is made once for each place that may fail and entered for every request, so entering costs next to nothing.
It never logs a body, a header value or a key: an exception's own text may hold one, so only its type and the place in
the code are said (all frames at debug level). ``BaseException`` passes: ``GeneratorExit``, ``KeyboardInterrupt``,
``SystemExit`` and ``gevent.Timeout`` belong to the host.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from traceback import walk_tb
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

_log: Final = logging.getLogger("readme_metrics.guard")

REPEAT_AFTER_S: Final = 3600.0
"""A reason that lasts is said again once an hour, with its count."""
MOST_REASONS: Final = 32
"""Bound of what one guard remembers; further reasons are counted and not said."""

_PACKAGE: Final = str(Path(__file__).parent)


class Guard:
    """A context manager for one place: ``with guard: …`` lets no ``Exception`` out.

    ``doing`` and ``loss`` make its sentence: what failed, and what that costs. Shared by all threads.
    """

    __slots__ = ("_clock", "_doing", "_level", "_loss", "_met", "failures")

    def __init__(
        self, doing: str, loss: str, *, level: int = logging.ERROR, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._doing = doing
        self._loss = loss
        self._level = level
        self._clock = clock
        self._met: dict[str, tuple[int, float]] = {}
        self.failures = 0

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        if error is None or not isinstance(error, Exception):
            return False
        self.failures += 1
        self._say(
            self._level, f"{self._doing} failed ({type(error).__name__} at {place_of(error)}): {self._loss}", error
        )
        return True

    def warn(self, sentence: str) -> None:
        """Log a fixed sentence as a warning, once per reason as failures are."""
        self._say(logging.WARNING, sentence, None)

    def _say(self, level: int, sentence: str, error: Exception | None) -> None:
        try:
            count = self._due(sentence)
            if count:
                _log.log(level, "%s%s", sentence, f" ({count} times so far)" if count > 1 else "")
                if error is not None and _log.isEnabledFor(logging.DEBUG):
                    _log.debug("%s%s", sentence, "".join(_frames(error)))
        except Exception:  # noqa: BLE001, S110  # a log handler of the host that raises is no reason to fail a request
            pass

    def _due(self, sentence: str) -> int:
        """How often this sentence was met if it is time to say it, else 0."""
        now = self._clock()
        count, said_at = self._met.get(sentence, (0, None))
        if said_at is None and len(self._met) >= MOST_REASONS:
            return 0
        due = said_at is None or now - said_at >= REPEAT_AFTER_S
        self._met[sentence] = (count + 1, now if said_at is None or due else said_at)
        return count + 1 if due else 0


def _frames(error: Exception) -> Iterator[str]:
    """As in a traceback, without the lines of code and what the exception says: both may hold a secret."""
    for frame, line in walk_tb(error.__traceback__):
        yield f'\n  File "{frame.f_code.co_filename}", line {line}, in {frame.f_code.co_name}'


def place_of(error: BaseException) -> str:
    """Where in the code it was raised: ``entry.py:88``, or ``flask_readme.py:120 > auth.py:12`` where we called out."""
    own = last = "unknown"
    trace = error.__traceback__
    while trace is not None:
        path = trace.tb_frame.f_code.co_filename
        last = f"{Path(path).name}:{trace.tb_lineno}"
        own = last if path.startswith(_PACKAGE) else own
        trace = trace.tb_next
    return last if own in {last, "unknown"} else f"{own} > {last}"
