"""Forms, read into their fields: urlencoded and multipart."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from readme_metrics.text import percent_decoded

_MOST_FIELDS: Final = 10_000
"""Fields of an urlencoded form: a few milliseconds of the request's time."""
_MOST_PARTS: Final = 1_000
"""Parts of a multipart form; Flask itself reads no more."""
_CLEAN_NAME: Final = re.compile(r'[^\x00-\x20"<>{}\\\x7f]*')


class Part(NamedTuple):
    """One part of a multipart form."""

    name: str
    file_name: str | None
    """None: a field, not a file."""
    content_type: str | None
    data: bytes


def query_pairs(query: str, charset: str | None = None) -> list[tuple[str, str]]:
    """Names and values of a query, decoded, in order; blank values and repeats kept."""
    pairs = [piece.partition("=") for piece in query.split("&") if piece]
    if "%" not in query and "+" not in query and query.isascii():
        return [(name, value) for name, _, value in pairs]
    return [(percent_decoded(name, charset), percent_decoded(value, charset)) for name, _, value in pairs]


def check_urlencoded(form: str) -> None:
    """Raise ValueError where this has more fields than are read."""
    if form.count("&") >= _MOST_FIELDS:
        raise ValueError("too many fields")


def check_names(form: str) -> None:
    """Raise ValueError where a name is not written as in an urlencoded form: the body may be something else."""
    for piece in form.rstrip("\r\n").split("&"):
        if not _CLEAN_NAME.fullmatch(piece.partition("=")[0]):
            raise ValueError("not urlencoded")


def parts_of(data: bytes, boundary: str) -> list[Part]:
    """The parts of a whole multipart/form-data body; ValueError: broken, cut short, or too many parts."""
    if not boundary:
        raise ValueError("no boundary")
    decoder = MultipartDecoder(boundary.encode("latin-1", "replace"), max_parts=_MOST_PARTS)
    decoder.receive_data(data)
    decoder.receive_data(None)
    try:
        return _read(decoder)
    except RequestEntityTooLarge as error:
        raise ValueError("too many parts") from error


def _read(decoder: MultipartDecoder) -> list[Part]:
    parts: list[Part] = []
    head: Field | File | None = None
    chunks: list[bytes] = []
    while not isinstance(event := decoder.next_event(), (Epilogue, NeedData)):
        if isinstance(event, (Field, File)):
            head, chunks = event, []
        elif isinstance(event, Data) and head is not None:
            chunks.append(event.data)
            if not event.more_data:
                parts.append(_part(head, b"".join(chunks)))
    return parts


def _part(head: Field | File, data: bytes) -> Part:
    name: str | None = head.name
    if name is None:  # Werkzeug's annotation promises a name that a part may lack
        raise ValueError("a part without a name")
    file_name = head.filename if isinstance(head, File) else None
    return Part(name, file_name, head.headers.get("content-type"), data)
