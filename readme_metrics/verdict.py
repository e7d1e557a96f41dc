"""What one answer of the server means: a pure table."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What to do with the batch."""

    DELIVERED = "delivered"
    LATER = "later"
    TOO_LARGE = "too large"
    REJECTED = "rejected"
    REFUSED = "refused"
    MISDIRECTED = "misdirected"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one answer means."""

    kind: Kind
    reason: str
    """One short sentence for a person, without key or body: ``503 Service Unavailable``."""
    status: int | None = None
    retry_after_s: float = 0.0
    """How long the server asked us to stay away; 0: it did not say."""
    unanswered: bool = False
    """The request was sent whole and no answer came in time: the server may have it."""
    errors_in_answer: bool = False
    """2xx, but the JSON body tells of ``errors``."""
    answer: str = ""
    """The start of the answer's body, at most 2,000 characters."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The last verdict of one ``send`` and how many attempts it took."""

    verdict: Verdict
    attempts: int
