"""One attempt over real sockets: what goes out, and what each way to fail is called."""

from __future__ import annotations

import base64
import socket
import time
from typing import TYPE_CHECKING

import pytest

from readme_metrics import __version__
from readme_metrics.sender import PIECE_ENTRIES
from readme_metrics.verdict import Kind
from tests.delivering import CERTIFICATE, ENTRIES, KEY, MOST_S, TIMEOUT_S, MakeDelivery, timed
from tests.metrics_server import (
    Behaviour,
    Call,
    MetricsServer,
    answer,
    close_after_answer,
    drip_head,
    garbage,
    refuse_entries,
    reset_after_body,
    reset_before_reading,
    reset_mid_answer,
    reset_mid_body,
    too_large_above,
)

if TYPE_CHECKING:
    from pathlib import Path


TOO_MUCH = b"x" * (16 * 1024 * 1024)
"""More than the kernel's buffers of both ends take when nobody reads."""


def test_a_batch_goes_as_one_json_array_with_the_key_and_no_password(
    server: MetricsServer, deliver: MakeDelivery
) -> None:
    outcome = deliver().send(ENTRIES)

    assert (outcome.verdict.kind, outcome.attempts) == (Kind.DELIVERED, 1)
    (post,) = server.posts
    assert (post.method, post.target) == ("POST", "/v1/request")
    assert post.body == b'[{"_id":"a"},{"_id":"b"}]'
    assert post.headers["content-type"] == "application/json"
    assert f"readme-metrics-python/{__version__}" == post.headers["user-agent"]
    assert "Basic " + base64.b64encode(f"{KEY}:".encode()).decode() == post.headers["authorization"]
    assert server.taken_ids == ["a", "b"]


@pytest.mark.parametrize("count", [1, PIECE_ENTRIES, PIECE_ENTRIES + 1, 2 * PIECE_ENTRIES, 7 * PIECE_ENTRIES + 5])
def test_a_batch_sent_piece_by_piece_is_one_array(server: MetricsServer, deliver: MakeDelivery, count: int) -> None:
    entries = [b'{"_id":"%d"}' % number for number in range(count)]

    assert deliver().send(entries).verdict.kind == Kind.DELIVERED

    assert [b"[" + b",".join(entries) + b"]"] == [post.body for post in server.posts]
    assert str(len(server.posts[0].body)) == server.posts[0].headers["content-length"]


def test_while_the_server_has_it_something_else_is_done_which_takes_nothing_of_its_time(
    server: MetricsServer, deliver: MakeDelivery
) -> None:
    posts: list[int] = []

    def meanwhile() -> None:
        time.sleep(TIMEOUT_S + 0.3)  # longer than the server may take
        posts.append(len(server.posts))

    outcome = deliver().send(ENTRIES, meanwhile=meanwhile)

    assert (Kind.DELIVERED, 1) == (outcome.verdict.kind, outcome.attempts)
    assert [1] == posts


def test_a_server_below_a_path_is_kept(server: MetricsServer, deliver: MakeDelivery) -> None:
    deliver(f"{server.url}/proxy/readme").send(ENTRIES)

    assert [post.target for post in server.posts] == ["/proxy/readme/v1/request"]


def test_a_netrc_does_not_take_the_place_of_the_key(
    server: MetricsServer, deliver: MakeDelivery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login stranger password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))

    deliver().send(ENTRIES)

    assert "Basic " + base64.b64encode(f"{KEY}:".encode()).decode() == server.posts[0].headers["authorization"]


