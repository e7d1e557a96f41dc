"""One batch: a few quick retries, several threads, a fork, a close."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from readme_metrics.delivery import Delivery
from readme_metrics.verdict import Kind, Outcome
from tests.delivering import ENTRIES, KEY, MakeDelivery, timed
from tests.metrics_server import (
    Call,
    MetricsServer,
    after,
    answer,
    hang_after_reading,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_a_longer_time_out_can_be_given_to_one_send(server: MetricsServer, deliver: MakeDelivery) -> None:
    server.behave(after(0.3, answer()))
    delivery = deliver(timeout_s=0.1)

    assert delivery.send(ENTRIES).verdict.unanswered
    assert delivery.send(ENTRIES, timeout_s=3.0).verdict.kind == Kind.DELIVERED


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def patient(server: MetricsServer, stop: threading.Event, clock: Clock) -> Iterator[Delivery]:
    """A delivery whose waits take no time."""
    made = Delivery(server=server.url, api_key=KEY, timeout_s=1.0, stop=stop, clock=clock, sleep=clock.sleep)
    yield made
    made.close()


def test_later_is_tried_three_times_with_growing_waits(server: MetricsServer, patient: Delivery, clock: Clock) -> None:
    server.behave(answer(503))

    outcome = patient.send(ENTRIES)

    assert (outcome.attempts, len(server.posts)) == (3, 3)
    first, second = clock.slept
    assert 0.25 <= first <= 0.5
    assert 0.5 <= second <= 0.75


def test_a_retry_that_is_delivered_ends_the_send(server: MetricsServer, patient: Delivery) -> None:
    server.script(answer(503), answer(408))

    outcome = patient.send(ENTRIES)

    assert (outcome.verdict.kind, outcome.attempts) == (Kind.DELIVERED, 3)
    assert server.taken_ids == ["a", "b"]


@pytest.mark.parametrize("status", [200, 302, 400, 401, 404, 413, 422])
def test_no_other_verdict_is_tried_again(server: MetricsServer, patient: Delivery, status: int) -> None:
    server.behave(answer(status))

    assert patient.send(ENTRIES).attempts == 1
    assert len(server.posts) == 1


def test_a_retry_after_that_fits_is_waited_out(server: MetricsServer, patient: Delivery, clock: Clock) -> None:
    server.script(answer(429, {"Retry-After": "2"}))

    assert patient.send(ENTRIES).attempts == 2
    assert clock.slept == [2.0]


def test_a_retry_after_that_does_not_fit_is_left_to_the_hold(
    server: MetricsServer, patient: Delivery, clock: Clock
) -> None:
    server.behave(answer(429, {"Retry-After": "4"}))

    outcome = patient.send(ENTRIES)

    assert (outcome.attempts, outcome.verdict.retry_after_s, clock.slept) == (1, 4.0, [])


def test_no_attempt_starts_later_than_three_seconds_after_the_first(
    server: MetricsServer, patient: Delivery, clock: Clock
) -> None:
    began = clock.now
    starts: list[float] = []

    def slow(call: Call) -> None:
        starts.append(clock.now - began)
        clock.now += 1.2  # what this answer took
        answer(503)(call)

    server.behave(slow)

    patient.send(ENTRIES, max_attempts=10)

    assert len(starts) == 3
    assert max(starts) == pytest.approx(3.0)  # its backoff was cut to fit


@pytest.mark.parametrize("timeout_s", [0.0, -1.0])
def test_who_has_no_time_left_gets_a_verdict_at_once(
    server: MetricsServer, deliver: MakeDelivery, timeout_s: float
) -> None:
    server.behave(hang_after_reading)
    began = time.monotonic()

    outcome = deliver(timeout_s=20.0).send(ENTRIES, max_attempts=1, timeout_s=timeout_s)

    assert outcome.verdict.kind is Kind.LATER
    assert time.monotonic() - began < 2.0


def test_one_attempt_is_one_attempt(server: MetricsServer, patient: Delivery, clock: Clock) -> None:
    server.behave(answer(503))

    assert patient.send(ENTRIES, max_attempts=1).attempts == 1
    assert clock.slept == []


def test_closing_cuts_the_wait_short_and_makes_no_further_attempt(
    server: MetricsServer, deliver: MakeDelivery, stop: threading.Event
) -> None:
    def stop_soon(call: Call) -> None:
        threading.Timer(0.05, stop.set).start()
        answer(429, {"Retry-After": "3"})(call)

    server.behave(stop_soon)
    began = time.monotonic()

    outcome = deliver().send(ENTRIES)

    assert (outcome.verdict.kind, outcome.attempts) == (Kind.LATER, 1)
    assert time.monotonic() - began < 2.0
    assert len(server.posts) == 1


def test_a_send_that_begins_after_closing_still_makes_its_one_attempt(
    server: MetricsServer, deliver: MakeDelivery, stop: threading.Event
) -> None:
    stop.set()
    server.script(answer(503))

    assert deliver().send(ENTRIES).attempts == 1
    assert deliver().send(ENTRIES).verdict.kind == Kind.DELIVERED


def test_a_server_that_is_down_is_later_and_found_again(server: MetricsServer, deliver: MakeDelivery) -> None:
    delivery = deliver()
    delivery.send(ENTRIES)
    server.go_down()

    assert timed(delivery)[0].verdict.reason == "no connection: Connection refused"

    server.come_back()
    assert timed(delivery)[0].verdict.kind == Kind.DELIVERED


def test_threads_send_at_once_each_over_a_connection_of_its_own(server: MetricsServer, deliver: MakeDelivery) -> None:
    together = threading.Barrier(4)

    def meet(call: Call) -> None:
        call.read()
        together.wait(10)
        call.answer()

    server.behave(meet)
    delivery = deliver(timeout_s=5.0)
    outcomes: list[Outcome] = []
    threads = [threading.Thread(target=lambda: outcomes.append(delivery.send(ENTRIES))) for _ in range(4)]
    for _ in range(2):
        threads = [threading.Thread(target=lambda: outcomes.append(delivery.send(ENTRIES))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert [(outcome.verdict.kind, outcome.attempts) for outcome in outcomes] == [(Kind.DELIVERED, 1)] * 8
    assert (server.most_in_flight, server.connections) == (4, 4)


def test_close_closes_every_connection_also_of_a_send_that_ends_later(
    server: MetricsServer, deliver: MakeDelivery
) -> None:
    delivery = deliver(timeout_s=5.0)
    delivery.send(ENTRIES)
    closed = threading.Event()

    def answer_after_close(call: Call) -> None:
        call.read()
        closed.wait(10)
        call.answer()

    server.behave(answer_after_close)
    sending = threading.Thread(target=delivery.send, args=(ENTRIES,))
    sending.start()
    server.wait_for(lambda: len(server.posts) == 2)

    senders = list(delivery._senders._all)
    delivery.close()
    closed.set()
    sending.join()
    assert len(senders) == 1  # held here, so that it is not the garbage collector that closes

    server.wait_for(lambda: not server._sockets)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_sends_over_its_own_connection_and_leaves_its_parents_alone(
    server: MetricsServer, deliver: MakeDelivery
) -> None:
    delivery = deliver(timeout_s=5.0)
    delivery.send(ENTRIES)
    inherited = delivery._senders._idle[0].line.sock
    assert inherited
    number = inherited.fileno()

    pid = os.fork()
    if not pid:
        delivered = delivery.send([b'{"_id":"child"}']).verdict.kind is Kind.DELIVERED
        os._exit(0 if delivered and inherited.fileno() == -1 else 1)
    _, status = os.waitpid(pid, 0)
    delivery.send([b'{"_id":"parent"}'])

    assert os.waitstatus_to_exitcode(status) == 0
    assert number == inherited.fileno()
    assert [(post.connection, post.ids) for post in server.posts] == [(1, ["a", "b"]), (2, ["child"]), (1, ["parent"])]
