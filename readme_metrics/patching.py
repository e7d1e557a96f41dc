"""gevent has to patch before this package is imported: a lock, queue or TLS context that began native stays native.

Beside a late patch a thread of ours would be a greenlet, which a native queue stops for ever and the whole process with
it, and TLS recurses without end. So a process that was patched late stores, and leaves the sending to others.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import Final

logger = logging.getLogger("readme_metrics.patching")

FIX: Final = "put `from gevent import monkey; monkey.patch_all()` at the top of gunicorn.conf.py"


def patched() -> bool:
    """Whether gevent's greenlets stand for this process's threads."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


_in_time: Final = patched()
_imported_by: Final = os.getpid()
_told: set[int] = set()
"""The processes that have said it."""


def patched_late() -> bool:
    """Whether gevent patched this process after the import; says so once."""
    if _in_time or not patched():
        return False
    if os.getpid() not in _told:
        _told.add(os.getpid())
        _say()
    return True


def _say() -> None:
    """A warning where the process that imported us, which gunicorn --preload does not patch, can send instead."""
    level = logging.ERROR if os.getpid() == _imported_by else logging.WARNING
    with contextlib.suppress(Exception):  # a log handler of the host that raises
        logger.log(
            level,
            "gevent patched this process after readme_metrics was imported (gunicorn --preload does that): it stores "
            "logs, and another process, such as gunicorn's master, has to send them. In gunicorn, %s; elsewhere, patch "
            "before all imports",
            FIX,
        )
