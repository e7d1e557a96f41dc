"""A server that answers at once is sent to by the thread that drains, and four batches are booked together."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from readme_metrics import drain
from readme_metrics.drain import Ending
from tests.draining import DELIVERED, LATER, Bench

if TYPE_CHECKING:
    from collections.abc import Callable

    from readme_metrics.queue.contract import Batch
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
