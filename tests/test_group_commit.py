"""Group commit: threads that put at the same time share a transaction, and none hears of another's failure."""

from __future__ import annotations

import random
import sqlite3
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import TYPE_CHECKING, Final

import pytest

from readme_metrics.queue.group_commit import MOST_TOGETHER, GroupCommit, _Waiting

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PATIENCE_S: Final = 60.0
"""So that a turn that is not passed on fails a test."""


class Store:
    """Keeps what is written, transaction by transaction; the first write waits until it is let go."""

    def __init__(self) -> None:
        self.transactions: list[list[bytes]] = []
        self.writers: list[int] = []
        self.fails_on = b""
        self.error: Exception = sqlite3.OperationalError("database or disk is full")
        self.begun = 0
        self.began = threading.Event()
        self.goes_on = threading.Event()

    def write(self, entries: Sequence[bytes]) -> None:
        self.begun += 1
        self.began.set()
        assert self.goes_on.wait(10)
        self.writers.append(threading.get_ident())
        if self.fails_on in entries:
            raise self.error
        self.transactions.append(list(entries))


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def put_behind_a_writer(
    group: GroupCommit, store: Store, threads: ThreadPoolExecutor, *entries: bytes
) -> list[Future[None]]:
    """One entry is being written; the others wait, in this order."""
    done = [threads.submit(group.put, b"first")]
    assert store.began.wait(10)
    for count, entry in enumerate(entries, 1):
        done.append(threads.submit(group.put, entry))
        while len(group._waiting) < count:
            pass
    return done


def test_a_thread_alone_writes_its_entry_at_once(store: Store) -> None:
    store.goes_on.set()
    group = GroupCommit(store.write, patience_s=PATIENCE_S)

    group.put(b"a")
    group.put(b"b")

    assert [[b"a"], [b"b"]] == store.transactions


def test_those_who_come_meanwhile_are_written_together_in_their_order(
    store: Store, threads: ThreadPoolExecutor
) -> None:
    done = put_behind_a_writer(GroupCommit(store.write, patience_s=PATIENCE_S), store, threads, b"a", b"b", b"c")
    store.goes_on.set()
    for each in done:
        each.result(10)

    assert [[b"first"], [b"a", b"b", b"c"]] == store.transactions
    assert 1 == len(set(store.writers))


def test_a_thread_writes_for_others_once_and_then_another_does(store: Store, threads: ThreadPoolExecutor) -> None:
    entries = [b"%d" % number for number in range(MOST_TOGETHER + 3)]
    done = put_behind_a_writer(GroupCommit(store.write, patience_s=PATIENCE_S), store, threads, *entries)
    store.goes_on.set()
    for each in done:
        each.result(10)

    assert [[b"first"], entries[:MOST_TOGETHER], entries[MOST_TOGETHER:]] == store.transactions
    assert store.writers[0] == store.writers[1] != store.writers[2]


def test_nobody_is_asked_to_wait_for_a_writer_that_has_gone(store: Store, threads: ThreadPoolExecutor) -> None:
    group = GroupCommit(store.write, patience_s=PATIENCE_S)
    done = put_behind_a_writer(group, store, threads, b"a", b"b")
    store.goes_on.set()
    for each in done:
        each.result(10)
    group.put(b"later")

    assert [[b"first"], [b"a", b"b"], [b"later"]] == store.transactions


@pytest.mark.parametrize("error", [sqlite3.OperationalError("full"), MemoryError("full"), OverflowError("full")])
def test_what_fails_together_is_tried_alone_and_only_the_guilty_hears_of_it(
    store: Store, threads: ThreadPoolExecutor, error: Exception
) -> None:
    store.fails_on, store.error = b"bad", error
    done = put_behind_a_writer(GroupCommit(store.write, patience_s=PATIENCE_S), store, threads, b"a", b"bad", b"c")
    store.goes_on.set()

    with pytest.raises(type(error), match="full"):
        done[2].result(10)
    assert [None, None, None] == [done[number].result(10) for number in (0, 1, 3)]
    assert [[b"a"], [b"c"], [b"first"]] == sorted(store.transactions)


def test_a_writer_that_fails_still_writes_for_those_who_wait(store: Store, threads: ThreadPoolExecutor) -> None:
    store.fails_on = b"first"
    done = put_behind_a_writer(GroupCommit(store.write, patience_s=PATIENCE_S), store, threads, b"a", b"b")
    store.goes_on.set()

    with pytest.raises(sqlite3.OperationalError):
        done[0].result(10)
    assert [None, None] == [each.result(10) for each in done[1:]]
    assert [[b"a", b"b"]] == store.transactions


def test_a_turn_whose_thread_was_ended_is_taken_by_whoever_waits(store: Store) -> None:
    """An exception from outside (Ctrl-C, a time limit of the host's) may land between any two steps."""
    store.goes_on.set()
    group = GroupCommit(store.write, patience_s=0.05)
    group._is_writing = True
    ended = [_Waiting(b"%d" % number) for number in range(MOST_TOGETHER)]
    ended[0].wake()
    group._waiting.extend(ended)

    group.put(b"next")
    group.put(b"and next")
    group.put(b"alone")

    entries = [b"next", b"and next", b"alone", *(each.entry for each in ended)]
    assert sorted(entries) == sorted(chain.from_iterable(store.transactions))
    assert [b"alone"] == store.transactions[-1]


def test_nobody_takes_over_what_another_has_in_hand(store: Store, threads: ThreadPoolExecutor) -> None:
    looked = threading.Event()

    class Watched(GroupCommit):
        def _take(self, together: list[_Waiting], mine: _Waiting | None) -> None:
            super()._take(together, mine)
            if mine and not together:
                looked.set()

    group = Watched(store.write, patience_s=0.01)
    waiting = [_Waiting(b"a"), _Waiting(b"b")]
    group._waiting.extend(waiting)
    writer = threads.submit(group._write_together, None)
    assert store.began.wait(10)
    others = [threads.submit(group._wait, each) for each in waiting]
    assert looked.wait(10)
    store.goes_on.set()
    for each in (writer, *others):
        each.result(10)

    assert [[b"a", b"b"]] == store.transactions


def test_writers_that_the_disk_holds_up_longer_than_others_are_patient_write_nothing_twice(
    store: Store, threads: ThreadPoolExecutor
) -> None:
    group = GroupCommit(store.write, patience_s=0.01)
    entries = [b"%d" % number for number in range(MOST_TOGETHER + 5)]
    done = [threads.submit(group.put, entry) for entry in entries]
    while store.begun < 3:
        pass
    store.goes_on.set()
    for each in done:
        each.result(10)

    assert sorted(entries) == sorted(chain.from_iterable(store.transactions))
    assert not group._is_writing


def test_under_failures_at_random_each_put_is_stored_once_or_raises(threads: ThreadPoolExecutor) -> None:
    dice = random.Random(4)
    mutex = threading.Lock()
    stored: list[bytes] = []

    def write(entries: Sequence[bytes]) -> None:
        with mutex:
            if dice.random() < 0.2:
                raise sqlite3.OperationalError("database is locked")
            stored.extend(entries)

    group = GroupCommit(write, patience_s=PATIENCE_S)

    def put_some(thread: int) -> list[bytes]:
        kept = []
        for number in range(300):
            entry = b"%d-%d" % (thread, number)
            try:
                group.put(entry)
            except sqlite3.OperationalError:
                continue
            kept.append(entry)
        return kept

    kept = [entry for some in threads.map(put_some, range(8)) for entry in some]

    assert sorted(kept) == sorted(stored)
    assert len(stored) == len(set(stored))
    assert not group._is_writing
