"""What an entry shows of an exchange, field by field."""

from __future__ import annotations

import gzip
import zlib
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from readme_metrics import __version__
from readme_metrics.config import MOST_BYTES
from readme_metrics.exchange import NO_BODY, Body, Exchange, Group
from readme_metrics.media import json_readings, media_of
from readme_metrics.redaction import Redaction, mask
from tests.exchanges import CALLER, PLAIN, answered, body, entry_bytes, har_of, posted
from tests.har import check_entry

DENIED = Redaction(denylist=["secret"])
ALLOWED = Redaction(allowlist=["open"])
MULTIPART = "multipart/form-data; boundary=edge"


def content_of(exchange: Exchange, **how: Any) -> dict[str, Any]:
    content: dict[str, Any] = har_of(exchange, **how)["response"]["content"]
    return content


def post_data_of(exchange: Exchange, **how: Any) -> dict[str, Any]:
    post_data: dict[str, Any] = har_of(exchange, **how)["request"]["postData"]
    return post_data


def multipart(*parts: str, end: str = "--edge--\r\n") -> bytes:
    return ("".join(f"--edge\r\nContent-Disposition: form-data; {part}\r\n" for part in parts) + end).encode()


# The envelope


def test_a_plain_get_becomes_the_wire_object_of_its_exchange() -> None:
    wire = check_entry(entry_bytes())
    creator = wire["request"]["log"].pop("creator")
    assert __version__ == creator["version"]
    expected = {
        "_id": PLAIN.id,
        "_version": 3,
        "group": {"id": mask(CALLER.api_key), "label": "Owl", "email": "owl@example.com"},
        "clientIPAddress": "192.0.2.7",
        "development": False,
        "request": {
            "log": {
                "version": "1.2",
                "entries": [
                    {
                        "pageref": "http://api.example/owls/<int:id>",
                        "startedDateTime": "2026-01-31T12:00:00.123Z",
                        "time": 2.25,
                        "request": {
                            "method": "GET",
                            "url": "http://api.example/owls/7?verbose=1",
                            "httpVersion": "HTTP/1.1",
                            "headers": [{"name": "Host", "value": "api.example"}, {"name": "Accept", "value": "*/*"}],
                            "queryString": [{"name": "verbose", "value": "1"}],
                            "cookies": [],
                            "headersSize": -1,
                            "bodySize": 0,
                        },
                        "response": {
                            "status": 200,
                            "statusText": "OK",
                            "httpVersion": "HTTP/1.1",
                            "headers": [{"name": "Content-Type", "value": "application/json"}],
                            "cookies": [],
                            "redirectURL": "",
                            "headersSize": -1,
                            "bodySize": 9,
                            "content": {"text": '{"owl":7}', "size": 9, "mimeType": "application/json"},
                        },
                        "cache": {},
                        "timings": {"send": 0, "wait": 1.5, "receive": 0},
                    }
                ],
            }
        },
    }
    assert expected == wire


def test_a_development_entry_says_so() -> None:
    assert check_entry(entry_bytes(development=True))["development"]


def test_a_label_that_is_not_known_is_not_sent() -> None:
    wire = check_entry(entry_bytes(group=Group("key", None, None)))
    assert {"id": mask("key")} == wire["group"]


@pytest.mark.parametrize(
    ("at", "stamp"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1_769_860_799.9996, "2026-01-31T12:00:00.000Z"),
        (-0.001, "1969-12-31T23:59:59.999Z"),
    ],
)
def test_the_stamp_is_utc_with_milliseconds(at: float, stamp: str) -> None:
    assert stamp == har_of(PLAIN._replace(started_at=at))["startedDateTime"]


# Headers and URL


def test_repeated_response_headers_stay_separate_and_in_order() -> None:
    cookies = (("Set-Cookie", "a=1"), ("X", "y"), ("Set-Cookie", "b=2"))
    headers = har_of(PLAIN._replace(response_headers=cookies))["response"]["headers"]
    assert list(cookies) == [(header["name"], header["value"]) for header in headers]


