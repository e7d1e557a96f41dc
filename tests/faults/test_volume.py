"""Volumes: full from the start, under load and during a drain, read-only, or no directory at all."""

from __future__ import annotations

import contextlib
import json
import subprocess
from typing import TYPE_CHECKING

from readme_metrics.errors import QueueUnavailable
from tests.faults.bench import Bench, full_only
from tests.faults.client import ask, get
from tests.faults.processes import gunicorn, poll
from tests.metrics_server import after, answer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.processes import AppServer


def fill(volume: Path) -> Path:
    """To the last byte."""
    filler = volume / "filler"
    with filler.open("ab", buffering=0) as stranger, contextlib.suppress(OSError):  # no space left
        while stranger.write(bytes(65536)):
            pass
    return filler


def stores(bench: Bench, app: AppServer) -> bool:
    """Whether a request is stored now."""
    if not list(bench.queue.glob("*.sqlite")):
        get(app.port, "/json")
        return False
    with contextlib.suppress(QueueUnavailable):  # its tables are being made
        before = bench.books().accepted
        get(app.port, "/json")
        return bench.books().accepted > before
    return False


@full_only
def test_a_volume_that_is_full_from_the_start_costs_no_answer_and_recovers(bench: Bench, volume: Path) -> None:
    bench.queue = volume / "queue"
    filler = fill(volume)
    app = bench.app(gunicorn("--workers=1")).start()
    clients = bench.clients(app)
    clients.send(20)
    filler.unlink()
    poll(lambda: stores(bench, app), 10, "an entry that is stored")
    clients.send(50)
    bench.wait_until_empty()
    app.stop()

    assert 0 == clients.cut
    books = bench.judge("volume full from the start", not_accepted="no space")
    assert 50 < books.delivered
    assert 20 <= books.not_accepted["no space"]


def test_a_volume_that_fills_under_load_costs_no_answer_and_recovers(bench: Bench, volume: Path) -> None:
    bench.queue = volume / "queue"
    bench.server.behave(answer(503))
    app = bench.app(gunicorn("--workers=1")).start()
    large = json.dumps({"text": "x" * 100_000}).encode()
    clients = bench.clients(app)
    clients.send(10)
    answers = [ask(app.port, "POST", "/orders", large) for _ in range(100)]
    assert all(answers)
    assert "no space left" in app.log_text()
    bench.server.behave(answer())
    bench.wait_until_empty()
    poll(lambda: stores(bench, app), 10, "an entry that is stored")
    before = bench.books().accepted
    clients.send(40)
    bench.wait_until_empty()
    app.stop()

    assert 0 == clients.cut
    bench.answered.extend(str(each.entry_id) for each in answers if each)
    books = bench.judge("volume filled under load", not_accepted="no space")
    assert 0 < books.not_accepted["no space"]
    assert before + 40 == books.accepted


@full_only
def test_a_volume_that_is_filled_during_a_drain_sends_nothing_again(bench: Bench, volume: Path) -> None:
    bench.queue = volume / "queue"
    bench.server.behave(answer(503))
    app = bench.app(gunicorn("--workers=1")).start()
    clients = bench.clients(app)
    clients.send(200)
    bench.server.behave(after(0.02, answer()))
    bench.server.wait_for(lambda: len(bench.server.taken_ids) >= 20, 20)
    filler = fill(volume)
    poll(lambda: "cannot be deleted yet" in app.log_text(), 20, "a delivery that cannot be booked")
    filler.unlink()
    bench.wait_until_empty()
    app.stop()

    bench.judge("volume filled during a drain", not_accepted="no space")


def test_a_directory_that_cannot_be_made_costs_durability_only_and_the_fix_is_named(bench: Bench) -> None:
    (bench.directory / "file").write_text("no directory, whoever we are")
    bench.queue = bench.directory / "file" / "queue"
    serves_from_memory(bench)


def test_a_volume_that_is_read_only_costs_durability_only_and_the_fix_is_named(bench: Bench, volume: Path) -> None:
    bench.queue = volume / "queue"
    bench.queue.mkdir(0o700)
    subprocess.run(["mount", "-o", "remount,ro", str(volume)], check=True)
    serves_from_memory(bench)


def serves_from_memory(bench: Bench) -> None:
    assert "set queue_path (or README_METRICS_QUEUE_PATH)" in bench.log_of_an_app_without_a_file()
    bench.judge_logs()
