"""What every backend keeps: the promises of ``queue.contract``, once for each of them."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Protocol

import pytest

from readme_metrics.errors import NotAccepted
from readme_metrics.queue import open_queue
from readme_metrics.queue.contract import Backlog, Batch, DurableQueue, Hold, Unclaimed
from readme_metrics.queue.durable import SqliteQueue
from readme_metrics.queue.memory import MemoryQueue
from tests.queues import MIB, drained, entries, entry, put_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = 1_000_000.0
HOLD = Hold(NOW + 60.0, 60.0, "later", "503 Service Unavailable", 6.0)


class WallClock:
    def __init__(self) -> None:
        self.time = NOW

    def __call__(self) -> float:
        return self.time


class MakeQueue(Protocol):
    def __call__(self, now: WallClock) -> DurableQueue: ...


@pytest.fixture
def now() -> WallClock:
    return WallClock()


@pytest.fixture(params=["sqlite", "memory"])
def queue(request: pytest.FixtureRequest, tmp_path: Path, now: WallClock) -> Iterator[DurableQueue]:
    made: DurableQueue = (
        SqliteQueue(tmp_path / "queue.sqlite", max_bytes=64 * MIB, now=now)
        if request.param == "sqlite"
        else MemoryQueue(now=now)
    )
    assert made.elect()
    yield made
    assert made.report().books.balanced
    made.close()


def claimed(queue: DurableQueue, limit: int = 100) -> Batch:
    batch = queue.claim(limit, MIB)
    assert batch is not None
    return batch


def test_open_queue_gives_the_backend_that_outlives_the_process_and_opens_nothing(tmp_path: Path) -> None:
    assert open_queue(tmp_path / "q" / "queue.sqlite", max_bytes=MIB).durable
    assert not (tmp_path / "q").exists()
    assert not MemoryQueue().durable


def test_a_claim_gives_the_oldest_first(queue: DurableQueue) -> None:
    put_all(queue, entries(5))
    batch = claimed(queue, 3)
    assert entries(3) == list(batch.entries)
    assert sorted(batch.ids) == list(batch.ids)


def test_what_is_claimed_is_not_claimed_again(queue: DurableQueue) -> None:
    put_all(queue, entries(5))
    first, second = claimed(queue, 3), claimed(queue, 3)
    assert entries(5) == [*first.entries, *second.entries]
    assert queue.claim(3, MIB) is None


def test_nothing_can_be_claimed_from_an_empty_queue(queue: DurableQueue) -> None:
    assert queue.claim(10, MIB) is None
    assert Unclaimed(0, None, asked=False) == queue.unclaimed(10)
    assert Backlog(0, 0, None) == queue.backlog()


def test_a_claim_stays_within_its_bytes_as_a_json_array(queue: DurableQueue) -> None:
    put_all(queue, [b"x" * 10] * 5)
    batch = queue.claim(10, len(b"[" + b",".join([b"x" * 10] * 3) + b"]"))
    assert batch is not None
    assert 3 == len(batch)


def test_an_entry_larger_than_a_batch_goes_alone(queue: DurableQueue) -> None:
    put_all(queue, [b"x" * 1000, b"y"])
    batch = queue.claim(10, 100)
    assert batch is not None
    assert (b"x" * 1000,) == batch.entries


def test_ack_deletes_the_batch_and_books_it_once(queue: DurableQueue) -> None:
    put_all(queue, entries(5))
    batch = claimed(queue, 3)
    queue.ack(batch)
    queue.ack(batch)
    books = queue.report().books
    assert (5, 3, 2) == (books.accepted, books.delivered, books.waiting)
    assert entries(5)[3:] == drained(queue)


def test_ack_books_several_batches_at_once_and_none_of_them_again(queue: DurableQueue) -> None:
    put_all(queue, entries(9))
    batches = [claimed(queue, 3), claimed(queue, 3)]
    queue.ack(*batches, answers_with_errors=2)
    assert 6 == queue.report().books.delivered
    queue.ack(batches[1])
    report = queue.report()
    assert (6, 3, 2) == (report.books.delivered, report.books.waiting, report.activity.answers_with_errors)
    assert entries(9)[6:] == drained(queue)


def test_ack_forgets_the_hold_and_the_rejections_and_notes_when(queue: DurableQueue, now: WallClock) -> None:
    put_all(queue, entries(2))
    queue.set_hold(HOLD)
    assert 1 == queue.bury(claimed(queue, 1), status=400, reason="400", answer="")
    now.time += 5
    queue.ack(claimed(queue, 1), answers_with_errors=1)
    activity = queue.report().activity
    assert queue.hold() is None
    assert (0, NOW + 5, 1) == (activity.rejections_in_a_row, activity.last_success_at, activity.answers_with_errors)


def test_what_is_in_flight_behind_a_released_batch_does_not_count_as_unclaimed(queue: DurableQueue) -> None:
    put_all(queue, entries(7))
    first, _ = claimed(queue, 2), claimed(queue, 3)
    queue.release(first)
    assert 4 == queue.unclaimed(10).count
    assert 3 == queue.unclaimed(3).count


def test_release_keeps_the_batch_in_its_place(queue: DurableQueue) -> None:
    put_all(queue, entries(6))
    first, second = claimed(queue, 2), claimed(queue, 2)
    queue.release(first)
    assert list(first.entries) + entries(6)[4:] == list(claimed(queue).entries)
    queue.release(second)
    assert second.entries == claimed(queue).entries


def test_halves_are_settled_each_for_itself(queue: DurableQueue) -> None:
    put_all(queue, entries(3))
    older, newer = claimed(queue).halves()
    assert (1, 2) == (len(older), len(newer))
    queue.ack(newer)
    queue.release(older)
    assert [entry(0)] == list(claimed(queue).entries)


def test_a_dead_letter_tells_who_why_and_when(queue: DurableQueue) -> None:
    queue.put(entry(1))
    queue.bury(claimed(queue), status=422, reason="422 Unprocessable", answer="a" * 5000)
    [letter] = queue.dead_letters()
    assert (entry(1), 422, "422 Unprocessable", "a" * 2000, NOW) == (
        letter.entry,
        letter.status,
        letter.reason,
        letter.answer,
        letter.buried_at,
    )
    assert ("422 Unprocessable", NOW) == (
        queue.report().activity.last_error,
        queue.report().activity.last_error_at,
    )


def test_only_what_the_server_rejected_counts_as_a_rejection(queue: DurableQueue) -> None:
    put_all(queue, entries(3))
    assert 1 == queue.bury(claimed(queue, 1), status=400, reason="400", answer="")
    assert 1 == queue.bury(claimed(queue, 1), status=None, reason="unreadable", answer="")
    assert 2 == queue.bury(claimed(queue, 1), status=400, reason="400", answer="")


def test_nobody_is_buried_who_has_left(queue: DurableQueue) -> None:
    queue.put(entry(1))
    batch = claimed(queue)
    queue.ack(batch)
    queue.bury(batch, status=400, reason="400", answer="")
    assert [] == queue.dead_letters()
    assert queue.report().books.balanced


def test_a_dead_letter_goes_back_to_the_end_of_the_queue(queue: DurableQueue) -> None:
    put_all(queue, entries(3))
    queue.bury(claimed(queue, 2), status=400, reason="400", answer="")
    ids = [letter.id for letter in queue.dead_letters()]
    assert 2 == queue.requeue([*ids, 999])
    assert 0 == queue.requeue(ids)
    assert [entry(2), entry(0), entry(1)] == drained(queue)
    assert (3, 3) == (queue.report().books.accepted, queue.report().books.delivered)


def test_requeued_entries_start_the_count_of_rejections_anew(queue: DurableQueue) -> None:
    queue.put(entry(1))
    queue.bury(claimed(queue), status=400, reason="400", answer="")
    queue.requeue([letter.id for letter in queue.dead_letters()])
    assert 0 == queue.report().activity.rejections_in_a_row


def test_a_purged_dead_letter_is_booked_as_dropped(queue: DurableQueue) -> None:
    put_all(queue, entries(3))
    queue.bury(claimed(queue, 2), status=400, reason="400", answer="")
    first, second = queue.dead_letters()
    assert 1 == queue.purge([first.id, 999])
    assert [second] == queue.dead_letters()
    assert {"purged": 1} == queue.report().books.dropped


def test_more_dead_letters_than_a_statement_takes_come_and_go(queue: DurableQueue) -> None:
    put_all(queue, entries(1200))
    while (batch := queue.claim(1000, MIB)) is not None:
        queue.bury(batch, status=None, reason="x", answer="")
    ids = [letter.id for letter in queue.dead_letters()]
    assert 1100 == queue.requeue(ids[100:])
    assert 100 == queue.purge(ids)


def test_a_hold_is_kept_as_it_was_set_and_is_the_last_error(queue: DurableQueue) -> None:
    queue.set_hold(HOLD)
    assert HOLD == queue.hold() == queue.report().hold
    assert HOLD.reason == queue.report().activity.last_error


def test_a_hold_never_lasts_longer_than_its_own_length_whatever_the_clock_does(
    queue: DurableQueue, now: WallClock
) -> None:
    queue.set_hold(HOLD)
    now.time -= 86_400
    hold = queue.hold()
    assert hold is not None
    assert (now.time + HOLD.length_s, HOLD.length_s, HOLD.timeout_s) == (hold.until, hold.length_s, hold.timeout_s)
    now.time += 10
    assert hold == queue.hold()


def test_an_ended_hold_still_makes_the_next_batch_a_probe(queue: DurableQueue) -> None:
    queue.end_hold()
    assert queue.hold() is None
    queue.set_hold(HOLD)
    queue.end_hold()
    assert Hold(0.0, 0.0, "later", HOLD.reason) == queue.hold()


def test_asking_covers_what_waits_now_and_no_more(queue: DurableQueue) -> None:
    queue.ask_flush()
    put_all(queue, entries(1))
    assert not queue.unclaimed(10).asked
    queue.ask_flush()
    assert queue.unclaimed(10).asked
    put_all(queue, entries(1))
    queue.ack(claimed(queue, 1))
    assert not queue.unclaimed(10).asked


def test_unclaimed_counts_no_further_than_asked_and_names_the_oldest(queue: DurableQueue, now: WallClock) -> None:
    put_all(queue, entries(5))
    assert 3 == queue.unclaimed(3).count
    assert 5 == queue.unclaimed(10).count
    batch = claimed(queue, 4)
    assert 1 == queue.unclaimed(10).count
    queue.release(batch)
    assert 5 == queue.unclaimed(10).count


def test_the_backlog_counts_claimed_entries_too(queue: DurableQueue) -> None:
    put_all(queue, entries(5))
    claimed(queue, 2)
    backlog = queue.backlog()
    assert 5 == backlog.count
    assert backlog.size_bytes >= sum(map(len, entries(5)))
    assert backlog.oldest_at is not None


def test_whoever_resigns_gives_back_what_it_claimed(queue: DurableQueue) -> None:
    put_all(queue, entries(3))
    claimed(queue, 2)
    queue.resign()
    assert queue.elect()
    assert entries(3) == list(claimed(queue).entries)


def test_what_waits_is_still_there_after_closing(queue: DurableQueue) -> None:
    put_all(queue, entries(3))
    queue.close()
    assert queue.elect()
    assert entries(3) == drained(queue)


def test_a_report_shows_as_plain_data_whether_the_books_balance(queue: DurableQueue) -> None:
    queue.put(entry(1))
    figures = queue.report().as_dict()
    assert (1, 1, True) == (
        figures["books"]["accepted"],
        figures["books"]["waiting"],
        figures["books"]["balanced"],
    )


def test_threads_put_while_one_drains_and_another_reads_the_books(queue: DurableQueue) -> None:
    done = threading.Event()
    unbalanced: list[object] = []

    def put(first: int) -> None:
        put_all(queue, [entry(number) for number in range(first, first + 2000)])

    def read() -> None:
        while not done.is_set():
            books = queue.report().books
            if not books.balanced:
                unbalanced.append(books)

    putters = [threading.Thread(target=put, args=(first,)) for first in (0, 2000)]
    reader = threading.Thread(target=read)
    for thread in (*putters, reader):
        thread.start()
    found: list[bytes] = []
    while any(thread.is_alive() for thread in putters):
        found.extend(drained(queue))
    done.set()
    reader.join()
    found.extend(drained(queue))
    assert sorted(entries(4000)) == sorted(found)
    assert [] == unbalanced


def test_what_does_not_fit_is_refused_and_counted(tmp_path: Path) -> None:
    queue = MemoryQueue(limit_bytes=100)
    queue.put(b"x" * 60)
    with pytest.raises(NotAccepted, match="100 bytes") as refusal:
        queue.put(b"x" * 60)
    assert "memory full" == refusal.value.reason
    assert {"memory full": 1} == queue.report().books.not_accepted
    queue.ack(claimed(queue))
    queue.put(b"x" * 60)


def test_dead_letters_take_their_share_of_the_memory() -> None:
    queue = MemoryQueue(limit_bytes=100)
    queue.put(b"x" * 60)
    queue.bury(claimed(queue), status=400, reason="400", answer="")
    with pytest.raises(NotAccepted):
        queue.put(b"x" * 60)
    queue.purge([letter.id for letter in queue.dead_letters()])
    queue.put(b"x" * 60)


def test_a_forked_child_has_nothing_of_what_its_parent_keeps_in_memory() -> None:
    queue = MemoryQueue()
    put_all(queue, entries(3))
    held = threading.Event()

    def hold_the_mutex() -> None:
        with queue._mutex:
            held.set()
            pause.wait(0.2)

    pause = threading.Event()
    holder = threading.Thread(target=hold_the_mutex)
    holder.start()
    assert held.wait(10)
    child = os.fork()
    if child == 0:  # pragma: no cover - the child's lines are not counted
        signal.alarm(10)  # should the mutex be locked for ever
        queue.put(entry(9))
        os._exit(0 if drained(queue) == [entry(9)] and queue.report().books.balanced else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    holder.join(10)
    assert drained(queue) == entries(3)
