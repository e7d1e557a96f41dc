"""Queue, drain and flusher together, over real files, threads and sockets."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from readme_metrics import MetricsApiConfig, drain, pipeline
from readme_metrics.errors import QueueError, QueueUnavailable
from readme_metrics.pipeline import Pipeline, pipeline_for
from readme_metrics.queue.durable import SqliteQueue
from readme_metrics.queue.memory import MemoryQueue
from tests.metrics_server import Call, MetricsServer, answer, hang_after_reading
from tests.queues import finished, python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MakePipeline = "Callable[..., Pipeline]"


@pytest.fixture
def make(server: MetricsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Pipeline]]:
    """Makes pipelines to the server, and closes them; each is a process of its own as far as the registry knows."""
    monkeypatch.setenv("README_METRICS_SERVER", server.url)
    made: list[Pipeline] = []

    def make_pipeline(**options: Any) -> Pipeline:
        settings: dict[str, Any] = {"queue_path": tmp_path / "queue", "timeout": 0.3, "shutdown_timeout": 1}
        settings.update(options)
        made.append(Pipeline(MetricsApiConfig("a-key", lambda _: None, **settings)))
        return made[-1]

    yield make_pipeline
    for one in made:
        one.close(1.0)


def entry(number: int) -> bytes:
    return json.dumps({"_id": f"id-{number}"}).encode()


def put(into: Pipeline, count: int, first: int = 0) -> list[str]:
    for number in range(first, first + count):
        into.put(entry(number))
    return [f"id-{number}" for number in range(first, first + count)]


def serves() -> bool:
    return True


def test_making_a_pipeline_opens_no_file_and_starts_no_thread(make: Callable[..., Pipeline], tmp_path: Path) -> None:
    threads = threading.active_count()
    make()
    assert not (tmp_path / "queue").exists()
    assert threading.active_count() == threads


def test_the_entry_that_fills_the_batch_sends_it_at_once(make: Callable[..., Pipeline], server: MetricsServer) -> None:
    one = make(buffer_length=5, flush_interval=60)
    ids = put(one, 5)
    server.wait_for(lambda: server.taken_ids == ids)
    assert len(server.posts) == 1


def test_a_lone_entry_goes_after_the_flush_interval(make: Callable[..., Pipeline], server: MetricsServer) -> None:
    one = make(flush_interval=0.3)
    began = time.monotonic()
    ids = put(one, 1)
    server.wait_for(lambda: server.taken_ids == ids)
    assert 0.3 <= time.monotonic() - began < 3


def test_what_an_earlier_run_left_is_sent_without_traffic(make: Callable[..., Pipeline], server: MetricsServer) -> None:
    first = make(auto_flush=False)
    ids = put(first, 3)
    first.close(0)
    second = make(flush_interval=60)
    second.serve(serves)
    server.wait_for(lambda: server.taken_ids == ids)


def test_a_process_that_does_not_serve_sends_nothing_by_itself(make: Callable[..., Pipeline]) -> None:
    asked = threading.Event()

    def does_not_serve() -> bool:
        asked.set()
        return False

    one = make()
    one.serve(does_not_serve)
    assert asked.wait(10)
    deadline = time.monotonic() + 10
    while one._flusher._thread is not None:  # type: ignore[attr-defined]  # looks at the thread it started
        assert time.monotonic() < deadline


def test_without_auto_flush_nothing_is_sent_until_flush(make: Callable[..., Pipeline], server: MetricsServer) -> None:
    one = make(auto_flush=False, buffer_length=1)
    ids = put(one, 4)
    assert server.posts == []
    assert one.flush(5) == 0
    assert sorted(server.taken_ids) == ids
    assert threading.current_thread().name == "MainThread"


def test_without_a_background_worker_the_request_that_fills_the_batch_sends_it(
    make: Callable[..., Pipeline], server: MetricsServer
) -> None:
    one = make(background_worker_mode=False, buffer_length=3, flush_interval=60)
    put(one, 2)
    assert server.posts == []
    put(one, 1, first=2)
    assert server.taken_ids == ["id-0", "id-1", "id-2"]
    assert not [thread for thread in threading.enumerate() if thread.name == "readme-metrics-flusher"]


def test_without_a_background_worker_only_the_first_request_waits_for_a_dead_server(
    make: Callable[..., Pipeline], server: MetricsServer
) -> None:
    server.behave(answer(503))
    one = make(background_worker_mode=False, buffer_length=1)
    put(one, 20)
    assert len(server.posts) == 1
    assert one.status()["books"]["waiting"] == 20


def test_without_a_background_worker_no_request_waits_while_another_process_drains(
    make: Callable[..., Pipeline], server: MetricsServer
) -> None:
    other = make()
    assert other._queue.elect()
    one = make(background_worker_mode=False, buffer_length=1)
    put(one, 5)
    assert server.posts == []


def test_flush_asks_the_process_that_drains_and_waits_for_it(
    make: Callable[..., Pipeline], server: MetricsServer
) -> None:
    drainer = make(flush_interval=60)
    ids = put(drainer, 1)
    server_knows = threading.Event()
    deadline = time.monotonic() + 10
    while drainer.status()["drainer"] is None and time.monotonic() < deadline:
        server_knows.wait(0.01)
    other = make(auto_flush=False)
    ids += put(other, 1, first=1)
    assert other.flush(10) == 0
    assert sorted(server.taken_ids) == ids


@pytest.mark.parametrize("options", [{"background_worker_mode": False}, {"auto_flush": False}], ids=["inline", "none"])
def test_the_office_is_not_left_while_another_thread_has_a_post_under_way(
    make: Callable[..., Pipeline], server: MetricsServer, options: dict[str, bool]
) -> None:
    leave = threading.Event()

    def take_time(call: Call) -> None:
        call.read()
        leave.wait(10)
        call.answer()

    server.behave(take_time)
    one = make(**options, timeout=10, flush_interval=60)
    put(one, 1)
    first = threading.Thread(target=one.flush, args=(10,))
    first.start()
    server.wait_for(lambda: any(post.whole for post in server.posts))
    one._flusher._look_at = 0.0  # type: ignore[attr-defined]  # a request looks
    put(one, 1, first=1)
    assert one.flush(0.05) == 2
    assert not make()._queue.elect()
    leave.set()
    first.join(10)
    assert make()._queue.elect()


@pytest.mark.parametrize("inline", [True, False])
def test_the_office_is_left_when_a_drain_breaks_off(
    make: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch, *, inline: bool
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(drain.Drain, "_run", fail)
    one = make(buffer_length=1, auto_flush=inline, background_worker_mode=False)
    put(one, 1)
    with contextlib.suppress(ZeroDivisionError):
        one.flush(1)
    assert make()._queue.elect()


def test_who_flushes_where_no_thread_drains_leaves_the_office(make: Callable[..., Pipeline]) -> None:
    def does_not_serve() -> bool:
        return False

    one = make()
    one.serve(does_not_serve)
    one.flush(1)
    assert make()._queue.elect()


def test_who_flushes_beside_the_thread_that_drains_leaves_the_office_to_it(make: Callable[..., Pipeline]) -> None:
    one = make(flush_interval=60)
    put(one, 1)
    assert one.flush(5) == 0
    deadline = time.monotonic() + 10
    while not one._flusher.drains:
        assert time.monotonic() < deadline
    one.flush(5)
    assert not make()._queue.elect()


def test_with_the_server_down_puts_cost_the_same_and_everything_arrives_once(
    make: Callable[..., Pipeline], server: MetricsServer
) -> None:
    server.go_down()
    one = make(buffer_length=10)
    began = time.monotonic()
    ids = put(one, 200)
    assert time.monotonic() - began < 2
    server.come_back()
    server.wait_for(lambda: len(server.taken_ids) == 200, deadline_s=20)
    assert sorted(server.taken_ids) == sorted(ids)
    assert max(len(post.ids) for post in server.posts) <= 10


def test_a_leaving_process_sends_what_it_logged(make: Callable[..., Pipeline], server: MetricsServer) -> None:
    one = make(flush_interval=60)
    ids = put(one, 3)
    one.close(5)
    assert server.taken_ids == ids


@pytest.mark.parametrize("hangs", [False, True])
def test_a_process_that_sends_only_when_it_leaves_waits_for_no_name(
    server: MetricsServer, tmp_path: Path, *, hangs: bool
) -> None:
    code = """