@pytest.mark.parametrize(
    ("on_the_wire", "shown"),
    [("Gr\xc3\xbc\xc3\x9fe", "Grüße"), ("Gr\xfc\xdfe", "Grüße"), ("Ω", "Ω"), ("\ud800", "\ud800")],
)
def test_header_values_are_shown_readable(on_the_wire: str, shown: str) -> None:
    header = har_of(PLAIN._replace(request_headers=(("X-Name", on_the_wire),)))["request"]["headers"][0]
    assert shown == header["value"]


def test_blank_and_repeated_query_values_are_kept_in_order_and_decoded() -> None:
    url = "http://h/?b=&a=1+2&b=%C3%A4&c&b=%E4&&d=x=y#f"
    har = har_of(PLAIN._replace(url=url))
    expected = [("b", ""), ("a", "1 2"), ("b", "ä"), ("c", ""), ("b", "ä"), ("d", "x=y")]
    assert expected == [(pair["name"], pair["value"]) for pair in har["request"]["queryString"]]
    assert url == har["request"]["url"]


def test_a_redirect_shows_where_it_leads() -> None:
    moved = PLAIN._replace(status=302, response_headers=(("location", "/login?next=%2F&secret=abc"),))
    redacted = "/login?next=%2F&secret=%5BREDACTED%203%5D"
    assert har_of(moved)["response"]["redirectURL"] == "/login?next=%2F&secret=abc"
    response = har_of(moved, redaction=DENIED)["response"]
    assert [redacted, redacted] == [response["redirectURL"], response["headers"][0]["value"]]


@pytest.mark.parametrize("authorization", ["Authorization", "Proxy-Authorization", "AUTHORIZATION"])
def test_keys_in_headers_are_masked_both_ways(authorization: str) -> None:
    headers = ((authorization, "Bearer of-a-long-token"),)
    har = har_of(PLAIN._replace(request_headers=headers, response_headers=headers))
    assert mask("Bearer of-a-long-token") == har["request"]["headers"][0]["value"]
    assert mask("Bearer of-a-long-token") == har["response"]["headers"][0]["value"]


def test_a_denied_content_type_or_location_goes_from_the_fields_that_repeat_it() -> None:
    headers = (("Content-Type", "image/x-planted"), ("Location", "/planted"))
    exchange = posted(b"\xff\x00", "image/x-planted")._replace(response_headers=headers, response_body=body(b"\xff"))
    denied = Redaction(denylist=["content-type", "location"])
    assert b"planted" in entry_bytes(exchange)
    assert b"planted" not in entry_bytes(exchange, redaction=denied)
    assert b"planted" not in entry_bytes(exchange, redaction=ALLOWED)
    response = har_of(exchange, redaction=denied)["response"]
    assert (response["content"]["mimeType"], response["redirectURL"]) == ("[REDACTED 15]", "[REDACTED 8]")


def test_an_allowlist_leaves_only_its_headers_and_parameters() -> None:
    exchange = PLAIN._replace(
        url="http://h/p?open=1&x=2",
        page="http://h/p?x=2",
        request_headers=(("Open", "a"), ("Cookie", "b"), ("Referer", "http://h/?x=2")),
    )
    har = har_of(exchange, redaction=ALLOWED)
    assert (har["request"]["url"], har["pageref"]) == ("http://h/p?open=1", "http://h/p")
    assert har["request"]["headers"] == [{"name": "Open", "value": "a"}]
    assert har["request"]["queryString"] == [{"name": "open", "value": "1"}]
    assert har["response"]["headers"] == []


# Bodies as text


def test_no_body_has_no_post_data() -> None:
    assert "postData" not in har_of(PLAIN)["request"]


