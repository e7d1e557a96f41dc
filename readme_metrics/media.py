"""What a body is: its media type, its charset, how it was compressed."""

from __future__ import annotations

import json
import re
import zlib
from base64 import b64encode
from enum import Enum, auto
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from werkzeug.http import parse_options_header

from readme_metrics.text import decoded

if TYPE_CHECKING:
    from collections.abc import Iterator

_LONGEST_CACHED: Final = 256
"""Characters of a Content-Type worth remembering: a boundary fits, and 256 of them are small."""
_MOST_MEMBERS: Final = 16
"""gzip members in one body: each costs a copy of what follows, and real bodies have one."""

_BINARY: Final = re.compile(
    r"(audio|video|font)/|image/(?!.*xml)"
    r"|application/(octet-stream|pdf|zip|gzip|zstd|x-(tar|bzip2?|7z-compressed|gzip|protobuf)|msgpack|protobuf|wasm"
    r"|cbor|vnd\.(ms-|openxmlformats)|font)"
)
_ESSENCE: Final = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+", re.ASCII)
# A closed list: a name from outside may neither reach slow codecs (punycode, idna) nor fill the codec registry's cache.
_CHARSET: Final = re.compile(
    r"utf-?8|utf-?16(-?[lb]e)?|utf-?32(-?[lb]e)?|(us-)?ascii|iso-?8859-?([1-9]|1[013-6])|latin-?1"
    r"|(windows-?|cp)125[0-8]|koi8-[ru]|gb2312|gbk|gb18030|big5|shift[-_]?jis|euc-(jp|kr)"
)


class Form(Enum):
    """A form of body that is read, not only shown."""

    JSON = auto()
    URLENCODED = auto()
    MULTIPART = auto()
    OTHER = auto()


class Media(NamedTuple):
    """A Content-Type, read."""

    essence: str
    """``type/subtype`` in lower case; empty where there is none that is well formed."""
    form: Form
    """What the body claims to be."""
    is_binary: bool
    charset: str | None
    """A charset we read; None: none was stated, or an unknown one."""
    has_unknown_charset: bool
    boundary: str
    may_hold_json: bool
    """It is no JSON, and often has some inside."""


class Trouble(Enum):
    """Why a compressed body is not shown."""

    UNREADABLE = auto()
    OVER_CAP = auto()


def media_of(content_type: str) -> Media:
    """Read a Content-Type header; the empty text where there was none."""
    return _cached_media(content_type) if len(content_type) <= _LONGEST_CACHED else _media(content_type)


def _media(content_type: str) -> Media:
    value, options = parse_options_header(content_type)
    essence = value.lower() if _ESSENCE.fullmatch(value) else ""
    charset = options.get("charset", "").lower()
    is_known = _CHARSET.fullmatch(charset) is not None
    return Media(
        essence=essence,
        form=_form(value.lower()),
        is_binary=_BINARY.match(essence) is not None,
        charset=charset if is_known else None,
        has_unknown_charset=bool(charset) and not is_known,
        boundary=options.get("boundary", ""),
        may_hold_json=essence == "text/event-stream" or essence.endswith("script"),
    )


_cached_media: Final = lru_cache(256)(_media)


def _form(value: str) -> Form:
    if "json" in value:
        return Form.JSON
    if "urlencoded" in value:
        return Form.URLENCODED
    return Form.MULTIPART if value.startswith("multipart/") else Form.OTHER


def decode(data: bytes, media: Media) -> str | None:
    """The text of a body by its charset, else UTF-8; None: it is binary. JSON tells its encoding itself (RFC 4627)."""
    if media.is_binary:
        return None
    text = decoded(data, media.charset or "utf-8")
    if (text is None or "\0" in text) and media.form is Form.JSON:
        text = decoded(data, json.detect_encoding(data))
    return None if text is None or "\0" in text else text


def json_readings(data: bytes, media: Media) -> Iterator[str]:
    """Each text that the body may be if it is a JSON object or array, the likeliest first; none if it can't be one."""
    if data.lstrip(b"\0 \t\r\n\xef\xbb\xbf\xff\xfe")[:1] not in (b"{", b"["):
        return
    last = None
    for encoding in dict.fromkeys([json.detect_encoding(data), media.charset or "utf-8", "latin-1"]):
        text = decoded(data, encoding)
        if text is not None and text != last:
            yield text
        last = text


def data_url(data: bytes, essence: str) -> str:
    """Bytes as a ``data:`` URL; without an essence it names no type."""
    return f"data:{essence};base64,{b64encode(data).decode('ascii')}"


def unpack(data: bytes, coding: str, *, limit: int) -> bytes | Trouble:
    """Undo a Content-Encoding, never making more than ``limit`` bytes and one."""
    match coding.strip().lower():
        case "" | "identity":
            return data
        case "gzip" | "x-gzip":
            return _inflate(data, 16 + zlib.MAX_WBITS, limit)
        case "deflate":
            inflated = _inflate(data, zlib.MAX_WBITS, limit)
            # Many servers send the bare stream instead of the zlib format that RFC 9110 section 8.4.1.2 asks for.
            return _inflate(data, -zlib.MAX_WBITS, limit) if inflated is Trouble.UNREADABLE else inflated
    return Trouble.UNREADABLE


def _inflate(data: bytes, window: int, limit: int) -> bytes | Trouble:
    inflated = b""
    for _ in range(_MOST_MEMBERS):
        member = zlib.decompressobj(window)
        try:
            inflated += member.decompress(data, limit + 1 - len(inflated))
        except zlib.error:
            return Trouble.UNREADABLE
        if len(inflated) > limit:
            return Trouble.OVER_CAP
        if not member.eof:
            return Trouble.UNREADABLE
        data = member.unused_data
        if not data:
            return inflated
    return Trouble.UNREADABLE
