"""Bytes of the wire as readable text: UTF-8 where they are UTF-8, else latin-1, so that nothing is ever unreadable."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes


def readable(data: bytes, charset: str | None = None) -> str:
    """Decode as UTF-8, else by ``charset`` (one Python knows), else as latin-1, which takes any bytes."""
    text = decoded(data, "utf-8")
    if text is None and charset is not None:
        text = decoded(data, charset)
    return data.decode("latin-1") if text is None else text


def decoded(data: bytes, encoding: str) -> str | None:
    """Decode strictly by an encoding Python knows; None: the bytes are not in it."""
    try:
        return data.decode(encoding)
    except ValueError:
        return None


def from_wire(value: str) -> str:
    """A header value as people wrote it: WSGI hands bytes over as latin-1 text (PEP 3333)."""
    if value.isascii():
        return value
    try:
        return readable(value.encode("latin-1"))
    except UnicodeEncodeError:
        return value


def percent_decoded(piece: str, charset: str | None = None) -> str:
    """What a name or value of a query or an urlencoded form says, ``+`` for a blank."""
    if "%" not in piece and "+" not in piece and piece.isascii():
        return piece
    try:
        raw = piece.encode("latin-1")
    except UnicodeEncodeError:
        raw = piece.encode("utf-8", "surrogatepass")
    return readable(unquote_to_bytes(raw.replace(b"+", b" ")), charset)
