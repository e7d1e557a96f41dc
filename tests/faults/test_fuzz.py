"""Fuzz: any bytes through a socket; the app answers what the bare app answers, and nothing of ours fails."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.faults.bench import FULL, Bench, size
from tests.faults.processes import AppServer, gunicorn
from tests.metrics_server import answer

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

WORKER = gunicorn("--workers=1", "--worker-class=gthread", "--threads=2")
PAGE = re.compile(rb"\r\nx-documentation-url: [^\r\n]*/([0-9a-f-]{36})", re.IGNORECASE)
DATE = re.compile(rb"\r\nDate: [^\r\n]*")

without_line_ends = st.binary(max_size=40).map(lambda data: data.translate(None, b"\r\n"))
methods = st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"BREW", b"get"])
targets = st.one_of(
    without_line_ends.map(lambda rest: b"/echo/" + rest),
    without_line_ends.map(lambda rest: b"/echo?" + rest),
    st.text(max_size=20).map(lambda text: b"/echo/" + text.encode("utf-8", "surrogatepass").replace(b"\n", b"%0A")),
    without_line_ends,
)
versions = st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b""])
names = st.one_of(
    st.sampled_from([b"Cookie", b"Host", b"X-Api-Key", b"Referer", b"Authorization", b"password", b"X-Forwarded-For"]),
    st.from_regex(rb"\A[A-Za-z!#$%&'*+.^_`|~0-9-]{1,12}\Z"),
    without_line_ends,
)
headers = st.lists(st.tuples(names, without_line_ends), max_size=6)
bodies = st.one_of(
    st.binary(max_size=300),
    st.just(b'{"password": "x", "password": {"a": [1, 2'),
    st.just(b"a=b&password=%ff%zz&=&;"),
    st.just(b'--x\r\nContent-Disposition: form-data; name="f"; filename="\xff"\r\n\r\n\x00\r\n--x--\r\n'),
)
content_types = st.sampled_from(
    [
        b"application/json",
        b"application/x-www-form-urlencoded",
        b"application/x-www-form-urlencoded; charset=nonsense",
        b"multipart/form-data; boundary=x",
        b"multipart/form-data",
        b"text/plain; charset=\xff",
        b"",
    ]
)


@st.composite
def raw_requests(draw: st.DrawFn) -> bytes:
    """What is nearly HTTP."""
    body = draw(bodies)
    lines = [b" ".join([draw(methods), draw(targets), draw(versions)]), b"Host: fuzz.example"]
    lines += [name + b": " + value for name, value in draw(headers)]
    framing = draw(st.sampled_from(["length", "length", "chunked", "wrong", "none"]))
    if framing in {"length", "wrong"}:
        lines += [
            b"Content-Type: " + draw(content_types),
            b"Content-Length: %d" % (len(body) + 5 * (framing == "wrong")),
        ]
    elif framing == "chunked":
        lines += [b"Transfer-Encoding: chunked"]
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    return b"\r\n".join([*lines, b"", body])


anything: SearchStrategy[bytes] = st.one_of(raw_requests(), raw_requests(), raw_requests(), st.binary(max_size=200))


def talk(app: AppServer, raw: bytes) -> bytes:
    """All that comes back, until the server closes."""
    with socket.create_connection(("127.0.0.1", app.port), timeout=20) as client:
        client.sendall(raw)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while part := client.recv(65536):
                answer += part
        except ConnectionResetError:  # what it did not want to read was thrown away
            pass
    return DATE.sub(b"", answer)


@pytest.mark.timeout(400)
def test_any_bytes_are_answered_as_the_bare_app_answers_them_and_nothing_of_ours_fails(bench: Bench) -> None:
    bare = bench.app(WORKER)
    wrapped = bench.app(WORKER)
    bare.start(FAULTS_OPTIONS="")
    wrapped.start()

    @settings(
        max_examples=size(150, 5_000),
        deadline=None,
        derandomize=not FULL,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(anything)
    def same(raw: bytes) -> None:
        got = talk(wrapped, raw)
        bench.answered.extend(each.decode() for each in PAGE.findall(got))
        assert talk(bare, raw) == PAGE.sub(b"", got)

    same()
    bench.server.behave(answer())
    bench.wait_until_empty()
    text = wrapped.log_text()
    wrapped.stop()
    bare.stop()

    assert "readme_metrics/" not in text, "a traceback through our code"
    bench.judge("raw bytes through a socket, beside the bare app", runs=size(150, 5_000))
