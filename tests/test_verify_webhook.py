"""Only ReadMe can make a webhook that passes."""

from __future__ import annotations

import hashlib
import hmac
import json
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from readme_metrics.VerifyWebhook import VerificationError, VerifyWebhook

NOW = 1_800_000_000.0
SECRET = "rdme_secret"
BODY = b'{"email":"owner@example.com"}'


def sign(body: bytes, *, at: float = NOW, secret: str = SECRET) -> str:
    stamp = str(round(at * 1000))
    digest = hmac.new(secret.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"t={stamp},v0={digest}"


def refusal(body: object, signature: str | None, secret: str = SECRET) -> str:
    with pytest.raises(VerificationError) as caught:
        VerifyWebhook(body, signature, secret, now=NOW)
    return str(caught.value)


def test_a_signed_body_passes_as_bytes_text_and_object() -> None:
    for body in (BODY, bytearray(BODY), memoryview(BODY), BODY.decode(), json.loads(BODY)):
        VerifyWebhook(body, sign(BODY), SECRET, now=NOW)


def test_a_parsed_object_is_signed_compactly_and_not_escaped() -> None:
    VerifyWebhook({"name": "Zoë", "n": [1, 2]}, sign('{"name":"Zoë","n":[1,2]}'.encode()), SECRET, now=NOW)


def test_raw_bytes_are_right_for_a_json_that_no_serialiser_would_write() -> None:
    body = b'{ "n" : 1.10, "e" : "\\u00e9" }'

    VerifyWebhook(body, sign(body), SECRET, now=NOW)


def test_spaces_order_case_and_further_fields_of_the_header_do_not_matter() -> None:
    stamp, digest = sign(BODY).split(",")

    VerifyWebhook(BODY, f" v1=other , {digest.upper().replace('V0', 'v0')} , {stamp} ", SECRET, now=NOW)


def test_the_clock_is_the_hosts_when_none_is_given() -> None:
    VerifyWebhook(BODY, sign(BODY, at=time.time()), SECRET)


@pytest.mark.parametrize("signature", [None, ""])
def test_no_header_is_a_missing_signature(signature: str | None) -> None:
    assert refusal(BODY, signature) == "Missing Signature"


@pytest.mark.parametrize("age_s", [30 * 60 + 1, -30 * 60 - 1, 10**9])
def test_more_than_half_an_hour_old_or_ahead_is_expired(age_s: float) -> None:
    assert refusal(BODY, sign(BODY, at=NOW - age_s)) == "Expired Signature"


@pytest.mark.parametrize("age_s", [30 * 60 - 1, -30 * 60 + 1])
def test_half_an_hour_is_fresh(age_s: float) -> None:
    VerifyWebhook(BODY, sign(BODY, at=NOW - age_s), SECRET, now=NOW)


@pytest.mark.parametrize(
    "signature",
    [
        sign(BODY, secret="another"),
        sign(BODY + b" "),
        sign(BODY)[:-1],
        sign(BODY).split(",")[0],
        sign(BODY).split(",")[1],
        sign(BODY).replace("v0=", "v1="),
        "t=,v0=",
        "t=soon,v0=abc",
        "t=-5,v0=abc",
        "t=\u00b2,v0=abc",
        f"t={'9' * 5000},v0=abc",
        f"t={round(NOW * 1000)},v0=h\u00e9x",
        f"t={round(NOW * 1000)},v0=\ud800",
        "garbage",
        ",,,===",
    ],
)
def test_whatever_else_is_wrong_is_an_invalid_signature(signature: str) -> None:
    assert refusal(BODY, signature) == "Invalid Signature"


def test_an_empty_secret_trusts_nobody() -> None:
    assert refusal(BODY, sign(BODY, secret=""), secret="") == "Invalid Signature"


@given(signature=st.text(min_size=1, max_size=80) | st.from_regex(r"t=\d{1,14},v0=[0-9a-f]{0,64}", fullmatch=True))
@settings(max_examples=100, deadline=None)
def test_no_header_that_was_not_signed_passes_or_breaks(signature: str) -> None:
    assert refusal(BODY, signature) in {"Invalid Signature", "Expired Signature"}


def test_it_stands_alone_on_the_standard_library() -> None:
    code = (
        "import sys, importlib.util as u; "
        "spec = u.spec_from_file_location('webhook', sys.argv[1]); spec.loader.exec_module(u.module_from_spec(spec)); "
        "print([name for name in sys.modules if name.split('.')[0] in {'requests', 'flask', 'readme_metrics'}])"
    )
    source = sys.modules["readme_metrics.VerifyWebhook"].__file__
    assert source

    done = subprocess.run([sys.executable, "-S", "-c", code, source], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
