"""The loop that empties the queue, against the contract in memory, a scripted server and a clock of our own."""

from __future__ import annotations

import json
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from readme_metrics.drain import Ending, next_hold
from readme_metrics.errors import QueueError
from readme_metrics.queue.contract import Backlog, Batch, Hold
from readme_metrics.verdict import Kind, Outcome, Verdict
from tests.draining import DELIVERED, LATER, REFUSED, REJECTED, TOO_LARGE, UNANSWERED, Bench

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def test_everything_is_sent_oldest_first_in_batches_of_at_most_the_batch_length() -> None:
    bench = Bench()
    names = bench.put(23)
    assert bench.run() is Ending.DONE
    assert sorted(bench.sent()) == sorted(names)
    assert sorted(len(post) for post in bench.posts) == [3, 10, 10]
    assert all(post == sorted(post, key=names.index) for post in bench.posts)
    assert bench.queue.report().books.balanced


def test_a_batch_that_is_not_full_waits_for_the_flush_interval() -> None:
    bench = Bench()
    bench.put(9)
    assert bench.drain.due_in_s() == 60.0
    bench.run(everything=False)
    assert bench.posts == []
    bench.time += 60.0
    bench.run(everything=False)
    assert [len(post) for post in bench.posts] == [9]


def test_the_entry_that_fills_the_batch_makes_it_due_and_the_rest_goes_on_waiting() -> None:
    bench = Bench()
    bench.put(13)
    bench.run(everything=False)
    assert [len(post) for post in bench.posts] == [10]
    assert bench.queue.backlog().count == 3


def test_what_an_earlier_run_left_is_due_at_once() -> None:
    bench = Bench()
    bench.time -= 5.0
    bench.put(2)
    bench.time += 5.0
    assert bench.drain.due_in_s() == 0.0


def test_what_someone_asked_for_is_due_at_once_and_what_comes_later_is_not() -> None:
    bench = Bench()
    bench.put(2)
    bench.queue.ask_flush()
    bench.run(everything=False)
    bench.put(1, "later")
    bench.run(everything=False)
    assert bench.sent() == ["e0", "e1"]


def test_an_entry_put_before_the_clock_was_set_back_is_not_stuck() -> None:
    bench = Bench()
    bench.time += 7200.0
    bench.put(1)
    bench.time -= 7200.0
    assert bench.drain.due_in_s() == 0.0


def test_trouble_releases_the_batch_to_its_place_and_begins_a_hold() -> None:
    bench = Bench(lambda _: LATER)
    names = bench.put(3)
    assert bench.run() is Ending.HELD
    assert bench.queue.hold() == Hold(bench.time + 1.0, 1.0, "later", LATER.reason)
    batch = bench.queue.claim(10, 1000)
    assert batch is not None
    assert [json.loads(entry) for entry in batch.entries] == names


def test_nothing_is_sent_while_a_hold_runs() -> None:
    bench = Bench(lambda _: LATER)
    bench.put(3)
    bench.run()
    posts = len(bench.posts)
    bench.time += 0.9
    assert bench.run() is Ending.HELD
    assert len(bench.posts) == posts


def test_after_a_hold_one_batch_goes_first_alone_with_one_attempt_and_then_full_speed() -> None:
    bench = Bench(lambda _: LATER, batch_length=1)
    bench.put(6)
    bench.run()
    bench.wait_out_the_hold()
    bench.posts.clear()
    bench.limits.clear()
    alone: list[int] = []

    def judge(_: list[str]) -> Verdict:
        alone.append(len(bench.queue._claimed))
        return DELIVERED

    bench.judge = judge
    assert bench.run() is Ending.DONE
    assert alone[0] == 1
    assert max(alone) > 1
    assert [attempts for attempts, _ in bench.limits] == [1, 3, 3, 3, 3, 3]
    assert sorted(bench.sent()) == ["e0", "e1", "e2", "e3", "e4", "e5"]


def test_an_ended_hold_still_sends_one_batch_first() -> None:
    bench = Bench(lambda _: REFUSED, batch_length=1)
    bench.put(3)
    bench.run()
    bench.queue.end_hold()
    bench.posts.clear()
    assert bench.run() is Ending.HELD
    assert len(bench.posts) == 1


def test_each_failed_probe_doubles_the_hold_up_to_five_minutes() -> None:
    bench = Bench(lambda _: LATER)
    bench.put(1)
    lengths = []
    for _ in range(11):
        bench.run()
        hold = bench.queue.hold()
        assert hold is not None
        lengths.append(hold.length_s)
        bench.wait_out_the_hold()
    assert lengths == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert len(bench.posts) == 11


