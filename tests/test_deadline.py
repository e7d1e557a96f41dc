"""Every POST ends by its deadline; each way to hold it up has its test."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from urllib3.connection import HTTPConnection

from readme_metrics import deadline, sender
from readme_metrics.deadline import SLACK_S
from readme_metrics.verdict import Kind
from tests.delivering import CERTIFICATE, ENTRIES, MOST_S, TIMEOUT_S, MakeDelivery, timed
from tests.metrics_server import (
    Behaviour,
    Call,
    MetricsServer,
    after,
    answer,
    drip_body,
    drip_head,
    drip_status,
    garbage,
    hang_after_reading,
    hang_before_reading,
    reset_after_body,
)

TOO_MUCH = b"x" * (16 * 1024 * 1024)
"""More than the kernel's buffers of both ends take when nobody reads."""


@pytest.fixture(autouse=True)
def _short_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the bounds bound does not depend on their length."""
    monkeypatch.setattr(deadline, "SLACK_S", 0.2)
    monkeypatch.setattr(sender, "ANSWER_BODY_S", 0.2)


def test_the_slack_keeps_the_promise_of_two_seconds() -> None:
    assert SLACK_S + 0.25 < 2.0


@pytest.mark.parametrize("behaviour", [hang_before_reading, hang_after_reading, drip_status(0.01)])
def test_sent_whole_and_not_answered_is_not_tried_again_quickly(
    server: MetricsServer, deliver: MakeDelivery, behaviour: Behaviour
) -> None:
    server.script(behaviour)
    delivery = deliver()
    began = time.monotonic()

    outcome = delivery.send(ENTRIES)

    assert (outcome.verdict.kind, outcome.verdict.unanswered, outcome.attempts) == (Kind.LATER, True, 1)
    assert time.monotonic() - began < MOST_S
    assert delivery.send(ENTRIES).verdict.kind == Kind.DELIVERED


def test_a_connection_we_cannot_watch_may_have_brought_all_to_the_server(
    server: MetricsServer, deliver: MakeDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadline.DeadlineAdapter, "_bind", lambda *_: None)  # as behind a SOCKS proxy
    server.behave(hang_after_reading)

    outcome = deliver().send(ENTRIES)

    assert (outcome.verdict.kind, outcome.verdict.unanswered, outcome.attempts) == (Kind.LATER, True, 1)


def test_a_body_that_nobody_reads_ends_in_time_and_is_not_called_sent(
    server: MetricsServer, deliver: MakeDelivery
) -> None:
    server.script(hang_before_reading)
    delivery = deliver()

    outcome, seconds = timed(delivery, (TOO_MUCH,))

    assert (outcome.verdict.kind, outcome.verdict.unanswered) == (Kind.LATER, False)
    assert outcome.verdict.reason == "not sent whole in time"
    assert seconds < MOST_S
    assert delivery.send(ENTRIES).verdict.kind == Kind.DELIVERED


def test_a_body_that_is_read_slowly_ends_in_time(server: MetricsServer, deliver: MakeDelivery) -> None:
    def slow_reader(call: Call) -> None:
        while not call.wait(0.02):
            call.read(10_000)

    server.script(slow_reader)

    outcome, seconds = timed(deliver(), (TOO_MUCH,))

    assert outcome.verdict.reason == "not sent whole in time"
    assert seconds < MOST_S


def test_a_drip_that_stops_is_not_given_a_time_out_of_its_own(server: MetricsServer, deliver: MakeDelivery) -> None:
    def drip_then_hang(call: Call) -> None:
        call.read()
        call.drip(b"HTTP/1.1 200 " + b"O" * 40, 0.01)
        call.wait()

    server.script(drip_then_hang)

    outcome, seconds = timed(deliver(timeout_s=0.6))

    assert outcome.verdict.unanswered
    assert seconds < 0.9


def test_a_reader_that_stops_is_not_given_a_time_out_of_its_own(server: MetricsServer, deliver: MakeDelivery) -> None:
    def read_then_hang(call: Call) -> None:
        for _ in range(35):
            call.read(100_000)
            call.wait(0.02)
        call.wait()

    server.script(read_then_hang)

    outcome, seconds = timed(deliver(timeout_s=0.8), (TOO_MUCH,))

    assert outcome.verdict.reason == "not sent whole in time"
    assert seconds < 1.3


def test_slow_sending_is_taken_from_the_time_to_be_answered(server: MetricsServer, deliver: MakeDelivery) -> None:
    def read_late_then_hang(call: Call) -> None:
        call.wait(0.5)
        call.read()
        call.wait()

    server.script(read_late_then_hang)

    outcome, seconds = timed(deliver(timeout_s=0.6), (TOO_MUCH,))

    assert outcome.verdict.unanswered
    assert seconds < 1.0


def test_100_continue_and_then_nothing_is_no_answer(server: MetricsServer, deliver: MakeDelivery) -> None:
    def go_on(call: Call) -> None:
        call.read()
        call.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        call.wait()

    server.script(go_on)

    outcome, _ = timed(deliver())

    assert (outcome.verdict.unanswered, outcome.verdict.status) == (True, None)


@pytest.mark.parametrize("behaviour", [drip_head(0.01), drip_body(0.01), drip_body(0.01, body=b"\r\n" * 50_000)])
def test_once_a_2xx_status_came_the_batch_is_delivered_however_slowly_the_rest_follows(
    server: MetricsServer, deliver: MakeDelivery, behaviour: Behaviour
) -> None:
    server.script(behaviour)
    delivery = deliver()

    outcome, seconds = timed(delivery)

    assert outcome.verdict.kind == Kind.DELIVERED
    assert seconds < MOST_S
    assert delivery.send(ENTRIES).verdict.kind == Kind.DELIVERED


def test_a_page_that_drips_is_still_seen_to_be_a_page(server: MetricsServer, deliver: MakeDelivery) -> None:
    server.script(drip_body(0.01, body=b"<!doctype html>" + b" " * 10_000))

    outcome, _ = timed(deliver())

    assert outcome.verdict.kind == Kind.MISDIRECTED


def test_a_slow_answer_within_the_time_out_is_waited_for(server: MetricsServer, deliver: MakeDelivery) -> None:
    server.script(after(0.2, answer()))

    assert deliver().send(ENTRIES).verdict.kind == Kind.DELIVERED


def test_a_proxy_that_drips_its_answer_to_connect_ends_with_the_time_out(
    server: MetricsServer, deliver: MakeDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", server.url)
    monkeypatch.setenv("NO_PROXY", "")
    server.behave(drip_head(0.01))

    outcome, seconds = timed(deliver("https://metrics.example.test"))

    assert (outcome.verdict.kind, outcome.verdict.unanswered) == (Kind.LATER, False)
    assert outcome.verdict.reason == "no connection in time"
    assert seconds < MOST_S


def test_a_look_up_that_hangs_ends_with_the_time_out_and_is_never_more_than_one_thread(
    server: MetricsServer, deliver: MakeDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()
    look_up = socket.getaddrinfo

    def hang(host: str, *rest: int, **options: int) -> object:
        if host == "metrics.example.test":
            answered.wait(10)
            host = "127.0.0.1"
        return look_up(host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    delivery = deliver(f"http://metrics.example.test:{server.port}", 0.1)

    outcomes = [timed(delivery) for _ in range(3)]

    assert [outcome.verdict.reason for outcome, _ in outcomes] == ["no connection in time"] * 3
    assert all(seconds < 1.0 for _, seconds in outcomes)
    assert len([thread for thread in threading.enumerate() if "look-up" in thread.name]) == 1
    answered.set()
    assert delivery.send(ENTRIES, timeout_s=3.0).verdict.kind == Kind.DELIVERED


def test_an_address_that_swallows_everything_does_not_hide_the_next(
    server: MetricsServer, deliver: MakeDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.2", server.port), backlog=0) as full:
        filling = [socket.socket() for _ in range(3)]
        for each in filling:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        monkeypatch.setattr(deadline.Line, "addresses", lambda *_: ["127.0.0.2", "127.0.0.1"])

        outcome, seconds = timed(deliver(f"http://metrics.example.test:{server.port}", 0.6))

        for each in filling:
            each.close()
    assert outcome.verdict.kind == Kind.DELIVERED
    assert seconds < 1.0


def test_a_new_connection_looks_the_name_up_again(
    server: MetricsServer, deliver: MakeDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def addresses(_: deadline.Line, host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    monkeypatch.setattr(deadline.Line, "addresses", addresses)
    server.behave(answer(200, {"Connection": "close"}))
    delivery = deliver(f"http://metrics.example.test:{server.port}")

    for _ in range(2):
        delivery.send(ENTRIES)

    assert asked == ["metrics.example.test"] * 2


class NoThread(threading.Thread):
    why = "can't start new thread"

    def start(self) -> None:
        raise RuntimeError(self.why)


def test_without_a_new_thread_the_look_up_happens_in_this_one(
    server: MetricsServer, deliver: MakeDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadline, "Thread", NoThread)

    assert deliver(f"http://localhost:{server.port}").send(ENTRIES).verdict.kind == Kind.DELIVERED


def test_without_a_new_thread_nobody_looks_a_name_up_ahead(
    deliver: MakeDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_: object, **__: object) -> None:
        pytest.fail("asked a resolver in a request")

    monkeypatch.setattr(deadline, "Thread", NoThread)
    monkeypatch.setattr(socket, "getaddrinfo", ask)
    deliver("http://metrics.example.test").look_up_ahead()


def test_at_exit_where_no_thread_can_look_a_name_up_nobody_waits_for_it(
    server: MetricsServer, deliver: MakeDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Leaving(NoThread):
        why = "can't create new thread at interpreter shutdown"

    resolve = socket.getaddrinfo

    def literals_only(host: str, *args: Any, **kwargs: Any) -> Any:
        assert kwargs.get("flags") == socket.AI_NUMERICHOST or host[0].isdigit(), "asked a resolver"
        return resolve(host, *args, **kwargs)

    monkeypatch.setattr(deadline, "_latest", {})
    known = f"http://localhost:{server.port}"
    deadline.look_up("localhost", server.port).result(10)
    monkeypatch.setattr(deadline, "Thread", Leaving)
    monkeypatch.setattr(socket, "getaddrinfo", literals_only)
    verdict = deliver("http://metrics.example.test").send(ENTRIES, max_attempts=1).verdict
    assert (verdict.kind, verdict.reason) == (Kind.LATER, "no connection in time")
    assert deliver(server.url).send(ENTRIES).verdict.kind == Kind.DELIVERED
    assert deliver(known).send(ENTRIES).verdict.kind == Kind.DELIVERED


def test_at_interpreter_exit_a_batch_is_still_sent(server: MetricsServer) -> None:
    code = f"""
