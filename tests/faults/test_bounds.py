"""Bounds: memory stays flat and the file shrinks, whatever the server, the views and the clients do."""

from __future__ import annotations

import json
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from tests.faults import oracle
from tests.faults.bench import Bench, full_only, size
from tests.faults.client import ask, get
from tests.faults.processes import gunicorn, poll
from tests.metrics_server import answer

if TYPE_CHECKING:
    from tests.faults.processes import AppServer

MIB = 1 << 20
LARGE = 3200 * 65536
"""What the view answers: 200 MiB."""
MOST_GROWTH = 20 * MIB
MOST_FILE = 10 * MIB
ONE_WORKER = gunicorn("--workers=1", "--worker-class=gthread", "--threads=4", "--timeout=120")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")


def rss(app: AppServer) -> int:
    """Of the one worker."""
    return int(json.loads(get(app.port, "/rss").body)["rss"])


@linux_only
@pytest.mark.timeout(900)
def test_memory_stays_flat_while_the_server_is_down_and_the_file_shrinks_when_it_is_back(bench: Bench) -> None:
    requests = size(2_500, 100_000)
    bench.server.go_down()
    app = bench.app(ONE_WORKER, buffer_length=100).start()
    with bench.clients(app, threads=4) as clients:
        clients.wait_for(1_000)
        before = rss(app)
        clients.wait_for(requests - 1_000, deadline_s=800)
    grown = rss(app) - before
    bench.server.come_back()
    status, words = bench.flushed("--force", deadline_s=300)
    bench.wait_until_empty(120)
    drained = rss(app) - before
    poll(lambda: file_bytes(bench) < MOST_FILE, 15, lambda: f"a file that shrinks: {file_bytes(bench)}")
    app.stop()

    assert 0 == status, words
    assert grown < MOST_GROWTH
    assert drained < MOST_GROWTH
    bench.judge(f"{requests:,} requests with the server down")


def file_bytes(bench: Bench) -> int:
    report = bench.report()
    return report.file_bytes + report.wal_bytes


@linux_only
def test_a_view_that_answers_200_mb_reaches_its_client_whole_and_costs_no_memory(bench: Bench) -> None:
    app = bench.app(ONE_WORKER).start()
    get(app.port, "/json")
    before = rss(app)
    large = get(app.port, "/large")
    grown = rss(app) - before
    bench.wait_until_empty()
    app.stop()

    assert LARGE == len(large.body)
    assert grown < MOST_GROWTH
    bench.answered.append(str(large.entry_id))
    bench.judge("a view that answers 200 MB")
    assert f"[NOT CAPTURED: {LARGE} bytes]" in text_of(bench, str(large.entry_id), "response")


@linux_only
def test_an_upload_of_200_mb_reaches_its_view_whole_and_costs_no_memory(bench: Bench) -> None:
    app = bench.app(ONE_WORKER).start()
    get(app.port, "/json")
    before = rss(app)
    uploaded = ask(app.port, "POST", "/upload", bytes(LARGE), "application/octet-stream")
    grown = rss(app) - before
    bench.wait_until_empty()
    app.stop()

    assert uploaded is not None
    assert LARGE == json.loads(uploaded.body)["size"]
    assert grown < MOST_GROWTH
    bench.answered.append(str(uploaded.entry_id))
    bench.judge("an upload of 200 MB")
    assert f"[NOT CAPTURED: {LARGE} bytes]" in text_of(bench, str(uploaded.entry_id), "request")


@linux_only
def test_an_endless_stream_that_its_client_leaves_costs_no_memory_and_is_logged(bench: Bench) -> None:
    app = bench.app(ONE_WORKER).start()
    answered = get(app.port, "/json")
    before = rss(app)
    with socket.create_connection(("127.0.0.1", app.port), timeout=10) as client:
        client.sendall(b"GET /endless HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        received = 0
        while received < 50 * MIB:
            received += len(client.recv(MIB))
    poll(lambda: "/endless" in str(urls(bench)), 15, "the entry of a stream that was left")
    grown = rss(app) - before
    bench.wait_until_empty()
    app.stop()

    assert grown < MOST_GROWTH
    bench.answered.append(str(answered.entry_id))
    bench.judge("an endless stream, left early")


def urls(bench: Bench) -> list[object]:
    return [exchange_of(entry)["request"]["url"] for post in bench.server.posts if post.taken for entry in post.entries]


def text_of(bench: Bench, entry_id: str, side: str) -> str:
    """The body as the entry shows it."""
    entries = (entry for post in bench.server.posts if post.taken for entry in post.entries)
    exchange = next(exchange_of(entry) for entry in entries if entry["_id"] == entry_id)
    body = exchange[side].get("content") or exchange[side].get("postData")
    return str(body)


def exchange_of(entry: dict[str, object]) -> dict[str, dict[str, object]]:
    log: dict[str, dict[str, list[dict[str, dict[str, object]]]]] = entry["request"]  # type: ignore[assignment]  # HAR
    return log["log"]["entries"][0]


@pytest.mark.parametrize("kind", [pytest.param("dead letters", marks=full_only), "entries"])
def test_a_queue_at_its_bound_drops_the_oldest_and_counts_them(bench: Bench, kind: str) -> None:
    bench.server.behave(answer(503) if kind == "entries" else answer(413))
    app = bench.app(gunicorn("--workers=1"), max_queue_bytes=MIB, buffer_length=1).start()
    large = json.dumps({"text": "x" * 40_000}).encode()
    answers = [ask(app.port, "POST", "/orders", large) for _ in range(60)]
    poll(lambda: bench.books().dropped.get("queue full", 0) > 0, 20, "a drop")
    held = bench.report().backlog.size_bytes
    bench.server.behave(answer())
    assert 0 == bench.flushed("--force")[0]
    app.stop()

    assert held <= 2 * MIB
    assert "more than max_queue_bytes" in app.log_text()
    bench.answered.extend(str(each and each.entry_id) for each in answers)
    books = bench.judge(f"queue at max_queue_bytes, {kind}")
    assert 0 < books.dropped["queue full"] < 60
    assert oracle.queue_file(bench.queue).stat().st_size < MOST_FILE