@pytest.mark.parametrize(
    ("data", "content_type", "text"),
    [
        (b"plain", "text/plain", "plain"),
        (b"plain", None, "plain"),
        ("Grüße".encode(), "text/plain", "Grüße"),
        ("Grüße".encode("latin-1"), "text/plain; charset=ISO-8859-1", "Grüße"),
        ("Grüße".encode("utf-16"), 'text/plain; Charset="utf-16"', "Grüße"),
        ("Grüße".encode("shift_jis", "replace"), "text/plain; charset=Shift_JIS", "Gr??e"),
        ('{"a":"ü"}'.encode("utf-16-le"), "application/json", '{"a":"ü"}'),
        ('{"a":"ü"}'.encode("utf-32"), "application/hal+json", '{"a":"ü"}'),
        (b'{"broken', "application/json", '{"broken'),
        (b"<svg/>", "image/svg+xml", "<svg/>"),
        (b"plain", "text/plain; charset=no-such", "plain"),
        (b"plain", ";;;=", "plain"),
    ],
)
def test_a_text_is_shown_by_its_charset_both_ways(data: bytes, content_type: str | None, text: str) -> None:
    assert {"text": text, "size": len(data), "mimeType": content_type or ""} == content_of(answered(data, content_type))
    assert {"text": text, "mimeType": content_type or ""} == post_data_of(posted(data, content_type))


@pytest.mark.parametrize(
    ("data", "content_type", "essence"),
    [
        (b"\x89PNG", "image/png", "image/png"),
        (b"GIF89a", "image/gif; x=y", "image/gif"),
        (b"\xff\xfe", "text/plain", "text/plain"),
        (b"a\0b", None, ""),
        (b"abc", "application/octet-stream", "application/octet-stream"),
        (b"\xff", "application/json", "application/json"),
        (b"\xff", "no type, at all", ""),
        (b"abc", "text/plain; charset=utf-16", "text/plain"),
    ],
)
def test_a_binary_body_is_base64_both_ways(data: bytes, content_type: str | None, essence: str) -> None:
    text = b64encode(data).decode()
    expected = {"text": text, "size": len(data), "mimeType": content_type or "", "encoding": "base64"}
    assert expected == content_of(answered(data, content_type))
    assert f"data:{essence};base64,{text}" == post_data_of(posted(data, content_type))["text"]


@pytest.mark.parametrize("charset", ["idna", "punycode", "utf-7", "unicode_escape", "rot13", "zip", "x" * 5000])
def test_a_charset_from_outside_reaches_no_codec_but_the_common_ones(charset: str) -> None:
    content_type = f"text/plain; charset={charset}"
    assert content_of(answered(b"+AHA- \\u0041", content_type))["text"] == "+AHA- \\u0041"
    assert content_of(answered(b"+AHA- \\u0041", content_type), redaction=DENIED)["text"] == "[REDACTED 12]"


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (b'{"sec+AHI-et":"abc"}', "application/json; charset=utf-7"),
        (b'{"sec+AHI-et":"abc"}', "text/plain; charset=utf-7"),
        (b"sec+AHI-et=abc", "application/x-www-form-urlencoded; charset=utf-7"),
        (multipart('name="sec+AHI-et"\r\n\r\nabc'), f"{MULTIPART}; charset=utf-7"),
        (b"\xff\xd8", "image/jpeg; charset=utf-7"),
    ],
)
def test_a_body_in_a_charset_that_is_not_read_goes_where_a_list_is_set(data: bytes, content_type: str) -> None:
    gone = f"[REDACTED {len(data)}]"
    for redaction in (DENIED, ALLOWED):
        assert gone == content_of(answered(data, content_type), redaction=redaction)["text"]
        assert gone == post_data_of(posted(data, content_type), redaction=redaction)["text"]


# Bodies that were not captured


@pytest.mark.parametrize(
    ("seen", "text", "size"),
    [
        (Body(None, 70_000), "[NOT CAPTURED: 70000 bytes]", 70_000),
        (Body(None, None), "[NOT CAPTURED]", -1),
        (Body(None, 50), "[NOT CAPTURED: 50 bytes]", 50),
        (body(b"x" * 101), "[NOT CAPTURED: 101 bytes]", 101),
    ],
)
def test_a_body_that_was_not_captured_says_so_with_its_size(seen: Body, text: str, size: int) -> None:
    har = har_of(PLAIN._replace(request_body=seen, response_body=seen), max_body_bytes=100)
    assert [text, text] == [har["request"]["postData"]["text"], har["response"]["content"]["text"]]
    assert [size, size, size] == [
        har["request"]["bodySize"],
        har["response"]["bodySize"],
        har["response"]["content"]["size"],
    ]


