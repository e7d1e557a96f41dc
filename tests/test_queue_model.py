"""Any order of verbs on a queue, beside a plain model of it; the books are checked after each step."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from readme_metrics.queue.contract import Batch, DurableQueue, Hold
from readme_metrics.queue.memory import MemoryQueue
from tests.queues import MIB, Clock, entry, put_all, sqlite_queue

ROOM_BYTES = 200_000


class Model(RuleBasedStateMachine):
    """``waiting`` and ``dead`` are the entries in their order; ``claimed`` what is out of reach for a claim."""

    def new_queue(self) -> DurableQueue:
        return MemoryQueue()

    @initialize()
    def begin(self) -> None:
        self.queue = self.new_queue()
        self.queue.elect()
        self.waiting: list[bytes] = []
        self.dead: list[bytes] = []
        self.batches: list[Batch] = []
        self.accepted = self.delivered = self.rejections = 0
        self.dropped = {"queue full": 0, "purged": 0}
        self.hold: Hold | None = None

    @property
    def claimed(self) -> set[bytes]:
        return {each for batch in self.batches for each in batch.entries}

    def settle(self, batch: Batch) -> list[bytes]:
        """Take a batch out of the model; what of it was still there."""
        self.batches.remove(batch)
        there = [each for each in batch.entries if each in self.waiting]
        self.waiting = [each for each in self.waiting if each not in there]
        return there

    @rule(sizes=st.lists(st.sampled_from([0, 10, 3_000, 40_000]), min_size=1, max_size=4))
    def put(self, sizes: list[int]) -> None:
        new = [entry(self.accepted + number, size) for number, size in enumerate(sizes)]
        put_all(self.queue, new)
        self.accepted += len(new)
        self.waiting += new
        self.take_note_of_drops()

    @rule(limit=st.integers(1, 5), max_bytes=st.sampled_from([1, 5_000, MIB]))
    def claim(self, limit: int, max_bytes: int) -> None:
        free = [each for each in self.waiting if each not in self.claimed]
        batch = self.queue.claim(limit, max_bytes)
        if batch is None:
            assert [] == free
            return
        assert free[: len(batch)] == list(batch.entries)
        assert len(batch) <= limit
        assert len(batch) == 1 or len(b"[" + b",".join(batch.entries) + b"]") <= max_bytes
        self.batches.append(batch)

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        batch = data.draw(st.sampled_from(self.batches))
        self.queue.ack(batch)
        self.delivered += len(self.settle(batch))
        self.hold, self.rejections = None, 0

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        batch = data.draw(st.sampled_from(self.batches))
        self.queue.release(batch)
        self.batches.remove(batch)

    @precondition(lambda self: any(len(batch) > 1 for batch in self.batches))
    @rule(data=st.data())
    def divide(self, data: st.DataObject) -> None:
        batch = data.draw(st.sampled_from([each for each in self.batches if len(each) > 1]))
        self.batches.remove(batch)
        self.batches.extend(batch.halves())

    @precondition(lambda self: self.batches)
    @rule(data=st.data(), status=st.sampled_from([None, 400]))
    def bury(self, data: st.DataObject, status: int | None) -> None:
        batch = data.draw(st.sampled_from(self.batches))
        self.dead += self.settle(batch)
        self.queue.bury(batch, status=status, reason="no", answer="")

    @rule(data=st.data())
    def requeue(self, data: st.DataObject) -> None:
        letters = self.queue.dead_letters()
        chosen = [letter for letter in letters if data.draw(st.booleans())]
        assert len(chosen) == self.queue.requeue([letter.id for letter in chosen])
        for letter in chosen:
            self.dead.remove(letter.entry)
            self.waiting.append(letter.entry)

    @rule(data=st.data())
    def purge(self, data: st.DataObject) -> None:
        chosen = [letter for letter in self.queue.dead_letters() if data.draw(st.booleans())]
        assert len(chosen) == self.queue.purge([letter.id for letter in chosen])
        for letter in chosen:
            self.dead.remove(letter.entry)
        self.dropped["purged"] += len(chosen)

    @rule(reason=st.text(max_size=5))
    def begin_hold(self, reason: str) -> None:
        self.hold = Hold(1e6, 1e9, "later", reason, None)
        self.queue.set_hold(self.hold)

    @rule()
    def end_hold(self) -> None:
        self.queue.end_hold()
        self.hold = self.hold and Hold(0.0, 0.0, self.hold.kind, self.hold.reason, None)

    @rule()
    def resign(self) -> None:
        self.queue.resign()
        self.batches.clear()
        assert self.queue.elect()

    @rule()
    def reopen(self) -> None:
        self.queue.close()
        self.batches.clear()
        assert self.queue.elect()

    @rule(idle=st.booleans())
    def tend(self, idle: bool) -> None:
        self.queue.tend(idle=idle)
        self.take_note_of_drops()

    def take_note_of_drops(self) -> None:
        """The oldest dead letters go first, then the oldest entries."""
        new = self.queue.report().books.dropped.get("queue full", 0) - self.dropped["queue full"]
        self.dropped["queue full"] += new
        gone_dead = min(new, len(self.dead))
        self.dead = self.dead[gone_dead:]
        self.waiting = self.waiting[new - gone_dead :]

    @invariant()
    def the_books_balance_and_are_those_of_the_model(self) -> None:
        report = self.queue.report()
        books = report.books
        assert books.balanced
        assert (self.accepted, self.delivered, len(self.dead), len(self.waiting)) == (
            books.accepted,
            books.delivered,
            books.dead,
            books.waiting,
        )
        assert {reason: count for reason, count in self.dropped.items() if count} == books.dropped
        assert {} == books.not_accepted
        assert self.dead == [letter.entry for letter in self.queue.dead_letters()]
        assert self.hold == report.hold
        assert len(self.waiting) == report.backlog.count == self.queue.backlog().count

    @invariant()
    def what_could_be_claimed_is_what_nobody_claimed(self) -> None:
        free = [each for each in self.waiting if each not in self.claimed]
        assert min(3, len(free)) == self.queue.unclaimed(3).count


class SqliteModel(Model):
    """The same over a file that is too small for all of it."""

    def new_queue(self) -> DurableQueue:
        self.directory = Path(tempfile.mkdtemp(prefix="readme-metrics-model-"))
        clock = Clock()
        return sqlite_queue(self.directory / "queue.sqlite", max_bytes=ROOM_BYTES, clock=clock, sleep=clock.sleep)

    def teardown(self) -> None:
        self.queue.close()
        shutil.rmtree(self.directory)


TestMemory = Model.TestCase
TestSqlite = SqliteModel.TestCase
TestMemory.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestSqlite.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
