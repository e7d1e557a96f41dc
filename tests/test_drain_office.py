"""What befalls the drainer in the middle of a drain: its office, its file or a person takes the queue away."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import pytest

from readme_metrics import drain
from readme_metrics.drain import Drain, Ending
from readme_metrics.queue.contract import Batch
from readme_metrics.queue.memory import MemoryQueue
from readme_metrics.verdict import Outcome
from tests.draining import DELIVERED

if TYPE_CHECKING:
    from collections.abc import Sequence


class OfficeBook(MemoryQueue):
    """Counts how often its drainer showed that it lives; ``holds`` says for how long it stays the drainer."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0
        self.tended = threading.Event()
        self.holds = True

    def elect(self) -> bool:
        self.looks += 1
        return self.holds

    def tend(self, *, idle: bool = False) -> None:
        self.tended.set()


def test_the_drainer_keeps_its_office_while_a_server_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "LOOK_EVERY_S", 0.01)
    queue = OfficeBook()
    queue.put(b"1")

    def send(entries: Sequence[bytes], **_: object) -> Outcome:
        assert queue.tended.wait(10)  # tended while this POST hangs
        return Outcome(DELIVERED, 1)

    one = Drain(queue, send, batch_length=1, flush_interval_s=60, timeout_s=3, stop=threading.Event())
    assert one.run(everything=True) is Ending.DONE
    assert queue.looks >= 1


def test_a_queue_that_cannot_be_tended_takes_nothing_from_a_post_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "LOOK_EVERY_S", 0.01)

    class Untended(OfficeBook):
        def tend(self, *, idle: bool = False) -> None:
            super().tend()
            raise OSError("no descriptors left")

    queue = Untended()
    queue.put(b"1")
    posts: list[Sequence[bytes]] = []

    def send(entries: Sequence[bytes], **_: object) -> Outcome:
        posts.append(entries)
        assert queue.tended.wait(10)
        return Outcome(DELIVERED, 1)

    one = Drain(queue, send, batch_length=1, flush_interval_s=60, timeout_s=3, stop=threading.Event())
    with contextlib.suppress(OSError):  # at the next look, when nothing is on its way any more
        one.run(everything=True)
    assert len(posts) == 1
    assert queue.report().books.delivered == 1


def test_a_drainer_that_lost_its_office_stops_and_books_what_was_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "LOOK_EVERY_S", 0.0)
    queue = OfficeBook()
    for number in range(9):
        queue.put(b"%d" % number)

    def send(entries: Sequence[bytes], **_: object) -> Outcome:
        queue.holds = False
        return Outcome(DELIVERED, 1)

    one = Drain(queue, send, batch_length=1, flush_interval_s=60, timeout_s=3, stop=threading.Event())
    assert one.run(everything=True) is Ending.STOPPED
    books = queue.report().books
    assert 1 <= books.delivered <= 4
    assert books.balanced


def test_batches_of_a_file_that_was_replaced_may_have_the_ids_of_the_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Replaced(MemoryQueue):
        def claim(self, limit: int, max_bytes: int) -> Batch | None:
            batch = super().claim(limit, max_bytes)
            return batch and Batch((1,), batch.entries, source=object())

    queue = Replaced()
    for number in range(4):
        queue.put(b"%d" % number)

    def send(entries: Sequence[bytes], **_: object) -> Outcome:
        return Outcome(DELIVERED, 1)

    one = Drain(queue, send, batch_length=1, flush_interval_s=60, timeout_s=3, stop=threading.Event())
    assert one.run(everything=True) is Ending.DONE


def test_a_person_who_breaks_off_does_not_wait_for_what_is_in_flight() -> None:
    leave = threading.Event()

    class Impatient(MemoryQueue):
        def elect(self) -> bool:
            raise KeyboardInterrupt

    queue = Impatient()
    queue.put(b"1")

    def send(entries: Sequence[bytes], **_: object) -> Outcome:
        assert leave.wait(30)
        return Outcome(DELIVERED, 1)

    one = Drain(queue, send, batch_length=1, flush_interval_s=60, timeout_s=3, stop=threading.Event())
    with pytest.raises(KeyboardInterrupt):
        one.run(everything=True)
    assert not leave.is_set()
    leave.set()