def test_over_the_cap_a_form_we_know_is_redacted_where_a_list_is_set() -> None:
    over = Body(None, 101)
    json_answer = PLAIN._replace(response_body=over)
    text_answer = json_answer._replace(response_headers=(("Content-Type", "text/plain"),))
    assert content_of(json_answer, redaction=DENIED, max_body_bytes=100)["text"] == "[REDACTED 101]"
    assert content_of(text_answer, redaction=DENIED, max_body_bytes=100)["text"] == "[NOT CAPTURED: 101 bytes]"
    assert content_of(json_answer, redaction=DENIED)["text"] == "[NOT CAPTURED: 101 bytes]"


# Compressed bodies


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", gzip.compress(b'{"secret":"abc"}')),
        ("X-GZIP", gzip.compress(b'{"secret":"a') + gzip.compress(b'bc"}')),
        ("deflate", zlib.compress(b'{"secret":"abc"}')),
        (" deflate ", bare_deflate(b'{"secret":"abc"}')),
        ("identity", b'{"secret":"abc"}'),
    ],
)
def test_a_compressed_body_is_shown_decompressed_and_redacted(coding: str, packed: bytes) -> None:
    response = har_of(answered(packed, "application/json", ("Content-Encoding", coding)))["response"]
    assert (len(packed), 16) == (response["bodySize"], response["content"]["size"])
    assert response["content"]["text"] == '{"secret":"abc"}'
    request = posted(packed, "application/json", ("Content-Encoding", coding))
    assert post_data_of(request, redaction=DENIED)["text"] == '{"secret":"[REDACTED 3]"}'


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", gzip.compress(b"secret")[:-3]),
        ("gzip", b"no gzip"),
        ("gzip", gzip.compress(b"secret") + b"rest"),
        ("gzip", gzip.compress(b"") * 1_000),
        ("deflate", b"no deflate"),
        ("br", b"secret"),
        ("gzip, gzip", gzip.compress(gzip.compress(b"secret"))),
    ],
)
def test_what_cannot_be_decompressed_is_base64_and_with_a_list_redacted(coding: str, packed: bytes) -> None:
    response = answered(packed, "text/plain", ("Content-Encoding", coding))
    assert b64encode(packed).decode() in content_of(response)["text"]
    assert {"text": f"[REDACTED {len(packed)}]", "size": len(packed), "mimeType": "text/plain"} == content_of(
        response, redaction=DENIED
    )


def test_a_bomb_is_not_unpacked_beyond_the_cap() -> None:
    bomb = gzip.compress(bytes(50 * 1024 * 1024))
    packed = answered(bomb, "text/plain", ("Content-Encoding", "gzip"))
    assert content_of(packed)["text"] == f"[NOT CAPTURED: {len(bomb)} bytes]"


def test_the_largest_cap_unpacks_too() -> None:
    packed = answered(gzip.compress(b"text"), "text/plain", ("Content-Encoding", "gzip"))
    assert content_of(packed, max_body_bytes=MOST_BYTES)["text"] == "text"


def test_a_body_that_unpacks_to_just_the_cap_is_shown() -> None:
    packed = answered(gzip.compress(b"x" * 100), "text/plain", ("Content-Encoding", "gzip"))
    assert content_of(packed, max_body_bytes=100)["text"] == "x" * 100
    assert "NOT CAPTURED" in content_of(packed, max_body_bytes=99)["text"]


# Forms


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "Application/x-www-form-urlencoded; charset=UTF-8"]
)
def test_urlencoded_fields_are_params_in_order(content_type: str) -> None:
    post_data = post_data_of(posted(b"a=1&b=&a=%C3%A4+x&c", content_type))
    expected = [("a", "1"), ("b", ""), ("a", "ä x"), ("c", "")]
    assert content_type == post_data["mimeType"]
    assert expected == [(param["name"], param["value"]) for param in post_data["params"]]


def test_an_urlencoded_charset_counts() -> None:
    form = posted(b"n%82%A0=x&secret=%82%A0", "application/x-www-form-urlencoded; charset=shift_jis")
    expected = [{"name": "nあ", "value": "x"}, {"name": "secret", "value": "[REDACTED 1]"}]
    assert expected == post_data_of(form, redaction=DENIED)["params"]


