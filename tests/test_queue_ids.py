"""No id is given twice, or an ack could delete an entry that was never sent; threads that put at once share commits."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING

import pytest

from readme_metrics.queue import ledger
from readme_metrics.queue.group_commit import MOST_TOGETHER
from readme_metrics.queue.sqlite import QueueFile
from tests.queues import MIB, drained, entries, entry, put_all, rows, sqlite_queue

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def ids_of(path: Path) -> list[int]:
    return rows(path, "SELECT _id FROM queue_entries ORDER BY _id")


def test_ids_go_on_where_an_emptied_queue_left_off(path: Path) -> None:
    queue = sqlite_queue(path)
    put_all(queue, entries(5))
    assert entries(5) == drained(queue)
    queue.close()
    again = sqlite_queue(path)
    again.put(entry(6))
    assert 6 == again.report().books.accepted
    again.close()
    assert [6] == ids_of(path)


def test_an_ack_spares_what_was_put_after_its_batch_was_dropped(path: Path) -> None:
    queue = sqlite_queue(path, max_bytes=40_000)
    put_all(queue, [entry(number, 2000) for number in range(4)])
    batch = queue.claim(10, MIB)
    assert batch is not None
    put_all(queue, [entry(number, 2000) for number in range(4, 40)])
    queue.tend()
    dropped = queue.report().books.dropped["queue full"]
    assert dropped >= len(batch)
    waiting = queue.report().books.waiting
    queue.ack(batch)
    books = queue.report().books
    assert (waiting, 0, True) == (books.waiting, books.delivered, books.balanced)
    queue.close()


def test_a_letter_requeued_into_an_emptied_queue_gets_an_id_of_its_own(path: Path) -> None:
    queue = sqlite_queue(path)
    put_all(queue, entries(3))
    batch = queue.claim(3, MIB)
    assert batch is not None
    queue.bury(batch, status=400, reason="400", answer="")
    assert 3 == queue.requeue([letter.id for letter in queue.dead_letters()])
    books = queue.report().books
    assert (3, 3, True) == (books.accepted, books.waiting, books.balanced)
    queue.close()
    assert [4, 5, 6] == ids_of(path)


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 2), (2, 0), (3, 1)])
def test_batches_acked_in_any_order_delete_what_they_held_and_nothing_between(
    path: Path, order: tuple[int, int]
) -> None:
    queue = sqlite_queue(path)
    put_all(queue, entries(40))
    batches = [queue.claim(10, MIB) for _ in range(4)]
    acked = [batch for batch in map(batches.__getitem__, order) if batch is not None]
    queue.ack(*acked)
    books = queue.report().books
    assert (20, 20, True) == (books.delivered, books.waiting, books.balanced)
    queue.put(entry(40))
    assert 41 == queue.report().books.accepted
    queue.close()
    gone = {id_ for batch in acked for id_ in batch.ids}
    assert [id_ for id_ in range(1, 42) if id_ not in gone] == ids_of(path)


def test_an_ack_deletes_nothing_that_was_put_into_a_gap_of_its_ids(path: Path) -> None:
    queue = sqlite_queue(path)
    put_all(queue, entries(9))
    batch = queue.claim(9, MIB)
    assert batch is not None
    rows(path, "DELETE FROM queue_entries WHERE _id IN (4, 5, 9)")  # a person's
    queue.put(entry(10))
    queue.ack(batch)
    assert 6 == queue.report().books.delivered
    assert [entry(10)] == drained(queue)
    queue.close()


@pytest.mark.parametrize(
    ("ids", "ranges"),
    [
        ([], []),
        ([7], [[7]]),
        ([3, 1, 2], [[1, 2, 3]]),
        ([1, 2, 4, 6, 7], [[1, 2], [4], [6, 7]]),
        ([*range(1, 1001), 1003], [[*range(1, 501)], [*range(501, 1001)], [1003]]),
    ],
)
def test_ranges_have_no_gap_and_are_no_longer_than_one_transaction_may_be(
    ids: list[int], ranges: list[list[int]]
) -> None:
    assert ranges == list(ledger.ranges(ids))


@pytest.mark.parametrize("instructions", [1, 20, 40, 60, 80, 120, 160, 200, 240, 280, 300])
def test_an_ack_broken_off_anywhere_has_deleted_and_booked_nothing(path: Path, instructions: int) -> None:
    queue = sqlite_queue(path)
    put_all(queue, entries(12))
    batch = queue.claim(10, MIB)
    assert batch is not None
    file = queue._file
    assert file is not None
    file._getter.set_progress_handler(lambda: 1, instructions)
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        file.ack([batch], 0)
    file._getter.set_progress_handler(None, 1)
    assert (0, 0) == file.look(lambda sql: sql.execute("SELECT delivered, last_id FROM ledger").fetchone())
    assert (12, True) == (queue.report().books.waiting, queue.report().books.balanced)
    assert [] == drained(queue), "while ten are delivered and not booked"
    assert queue.elect()
    queue.tend()
    assert [entry(10), entry(11)] == drained(queue)
    assert (12, True) == (queue.report().books.delivered, queue.report().books.balanced)
    queue.close()


def test_the_schema_fits_into_the_files_first_page_or_one_bad_page_more_would_cost_everything(path: Path) -> None:
    queue = sqlite_queue(path)
    queue.put(entry(1))
    queue.close()
    leaf = 13
    assert leaf == path.read_bytes()[100]  # of a page's kind: sqlite.org/fileformat2.html


@pytest.mark.parametrize("count", range(1, MOST_TOGETHER + 1))
def test_entries_put_together_get_the_next_ids_in_their_order(path: Path, count: int) -> None:
    queue = sqlite_queue(path)
    put_all(queue, entries(3))
    batch = queue.claim(2, MIB)
    assert batch is not None
    queue.ack(batch)
    assert queue._file is not None
    queue._file._insert(entries(count))
    queue._file._insert(entries(count))
    assert (3 + 2 * count, True) == (queue.report().books.accepted, queue.report().books.balanced)
    assert [entry(2), *entries(count), *entries(count)] == drained(queue)
    queue._file._insert(entries(count))
    queue.close()
    assert list(range(4 + 2 * count, 4 + 3 * count)) == ids_of(path)


@pytest.mark.parametrize("fsync", [False, True])
def test_threads_that_put_at_once_all_store_in_fewer_transactions(
    path: Path, monkeypatch: pytest.MonkeyPatch, fsync: bool
) -> None:
    transactions: list[int] = []
    insert = QueueFile._insert

    def counting(file: QueueFile, some: Sequence[bytes]) -> None:
        insert(file, some)
        transactions.append(len(some))

    monkeypatch.setattr(QueueFile, "_insert", counting)
    queue = sqlite_queue(path, fsync=fsync)
    threads = [
        threading.Thread(target=put_all, args=(queue, [entry(number) for number in range(first, first + 500)]))
        for first in range(0, 4000, 500)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 4000 == sum(transactions)
    assert len(transactions) < 4000
    assert sorted(entries(4000)) == sorted(drained(queue))
    queue.close()