import socket, sys, time
from readme_metrics import MetricsApiConfig
from readme_metrics.pipeline import pipeline_for
if sys.argv[2:]:
    socket.getaddrinfo = lambda *_, **__: time.sleep(60)
one = pipeline_for(MetricsApiConfig("a-key", lambda _: None, queue_path=sys.argv[1], shutdown_timeout=1))
one.put(b'{"_id":"last"}')
time.sleep(0.05)
"""
    environment = {**os.environ, "README_METRICS_SERVER": f"http://localhost:{server.port}"}
    began = time.monotonic()
    finished(python(code, tmp_path / "queue", *["hangs"] * hangs, env=environment), quiet=False)
    assert time.monotonic() - began < 5
    assert server.taken_ids == ([] if hangs else ["last"])


def test_a_process_that_logged_nothing_leaves_at_once_and_sends_nothing(
    make: Callable[..., Pipeline], server: MetricsServer
) -> None:
    first = make(auto_flush=False)
    put(first, 3)
    first.close(0)
    one = make()
    one.serve(serves)
    one.close(5)
    assert server.posts == []


def test_a_hanging_server_holds_up_a_leaving_process_no_longer_than_its_time(
    make: Callable[..., Pipeline], server: MetricsServer
) -> None:
    server.behave(hang_after_reading)
    one = make(buffer_length=1, timeout=30)
    put(one, 1)
    server.wait_for(lambda: any(post.whole for post in server.posts))
    began = time.monotonic()
    one.close(0.3)
    assert time.monotonic() - began < 1.5
    assert one._queue.report().books.waiting == 1
    assert one.status()["drainer"]["pid"] == os.getpid()  # nobody else may send that batch until we are gone


def test_a_directory_that_cannot_be_made_is_one_error_and_logs_wait_in_memory(
    make: Callable[..., Pipeline], server: MetricsServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    one = make(queue_path=tmp_path / "file" / "queue", buffer_length=2)
    ids = put(one, 4)
    server.wait_for(lambda: sorted(server.taken_ids) == ids)
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "queue_path" in errors[0].getMessage()
    process = one.status()["process"]
    assert (process["durable"], process["captured"], process["stored"]) == (False, 4, 4)


def become_unusable(one: Pipeline) -> SqliteQueue:
    """As after failures that cannot be mended; the next put notices."""
    queue = one._queue
    assert isinstance(queue, SqliteQueue)
    queue._unavailable = QueueUnavailable("the disk is gone")
    queue._look_at = 0.0
    return queue


def test_what_waited_for_a_locked_file_goes_on_waiting_when_the_file_turns_out_unusable(
    make: Callable[..., Pipeline], server: MetricsServer
) -> None:
    one = make(auto_flush=False)
    put(one, 1)
    assert become_unusable(one)._spill.add(entry(1))
    put(one, 1, first=2)
    assert one.flush(5) == 0
    assert sorted(server.taken_ids) == ["id-1", "id-2"]


def test_who_can_no_longer_use_the_file_leaves_it_to_another_drainer(
    make: Callable[..., Pipeline], server: MetricsServer
) -> None:
    one = make(auto_flush=False)
    put(one, 1)
    assert one._queue.elect()
    become_unusable(one)
    put(one, 1, first=1)
    assert make(auto_flush=False).flush(5) == 0
    assert server.taken_ids == ["id-0"]


def test_what_even_the_memory_does_not_take_is_counted_and_nothing_is_raised(
    make: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "MemoryQueue", partial(MemoryQueue, limit_bytes=0))
    one = make(auto_flush=False)
    put(one, 1)
    become_unusable(one)
    put(one, 1, first=1)
    status = one.status()
    assert status["books"]["not_accepted"] == {"memory full": 1}
    assert (status["process"]["captured"], status["process"]["stored"]) == (2, 1)


def test_flush_raises_nothing_and_tells_what_it_knows(
    make: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise QueueError("the queue's file is locked")

    one = make(auto_flush=False)
    put(one, 2)
    queue = one._queue
    assert isinstance(queue, SqliteQueue)
    assert queue._spill.add(entry(2))
    monkeypatch.setattr(queue, "tend", fail)
    assert one.flush(1) == 3
    monkeypatch.setattr(queue, "backlog", fail)
    assert one.flush(1) == 1
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert "flush" in caplog.text


class Chat(logging.Handler):
    """Logs to somewhere that is away, and says so by raising."""

    def emit(self, record: logging.LogRecord) -> None:
        raise ConnectionError(record.getMessage())


def test_a_log_handler_that_raises_stands_in_no_way_of_memory(
    make: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make(auto_flush=False)
    become_unusable(one)
    handler = Chat()
    monkeypatch.setattr(logging.getLogger("readme_metrics"), "handlers", [handler])
    put(one, 2)
    assert one.flush(5) == 0
    process = one.status()["process"]
    assert (process["durable"], process["stored"]) == (False, 2)


def test_two_apps_that_name_the_same_queue_share_a_pipeline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pipeline, "_pipelines", {})
    first = pipeline_for(MetricsApiConfig("a-key", lambda _: None, queue_path=tmp_path))
    assert pipeline_for(MetricsApiConfig("a-key", lambda _: {}, queue_path=tmp_path, denylist=["a"])) is first
    (tmp_path / "link").symlink_to(tmp_path)
    assert pipeline_for(MetricsApiConfig("a-key", lambda _: {}, queue_path=tmp_path / "link")) is first
    assert caplog.records == []
    assert pipeline_for(MetricsApiConfig("a-key", lambda _: None, queue_path=tmp_path, buffer_length=3)) is first
    assert "buffer_length" in caplog.text
    assert pipeline_for(MetricsApiConfig("another-key", lambda _: None, queue_path=tmp_path)) is not first


def test_a_container_without_queue_path_is_told_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pipeline, "_pipelines", {})
    monkeypatch.setattr(pipeline, "CONTAINER_SIGNS", (str(tmp_path),))
    monkeypatch.delenv("README_METRICS_QUEUE_PATH", raising=False)
    pipeline_for(MetricsApiConfig("a-key", lambda _: None, queue_path=tmp_path))
    assert caplog.records == []
    pipeline_for(MetricsApiConfig("another-key", lambda _: None))
    assert "queue_path" in caplog.text


@pytest.mark.parametrize("stopped", [False, True])
def test_a_child_forked_while_a_thread_waits_for_the_stop_can_leave(
    make: Callable[..., Pipeline], *, stopped: bool
) -> None:
    one = make(auto_flush=False)
    put(one, 1)
    if stopped:
        one._stop.set()
    with one._stop._cond:  # type: ignore[attr-defined]  # as a thread that was preempted in its wait
        child = os.fork()
        if child == 0:  # pragma: no cover - the child's lines are not counted
            signal.alarm(10)  # should it wait for ever
            was_stopped = one._stop.is_set()
            one.close(0)
            os._exit(0 if was_stopped is stopped else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_forked_child_sends_with_a_thread_of_its_own_when_its_parent_is_gone(
    make: Callable[..., Pipeline], server: MetricsServer
) -> None:
    one = make(buffer_length=1)
    one.serve(serves)
    put(one, 1)
    server.wait_for(lambda: len(server.taken_ids) == 1)
    child = os.fork()
    if child == 0:  # pragma: no cover - the child's lines are not counted
        put(one, 1, first=1)
        os._exit(0 if one.flush(10) == 0 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    put(one, 1, first=2)
    server.wait_for(lambda: sorted(server.taken_ids) == ["id-0", "id-1", "id-2"])
