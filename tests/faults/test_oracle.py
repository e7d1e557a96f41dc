"""The oracle itself: it must find what is lost, what is repeated, and whose books do not balance."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from faults_table import table_of, well

from readme_metrics.queue.durable import SqliteQueue
from tests.faults.oracle import Finding, Interruption, examine, unexplained_repeats
from tests.metrics_server import Post

if TYPE_CHECKING:
    from pathlib import Path

ROW: dict[str, Any] = {
    "scenario": "x", "runs": 1, "answered": 2, "delivered": 2, "repeated": 0, "lost": 0, "buried": 0, "dropped": 0,
    "books": "balance", "excepted": "",
}  # fmt: skip


def post(*ids: str, at: float = 0.0, status: int | None = 200) -> Post:
    body = json.dumps([{"_id": each} for each in ids]).encode()
    return Post(at, 1, "POST", "/", {"content-length": str(len(body))}, body, status)


@pytest.fixture
def queue(tmp_path: Path) -> SqliteQueue:
    return SqliteQueue(tmp_path / "q" / "entries.sqlite", max_bytes=1 << 29)


def look(queue: SqliteQueue, answered: list[str], *posts: Post) -> Finding:
    queue.close()
    return examine("x", answered=answered, posts=posts, path=queue.path, runs=1)[0]


def test_an_answered_request_that_is_nowhere_is_lost(queue: SqliteQueue) -> None:
    queue.put(b'{"_id": "waits"}')
    assert 0 == look(queue, ["waits", "taken"], post("taken")).lost
    assert 1 == look(queue, ["waits", "taken", "gone"], post("taken")).lost


def test_what_the_server_did_not_take_is_not_delivered(queue: SqliteQueue) -> None:
    queue.put(b'{"_id": "b"}')
    found = look(queue, ["a"], post("a", status=503), post("a", status=None))
    assert (0, 1) == (found.delivered, found.lost)


def test_a_row_that_vanishes_behind_the_books_unbalances_them(queue: SqliteQueue) -> None:
    queue.put(b'{"_id": "a"}')
    queue.close()
    with contextlib.closing(sqlite3.connect(queue.path)) as connection, connection:
        connection.execute("DELETE FROM queue_entries")
    assert "DO NOT BALANCE" == look(queue, []).books


def test_a_repeat_is_explained_by_a_death_in_between_only() -> None:
    times = {"a": [1.0, 5.0], "b": [2.0]}
    assert [] == unexplained_repeats(times, [Interruption(2.0, 3.0)])
    assert ["a"] == unexplained_repeats(times, [Interruption(6.0, 7.0)])
    assert ["a"] == unexplained_repeats(times, [])


def test_the_table_is_well_only_without_loss_and_with_books_that_balance() -> None:
    assert well([ROW])
    assert well([{**ROW, "lost": 3, "excepted": "the directory was removed"}])
    assert not well([ROW, {**ROW, "lost": 1}])
    assert not well([ROW, {**ROW, "books": "DO NOT BALANCE"}])
    assert not well([])
    assert "DO NOT BALANCE" in table_of([ROW, {**ROW, "books": "DO NOT BALANCE"}]).splitlines()[-1]
