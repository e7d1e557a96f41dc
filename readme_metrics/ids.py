"""Ids of entries: uuid4s that no two processes share.

The kernel's randomness is fetched for many at once, because each fetch hands the interpreter's lock over, and in a
process whose threads are all busy it takes as long as everything else here to get it back.
"""

from __future__ import annotations

import os
import time
from typing import Final

AT_ONCE: Final = 64
"""Ids from one fetch of randomness: 768 bytes."""


class Ids:
    """Makes ids, for any number of threads.

    Each begins with the time and goes on with 90 random bits. A forked child, whose pid differs, fetches its own; two
    copies of one frozen virtual machine share the bits, but make no id in the same nanosecond.
    """

    def __init__(self) -> None:
        self._pid = 0
        self._left: list[str] = []

    def new(self) -> str:
        """Make the next."""
        if not self._left or self._pid != os.getpid():
            digits = os.urandom(12 * AT_ONCE).hex()
            self._left = [digits[start : start + 24] for start in range(0, len(digits), 24)]
            self._pid = os.getpid()  # last: what a child inherits before that it does not take for its own
        try:
            some = self._left.pop()
        except IndexError:  # another thread took the last of them
            return self.new()
        variant = "89ab"[int(some[0], 16) & 3]
        return f"{time.time_ns() & 0xFFFFFFFF:08x}-{some[1:5]}-4{some[5:8]}-{variant}{some[8:11]}-{some[11:23]}"
