"""What each answer means, as a table."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from readme_metrics.verdict import Kind, NoAnswer, Verdict, judge, retry_after_s

NOW = 1_800_000_000.0
DAY = 24 * 3600.0


def answered(status: int, body: bytes = b"", **headers: str) -> Verdict:
    return judge(status, {name.replace("_", "-"): value for name, value in headers.items()}, body, None, NOW)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, Kind.DELIVERED),
        (201, Kind.DELIVERED),
        (202, Kind.DELIVERED),
        (204, Kind.DELIVERED),
        (299, Kind.DELIVERED),
        (408, Kind.LATER),
        (425, Kind.LATER),
        (429, Kind.LATER),
        (500, Kind.LATER),
        (502, Kind.LATER),
        (503, Kind.LATER),
        (504, Kind.LATER),
        (599, Kind.LATER),
        (413, Kind.TOO_LARGE),
        (400, Kind.REJECTED),
        (422, Kind.REJECTED),
        (401, Kind.REFUSED),
        (403, Kind.REFUSED),
        (301, Kind.MISDIRECTED),
        (302, Kind.MISDIRECTED),
        (304, Kind.MISDIRECTED),
        (307, Kind.MISDIRECTED),
        (404, Kind.MISDIRECTED),
        (405, Kind.MISDIRECTED),
        (407, Kind.MISDIRECTED),
        (410, Kind.MISDIRECTED),
        (451, Kind.MISDIRECTED),
        (499, Kind.MISDIRECTED),
        (103, Kind.LATER),
        (700, Kind.LATER),
        (999, Kind.LATER),
    ],
)
def test_each_status_has_one_meaning(status: int, kind: Kind) -> None:
    verdict = answered(status)

    assert kind == verdict.kind
    assert status == verdict.status
    assert not verdict.unanswered


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (200, "200 OK"),
        (503, "503 Service Unavailable"),
        (599, "599"),
        (401, "401 Unauthorized: check README_API_KEY (the api_key option)"),
        (
            404,
            "404 Not Found: this is not ReadMe's Metrics API; check README_METRICS_SERVER and any HTTP(S)_PROXY",
        ),
    ],
)
def test_the_reason_is_a_sentence_and_names_the_fix_where_waiting_does_not_help(status: int, reason: str) -> None:
    assert reason == answered(status).reason


@pytest.mark.parametrize(
    "page",
    [
        b"<!DOCTYPE html><html></html>",
        b"\xef\xbb\xbf\r\n  <!doctype HTML PUBLIC '-//W3C//DTD HTML 4.01//EN'>",
        b"<HTML><HEAD>",
        b"<html lang=en>",
        b"<!-- portal --><html>",
        b"<meta http-equiv=refresh content='0; url=/login'>",
        b"<script>location='/login'</script>",
    ],
)
def test_a_page_with_200_comes_from_a_captive_portal_and_delivers_nothing(page: bytes) -> None:
    verdict = answered(200, page)

    assert verdict.kind == Kind.MISDIRECTED
    assert verdict.reason.startswith("200 OK with a web page: ")


@pytest.mark.parametrize("body", [b"", b"OK", b"{}", b'{"html": "<html>"}', b"<heading>", b"text <html>", b"\xff\xfe"])
def test_any_other_body_with_200_is_delivered(body: bytes) -> None:
    assert answered(200, body).kind == Kind.DELIVERED


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"errors": [{"message": "bad"}]}', True),
        (b'{"errors": {"0": "bad"}}', True),
        (b'{"errors": []}', False),
        (b'{"errors": null}', False),
        (b'{"result": {"errors": ["deep"]}}', False),
        (b'[{"errors": ["in a list"]}]', False),
        (b'{"errors": ["cut o', False),
        (b'"errors"', False),
        (b'"errors"' + b"[" * 60_000, False),
        (b"[" * 60_000 + b'"errors"', False),
        (b'\xff\xfe"errors"', False),
        (b"", False),
    ],
)
def test_errors_in_a_delivered_answer_are_told(body: bytes, told: bool) -> None:
    verdict = answered(200, body)

    assert (Kind.DELIVERED, told) == (verdict.kind, verdict.errors_in_answer)


def test_errors_in_a_refusal_are_no_errors_of_a_delivery() -> None:
    assert not answered(400, b'{"errors": ["bad"]}').errors_in_answer


def test_the_answer_is_kept_up_to_2000_characters_whatever_its_bytes() -> None:
    assert answered(400, "é".encode() * 5000).answer == "é" * 2000
    assert answered(400, b"\xff").answer == "\ufffd"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("", 0.0),
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("86400", DAY),
        ("86401", DAY),
        ("9" * 6000, DAY),
        ("-5", 0.0),
        ("1.5", 0.0),
        ("soon", 0.0),
        ("²", 0.0),
        ("inf", 0.0),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW + 90), 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0),
        (formatdate(NOW + 90, usegmt=True).removesuffix(" GMT"), 90.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", DAY),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        ("Mon, 01 Jan 0001 00:00:00 +2300", 0.0),
        ("Mon, 32 Jan 2040 00:00:00 GMT", 0.0),
        ("Mon, 01 Jan 2040 00:00:00 +9999", 0.0),
    ],
)
def test_retry_after_is_read_as_seconds_or_date_and_bounded(value: str, seconds: float) -> None:
    assert seconds == answered(503, Retry_After=value).retry_after_s


@given(value=st.text(max_size=60) | st.from_regex(r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} \d+ \d+:\d+:\d+ [+-]?\w+"))
@settings(max_examples=100, deadline=None)
def test_no_retry_after_raises_or_leaves_the_day(value: str) -> None:
    assert 0.0 <= retry_after_s(value, NOW) <= DAY


def test_retry_after_counts_only_where_the_batch_waits() -> None:
    assert answered(200, Retry_After="60").retry_after_s == 0.0
    assert answered(429, Retry_After="60").retry_after_s == 60.0


@given(status=st.integers(100, 999), body=st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_nothing_but_2xx_is_ever_delivered(status: int, body: bytes) -> None:
    verdict = answered(status, body)

    assert (verdict.kind is Kind.DELIVERED) <= (200 <= status < 300)
    assert "\n" not in verdict.reason


def test_no_connection_is_later_and_may_be_retried_quickly() -> None:
    verdict = judge(None, {}, b"", NoAnswer("no connection: Connection refused"), NOW)

    assert Verdict(Kind.LATER, "no connection: Connection refused") == verdict


def test_sent_whole_without_an_answer_is_later_and_says_that_the_server_may_have_it() -> None:
    verdict = judge(None, {}, b"", NoAnswer("no answer in time", unanswered=True), NOW)

    assert Verdict(Kind.LATER, "no answer in time", unanswered=True) == verdict


def test_an_address_that_cannot_be_used_is_misdirected() -> None:
    assert judge(None, {}, b"", NoAnswer("no address", misdirected=True), NOW).kind == Kind.MISDIRECTED


def test_neither_status_nor_error_is_later() -> None:
    assert judge(None, {}, b"", None, NOW).kind == Kind.LATER
