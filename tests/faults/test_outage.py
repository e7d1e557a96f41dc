"""Outage: a server that refuses, hangs, drips, resets or is slow: seconds on real processes, hours by the clock."""

from __future__ import annotations

import random
import time
from email.utils import formatdate
from typing import TYPE_CHECKING

import pytest

from readme_metrics.drain import WIDTH, Ending
from tests.faults.bench import FULL, Bench, full_only, size
from tests.faults.hours import ENTRIES, HOUR_S, Hours
from tests.faults.processes import gunicorn, poll
from tests.metrics_server import (
    after,
    answer,
    close_after_answer,
    drip_head,
    drip_status,
    garbage,
    hang_after_reading,
    hang_before_reading,
    reset_after_body,
    reset_before_reading,
    reset_mid_answer,
    reset_mid_body,
)

if TYPE_CHECKING:
    from readme_metrics.queue.contract import Hold
    from tests.metrics_server import Behaviour, Call

FOUR_WORKERS = gunicorn("--workers=4")


PROBES_IN_SIX_HOURS = 9 + 6 * 12 + 1
"""1 s doubling to 5 min, then twelve an hour."""


@pytest.mark.parametrize(
    ("name", "behaviour", "most_probes"),
    [
        ("503", answer(503), PROBES_IN_SIX_HOURS),
        ("429", answer(429), PROBES_IN_SIX_HOURS),
        ("429, Retry-After an hour", answer(429, {"Retry-After": "3600"}), 7),
        ("503, Retry-After an absurd time", answer(503, {"Retry-After": "99999999999"}), 1),
        (
            "429, Retry-After in the past",
            answer(429, {"Retry-After": formatdate(1e9, usegmt=True)}),
            PROBES_IN_SIX_HOURS,
        ),
        ("reset before reading", reset_before_reading, PROBES_IN_SIX_HOURS),
        ("reset after the body", reset_after_body, PROBES_IN_SIX_HOURS),
        ("reset inside the answer", reset_mid_answer, PROBES_IN_SIX_HOURS),
        ("what is not HTTP", garbage(), PROBES_IN_SIX_HOURS),
        ("200 with a page of a captive portal", answer(200, body=b"<!DOCTYPE html><title>Log in</title>"), 4 + 6),
        ("401", answer(401), 4 + 6),
        ("302", answer(302, {"Location": "https://login.example.com"}), 4 + 6),
    ],
)
def test_six_hours_of_outage_cost_one_probe_a_hold_and_nothing_is_lost(
    hours: Hours, name: str, behaviour: Behaviour, most_probes: int
) -> None:
    hours.server.behave(behaviour)
    first, *probes = hours.pass_hours(6)
    hours.restart()
    hours.server.behave(answer())

    assert first <= 3 * WIDTH, name
    assert all(posts <= 1 for posts in probes), probes
    assert len(probes) < most_probes
    assert Ending.DONE is hours.drain.run(everything=True)
    assert {str(number) for number in range(ENTRIES)} == set(hours.server.taken_ids)
    books = hours.queue.report().books
    assert 0 == books.dead
    assert books.balanced
    assert ENTRIES == books.delivered


def test_a_retry_after_date_is_obeyed(hours: Hours) -> None:
    hours.server.behave(answer(503, {"Retry-After": formatdate(hours.now + 5 * HOUR_S, usegmt=True)}))
    hours.probe()
    assert pytest.approx(5 * HOUR_S, abs=1) == hours.hold().length_s


def test_a_server_that_is_away_is_not_asked_while_a_hold_runs_whatever_restarts(hours: Hours) -> None:
    hours.server.go_down()
    hours.probe()
    hours.server.come_back()
    hours.restart()
    assert 0 == hours.probe()


@pytest.mark.parametrize("jump_hours", [-5, 5])
def test_a_wall_clock_that_jumps_delays_no_entry_beyond_its_hold_and_makes_no_storm(
    hours: Hours, jump_hours: float
) -> None:
    hours.server.behave(answer(503))
    hours.probe()
    hours.now += jump_hours * HOUR_S
    length_s = hours.hold().length_s
    before = hours.probe()
    hours.now += length_s
    hours.server.behave(answer())

    assert before == (1 if jump_hours > 0 else 0)
    hours.now += hours.hold().length_s
    assert Ending.DONE is hours.drain.run(everything=True)
    assert ENTRIES == hours.queue.report().books.delivered


def test_after_an_outage_one_batch_goes_alone_and_then_several_at_once(hours: Hours) -> None:
    seen: list[int] = []

    def probe(call: Call) -> None:
        call.read()
        call.wait(0.1)
        seen.append(len(hours.server.posts))
        call.answer()

    hours.server.behave(answer(503))
    hours.probe()
    hours.now = hours.hold().until
    hours.server.behave(after(0.05, answer()))
    hours.server.script(probe)
    before = len(hours.server.posts)
    hours.server.most_in_flight = 0
    hours.drain.run(everything=True)

    assert [before + 1] == seen
    assert WIDTH == hours.server.most_in_flight
    assert sorted(set(hours.server.taken_ids)) == sorted(hours.server.taken_ids)


# -- real processes


def holds_of(bench: Bench, seen: dict[float, Hold]) -> list[float]:
    """The lengths of all holds so far, with what is there now."""
    hold = bench.report().hold
    if hold is not None:
        seen[hold.until] = hold
    return [each.length_s for each in seen.values()]