def test_a_proxy_of_the_environment_is_respected(
    server: MetricsServer, deliver: MakeDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("NO_PROXY", "")

    deliver("http://metrics.example.test").send(ENTRIES)

    assert [post.target for post in server.posts] == ["http://metrics.example.test/v1/request"]


def test_a_proxy_tunnels_tls_which_stays_open_for_the_next_batch(
    server: MetricsServer, tls_server: MetricsServer, deliver: MakeDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tunnel(call: Call) -> None:
        call.read_head()
        with socket.create_connection(("127.0.0.1", tls_server.port)) as far:
            call.send(b"HTTP/1.1 200 Connected\r\n\r\n")
            call.relay(far)
        call.close()

    server.behave(tunnel)
    monkeypatch.setenv("HTTPS_PROXY", server.url)
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(CERTIFICATE))
    delivery = deliver(tls_server.url)

    kinds = [delivery.send(ENTRIES).verdict.kind for _ in range(2)]

    assert kinds == [Kind.DELIVERED] * 2
    assert [post.method for post in server.posts] == ["CONNECT"]
    assert tls_server.connections == 1

    tls_server.behave(reset_after_body)  # the proxy has answered, the server has not
    assert timed(delivery)[0].verdict.reason == "connection lost before an answer"


def test_a_proxy_that_will_not_tunnel_is_later_and_its_password_in_no_reason(
    server: MetricsServer, deliver: MakeDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", server.url.replace("//", "//user:planted@"))
    monkeypatch.setenv("NO_PROXY", "")
    server.script(answer(407))

    outcome, _ = timed(deliver("https://metrics.example.test"))

    assert [post.method for post in server.posts] == ["CONNECT"]
    assert outcome.verdict.kind == Kind.LATER
    assert outcome.verdict.reason == "no connection: Tunnel connection failed: 407 Whatever"


def test_a_proxy_that_is_down_is_later_and_its_password_in_no_reason(
    server: MetricsServer, deliver: MakeDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", server.url.replace("//", "//user:planted@"))
    monkeypatch.setenv("NO_PROXY", "")
    server.go_down()

    outcome, _ = timed(deliver("https://metrics.example.test"))

    assert (outcome.verdict.kind, outcome.verdict.reason) == (Kind.LATER, "no connection: Connection refused")


def test_a_redirect_is_not_followed_and_its_endless_body_not_read(server: MetricsServer, deliver: MakeDelivery) -> None:
    def login(call: Call) -> None:
        call.read()
        call.send(call.head(302, {"Location": f"{server.url}/login", "Transfer-Encoding": "chunked"}))
        call.send(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        call.drip(b"10000\r\n" + b"x" * 0x10000, 0.01)

    server.behave(login)

    outcome, seconds = timed(deliver())

    assert (outcome.verdict.kind, outcome.verdict.status) == (Kind.MISDIRECTED, 302)
    assert len(server.posts) == 1
    assert seconds < 1.0


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (answer(503), "503 Service Unavailable"),
        (reset_before_reading, "connection lost before an answer"),
        (reset_mid_body, "connection lost before an answer"),
        (reset_after_body, "connection lost before an answer"),
        (reset_mid_answer, "broken answer"),
        (garbage(), "broken answer"),
        (garbage(b"\x16\x03\x01\x00\x00"), "broken answer"),
        (garbage(b"HTTP/1.1 abc\r\n\r\n"), "broken answer"),
        (garbage(b"HTTP/1.1 200 OK\r\nno colon"), "200 OK"),
        (garbage(b""), "connection lost before an answer"),
        (drip_head(0.01, 503), "503 Service Unavailable"),
    ],
)
def test_a_broken_exchange_is_later_unless_a_status_line_came(
    server: MetricsServer, deliver: MakeDelivery, behaviour: Behaviour, reason: str
) -> None:
    server.script(behaviour)
    delivery = deliver()

    outcome, seconds = timed(delivery)

    assert not outcome.verdict.unanswered
    assert reason == outcome.verdict.reason
    assert (outcome.verdict.kind is Kind.DELIVERED) == reason.startswith("200")
    assert seconds < MOST_S
    assert delivery.send(ENTRIES).verdict.kind == Kind.DELIVERED


def test_an_endless_answer_is_read_up_to_its_bound(server: MetricsServer, deliver: MakeDelivery) -> None:
    def endless(call: Call) -> None:
        call.read()
        call.send(call.head(400, {}))
        while not call.wait(0):
            call.send(b"x" * 65536)

    server.script(endless)
    delivery = deliver(timeout_s=2.0)

    outcome, seconds = timed(delivery)

    assert (outcome.verdict.kind, outcome.verdict.answer) == (Kind.REJECTED, "x" * 2000)
    assert seconds < 1.0
    assert delivery.send(ENTRIES).verdict.kind == Kind.DELIVERED


def test_a_server_that_answers_before_it_has_read_all_is_heard(server: MetricsServer, deliver: MakeDelivery) -> None:
    def early(call: Call) -> None:
        call.read_head()
        call.answer(413, {"Connection": "close"})
        call.close()

    server.behave(early)

    outcome, _ = timed(deliver(), (TOO_MUCH,))

    assert outcome.verdict.kind in {Kind.TOO_LARGE, Kind.LATER}
    assert not outcome.verdict.unanswered


def test_only_the_guilty_and_the_large_are_refused(server: MetricsServer, deliver: MakeDelivery) -> None:
    delivery = deliver()
    server.behave(refuse_entries({"b"}, 422))

    assert delivery.send(ENTRIES).verdict.kind == Kind.REJECTED
    assert delivery.send(ENTRIES[:1]).verdict.kind == Kind.DELIVERED

    server.behave(too_large_above(20))

    assert delivery.send(ENTRIES).verdict.kind == Kind.TOO_LARGE
    assert delivery.send(ENTRIES[:1]).verdict.kind == Kind.DELIVERED
    assert server.taken_ids == ["a", "a"]


def test_one_connection_serves_many_batches(server: MetricsServer, deliver: MakeDelivery) -> None:
    delivery = deliver()

    for status in (200, 503, 400, 413, 200):
        server.script(answer(status))
        delivery.send(ENTRIES, max_attempts=1)

    assert server.connections == 1


@pytest.mark.parametrize("worst", [reset_before_reading, Call.close, reset_after_body])
def test_a_connection_that_was_closed_while_idle_costs_neither_an_attempt_nor_a_wait(
    server: MetricsServer, deliver: MakeDelivery, worst: Behaviour
) -> None:
    delivery = deliver()
    server.script(answer(), worst)
    delivery.send(ENTRIES)

    outcome, seconds = timed(delivery)

    assert (outcome.verdict.kind, outcome.attempts) == (Kind.DELIVERED, 1)
    assert [post.connection for post in server.posts] == [1, 1, 2]
    assert seconds < 0.2


def test_a_server_that_hangs_up_after_each_answer_costs_no_attempt(
    server: MetricsServer, deliver: MakeDelivery
) -> None:
    server.behave(close_after_answer)
    delivery = deliver()

    assert [(outcome.verdict.kind, outcome.attempts) for outcome in (delivery.send(ENTRIES) for _ in range(5))] == [
        (Kind.DELIVERED, 1)
    ] * 5


def test_a_fresh_connection_that_is_reset_is_an_attempt_of_its_own(
    server: MetricsServer, deliver: MakeDelivery
) -> None:
    server.behave(reset_after_body)

    outcome = deliver().send(ENTRIES, max_attempts=1)

    assert (outcome.verdict.kind, len(server.posts)) == (Kind.LATER, 1)


@pytest.mark.parametrize(
    "address", ["http://", "http://..", "http://[::1", "ftp://127.0.0.1", f"http://{'a' * 300}.test", "http://a:99999"]
)
def test_an_address_that_cannot_be_one_is_misdirected_or_later_never_an_exception(
    deliver: MakeDelivery, address: str
) -> None:
    outcome, _ = timed(deliver(address))

    assert outcome.verdict.kind in {Kind.MISDIRECTED, Kind.LATER}
    assert KEY not in outcome.verdict.reason


def test_a_name_that_does_not_exist_is_later(deliver: MakeDelivery, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(host: str, *_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)

    outcome, _ = timed(deliver("http://metrics.example.test"))

    assert (outcome.verdict.kind, outcome.verdict.reason) == (Kind.LATER, "no connection: Name or service not known")


def test_a_certificate_nobody_vouches_for_is_later_and_names_the_variable(
    tls_server: MetricsServer, deliver: MakeDelivery
) -> None:
    outcome, _ = timed(deliver(tls_server.url))

    assert outcome.verdict.kind == Kind.LATER
    assert outcome.verdict.reason == "no connection: self-signed certificate; check REQUESTS_CA_BUNDLE"
    assert tls_server.posts == []


def test_a_bundle_that_is_not_there_is_later(
    tls_server: MetricsServer, deliver: MakeDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/bundle.pem")

    outcome, _ = timed(deliver(tls_server.url))

    assert outcome.verdict.kind == Kind.LATER
    assert "/nowhere/bundle.pem" in outcome.verdict.reason