def test_multipart_fields_and_files_are_params_in_order() -> None:
    data = multipart(
        'name="a"\r\n\r\nü', 'name="f"; filename="x.png"\r\nContent-Type: image/png\r\n\r\nPNG', 'name="a"\r\n\r\n'
    )
    expected = [
        {"name": "a", "value": "ü"},
        {"name": "f", "fileName": "x.png", "contentType": "image/png", "value": "data:image/png;base64,UE5H"},
        {"name": "a", "value": ""},
    ]
    assert {"mimeType": MULTIPART, "params": expected} == post_data_of(posted(data, MULTIPART))


def test_a_redacted_file_loses_its_name_and_type_too() -> None:
    data = multipart('name="secret"; filename="x.png"\r\nContent-Type: image/png\r\n\r\nPNG')
    expected = [{"name": "secret", "value": "[REDACTED 3]"}]
    assert expected == post_data_of(posted(data, MULTIPART), redaction=DENIED)["params"]
    assert post_data_of(posted(data, MULTIPART), redaction=ALLOWED)["params"] == []


def test_a_denied_content_type_goes_from_files_too() -> None:
    data = multipart('name="f"; filename="x.png"\r\nContent-Type: image/png\r\n\r\nPNG')
    expected = [{"name": "f", "fileName": "x.png", "value": "data:;base64,UE5H"}]
    assert expected == post_data_of(posted(data, MULTIPART), redaction=Redaction(denylist=["Content-Type"]))["params"]


BROKEN_FORMS = [
    (multipart('name="secret"\r\n\r\nabc', end=""), MULTIPART),
    (multipart('name="secret"\r\n\r\nabc')[:-8], MULTIPART),
    (multipart('name="secret"\r\n\r\nabc'), "multipart/form-data"),
    (multipart('name="secret"\r\n\r\nabc'), 'multipart/form-data; boundary=""'),
    (multipart('name="secret"\r\n\r\nabc'), "multipart/mixed; boundary=edge"),
    (multipart("filename=x\r\n\r\nabc"), MULTIPART),
    (multipart(*['name="a"\r\n\r\n'] * 1_001), MULTIPART),
    (b"--edge\r\nX: y\r\n\r\nabc\r\n--edge--\r\n", MULTIPART),
    (b"&".join([b"a=1"] * 10_001), "application/x-www-form-urlencoded"),
]


@pytest.mark.parametrize(("data", "content_type"), BROKEN_FORMS, ids=range(len(BROKEN_FORMS)))
def test_a_form_that_cannot_be_read_is_text_and_with_a_list_redacted(data: bytes, content_type: str) -> None:
    form = posted(data, content_type)
    assert data.decode() == post_data_of(form)["text"]
    for redaction in (DENIED, ALLOWED):
        assert post_data_of(form, redaction=redaction)["text"] == f"[REDACTED {len(data)}]"


@pytest.mark.parametrize(
    "data", [b'{"secret":"abc"', b'"secret', b"<secret>abc</secret>", b"secret: abc", b"\r\nsecret=abc"]
)
def test_a_body_that_only_says_it_is_urlencoded_is_redacted_where_a_list_is_set(data: bytes) -> None:
    form = posted(data, "application/x-www-form-urlencoded")
    assert post_data_of(form, redaction=DENIED)["text"] == f"[REDACTED {len(data)}]"


def test_json_that_says_it_is_a_form_is_json_where_a_list_is_set() -> None:
    form = posted(b'{"secret":"abc"}', "application/x-www-form-urlencoded")
    assert post_data_of(form, redaction=DENIED)["text"] == '{"secret":"[REDACTED 3]"}'


def test_a_form_in_an_answer_stays_a_text_and_is_redacted() -> None:
    form = answered(b"open=%C3%A4&secret=abc&\xc3\xa4=\xc3\xa4", "application/x-www-form-urlencoded")
    assert content_of(form, redaction=DENIED)["text"] == "open=%C3%A4&secret=%5BREDACTED%203%5D&ä=ä"
    assert content_of(form, redaction=ALLOWED)["text"] == "open=%C3%A4"


