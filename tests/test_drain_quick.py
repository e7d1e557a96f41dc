"""A server that answers at once is sent to by the thread that drains, and four batches are booked together."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from readme_metrics import drain
from readme_metrics.drain import Ending
from readme_metrics.errors import QueueError
from readme_metrics.in_flight import InFlight, Limits
from readme_metrics.queue.contract import Batch
from tests.commanding import wait_until
from tests.draining import DELIVERED, LATER, REJECTED, Bench

if TYPE_CHECKING:
    from collections.abc import Callable

    from readme_metrics.verdict import Verdict


@pytest.fixture
def all_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is."""
    monkeypatch.setattr(drain, "QUICK_S", 60.0)


def quick_bench(judge: Callable[[list[str]], Verdict] = lambda _: DELIVERED, **options: Any) -> Bench:
    """One whose drain has seen already that the server is quick."""
    bench = Bench(**options)
    bench.put(1, "first")
    bench.run()
    bench.posts.clear()
    bench.judge = judge
    return bench


@pytest.mark.usefixtures("all_is_quick")
def test_a_quick_server_is_sent_to_by_the_thread_that_drains_and_four_batches_are_booked_in_one_transaction() -> None:
    senders: set[str] = set()
    booked: list[int] = []

    def judge(_: list[str]) -> Verdict:
        senders.add(threading.current_thread().name)
        return DELIVERED

    bench = quick_bench(judge)
    ack = bench.queue.ack

    def counted(*batches: Batch, answers_with_errors: int = 0) -> None:
        booked.append(len(batches))
        ack(*batches, answers_with_errors=answers_with_errors)

    bench.queue.ack = counted  # type: ignore[method-assign]  # to count
    names = bench.put(60)
    assert bench.run() is Ending.DONE
    assert {threading.current_thread().name} == senders
    assert names == bench.sent()
    assert [4, 2] == booked


@pytest.mark.usefixtures("all_is_quick")
@pytest.mark.parametrize("everything", [True, False])
def test_a_flush_claims_the_next_batch_while_the_server_has_one(everything: bool) -> None:
    happened: list[str] = []

    def judge(_: list[str]) -> Verdict:
        bench.drain._look_ahead()  # as when the POST was sent again, over a new connection
        happened.append("answered")
        return DELIVERED

    bench = quick_bench(judge)
    claim = bench.queue.claim

    def noted(limit: int, max_bytes: int) -> Batch | None:
        happened.append("claimed")
        return claim(limit, max_bytes)

    bench.queue.claim = noted  # type: ignore[method-assign]  # to note
    names = bench.put(30)
    assert bench.run(everything=everything) is Ending.DONE
    assert names == bench.sent()
    ahead, at_once = ["claimed", *["claimed", "answered"] * 3], ["claimed"] * 3 + ["answered"] * 3
    assert (ahead if everything else at_once) == happened[: 7 if everything else 6]


@pytest.mark.usefixtures("all_is_quick")
@pytest.mark.parametrize("known", [True, False])
def test_no_more_than_four_batches_are_sent_and_not_booked(known: bool) -> None:
    sent: list[int] = []
    unbooked: list[int] = []

    def judge(names: list[str]) -> Verdict:
        sent.append(len(names))
        unbooked.append(sum(sent) - (bench.queue.report().books.delivered - known))
        return DELIVERED

    bench = quick_bench(judge) if known else Bench(judge)  # not known: the first four are sent by threads
    names = bench.put(200)
    assert bench.run() is Ending.DONE
    assert sorted(names) == sorted(bench.sent())
    assert max(unbooked) <= 40


def test_what_a_thread_brought_back_comes_before_what_this_thread_would_send() -> None:
    flight = InFlight(Bench().send, lambda: None)
    flight.launch(Batch((1,), (b'"1"',)), Limits(1, 3.0, inline=False))
    wait_until(lambda: flight.ready)
    flight.launch(Batch((2,), (b'"2"',)), Limits(1, 3.0, inline=True))
    assert [(1,), (2,)] == [sent and sent.batch.ids for sent in (flight.next(10), flight.next(10))]
    assert not flight


@pytest.mark.usefixtures("all_is_quick")
@pytest.mark.parametrize(
    ("leave", "used_s", "rests"),
    [
        ({"everything": False}, 0.002, [0.004, 0.004]),
        ({"everything": False}, 5.0, [0.01, 0.01]),
        ({"everything": False, "patient": False}, 0.002, []),  # a request waits for it
        ({"everything": True}, 0.002, []),
    ],
)
def test_the_apps_own_drain_rests_twice_as_long_as_it_worked_and_not_for_long(
    monkeypatch: pytest.MonkeyPatch, leave: dict[str, bool], used_s: float, rests: list[float]
) -> None:
    bench = quick_bench()
    rested: list[float] = []
    monkeypatch.setattr(time, "thread_time", lambda: used_s * len(bench.posts) / 4)
    monkeypatch.setattr(bench.stop, "wait", rested.append)
    names = bench.put(80)
    assert bench.run(**leave) is Ending.DONE
    assert names == bench.sent()
    assert pytest.approx(rests) == rested


def test_a_drain_that_waits_for_a_slower_server_rests_meanwhile_and_not_besides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drain, "QUICK_S", 0.0)
    bench = quick_bench()
    rested: list[float] = []
    monkeypatch.setattr(bench.stop, "wait", rested.append)
    names = bench.put(80)
    assert bench.run(everything=False) is Ending.DONE
    assert (sorted(names), []) == (sorted(bench.sent()), rested)