def test_a_delivery_forgets_the_hold() -> None:
    bench = Bench(lambda _: LATER)
    bench.put(1)
    bench.run()
    bench.wait_out_the_hold()
    bench.judge = lambda _: DELIVERED
    bench.run()
    assert bench.queue.hold() is None


@pytest.mark.parametrize(
    ("verdict", "previous", "length_s", "timeout_s"),
    [
        (LATER, None, 1.0, None),
        (Verdict(Kind.LATER, "429", retry_after_s=90.0), None, 90.0, None),
        (LATER, Hold(0, 86_400.0, "later", ""), 300.0, None),
        (REFUSED, None, 300.0, None),
        (REFUSED, Hold(0, 300.0, "refused", ""), 600.0, None),
        (REFUSED, Hold(0, 3600.0, "refused", ""), 3600.0, None),
        (REFUSED, Hold(0, 64.0, "later", ""), 300.0, None),
        (LATER, Hold(0, 3600.0, "refused", ""), 1.0, None),
        (UNANSWERED, None, 1.0, 6.0),
        (UNANSWERED, Hold(0, 1.0, "later", "", 3.0), 2.0, 6.0),
        (LATER, Hold(0, 1.0, "later", "", 24.0), 2.0, 24.0),
    ],
)
def test_the_next_hold(verdict: Verdict, previous: Hold | None, length_s: float, timeout_s: float | None) -> None:
    hold = next_hold(verdict, previous, now=100.0, timeout_s=3.0)
    assert (hold.until, hold.length_s, hold.timeout_s) == (100.0 + length_s, length_s, timeout_s)


def test_a_server_that_does_not_answer_in_time_is_given_twice_as_long_up_to_a_minute() -> None:
    bench = Bench(lambda _: UNANSWERED)
    bench.put(1)
    for _ in range(7):
        bench.run()
        bench.wait_out_the_hold()
    assert [timeout_s for _, timeout_s in bench.limits] == [3.0, 6.0, 12.0, 24.0, 48.0, 60.0, 60.0]


def test_one_guilty_entry_is_buried_with_its_answer_and_the_others_are_delivered_once() -> None:
    bench = Bench(lambda names: REJECTED if "e6" in names else DELIVERED)
    names = bench.put(10)
    assert bench.run() is Ending.DONE
    delivered = [name for post in bench.posts if "e6" not in post for name in post]
    assert sorted(delivered) == sorted(set(names) - {"e6"})
    (letter,) = bench.queue.dead_letters()
    assert (json.loads(letter.entry), letter.status, letter.answer) == ("e6", 400, "no such field")
    assert len(bench.posts) <= 9
    assert bench.queue.report().books.balanced


def test_a_hundred_entries_with_one_guilty_cost_a_logarithm_of_posts() -> None:
    bench = Bench(lambda names: REJECTED if "e37" in names else DELIVERED, batch_length=128)
    bench.put(128)
    bench.run()
    assert len(bench.posts) <= 1 + 2 * 7


def test_a_server_that_rejects_everything_is_held_after_ten_and_each_probe_buries_one() -> None:
    bench = Bench(lambda _: REJECTED)
    bench.put(40)
    assert bench.run() is Ending.HELD
    assert len(bench.queue.dead_letters()) == 10
    hold = bench.queue.hold()
    assert hold is not None
    assert (hold.kind, hold.length_s) == ("rejected", 300.0)
    for buried in (11, 12):
        bench.wait_out_the_hold()
        assert bench.run() is Ending.HELD
        assert len(bench.queue.dead_letters()) == buried
    assert bench.queue.report().books.balanced


def test_ten_rejections_with_a_delivery_between_hold_nothing() -> None:
    bench = Bench(lambda names: REJECTED if any(name in guilty for name in names) else DELIVERED)
    names = bench.put(60)
    guilty = set(names[::4])
    assert bench.run() is Ending.DONE
    assert len(bench.queue.dead_letters()) == 15


def test_a_batch_that_is_too_large_goes_in_halves_and_a_lone_one_is_buried() -> None:
    bench = Bench(lambda names: TOO_LARGE if len(names) > 3 or "e9" in names else DELIVERED)
    bench.put(10)
    assert bench.run() is Ending.DONE
    (letter,) = bench.queue.dead_letters()
    assert (json.loads(letter.entry), letter.status) == ("e9", 413)
    assert bench.queue.report().books.delivered == 9