import atexit, threading
from readme_metrics.delivery import Delivery
delivery = Delivery(server="http://localhost:{server.port}", api_key="k", timeout_s=3, stop=threading.Event())
delivery.look_up_ahead()
def leave():
    outcome = delivery.send([b'{{"_id":"last"}}'])
    delivery.close()
    print(outcome.verdict.reason)
atexit.register(leave)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=30, check=False
    )

    assert (done.stdout, done.stderr) == ("200 OK\n", "")
    assert server.taken_ids == ["last"]


def test_under_gevent_a_drip_ends_in_time_and_other_greenlets_go_on(server: MetricsServer) -> None:
    server.script(drip_status(0.01))
    code = f"""
from gevent import monkey; monkey.patch_all()
import gevent, threading, time
from readme_metrics.delivery import Delivery
delivery = Delivery(server="http://localhost:{server.port}", api_key="k", timeout_s=0.3, stop=threading.Event())
ticks = []
ticker = gevent.spawn(lambda: [(ticks.append(1), gevent.sleep(0.01)) for _ in range(1000)])
began = time.monotonic()
first = delivery.send([b'{{"_id":"a"}}'])
print(first.verdict.unanswered, time.monotonic() - began < 2.3, len(ticks) > 5)
print(delivery.send([b'{{"_id":"b"}}']).verdict.reason)
delivery.close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)

    assert done.stdout == "True True True\n200 OK\n", done.stderr
    assert server.taken_ids == ["b"]


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (answer(), "200 OK"),
        (drip_status(0.01), "sent, but not answered in time"),
        (drip_body(0.01), "200 OK"),
        (hang_after_reading, "sent, but not answered in time"),
        (reset_after_body, "connection lost before an answer"),
        (garbage(), "broken answer"),
    ],
)
def test_tls_keeps_the_same_deadlines_and_the_session_stays_usable(
    tls_server: MetricsServer,
    deliver: MakeDelivery,
    monkeypatch: pytest.MonkeyPatch,
    behaviour: Behaviour,
    reason: str,
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(CERTIFICATE))
    delivery = deliver(tls_server.url)
    tls_server.script(behaviour)

    outcome, seconds = timed(delivery)

    assert outcome.verdict.reason.startswith(reason)
    assert seconds < MOST_S
    assert [timed(delivery)[0].verdict.reason for _ in range(2)] == ["200 OK"] * 2


def test_tls_with_a_body_that_nobody_reads_ends_in_time(
    tls_server: MetricsServer, deliver: MakeDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(CERTIFICATE))
    tls_server.script(hang_before_reading)

    outcome, seconds = timed(deliver(tls_server.url), (TOO_MUCH,))

    assert outcome.verdict.reason == "not sent whole in time"
    assert seconds < MOST_S


@pytest.mark.parametrize("behaviour", [hang_before_reading, garbage()])
def test_a_tls_handshake_with_something_else_ends_in_time(
    server: MetricsServer, deliver: MakeDelivery, behaviour: Behaviour
) -> None:
    server.behave(behaviour if behaviour is hang_before_reading else lambda call: call.send(b"220 hello\r\n" * 99))

    outcome, seconds = timed(deliver(server.url.replace("http:", "https:")))

    assert outcome.verdict.reason.startswith("no connection")
    assert (outcome.verdict.kind, outcome.verdict.unanswered) == (Kind.LATER, False)
    assert seconds < TIMEOUT_S + 0.5


def test_a_slow_connect_leaves_the_tls_handshake_only_the_rest(
    server: MetricsServer, deliver: MakeDelivery, stop: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = HTTPConnection._new_conn

    def slow(self: HTTPConnection) -> socket.socket:
        stop.wait(0.5)
        return connect(self)

    monkeypatch.setattr(HTTPConnection, "_new_conn", slow)
    server.behave(hang_before_reading)

    outcome, seconds = timed(deliver(server.url.replace("http:", "https:"), 0.6))

    assert outcome.verdict.reason == "no connection in time"
    assert seconds < 0.9


def test_a_slow_tunnel_leaves_the_tls_handshake_only_the_rest(
    server: MetricsServer, deliver: MakeDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tunnel_late(call: Call) -> None:
        call.read_head()
        call.wait(0.5)
        call.send(b"HTTP/1.1 200 Connected\r\n\r\n")
        call.wait()

    server.behave(tunnel_late)
    monkeypatch.setenv("HTTPS_PROXY", server.url)
    monkeypatch.setenv("NO_PROXY", "")

    outcome, seconds = timed(deliver("https://metrics.example.test", 0.6))

    assert outcome.verdict.reason == "no connection in time"
    assert seconds < 0.9


def test_a_name_that_was_unknown_is_looked_up_again(
    server: MetricsServer, deliver: MakeDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up = socket.getaddrinfo
    answers = iter([socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")])

    def at_first_unknown(host: str, *rest: int, **options: int) -> object:
        for error in answers:
            raise error
        return look_up("127.0.0.1", *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", at_first_unknown)
    delivery = deliver(f"http://metrics.example.test:{server.port}")

    reasons = [timed(delivery)[0].verdict.reason for _ in range(2)]

    assert reasons == ["no connection: Temporary failure in name resolution", "200 OK"]


def test_a_second_try_that_finds_no_connection_is_not_called_sent(
    server: MetricsServer, deliver: MakeDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery = deliver()
    server.script(answer(), reset_after_body)
    delivery.send(ENTRIES)

    def too_late(*_: object) -> list[str]:
        raise TimeoutError

    monkeypatch.setattr(deadline.Line, "addresses", too_late)

    outcome, _ = timed(delivery)

    assert (outcome.verdict.reason, outcome.verdict.unanswered) == ("no connection in time", False)
