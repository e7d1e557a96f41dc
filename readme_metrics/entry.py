"""``build_entry``: an exchange and its group become one entry, redacted and serialised once.

This is on the request path: what repeats from request to request (masks, media types, the second of a time stamp, the
creator) is remembered, and without a list nothing is asked about one.
"""

from __future__ import annotations

import json
import platform
from datetime import datetime, timezone
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import orjson

from readme_metrics import __version__
from readme_metrics.forms import query_pairs
from readme_metrics.media import data_url, media_of
from readme_metrics.redaction import MASKED_HEADERS, mask
from readme_metrics.shown import show
from readme_metrics.text import from_wire

if TYPE_CHECKING:
    from readme_metrics.exchange import Exchange, Group, Headers
    from readme_metrics.redaction import Redaction
    from readme_metrics.wire import (
        Content,
        Creator,
        HarEntry,
        NameValue,
        PostParams,
        PostText,
        Request,
        Response,
        WireEntry,
        WireGroup,
    )

CREATOR: Final[Creator] = {
    "name": "readme-metrics (python)",
    "version": __version__,
    "comment": f"{platform.machine()}-{platform.system().lower()}{platform.release()}/{platform.python_version()}",
}

_NOTED: Final = frozenset({"content-type", "content-encoding", "location"})
_READ: Final = _NOTED | MASKED_HEADERS
"""Of the other headers nothing is asked but that their values are ASCII."""


def build_entry(
    exchange: Exchange, group: Group, *, redaction: Redaction, development: bool, max_body_bytes: int
) -> bytes:
    """One exchange in ReadMe's wire form; nothing that ``redaction`` takes is in it."""
    har: HarEntry = {
        "pageref": redaction.url(exchange.page),
        "startedDateTime": _stamp(exchange.started_at),
        "time": exchange.time_ms,
        "request": _request(exchange, redaction, max_body_bytes),
        "response": _response(exchange, redaction, max_body_bytes),
        "cache": {},
        "timings": {"send": 0, "wait": exchange.wait_ms, "receive": 0},
    }
    return _serialised(
        {
            "_id": exchange.id,
            "_version": 3,
            "group": _group(group),
            "clientIPAddress": exchange.client_address,
            "development": development,
            "request": {"log": {"version": "1.2", "creator": CREATOR, "entries": [har]}},
        }
    )


def _request(exchange: Exchange, redaction: Redaction, max_body_bytes: int) -> Request:
    headers, noted = _headers(exchange.request_headers, redaction)
    url = redaction.url(exchange.url)
    size = exchange.request_body.size
    request: Request = {
        "method": exchange.method,
        "url": url,
        "httpVersion": exchange.http_version,
        "headers": headers,
        "queryString": _query_string(url),
        "cookies": [],
        "headersSize": -1,
        "bodySize": -1 if size is None else size,
    }
    if size != 0 and exchange.request_body.data != b"":
        request["postData"] = _post_data(exchange, noted, redaction, max_body_bytes)
    return request


def _post_data(
    exchange: Exchange, noted: dict[str, str], redaction: Redaction, max_body_bytes: int
) -> PostText | PostParams:
    content_type = noted.get("content-type", "")
    media = media_of(content_type)
    coding = noted.get("content-encoding", "")
    shown = show(exchange.request_body, media, coding, redaction=redaction, max_body_bytes=max_body_bytes, fields=True)
    mime_type = _as_it_leaves("content-type", noted, redaction)
    if shown.params is not None:
        return {"mimeType": mime_type, "params": shown.params}
    if shown.raw is not None:
        return {"mimeType": mime_type, "text": data_url(shown.raw, media.essence if mime_type == content_type else "")}
    return {"mimeType": mime_type, "text": shown.text}


def _response(exchange: Exchange, redaction: Redaction, max_body_bytes: int) -> Response:
    headers, noted = _headers(exchange.response_headers, redaction)
    size = exchange.response_body.size
    return {
        "status": exchange.status,
        "statusText": exchange.status_text,
        "httpVersion": exchange.http_version,
        "headers": headers,
        "cookies": [],
        "redirectURL": _as_it_leaves("location", noted, redaction),
        "headersSize": -1,
        "bodySize": -1 if size is None else size,
        "content": _content(exchange, noted, redaction, max_body_bytes),
    }


def _content(exchange: Exchange, noted: dict[str, str], redaction: Redaction, max_body_bytes: int) -> Content:
    media = media_of(noted.get("content-type", ""))
    coding = noted.get("content-encoding", "")
    shown = show(
        exchange.response_body, media, coding, redaction=redaction, max_body_bytes=max_body_bytes, fields=False
    )
    mime_type = _as_it_leaves("content-type", noted, redaction)
    if shown.raw is not None:
        return {"text": shown.base64, "size": shown.size, "mimeType": mime_type, "encoding": "base64"}
    return {"text": shown.text, "size": shown.size, "mimeType": mime_type}


def _headers(headers: Headers, redaction: Redaction) -> tuple[list[NameValue], dict[str, str]]:
    """The header fields as they leave, and the few we read ourselves as they came, the first of repeats."""
    leaving: list[NameValue] = []
    noted: dict[str, str] = {}
    for name, value in headers:
        if not redaction.active and name.lower() not in _READ and value.isascii():  # nearly every one
            leaving.append({"name": name, "value": value})
            continue
        text = from_wire(value)
        key = name.lower()
        if key in _NOTED:
            noted.setdefault(key, text)
        left = redaction.header(key, text)
        if left is not None:
            leaving.append({"name": name, "value": left})
    return leaving, noted


def _as_it_leaves(name: str, noted: dict[str, str], redaction: Redaction) -> str:
    value = noted.get(name, "")
    return (redaction.header(name, value) or "") if redaction.active and name in noted else value


def _query_string(url: str) -> list[NameValue]:
    _, mark, query = url.partition("?")
    if not mark:
        return []
    return [{"name": name, "value": value} for name, value in query_pairs(query.partition("#")[0])]


def _group(group: Group) -> WireGroup:
    wire: WireGroup = {"id": mask(group.api_key)}
    if group.label is not None:
        wire["label"] = group.label
    if group.email is not None:
        wire["email"] = group.email
    return wire


def _stamp(at: float) -> str:
    second, millisecond = divmod(round(at * 1000), 1000)
    return f"{_stamp_of_second(second)}.{millisecond:03d}Z"


@lru_cache(4)
def _stamp_of_second(second: int) -> str:
    return datetime.fromtimestamp(second, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")


def _serialised(entry: WireEntry) -> bytes:
    try:
        return orjson.dumps(entry)
    except TypeError:  # a lone surrogate, or an integer beyond 64 bits: JSON can say both
        return json.dumps(entry, separators=(",", ":")).encode("ascii")
