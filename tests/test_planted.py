"""A planted value that a list takes out is nowhere in the entry's bytes, in no disguise."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_plus

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from readme_metrics.exchange import Exchange
from readme_metrics.redaction import Redaction
from tests.exchanges import PLAIN, body, entry_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


PLANTED = "Zq7xPlantedW9"
"""Letters and digits, so that every disguise can be undone; what surrounds it is anything."""

NAMES = st.sampled_from(["secret", "user.secret", "Geheimwörter", "a b", "x[y]", 'q"uote\\', "&=?#", "😀", "\x7f"])
SURROUNDED = st.builds("{}{}{}".format, st.text(max_size=5), st.just(PLANTED), st.text(max_size=5)).map(
    lambda text: text.encode("utf-8", "replace").decode()
)
URLENCODED = "application/x-www-form-urlencoded"
JSON_TYPES = st.sampled_from(["application/json", "text/plain", URLENCODED, "image/png", ""])
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "utf-32-be"])
EDGE = "edge-of-part"
SETTINGS = settings(max_examples=100, deadline=None)


def disguises(value: object) -> Iterator[str]:
    """Every text in a decoded entry, as it stands and with its escapes undone."""
    if isinstance(value, dict):
        for name, child in value.items():
            yield name
            yield from disguises(child)
    elif isinstance(value, list):
        for child in value:
            yield from disguises(child)
    elif isinstance(value, str):
        yield from undone(value)


def undone(text: str) -> Iterator[str]:
    yield from unescaped(text)
    for run in re.findall(r"[A-Za-z0-9+/]{8,}={0,2}", text):
        for start in range(4):
            raw = base64.b64decode(run[start : start + (len(run) - start) // 4 * 4] + "====")
            yield from unescaped(raw.decode("latin-1"))
            yield from unescaped(raw.replace(b"\0", b"").decode("latin-1"))


def unescaped(text: str) -> Iterator[str]:
    yield text
    yield unquote_plus(text)
    yield re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text)


def shows(entry: bytes) -> bool:
    """Whether the planted value stands anywhere in an entry."""
    return PLANTED.encode() in entry or any(PLANTED in text for text in disguises(json.loads(entry)))


def percent_encoded(draw: st.DrawFn, text: str) -> str:
    safe = draw(st.sampled_from(["", PLANTED]))
    return "".join(f"%{byte:02x}" if chr(byte) not in safe else chr(byte) for byte in text.encode())


def json_text(draw: st.DrawFn, text: str) -> str:
    if draw(st.booleans()):
        return json.dumps(text, ensure_ascii=draw(st.booleans()))
    units = text.encode("utf-16-be")
    return '"' + "".join(f"\\u{units[at]:02x}{units[at + 1]:02X}" for at in range(0, len(units), 2)) + '"'


def query(draw: st.DrawFn, name: str, value: str) -> str:
    """A query or urlencoded form that holds the parameter among others."""
    before, after = draw(st.sampled_from(["", "open=1&", "&&", "b&"])), draw(st.sampled_from(["", "&open=2", "&"]))
    return f"{before}{percent_encoded(draw, name)}={percent_encoded(draw, value)}{after}"


def document(draw: st.DrawFn, name: str, value: str) -> str:
    """A JSON text that holds the key at its top level, or deeper where the name is dotted, through lists."""
    planted: str = draw(st.sampled_from(["{}", "[{}]", '{{"a":{}}}'])).format(json_text(draw, value))
    keys = name.split(".") if draw(st.booleans()) else [name]
    for key in reversed(keys):
        blank = draw(st.sampled_from(["", " ", "\n\t"]))
        planted = f'{{"other":1,{blank}{json_text(draw, key)}{blank}:{blank}{planted}{blank},"\\u006fther":"\\"}}"}}'
        planted = draw(st.sampled_from(["{}", "[{},0]", "[[{}]]"])).format(planted)
    return planted


def in_url(draw: st.DrawFn, exchange: Exchange, name: str, value: str) -> Exchange:
    url = f"http://h/p?{query(draw, name, value)}"
    return exchange._replace(url=url, page=url if draw(st.booleans()) else exchange.page)


def in_links(draw: st.DrawFn, exchange: Exchange, name: str, value: str) -> Exchange:
    mark = draw(st.sampled_from(["?", "#", "#/route?", "?a=1#"]))
    link = f"/p{mark}{query(draw, name, value)}"
    return exchange._replace(
        request_headers=(*exchange.request_headers, ("REFERER", link)),
        response_headers=(*exchange.response_headers, ("location", link)),
    )


def in_header(draw: st.DrawFn, exchange: Exchange, name: str, value: str) -> Exchange:
    wire_name = name.encode("utf-8").decode("latin-1").swapcase() if name.isascii() else name
    wire_value = value.encode().decode("latin-1") if draw(st.booleans()) else value
    header = (wire_name, wire_value)
    return exchange._replace(
        request_headers=(*exchange.request_headers, header), response_headers=(header, *exchange.response_headers)
    )


def in_json(draw: st.DrawFn, exchange: Exchange, name: str, value: str) -> Exchange:
    return _in_body(draw, exchange, document(draw, name, value).encode(draw(ENCODINGS)), draw(JSON_TYPES))


def in_broken_json(draw: st.DrawFn, exchange: Exchange, name: str, value: str) -> Exchange:
    text = document(draw, name, value)
    return _in_body(draw, exchange, text[: -draw(st.integers(1, 3))].encode(), "application/vnd.api+json")


def in_form(draw: st.DrawFn, exchange: Exchange, name: str, value: str) -> Exchange:
    return _in_body(
        draw, exchange, query(draw, name, value).encode(), "application/x-www-form-urlencoded; charset=latin-1"
    )


def in_multipart(draw: st.DrawFn, exchange: Exchange, name: str, value: str) -> Exchange:
    quoted = name.replace("\\", "\\\\").replace('"', "%22")
    field = f'--{EDGE}\r\nContent-Disposition: form-data; name="{quoted}"'
    file = f'{field}; filename="{quote(value)}"\r\nContent-Type: text/{quote(value)}'
    parts = "".join(f"{part}\r\n\r\n{value}\r\n" for part in draw(st.lists(st.sampled_from([field, file]), min_size=1)))
    data = f"{parts}--{EDGE}--".encode()[: draw(st.sampled_from([None, -3, -len(EDGE)]))]
    return _in_body(draw, exchange, data, f"multipart/form-data; boundary={EDGE}")


def _in_body(draw: st.DrawFn, exchange: Exchange, data: bytes, content_type: str) -> Exchange:
    headers = [("Content-Type", content_type)]
    if draw(st.booleans()):
        data = gzip.compress(data)
        headers.append(("Content-Encoding", draw(st.sampled_from(["gzip", "br", "deflate"]))))
    if draw(st.booleans()):
        return exchange._replace(request_body=body(data), request_headers=(*exchange.request_headers, *headers))
    kept = tuple(header for header in exchange.response_headers if header[0] != "Content-Type")
    return exchange._replace(response_body=body(data), response_headers=(*kept, *headers))


Place = Callable[[st.DrawFn, Exchange, str, str], Exchange]
PLACES: list[Place] = [in_url, in_links, in_header, in_json, in_broken_json, in_form, in_multipart]


@st.composite
def planted(draw: st.DrawFn, name: str, places: Sequence[Place] = PLACES) -> Exchange:
    """An exchange that holds the planted value under this name, in one or several of the places that a list reaches."""
    exchange = PLAIN
    value = draw(SURROUNDED)
    for place in draw(st.lists(st.sampled_from(places), min_size=1, max_size=3, unique=True)):
        exchange = place(draw, exchange, name, value)
    return exchange


@SETTINGS
@given(st.data(), NAMES, st.lists(NAMES, max_size=2))
def test_a_denied_value_is_nowhere_in_the_entry(data: st.DataObject, name: str, more: list[str]) -> None:
    exchange = data.draw(planted(name))
    assert not shows(entry_bytes(exchange, redaction=Redaction(denylist=[name, *more])))


@SETTINGS
@given(st.data(), NAMES, st.sampled_from([["open"], ["open", "content-type", "location", "referer", "other"]]))
def test_with_an_allowlist_no_other_value_is_anywhere(data: st.DataObject, name: str, allowed: list[str]) -> None:
    exchange = data.draw(planted(name))
    assert not shows(entry_bytes(exchange, redaction=Redaction(allowlist=allowed)))


@pytest.mark.parametrize("place", PLACES)
def test_without_a_list_the_planted_value_is_found_in_each_place(place: Place) -> None:
    """The search must be able to find, or the tests above say nothing."""
    first_found = settings(SETTINGS, phases=[Phase.generate], database=None)
    find(planted(name="secret", places=[place]), lambda exchange: shows(entry_bytes(exchange)), settings=first_found)
