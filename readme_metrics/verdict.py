"""What one answer of the server means: a pure table."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime
from enum import Enum
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST_RETRY_AFTER_S: Final = 24 * 3600.0
"""A server that asks for more is not obeyed further."""
ANSWER_CHARACTERS: Final = 2000
"""What is kept of an answer's body."""


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


_KINDS: Final = {
    408: Kind.LATER,
    425: Kind.LATER,
    429: Kind.LATER,
    413: Kind.TOO_LARGE,
    400: Kind.REJECTED,
    422: Kind.REJECTED,
    401: Kind.REFUSED,
    403: Kind.REFUSED,
}
"""Statuses with a meaning of their own; the other 3xx and 4xx are misdirected, what is left is later."""

_FIX: Final = {
    Kind.REFUSED: "check README_API_KEY (the api_key option)",
    Kind.MISDIRECTED: "this is not ReadMe's Metrics API; check README_METRICS_SERVER and any HTTP(S)_PROXY",
}

_HTML_PAGE: Final = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*<(?:!--|!doctype\s+html|(?:html|head|body|title|meta|script|style)\b)", re.IGNORECASE
)
"""How a captive portal's or a proxy's page begins; nothing ReadMe answers does."""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Why an attempt ended without a status line."""

    reason: str
    """One short sentence for a person."""
    unanswered: bool = False
    """The request was sent whole and no answer came in time."""
    misdirected: bool = False
    """The address itself cannot be used: waiting will not help."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The last verdict of one ``send`` and how many attempts it took."""

    verdict: Verdict
    attempts: int


def judge(status: int | None, headers: Mapping[str, str], body: bytes, error: NoAnswer | None, now: float) -> Verdict:
    """What one attempt means: a ``status`` with what came of its headers and body, or else an ``error``.

    ``headers`` finds names in any case. ``now`` is the wall clock, for a ``Retry-After`` that names a date.
    """
    if status is None:
        return _without_answer(error or NoAnswer("no answer"))
    kind = _kind(status, body)
    return Verdict(
        kind=kind,
        reason=_reason(status, kind),
        status=status,
        retry_after_s=retry_after_s(headers.get("Retry-After", ""), now) if kind is Kind.LATER else 0.0,
        errors_in_answer=kind is Kind.DELIVERED and _tells_of_errors(body),
        answer=body.decode("utf-8", "replace")[:ANSWER_CHARACTERS],
    )


def retry_after_s(value: str, now: float) -> float:
    """Seconds to stay away (RFC 9110 §10.2.3: seconds, or a date), from 0 to 24 h; 0 for what cannot be read."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value), LONGEST_RETRY_AFTER_S)
    try:
        moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        seconds = moment.timestamp() - now
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S)


def _without_answer(error: NoAnswer) -> Verdict:
    kind = Kind.MISDIRECTED if error.misdirected else Kind.LATER
    return Verdict(kind, error.reason, unanswered=error.unanswered)


def _kind(status: int, body: bytes) -> Kind:
    if 200 <= status < 300:
        return Kind.MISDIRECTED if _HTML_PAGE.match(body) else Kind.DELIVERED
    if status in _KINDS:
        return _KINDS[status]
    return Kind.MISDIRECTED if 300 <= status < 500 else Kind.LATER


def _reason(status: int, kind: Kind) -> str:
    try:
        line = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        line = f"{status}"
    if kind is Kind.MISDIRECTED and status < 300:
        return f"{line} with a web page: {_FIX[kind]}"
    return f"{line}: {_FIX[kind]}" if kind in _FIX else line


def _tells_of_errors(body: bytes) -> bool:
    if b'"errors"' not in body:
        return False
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):  # not JSON, cut off at our limit, or nested to harm us
        return False
    return isinstance(answer, dict) and bool(answer.get("errors"))
