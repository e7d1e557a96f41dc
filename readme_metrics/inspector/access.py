"""Who may ask: this machine's own hosts, and no page from elsewhere. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)

ANSWER_HEADERS: Final[Mapping[str, str]] = {
    # A captured body is hostile input: even if one reached the page as markup, nothing in it could run or load.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def why_refused(method: str, headers: Mapping[str, str]) -> str | None:
    """One sentence for a caller that may not ask; None: it may."""
    host = headers.get("Host", "")
    if not _LOOPBACK.fullmatch(host):
        # A name elsewhere can be made to point at 127.0.0.1 (DNS rebinding); its pages still send their own name.
        return "The Host header must be 127.0.0.1, localhost or [::1]."
    origin = headers.get("Origin")
    if origin is not None and origin.lower() != f"http://{host.lower()}":
        return "A page of another origin may not ask."
    if headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"} and not _is_link(method, headers):
        return "A page of another site may not ask."
    return None


def _is_link(method: str, headers: Mapping[str, str]) -> bool:
    """A person followed a link: the page opens, and whoever linked to it learns nothing."""
    return method == "GET" and headers.get("Sec-Fetch-Mode") == "navigate"
