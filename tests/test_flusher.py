"""The background thread: when it starts, what wakes it, how it ends; the loop has its own tests."""

from __future__ import annotations

import logging
import sys
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from readme_metrics.drain import Drain
from readme_metrics.errors import QueueUnavailable
from readme_metrics.flusher import Flusher
from readme_metrics.queue.memory import MemoryQueue
from readme_metrics.verdict import Kind, Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


class Bench:
    """A flusher over a queue in memory; ``arrived`` is set when something was sent."""

    def __init__(
        self, *, batch_length: int = 2, queue: MemoryQueue | None = None, stop: threading.Event | None = None
    ) -> None:
        self.queue = queue or MemoryQueue()
        self.stop = stop or threading.Event()
        self.arrived = threading.Event()
        self.sent: list[bytes] = []
        self.senders: set[str] = set()
        self.unavailable: list[QueueUnavailable] = []
        self.batch_length = batch_length
        self.flusher = Flusher(
            self.queue,
            self.drain_of(self.queue),
            batch_length=batch_length,
            stop=self.stop,
            on_unavailable=self.fall_back,
        )

    def drain_of(self, queue: MemoryQueue) -> Drain:
        return Drain(
            queue, self.send, batch_length=self.batch_length, flush_interval_s=600, timeout_s=3, stop=self.stop
        )

    def send(self, entries: Sequence[bytes], **_: object) -> Outcome:
        self.sent.extend(entries)
        self.senders.add(threading.current_thread().name)
        self.arrived.set()
        return Outcome(Verdict(Kind.DELIVERED, "200 OK", 200), 1)

    def fall_back(self, error: QueueUnavailable) -> None:
        self.unavailable.append(error)
        self.queue = MemoryQueue()
        self.flusher.switch(self.queue, self.drain_of(self.queue))
        self.arrived.set()

    def put(self, entry: bytes) -> None:
        self.queue.put(entry)
        self.flusher.notice()


@pytest.fixture
def make() -> Iterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def make_bench(
        batch_length: int = 2, queue: MemoryQueue | None = None, stop: threading.Event | None = None
    ) -> Bench:
        benches.append(Bench(batch_length=batch_length, queue=queue, stop=stop))
        return benches[-1]

    yield make_bench
    for bench in benches:
        assert bench.flusher.close(5)


def yes() -> bool:
    return True


def test_the_put_that_fills_a_batch_wakes_the_thread(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.put(b"1")
    assert not bench.arrived.wait(0.05)
    bench.put(b"2")
    assert bench.arrived.wait(5)
    assert (bench.sent, bench.senders) == ([b"1", b"2"], {"readme-metrics-sender"})


class Breath(threading.Event):
    """A stop event whose wait says that it began and ends when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.began = threading.Event()
        self.ends = threading.Event()
        self.count = 0

    def wait(self, timeout: float | None = None) -> bool:
        self.count += 1
        self.began.set()
        return self.ends.wait(5)

    def set(self) -> None:
        super().set()
        self.ends.set()


def test_batches_that_fill_one_after_the_other_leave_for_one_wake(make: Callable[..., Bench]) -> None:
    breath = Breath()
    bench = make(stop=breath)
    bench.put(b"1")
    bench.put(b"2")
    assert breath.began.wait(5)
    for entry in (b"3", b"4", b"5", b"6"):
        bench.put(entry)
    breath.ends.set()
    assert bench.flusher.close(5)
    assert len(bench.sent) == 6
    assert breath.count == 1


def test_where_no_thread_can_start_the_entry_stays_and_leaving_sends_it(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    bench = make()
    bench.put(b"1")
    bench.put(b"2")
    assert bench.sent == []
    assert bench.flusher.close(5)
    assert bench.sent == [b"1", b"2"]


def test_a_queue_that_cannot_be_opened_is_handed_back_and_the_thread_goes_on_with_another(
    make: Callable[..., Bench],
) -> None:
    class Unavailable(MemoryQueue):
        def elect(self) -> bool:
            raise QueueUnavailable("belongs to somebody else")

    bench = make(queue=Unavailable())
    bench.put(b"1")
    assert bench.arrived.wait(5)
    assert [str(error) for error in bench.unavailable] == ["belongs to somebody else"]
    bench.arrived.clear()
    bench.put(b"2")
    bench.put(b"3")
    assert bench.arrived.wait(5)
    assert bench.sent == [b"2", b"3"]


def test_a_bug_is_logged_once_and_the_thread_goes_on(
    make: Callable[..., Bench], caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(MemoryQueue):
        broken = True

        def elect(self) -> bool:
            if self.broken:
                raise ZeroDivisionError
            return True

    queue = Broken()
    bench = make(queue=queue)
    bench.put(b"1")
    deadline = threading.Event()
    while not caplog.records:
        assert not deadline.wait(0.01)
    queue.broken = False
    bench.put(b"2")
    assert bench.arrived.wait(5)
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


def test_closing_twice_and_closing_what_never_started_is_quiet(make: Callable[..., Bench]) -> None:
    bench = make()
    assert bench.flusher.close(5)
    assert bench.flusher.close(5)
    assert bench.sent == []


class TestUnderUwsgi:
    """uWSGI forks in C and gives the interpreter to nobody in its master; ``uwsgi`` is a module only inside it."""

    @staticmethod
    def module(monkeypatch: pytest.MonkeyPatch, *, worker_id: int, has_threads: int = 1) -> SimpleNamespace:
        uwsgi = SimpleNamespace(worker_id=lambda: worker_id, has_threads=has_threads, opt={})
        monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
        return uwsgi

    def test_nothing_starts_in_the_master_and_each_worker_starts_its_own(
        self, make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uwsgi = self.module(monkeypatch, worker_id=0)
        called: list[str] = []
        uwsgi.post_fork_hook = lambda: called.append("the app's own")
        bench = make()
        bench.flusher.serve(yes)
        assert bench.flusher._thread is None
        uwsgi.post_fork_hook()
        assert called == ["the app's own"]
        assert bench.flusher._thread is not None

    def test_with_lazy_apps_it_starts_in_the_worker(
        self, make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.module(monkeypatch, worker_id=2)
        bench = make()
        bench.flusher.serve(yes)
        assert bench.flusher._thread is not None
        assert caplog.records == []

    def test_a_uwsgi_that_runs_threads_without_being_told_is_not_warned_of(
        self, make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.module(monkeypatch, worker_id=0)  # 2.0.28 and later: no option, and threads all the same
        make().flusher.serve(yes)
        assert caplog.records == []

    def test_without_threads_one_warning_says_that_nothing_will_be_sent(
        self, make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.module(monkeypatch, worker_id=0, has_threads=0)
        make().flusher.serve(yes)
        assert ["--enable-threads" in message for message in caplog.messages] == [True]
