"""The switch that plays an outage."""

from __future__ import annotations

import threading
from typing import Final, Literal, get_args

Mode = Literal["off", "503", "429", "hang"]
MODES: Final[tuple[Mode, ...]] = get_args(Mode)

RETRY_AFTER_S: Final = 20
"""What a 429 asks for: long enough to see the hold, short enough to wait for its end."""
MAX_HANGING: Final = 16
"""POSTs left hanging at once; the rest is answered 503, so that the page itself always gets through."""
MAX_HANG_S: Final = 90.0
"""Longer than the longest time-out of a probe (60 s)."""


class Outage:
    """What is played now; every method may be called from any thread."""

    def __init__(self) -> None:
        self._mode: Mode = "off"
        self._changed = threading.Condition()
        self._hanging = 0

    @property
    def mode(self) -> Mode:
        """What is played now."""
        return self._mode

    def play(self, mode: str) -> bool:
        """Switch over and let go of whatever hangs; False: there is no such mode."""
        if mode not in MODES:
            return False
        with self._changed:
            self._mode = mode
            self._changed.notify_all()
        return True

    def hang(self) -> None:
        """Block until the mode changes, ``MAX_HANG_S`` at most."""
        with self._changed:
            if self._hanging >= MAX_HANGING:
                return
            self._hanging += 1
            try:
                self._changed.wait_for(lambda: self._mode != "hang", timeout=MAX_HANG_S)
            finally:
                self._hanging -= 1
