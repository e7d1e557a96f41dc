"""Exchanges for tests: a plain GET, and whatever a test changes in it."""

from __future__ import annotations

from typing import Any

from readme_metrics.entry import build_entry
from readme_metrics.exchange import NO_BODY, Body, Exchange, Group
from readme_metrics.redaction import Redaction
from tests.har import check_entry, har_entry

PLAIN = Exchange(
    id="0b0ff4ac-6b8c-4d0f-9b9a-0f6d7f9d2a11",
    started_at=1_769_860_800.1234,
    wait_ms=1.5,
    time_ms=2.25,
    client_address="192.0.2.7",
    method="GET",
    url="http://api.example/owls/7?verbose=1",
    page="http://api.example/owls/<int:id>",
    http_version="HTTP/1.1",
    request_headers=(("Host", "api.example"), ("Accept", "*/*")),
    request_body=NO_BODY,
    status=200,
    status_text="OK",
    response_headers=(("Content-Type", "application/json"),),
    response_body=Body(b'{"owl":7}', 9),
)
CALLER = Group("key-of-the-caller", "Owl", "owl@example.com")
NO_LIST = Redaction()


def body(data: bytes) -> Body:
    """A body that was captured whole."""
    return Body(data, len(data))


def entry_bytes(
    exchange: Exchange = PLAIN,
    group: Group = CALLER,
    *,
    redaction: Redaction = NO_LIST,
    development: bool = False,
    max_body_bytes: int = 1024 * 1024,
) -> bytes:
    """Build an entry that the schema has judged."""
    entry = build_entry(exchange, group, redaction=redaction, development=development, max_body_bytes=max_body_bytes)
    check_entry(entry)
    return entry


def har_of(exchange: Exchange, *, redaction: Redaction = NO_LIST, max_body_bytes: int = 1024 * 1024) -> dict[str, Any]:
    """The HAR entry of an exchange, decoded and judged."""
    return har_entry(check_entry(entry_bytes(exchange, redaction=redaction, max_body_bytes=max_body_bytes)))


def posted(data: bytes, content_type: str | None, *more: tuple[str, str]) -> Exchange:
    """A POST of this body."""
    stated = () if content_type is None else (("Content-Type", content_type),)
    return PLAIN._replace(method="POST", request_headers=(*stated, *more), request_body=body(data))


def answered(data: bytes, content_type: str | None, *more: tuple[str, str]) -> Exchange:
    """A GET answered with this body."""
    stated = () if content_type is None else (("Content-Type", content_type),)
    return PLAIN._replace(response_headers=(*stated, *more), response_body=body(data))