@pytest.mark.timeout(180)
def test_four_workers_send_one_probe_a_hold_and_a_hold_outlives_them_all(bench: Bench) -> None:
    app = bench.app(FOUR_WORKERS).start()
    lengths = [1.0, 2.0, 4.0, 8.0, 16.0] if FULL else [1.0, 2.0, 4.0]
    seen: dict[float, Hold] = {}
    bench.server.behave(answer(503))
    with bench.clients(app) as clients:
        poll(lambda: bool(clients.ids) and bool(holds_of(bench, seen)), 20, "a hold")
        first = len(bench.server.posts)
        poll(lambda: holds_of(bench, seen) == lengths, 60, lambda: f"{holds_of(bench, seen)}")
        posts = len(bench.server.posts)
        slowest_s = max(each.took_s for each in clients.answers)
        app.end()
        bench.server.behave(answer())
        app.start()
        clients.wait_for(100)
        last = max(seen)
        bench.server.wait_for(lambda: len(bench.server.posts) > posts, lengths[-1] + 10)
        came_back = time.time() - (time.monotonic() - bench.server.posts[posts].at)
    bench.wait_until_empty()
    app.stop()

    assert len(lengths) - 1 == posts - first, "one probe a hold"
    assert came_back >= last, "the hold was cut short by a restart"
    assert slowest_s < 2.0, "a request waited for us"
    bench.judge("outage: 503, four workers, restart in the hold", runs=len(lengths))


@pytest.mark.timeout(300)
def test_a_server_that_fails_in_every_way_at_random_loses_nothing(bench: Bench) -> None:
    ways: list[Behaviour] = [
        answer(503),
        answer(429, {"Retry-After": "1"}),
        close_after_answer,
        drip_head(0.05),
        drip_status(0.05),
        garbage(),
        hang_after_reading,
        hang_before_reading,
        reset_after_body,
        reset_before_reading,
        reset_mid_answer,
        reset_mid_body,
    ]
    chance = random.Random()

    def at_random(call: Call) -> None:
        chance.choice([answer()] * 2 * len(ways) + ways)(call)

    app = bench.app(gunicorn(), timeout=0.2).start()
    bench.server.behave(at_random)
    count = size(600, 8000)
    with bench.clients(app) as clients:
        clients.wait_for(count, deadline_s=240)
        bench.server.behave(answer())
    bench.wait_until_empty()
    app.stop()

    bench.judge("outage: every kind of failure, at random")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("answers_after", [4, pytest.param(8, marks=full_only), pytest.param(20, marks=full_only)])
def test_a_server_that_answers_late_is_given_the_time_and_the_queue_empties(bench: Bench, answers_after: int) -> None:
    scale = 1.0 if FULL else 0.1
    app = bench.app(gunicorn(), timeout=3 * scale).start()
    bench.server.behave(after(answers_after * scale, answer()))
    with bench.clients(app, threads=1) as clients:
        clients.wait_for(30)
    bench.wait_until_empty(deadline_s=200)
    app.stop()

    assert max(bench.server.times_posted().values()) <= 6, "the same batch for ever"
    bench.judge(f"outage: taken, and answered after {answers_after} s" + ("" if scale == 1 else " / 10"), in_doubt=True)


# -- and the flush command


def test_flush_obeys_a_hold_and_force_ends_it(bench: Bench) -> None:
    app = bench.app(gunicorn()).start()
    bench.server.behave(answer(503, {"Retry-After": "600"}))
    with bench.clients(app) as clients:
        clients.wait_for(50)
        poll(lambda: bench.report().hold is not None, 20, "a hold")
    app.stop()
    posts = len(bench.server.posts)
    bench.server.behave(answer())

    status, words = bench.flushed()
    assert 75 == status, words
    assert posts == len(bench.server.posts)
    status, words = bench.flushed("--force")
    assert 0 == status, words
    bench.judge("flush: obeys a hold, --force ends it")


def test_flush_tells_a_refused_key_apart(bench: Bench) -> None:
    app = bench.app(gunicorn()).start()
    bench.server.behave(answer(401))
    with bench.clients(app) as clients:
        clients.wait_for(50)
        poll(lambda: bench.report().hold is not None, 20, "a hold")
    app.stop()

    status, words = bench.flushed()
    assert 77 == status, words
    bench.server.behave(answer())
    assert 0 == bench.flushed("--force")[0]
    bench.judge("flush: a refused key")


def test_force_beside_a_running_app_sends_within_two_seconds(bench: Bench) -> None:
    app = bench.app(FOUR_WORKERS).start()
    bench.server.behave(answer(503, {"Retry-After": "600"}))
    with bench.clients(app) as clients:
        clients.wait_for(50)
        poll(lambda: bench.report().hold is not None, 20, "a hold")
        posts = len(bench.server.posts)
        bench.server.behave(answer())
        flush = bench.flush("--force")
        poll(lambda: running_hold(bench) is None, 20, "the end of the hold")
        bench.server.wait_for(lambda: len(bench.server.posts) > posts, 2.0)
    words, _ = flush.communicate(timeout=60)
    assert 0 == flush.returncode, words
    bench.wait_until_empty()
    app.stop()
    bench.judge("flush: --force beside a running app")


def running_hold(bench: Bench) -> Hold | None:
    hold = bench.report().hold
    return hold if hold is not None and hold.until > time.time() else None