def test_trouble_in_the_middle_of_dividing_releases_the_rest_and_holds() -> None:
    answers = iter([REJECTED, DELIVERED, LATER])
    bench = Bench(lambda _: next(answers))
    bench.put(10)
    assert bench.run() is Ending.HELD
    books = bench.queue.report().books
    assert (books.delivered, books.waiting, books.dead) == (5, 5, 0)


def test_each_part_of_a_divided_batch_gets_the_time_that_is_left_then_and_time_that_is_up_holds_nothing() -> None:
    bench = Bench(lambda names: REJECTED if len(names) > 2 else UNANSWERED)
    bench.put(4)

    def judge(names: list[str]) -> Verdict:
        bench.time += 1.8 if len(names) > 2 else 0.2
        return REJECTED if len(names) > 2 else UNANSWERED

    bench.judge = judge
    assert bench.run(deadline=bench.time + 2.0, patient=False) is Ending.STOPPED
    assert [round(timeout_s or 0.0, 3) for _, timeout_s in bench.limits] == [2.0, 0.2]
    assert bench.queue.hold() is None
    assert bench.queue.unclaimed(10).count == 4


def test_a_stop_that_ends_the_dividing_holds_nothing() -> None:
    bench = Bench(batch_length=4)

    def judge(_: list[str]) -> Verdict:
        bench.stop.set()
        return REJECTED

    bench.judge = judge
    bench.put(8)
    assert bench.run() is Ending.STOPPED
    assert [len(post) for post in bench.posts] in ([4], [4, 4])
    assert bench.queue.hold() is None
    assert bench.queue.unclaimed(10).count == 8


def test_what_was_delivered_beside_a_failed_batch_is_booked_before_the_hold_begins() -> None:
    bench = Bench(lambda names: LATER if "e0" in names else DELIVERED, batch_length=1)
    bench.put(4)
    assert bench.run() is Ending.HELD
    books = bench.queue.report().books
    assert (books.delivered, books.waiting) == (3, 1)
    assert bench.queue.hold() is not None


def test_a_stop_ends_the_run_when_what_is_in_flight_has_come_back() -> None:
    def judge(_: list[str]) -> Verdict:
        bench.stop.set()
        return DELIVERED

    bench = Bench(judge, batch_length=1)
    bench.put(20)
    assert bench.run() is Ending.STOPPED
    assert len(bench.posts) <= 4
    assert bench.queue.report().books.delivered == len(bench.posts)


# -- where someone waits


def test_where_someone_waits_each_batch_gets_one_attempt_within_the_time_left() -> None:
    def judge(_: list[str]) -> Verdict:
        bench.time += 1.5
        return DELIVERED

    bench = Bench(judge, batch_length=1)
    bench.put(9)
    assert bench.run(deadline=bench.time + 4.0, patient=False) is Ending.STOPPED
    assert bench.limits == [(1, 3.0), (1, 2.5), (1, 1.0)]


def test_delivery_that_stops_and_resumes_says_so_once_each(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "readme_metrics.drain")
    bench = Bench(lambda _: LATER)
    bench.put(4)
    for _ in range(3):
        bench.run()
        bench.wait_out_the_hold()
    bench.judge = lambda _: DELIVERED
    bench.run()
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "503" in caplog.messages[0]
    assert "resumes" in caplog.messages[1]
    assert "4" in caplog.messages[1]


class Chat(logging.Handler):
    """Logs to somewhere that is away, and says so by raising."""

    def emit(self, record: logging.LogRecord) -> None:
        raise ConnectionError(record.getMessage())


@pytest.fixture
def chat() -> Iterator[None]:
    handler = Chat()
    logging.getLogger("readme_metrics").addHandler(handler)
    yield
    logging.getLogger("readme_metrics").removeHandler(handler)


@pytest.mark.usefixtures("chat")
def test_a_log_handler_that_raises_stands_between_no_delivery_and_its_booking() -> None:
    bench = Bench(lambda _: LATER)
    bench.put(3)
    assert bench.run() is Ending.HELD
    bench.wait_out_the_hold()
    bench.judge = lambda names: REJECTED if "e1" in names else DELIVERED
    assert bench.run() is Ending.DONE
    books = bench.queue.report().books
    assert (books.delivered, books.dead, books.waiting) == (2, 1, 0)
    assert len(bench.posts) == 6