# Whole bodies and lists


@pytest.mark.parametrize(
    ("data", "content_type", "denied", "allowed"),
    [
        (b"text", "text/plain", "text", "[REDACTED 4]"),
        ("ü".encode(), "text/plain", "ü", "[REDACTED 1]"),
        (b"<a/>", "text/xml", "<a/>", "[REDACTED 4]"),
        (b"\xff\xff", "image/png", "//8=", "[REDACTED 2]"),
        (b'"text"', "application/json", '"text"', "[REDACTED 6]"),
        (b"7", "application/json", "7", "[REDACTED 1]"),
        (b'{"secret', "application/json", "[REDACTED 8]", "[REDACTED 8]"),
        (b"{}\n{}", "application/x-ndjson", "[REDACTED 5]", "[REDACTED 5]"),
        (b'{"secret":1', "text/plain", '{"secret":1', "[REDACTED 11]"),
        (b'{"secret":1,"open":2}', "text/plain", '{"secret":"[REDACTED]","open":2}', '{"open":2}'),
        (b'{"secret":1,"open":2}', "image/png", '{"secret":"[REDACTED]","open":2}', '{"open":2}'),
        ("\ufeff[]".encode(), None, "[]", "[]"),
        pytest.param(b"[" * 100_000, "text/plain", "[REDACTED 100000]", "[REDACTED 100000]", id="deep"),
        (b"1" * 5_000, "application/json", "1" * 5_000, "[REDACTED 5000]"),
        (multipart('name="a"\r\n\r\nb'), MULTIPART, "[REDACTED 65]", "[REDACTED 65]"),
    ],
)
def test_a_body_without_keys_stays_under_a_denylist_and_goes_under_an_allowlist(
    data: bytes, content_type: str | None, denied: str, allowed: str
) -> None:
    assert denied == content_of(answered(data, content_type), redaction=DENIED)["text"]
    assert allowed == content_of(answered(data, content_type), redaction=ALLOWED)["text"]


STREAM = "text/event-stream; charset=utf-8"


@pytest.mark.parametrize(
    ("text", "content_type"),
    [
        ('data: {"secret":"abc"}\n\n', STREAM),
        ('data: {"deep":[{"secret" : "abc"}]}\n\n', STREAM),
        ('data: {"\\u0073ecr\\u0065t":"abc"}\n\n', STREAM),
        ('data: {"user.key":"abc"}\n\n', STREAM),
        ('data: {"user":{"x.key":"abc"}}\n\n', STREAM),
        ('data: {"user":{"key":"abc"}}\n\n', STREAM),
        ('callback({"secret":"abc"});', "application/javascript"),
        ('callback({"secret":"abc"});', "text/javascript"),
        ("data: \xff", f"{STREAM[:17]}; charset=utf-16"),
    ],
)
def test_a_stream_of_events_or_a_script_that_may_hold_a_denied_key_goes_whole(text: str, content_type: str) -> None:
    denied = Redaction(denylist=["secret", "user.x.key", "user.key"])
    data = text.encode("latin-1")
    assert content_of(answered(data, content_type), redaction=denied)["text"] == f"[REDACTED {len(data)}]"


@pytest.mark.parametrize(
    ("text", "content_type"),
    [
        ('data: {"secrets":"no secret","tip":"a \\"quoted\\" one"}\n\n', STREAM),
        ('data: {"open":"\\u00e4\\ud83d\\ude00 \\u12"}\n\n', STREAM),
        ('callback({"open":"abc"});', "application/javascript"),
        ('{"secret":1', "text/plain"),
    ],
)
def test_one_that_holds_none_stays(text: str, content_type: str) -> None:
    assert content_of(answered(text.encode(), content_type), redaction=DENIED)["text"] == text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=latin-1", "text/plain", "image/png", None]
)
def test_json_is_found_in_every_encoding_that_json_may_have(encoding: str, content_type: str | None) -> None:
    data = '{"pä":"abc","open":1}'.encode(encoding)
    shown = content_of(answered(data, content_type), redaction=Redaction(denylist=["pä"]))
    assert shown["text"] == '{"pä":"[REDACTED 3]","open":1}'


