"""One request with its response, free of any web framework.

A framework's wrapper fills an ``Exchange``; ``entry`` turns it into bytes. Another framework costs one file that
makes these. ``NamedTuple`` rather than a frozen dataclass: one is made for every request, at a quarter of the cost.
"""

from __future__ import annotations

from typing import NamedTuple

Headers = tuple[tuple[str, str], ...]
"""Header fields in the order of the wire, repeats kept; values as WSGI gives them (latin-1 text)."""


class Body(NamedTuple):
    """What was seen of a body."""

    data: bytes | None
    """The whole body as it went over the wire; None: not captured (too large, not read, aborted, a file)."""
    size: int | None
    """Bytes that went over the wire; None: nobody knows."""


NO_BODY = Body(b"", 0)


class Group(NamedTuple):
    """Who called: what the grouping function returned, read into three texts. ``api_key`` is still unmasked."""

    api_key: str
    label: str | None
    email: str | None


class Exchange(NamedTuple):
    """One request and what came back."""

    id: str
    """uuid4, the entry's ``_id``, fixed at capture."""
    started_at: float
    """Wall clock, seconds since the epoch."""
    wait_ms: float
    """From the request's start to ``start_response``."""
    time_ms: float
    """From the request's start to the last byte handed on."""
    client_address: str
    method: str
    url: str
    """As asked: absolute, still percent-encoded, with its query."""
    page: str
    """The route pattern as a URL (``http://host/users/<int:id>``), or the URL without its query."""
    http_version: str
    request_headers: Headers
    request_body: Body
    status: int
    status_text: str
    response_headers: Headers
    response_body: Body
