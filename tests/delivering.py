"""What the tests of delivery share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from readme_metrics.delivery import Delivery
    from readme_metrics.verdict import Outcome

KEY = "rdme_planted_key"
ENTRIES = (b'{"_id":"a"}', b'{"_id":"b"}')
TIMEOUT_S = 0.3
MOST_S = TIMEOUT_S + 2.0
CERTIFICATE = Path(__file__).with_name("localhost.pem")
"""Of localhost and 127.0.0.1, signed by itself, with its key; nobody else trusts it."""


class MakeDelivery(Protocol):
    """What the ``deliver`` fixture gives."""

    def __call__(self, address: str | None = None, timeout_s: float = TIMEOUT_S) -> Delivery: ...


def timed(delivery: Delivery, entries: tuple[bytes, ...] = ENTRIES) -> tuple[Outcome, float]:
    """One attempt and its seconds."""
    began = time.monotonic()
    outcome = delivery.send(entries, max_attempts=1)
    return outcome, time.monotonic() - began