@pytest.mark.usefixtures("all_is_quick")
def test_what_is_not_due_waits_at_a_quick_server_too() -> None:
    bench = quick_bench()
    names = bench.put(25)
    assert bench.run(everything=False) is Ending.DONE
    assert [names[:10], names[10:20]] == bench.posts
    bench.put(5, "late")
    assert bench.run(everything=False) is Ending.DONE
    assert [*names[20:], *(f"late{number}" for number in range(5))] == bench.posts[2]


@pytest.mark.usefixtures("all_is_quick")
@pytest.mark.parametrize("why", ["time is up", "another process drains"])
def test_what_is_claimed_ahead_is_given_back_when_the_run_ends(why: str) -> None:
    def judge(_: list[str]) -> Verdict:
        if len(bench.posts) == 4:
            bench.time += 2.0
            if why == "another process drains":
                bench.queue.elect = lambda: False  # type: ignore[method-assign]  # from now on
        return DELIVERED

    bench = quick_bench(judge)
    names = bench.put(100)
    deadline = bench.time + (1.0 if why == "time is up" else 1000.0)
    assert bench.run(deadline=deadline) is Ending.STOPPED
    assert names[:40] == bench.sent()
    assert 60 == bench.queue.unclaimed(100).count


@pytest.mark.usefixtures("all_is_quick")
@pytest.mark.parametrize("error", [QueueError("the disk is busy"), OSError("the disk is busy")])
def test_a_claim_ahead_that_fails_takes_nothing_from_the_batch_that_the_server_has(error: Exception) -> None:
    bench = quick_bench()
    claim = bench.queue.claim
    outcomes: list[Exception | None] = [None, error, None]

    def troubled(limit: int, max_bytes: int) -> Batch | None:
        trouble = outcomes.pop(0) if outcomes else None
        if trouble is not None:
            raise trouble
        return claim(limit, max_bytes)

    bench.queue.claim = troubled  # type: ignore[method-assign]  # that fails once
    names = bench.put(30)
    assert bench.run() is Ending.DONE
    assert names == bench.sent()
    assert not outcomes


@pytest.mark.usefixtures("all_is_quick")
@pytest.mark.parametrize("guilty", ["e5", "e15", "e49"])
def test_while_a_rejected_batch_is_divided_nothing_else_is_claimed(guilty: str) -> None:
    bench = quick_bench(lambda names: REJECTED if guilty in names else DELIVERED)
    names = bench.put(50)
    assert bench.run() is Ending.DONE
    posts = [post for post in bench.posts if guilty in post]
    first = bench.posts.index(posts[0])
    divided = bench.posts[first : bench.posts.index([guilty]) + 1]
    assert all(set(post) <= set(posts[0]) for post in divided)
    books = bench.queue.report().books
    assert (1 + 49, 1, 0, True) == (books.delivered, books.dead, books.waiting, books.balanced)
    assert sorted(name for name in names if name != guilty) == sorted(
        name for post in bench.posts if guilty not in post for name in post
    )


@pytest.mark.usefixtures("all_is_quick")
def test_a_quick_server_that_fails_is_not_sent_what_had_not_begun() -> None:
    bench = quick_bench(lambda names: LATER if "e10" in names else DELIVERED)
    names = bench.put(40)
    assert bench.run() is Ending.HELD
    assert [names[:10], names[10:20]] == bench.posts
    assert 30 == bench.queue.backlog().count
    bench.judge = lambda _: DELIVERED
    bench.wait_out_the_hold()
    bench.posts.clear()
    assert bench.run() is Ending.DONE
    assert sorted(names[10:]) == sorted(bench.sent())


@pytest.mark.usefixtures("all_is_quick")
def test_a_person_who_breaks_off_between_two_batches_is_sent_nothing_again() -> None:
    def judge(names: list[str]) -> Verdict:
        if "e20" in names:
            raise KeyboardInterrupt
        return DELIVERED

    bench = quick_bench(judge)
    names = bench.put(40)
    with pytest.raises(KeyboardInterrupt):
        bench.run()
    books = bench.queue.report().books
    assert (1 + 20, 20, True) == (books.delivered, books.waiting, books.balanced)
    bench.judge = lambda _: DELIVERED
    bench.posts.clear()
    assert bench.run() is Ending.DONE
    assert names[20:] == bench.sent()


@pytest.mark.usefixtures("all_is_quick")
def test_a_stop_between_two_batches_sends_no_further_one() -> None:
    def judge(_: list[str]) -> Verdict:
        bench.stop.set()
        return DELIVERED

    bench = quick_bench(judge)
    bench.put(40)
    assert bench.run() is Ending.STOPPED
    assert 1 == len(bench.posts)
    assert 30 == bench.queue.backlog().count


@pytest.mark.usefixtures("all_is_quick")
def test_a_time_out_longer_than_a_queue_may_go_untended_is_waited_for_by_another_thread() -> None:
    senders: list[str] = []

    def judge(_: list[str]) -> Verdict:
        senders.append(threading.current_thread().name)
        return DELIVERED

    bench = quick_bench(judge, timeout_s=30.0)
    bench.put(10)
    bench.run()
    assert ["readme-metrics-sender"] == senders