def test_json_in_another_charset_is_found_too() -> None:
    data = '{"pä":"abc"}'.encode("latin-1")
    for content_type in ("application/json; charset=latin-1", "application/json", "text/plain"):
        shown = content_of(answered(data, content_type), redaction=Redaction(denylist=["pä"]))
        assert shown["text"] == '{"pä":"[REDACTED 3]"}'


@pytest.mark.parametrize(("data", "count"), [(b"[1]x", 1), ("[ä]".encode(), 3), ("[ä]".encode("latin-1"), 2)])
def test_a_text_that_several_charsets_read_alike_is_read_once(data: bytes, count: int) -> None:
    assert count == len([*json_readings(data, media_of("application/json; charset=iso-8859-7"))])


# Anything


def test_what_orjson_refuses_is_still_an_entry() -> None:
    group = Group("key\udfff", "\ud800", None)
    wire = check_entry(entry_bytes(PLAIN._replace(method="\ud800", status=2**70), group))
    assert ("\ud800", "key\udfff"[-4:]) == (wire["group"]["label"], wire["group"]["id"][-4:])


@pytest.mark.parametrize("seen", [NO_BODY, Body(b"", None)])
def test_an_empty_body_is_an_empty_text(seen: Body) -> None:
    exchange = PLAIN._replace(request_body=seen, response_body=seen, response_headers=(("Content-Encoding", "gzip"),))
    assert content_of(exchange, redaction=ALLOWED) == {"text": "", "size": 0, "mimeType": ""}
    assert "postData" not in har_of(exchange)["request"]


HEADER_NAMES = st.sampled_from(
    ["Content-Type", "Content-Encoding", "Location", "Referer", "Authorization", "Cookie", "X-\xe4"]
) | st.text(max_size=5)
HEADER_VALUES = (
    st.sampled_from(
        [
            "application/json",
            "application/x-www-form-urlencoded; charset=utf-16",
            MULTIPART,
            "gzip",
            "deflate",
            "br",
            "multipart/form-data; boundary=",
            "text/plain; charset=ä",
            "image/png",
            "//x@y@z/?a=b&c#d?e=f",
            "x/json",
        ]
    )
    | st.text(max_size=20)
    | st.binary(max_size=20).map(lambda data: data.decode("latin-1"))
)
HEADERS = st.lists(st.tuples(HEADER_NAMES, HEADER_VALUES), max_size=5).map(tuple)
BODIES = st.one_of(
    st.binary(max_size=60).map(body),
    st.text(max_size=60).map(lambda text: body(text.encode("utf-8", "replace"))),
    st.text('{}[]",:\\ae1 ', max_size=40).map(lambda text: body(text.encode())),
    st.binary(max_size=20).map(lambda data: body(gzip.compress(data))),
    st.integers(0, 150).map(
        lambda cut: body(multipart('name="a"\r\n\r\nb', 'name="f"; filename="g"\r\n\r\n\xff')[:cut])
    ),
    st.builds(Body, st.none(), st.none() | st.integers(0, 2**40)),
)
URLS = st.text(max_size=40) | st.text("/?#&=%@:;+[]a\xe4", max_size=40).map(lambda rest: f"http://h{rest}")
KEYS = st.lists(
    st.sampled_from(["a", "A", "", "content-type", "location", "x-\xe4", "f"]) | st.text(max_size=3), max_size=3
)
EXCHANGES = st.builds(
    PLAIN._replace,
    url=URLS,
    page=URLS,
    method=st.text(max_size=5),
    client_address=st.text(max_size=5),
    request_headers=HEADERS,
    request_body=BODIES,
    status=st.integers(0, 999),
    status_text=st.text(max_size=5),
    response_headers=HEADERS,
    response_body=BODIES,
)


@settings(max_examples=200, deadline=None)
@given(EXCHANGES, KEYS, KEYS, st.sampled_from([0, 30, 1_000]))
def test_whatever_came_and_went_becomes_a_valid_entry(
    exchange: Exchange, denied: list[str], allowed: list[str], cap: int
) -> None:
    entry_bytes(exchange, redaction=Redaction(allowlist=allowed, denylist=denied), max_body_bytes=cap)
