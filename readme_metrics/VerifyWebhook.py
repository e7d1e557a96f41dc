"""Checks that a webhook came from ReadMe: needs nothing but the standard library.

    try:
        VerifyWebhook(request.get_data(), request.headers.get("readme-signature"), secret)
    except VerificationError as error:
        return {"error": str(error)}, 401

The header: ``t=<milliseconds since the epoch>,v0=<hex HMAC-SHA256 of t + "." + body under the secret>``.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Final

LONGEST_AGE_MS: Final = 30 * 60 * 1000
"""Older signatures, or as far in the future, are expired: what was once overheard is soon worth nothing."""
MOST_DIGITS: Final = 20
"""Of a time stamp; Python refuses to read thousands."""


class VerificationError(Exception):
    """The webhook cannot be trusted: ``Missing Signature``, ``Expired Signature`` or ``Invalid Signature``."""


class VerifyWebhook:
    """Raises ``VerificationError`` unless the signature is that of the body under the secret, and fresh.

    ``body``: the raw bytes or text as they came (right for every JSON), or the parsed object. ``now``: seconds since
    the epoch, for tests.
    """

    def __init__(self, body: object, signature: str | None, secret: str, *, now: float | None = None) -> None:
        if not signature:
            raise VerificationError("Missing Signature")
        stamp, claimed = _parse(signature)
        if not secret:  # anybody could sign with an empty secret
            raise VerificationError("Invalid Signature")
        if abs((time.time() if now is None else now) * 1000 - int(stamp)) > LONGEST_AGE_MS:
            raise VerificationError("Expired Signature")
        expected = hmac.new(_bytes(secret), _bytes(stamp) + b"." + _bytes(body), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(_bytes(expected), _bytes(claimed.lower())):
            raise VerificationError("Invalid Signature")


def _parse(signature: str) -> tuple[str, str]:
    """The time stamp, as text because it was signed as text, and the hex digest."""
    fields: dict[str, str] = {}
    for part in signature.split(","):
        name, _, value = part.partition("=")
        fields.setdefault(name.strip(), value.strip())
    stamp, claimed = fields.get("t", ""), fields.get("v0", "")
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= MOST_DIGITS) or not claimed:
        raise VerificationError("Invalid Signature")
    return stamp, claimed


def _bytes(body: object) -> bytes:
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    if not isinstance(body, str):
        body = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
    return body.encode("utf-8", "surrogatepass")