def test_a_backlog_that_cannot_be_counted_stands_between_no_delivery_and_its_booking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> Backlog:
        raise QueueError("the disk is gone")

    bench = Bench(lambda _: LATER)
    bench.put(3)
    bench.run()
    bench.wait_out_the_hold()
    bench.judge = lambda _: DELIVERED
    with monkeypatch.context() as patched:
        patched.setattr(bench.queue, "backlog", fail)
        assert bench.run() is Ending.DONE
    assert bench.queue.report().books.delivered == 3


def test_a_hold_that_cannot_be_written_is_obeyed_and_written_when_that_is_possible(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: Hold) -> None:
        raise QueueError("the file is locked")

    bench = Bench(lambda _: LATER)
    bench.put(3)
    with monkeypatch.context() as patched:
        patched.setattr(bench.queue, "set_hold", fail)
        for seconds, posts in ((0.0, 1), (0.9, 1), (0.1, 2), (1.9, 2), (0.1, 3)):
            bench.time += seconds
            assert bench.run() is Ending.HELD
            assert len(bench.posts) == posts
        assert bench.queue.hold() is None
    assert bench.run() is Ending.HELD
    hold = bench.queue.hold()
    assert hold is not None
    assert hold.length_s == 4.0
    bench.queue.end_hold()
    bench.judge = lambda _: DELIVERED
    assert bench.run() is Ending.DONE


def test_a_hold_that_was_not_written_ends_with_a_delivery_and_with_a_clock_set_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: Hold) -> None:
        raise QueueError("the file is locked")

    bench = Bench(lambda _: REFUSED)
    monkeypatch.setattr(bench.queue, "set_hold", fail)
    bench.put(1)
    assert bench.run() is Ending.HELD
    bench.time -= 10_000
    bench.judge = lambda _: DELIVERED
    assert bench.run() is Ending.DONE
    bench.put(20)
    assert bench.run() is Ending.DONE
    assert len(bench.posts) == 4


def test_a_refused_key_is_one_error_that_names_the_fix(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(lambda _: REFUSED)
    bench.put(4)
    bench.run()
    bench.wait_out_the_hold()
    bench.run()
    assert [(record.levelname, "check the key" in record.message) for record in caplog.records] == [("ERROR", True)]


def test_answers_that_tell_of_errors_are_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(lambda _: Verdict(Kind.DELIVERED, "200 OK", 200, errors_in_answer=True))
    bench.put(30)
    bench.run()
    assert bench.queue.report().activity.answers_with_errors == 3
    assert len(caplog.records) == 1


def test_a_second_thread_waits_until_the_first_is_done_or_its_own_time_is_up() -> None:
    inside, leave = threading.Event(), threading.Event()

    def judge(_: list[str]) -> Verdict:
        inside.set()
        assert leave.wait(10)
        return DELIVERED

    bench = Bench(judge)
    bench.put(1)
    first = threading.Thread(target=bench.run)
    first.start()
    assert inside.wait(10)
    assert bench.run(deadline=bench.time) is Ending.STOPPED
    leave.set()
    first.join(10)
    assert bench.run() is Ending.DONE
    assert len(bench.posts) == 1


def test_a_bug_in_sending_comes_out_and_leaves_the_batch_where_it_was() -> None:
    def judge(_: list[str]) -> Verdict:
        raise ZeroDivisionError

    bench = Bench(judge)
    bench.put(30)
    with pytest.raises(ZeroDivisionError):
        bench.run()
    bench.judge = lambda _: DELIVERED
    bench.run()
    assert bench.queue.report().books.delivered == 30


def test_what_comes_back_after_a_bug_broke_the_run_off_is_booked() -> None:
    broke = threading.Event()

    def judge(names: list[str]) -> Verdict:
        if names == ["e0"]:
            raise ZeroDivisionError
        return DELIVERED

    bench = Bench(judge, batch_length=1)
    recall = bench.drain._flight.recall

    def recalled() -> list[Batch]:
        broke.set()
        return recall()

    bench.drain._flight.recall = recalled  # type: ignore[method-assign]
    send = bench.drain._flight._send

    def late(entries: Sequence[bytes], **options: Any) -> Outcome:
        if entries != (b'"e0"',):
            assert broke.wait(10)
        return send(entries, **options)

    bench.drain._flight._send = late
    bench.put(3)
    with pytest.raises(ZeroDivisionError):
        bench.run()
    assert bench.queue.report().books.delivered == 2


def test_where_no_thread_can_start_batches_go_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    bench = Bench()
    bench.put(45)
    assert bench.run() is Ending.DONE
    assert bench.queue.report().books.delivered == 45
