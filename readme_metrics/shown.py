"""What an entry shows of a body: text, form fields, base64, or why nothing is shown."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, NamedTuple

from readme_metrics.forms import Part, check_names, check_urlencoded, parts_of, query_pairs
from readme_metrics.json_splice import is_json, redacted
from readme_metrics.media import Form, Media, Trouble, data_url, decode, json_readings, media_of, unpack
from readme_metrics.text import readable

if TYPE_CHECKING:
    from readme_metrics.exchange import Body
    from readme_metrics.redaction import Redaction
    from readme_metrics.wire import Param


class Shown(NamedTuple):
    """A body as it leaves."""

    size: int
    """Bytes, decompressed; -1: nobody knows."""
    text: str = ""
    raw: bytes | None = None
    """Set in place of ``text`` where the body is binary."""
    params: list[Param] | None = None
    """Set in place of ``text`` where the body is a form and its fields were asked for."""

    @property
    def base64(self) -> str:
        """A binary body as base64."""
        return b64encode(self.raw or b"").decode("ascii")


EMPTY = Shown(0)


def show(body: Body, media: Media, coding: str, *, redaction: Redaction, max_body_bytes: int, fields: bool) -> Shown:
    """Show a body; ``fields``: a form as its fields, rather than as text."""
    data = body.data
    if data is None or len(data) > max_body_bytes:
        return _not_captured(body.size if data is None else len(data), media, redaction, max_body_bytes)
    if not data:
        return EMPTY
    unpacked = unpack(data, coding, limit=max_body_bytes) if coding else data
    if isinstance(unpacked, Trouble):
        return _packed(data, unpacked, media, redaction)
    if redaction.active:
        return _redacted(unpacked, media, redaction, fields=fields)
    return (_form(unpacked, media, redaction) if fields else None) or _plain(unpacked, media)


def _not_captured(size: int | None, media: Media, redaction: Redaction, max_body_bytes: int) -> Shown:
    if size is None:
        return Shown(-1, "[NOT CAPTURED]")
    if size > max_body_bytes:
        return _over_cap(size, media, redaction)
    return Shown(size, f"[NOT CAPTURED: {size} bytes]")


def _over_cap(size: int, media: Media, redaction: Redaction) -> Shown:
    is_doubtful = redaction.active and media.form is not Form.OTHER
    return Shown(size, redacted(size) if is_doubtful else f"[NOT CAPTURED: {size} bytes]")


def _packed(data: bytes, trouble: Trouble, media: Media, redaction: Redaction) -> Shown:
    """A body that stays compressed; its size is then that of the wire."""
    if trouble is Trouble.OVER_CAP:
        return _over_cap(len(data), media, redaction)
    return Shown(len(data), redacted(len(data))) if redaction.active else Shown(len(data), raw=data)


def _plain(data: bytes, media: Media) -> Shown:
    text = decode(data, media)
    return Shown(len(data), raw=data) if text is None else Shown(len(data), text)


def _redacted(data: bytes, media: Media, redaction: Redaction, *, fields: bool) -> Shown:
    if media.has_unknown_charset:  # its names may be spelled in another way than we read
        return _gone(data, media)
    try:
        for reading in json_readings(data, media):
            if (text := redaction.json(reading)) is not None:
                return Shown(len(data), text)
        return _redacted_other(data, media, redaction, fields=fields) or _gone(data, media)
    except RecursionError:
        return _gone(data, media)


def _redacted_other(data: bytes, media: Media, redaction: Redaction, *, fields: bool) -> Shown | None:
    """A body that is no JSON object or array; None: it must not be shown."""
    if media.form is Form.URLENCODED or (media.form is Form.MULTIPART and fields):
        return _form(data, media, redaction) if fields else _urlencoded_text(data, media, redaction)
    if redaction.only or media.form is Form.MULTIPART:
        return None
    shown = _plain(data, media)
    if media.form is Form.JSON:
        return shown if is_json(shown.text) else None
    is_doubtful = media.may_hold_json and (shown.raw is not None or redaction.names_in(shown.text))
    return None if is_doubtful else shown


def _gone(data: bytes, media: Media) -> Shown:
    text = decode(data, media)
    return Shown(len(data), redacted(len(data if text is None else text)))


def _form(data: bytes, media: Media, redaction: Redaction) -> Shown | None:
    """The fields of a form, in order; None: it is none that we know, or it cannot be read."""
    try:
        if media.form is Form.URLENCODED:
            return Shown(len(data), params=_urlencoded(data, media, redaction))
        if media.essence == "multipart/form-data":
            return Shown(len(data), params=_multipart(data, media, redaction))
    except ValueError:
        return None
    return None


def _urlencoded(data: bytes, media: Media, redaction: Redaction) -> list[Param]:
    pairs = query_pairs(_redacted_form(data, media, redaction), media.charset)
    return [{"name": name, "value": value} for name, value in pairs]


def _urlencoded_text(data: bytes, media: Media, redaction: Redaction) -> Shown | None:
    try:
        form = _redacted_form(data, media, redaction)
    except ValueError:
        return None
    return Shown(len(data), readable(form.encode("latin-1"), media.charset))


def _redacted_form(data: bytes, media: Media, redaction: Redaction) -> str:
    form = data.decode("latin-1")
    check_urlencoded(form)
    if redaction.active:
        check_names(form)
    return redaction.query(form, media.charset)


def _multipart(data: bytes, media: Media, redaction: Redaction) -> list[Param]:
    params = (_param(part, redaction) for part in parts_of(data, media.boundary))
    return [param for param in params if param is not None]


def _param(part: Part, redaction: Redaction) -> Param | None:
    """One field as it leaves; the name and type of a redacted file go with its content."""
    if not redaction.leaves(part.name):
        left = redaction.take(len(part.data) if part.file_name is not None else len(readable(part.data)))
        return None if left is None else {"name": part.name, "value": left}
    if part.file_name is None:
        return {"name": part.name, "value": readable(part.data)}
    content_type = part.content_type or "application/octet-stream"
    if not redaction.header_leaves("content-type"):
        return {"name": part.name, "fileName": part.file_name, "value": data_url(part.data, "")}
    return {
        "name": part.name,
        "fileName": part.file_name,
        "contentType": content_type,
        "value": data_url(part.data, media_of(content_type).essence),
    }
