"""The loop that empties the queue, without a thread: claim → send → ack, release, divide or bury.

Minutes to days are the hold's, a row in the queue's file that every worker, restart and command obeys; seconds are
``delivery``'s. While a hold runs nothing is sent; when it ends one batch goes first, alone, one attempt. While a
rejected batch is divided, nothing else is in flight.

Four batches at most are on their way or not deleted yet: sent by as many threads, or where the server answers at once
by this one, one after the other, and then deleted together; a person's flush claims the next while it has one.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from readme_metrics import forks
from readme_metrics.errors import QueueError
from readme_metrics.guard import Guard
from readme_metrics.in_flight import InFlight, Limits
from readme_metrics.patching import patched_late
from readme_metrics.queue.contract import Hold
from readme_metrics.verdict import Kind, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from readme_metrics.in_flight import Send, Sent
    from readme_metrics.queue.contract import Batch, DurableQueue, Unclaimed

logger = logging.getLogger("readme_metrics.drain")

MAX_BATCH_BYTES: Final = 4 * 1024 * 1024
WIDTH: Final = 4
"""Batches in flight while a backlog drains; a crash can repeat as many."""
QUICK_S: Final = 0.01
"""A server that answers faster is sent one batch after the other by the thread that drains: to hand each to another
thread and back costs a request of the app up to 50 µs of CPU, and two at once are hardly faster."""
LONGEST_WAIT_S: Final = 3.0
"""But only with a time-out that is no longer: should the server hang now, nobody tends the queue meanwhile."""
REST_S: Final = 0.01
"""The app's own drain rests after each round twice as long as its thread used the processor, this at most: the slowest
requests beside it were 3 to 8 % quicker for it. Under gevent that thread is everybody's."""
LOOK_EVERY_S: Final = 1.0
MOST_REJECTIONS: Final = 10
"""Lone rejections in a row after which the fault is more likely the server's than the entries'."""
FIRST_HOLD_S: Final = {Kind.LATER: 1.0, Kind.REFUSED: 300.0, Kind.MISDIRECTED: 300.0, Kind.REJECTED: 300.0}
LONGEST_HOLD_S: Final = {Kind.LATER: 300.0, Kind.REFUSED: 3600.0, Kind.MISDIRECTED: 3600.0, Kind.REJECTED: 3600.0}
LONGEST_TIMEOUT_S: Final = 60.0
DIVIDED: Final = frozenset({Kind.REJECTED, Kind.TOO_LARGE})
TIME_IS_UP: Final = Verdict(Kind.LATER, "time was up while a rejected batch was divided")
"""Says nothing about the server, so it begins no hold."""


class Ending(Enum):
    """Why a drain ended."""

    DONE = auto()
    """Nothing is due."""
    HELD = auto()
    """A hold runs."""
    STOPPED = auto()
    """Time is up, or the process is leaving."""


def next_hold(verdict: Verdict, previous: Hold | None, *, now: float, timeout_s: float) -> Hold:
    """Tell how long to stay away: doubling from the previous hold of the same kind, or as long as the server asked.

    ``timeout_s`` is that of the POST that failed: where it was sent whole and not answered, the next gets twice that.
    """
    kind = verdict.kind
    same = previous is not None and previous.kind == kind.value
    doubled = previous.length_s * 2 if previous is not None and same else 0.0
    length_s = max(verdict.retry_after_s, min(max(doubled, FIRST_HOLD_S[kind]), LONGEST_HOLD_S[kind]))
    longer = min(timeout_s * 2, LONGEST_TIMEOUT_S) if verdict.unanswered else None
    kept = previous.timeout_s if previous is not None else None
    return Hold(now + length_s, length_s, kind.value, verdict.reason, longer or kept)


@dataclass(frozen=True, slots=True)
class _Leave:
    """What one run may do. Not ``patient`` where a request or an exit waits for it."""

    everything: bool
    deadline: float | None
    patient: bool


class Drain:
    """Drains one queue through one ``send``; for the drainer only."""

    def __init__(
        self,
        queue: DurableQueue,
        send: Send,
        *,
        batch_length: int,
        flush_interval_s: float,
        timeout_s: float,
        stop: threading.Event,
        on_settled: Callable[[int], None] = lambda _: None,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._send = send
        self._batch_length = batch_length
        self._flush_interval_s = flush_interval_s
        self._configured_timeout_s = self._learned_timeout_s = timeout_s
        self._stop = stop
        self._on_settled = on_settled
        self._now = now
        self._began_at = now()
        self._clock = clock
        self._stopped_for: str | None = None
        self._quick = False
        self._look_at = 0.0
        self._warnings = Guard("reading an answer", "nothing")
        self._tending = Guard("tending the queue beside a POST", "it is tried again in a second")
        self._broken_off = Guard("booking what came back after a drain broke off", "it may be sent again")
        self._saying = Guard("saying what became of a delivery", "nothing")
        self._begin()
        forks.watch(self)

    def _begin(self) -> None:
        """All that belongs to one process."""
        self._one_at_a_time = threading.Lock()
        self._flight = InFlight(self._send, self._look_ahead)
        self._still_to_claim = 0
        self._unsettled: list[Batch] = []
        self._unwritten_hold: Hold | None = None

    def due_in_s(self) -> float | None:
        """Seconds until something must be sent; 0: now; None: nothing waits."""
        return self._due_in_s(self._queue.unclaimed(self._batch_length))

    def _due_in_s(self, unclaimed: Unclaimed) -> float | None:
        if not unclaimed.count:
            return None
        if unclaimed.count >= self._batch_length or unclaimed.asked or unclaimed.oldest_at is None:
            return 0.0
        if unclaimed.oldest_at < self._began_at:
            return 0.0  # left by an earlier run
        remaining_s = unclaimed.oldest_at + self._flush_interval_s - self._now()
        put_in_the_future = remaining_s > self._flush_interval_s  # the clock was set back since
        return 0.0 if put_in_the_future else max(0.0, remaining_s)

    def elect(self) -> bool:
        """Become the drainer, or show that we still are, while no other thread of this process may resign."""
        if patched_late():
            return False
        with self._one_at_a_time:
            return self._queue.elect()

    @contextlib.contextmanager
    def office(self, wait_s: float, *, keep: Callable[[], bool] = lambda: False) -> Generator[bool]:
        """Be the drainer for a while, to ``run_in_office``, and leave then unless somebody is there to ``keep`` it.

        False: another process is, or another thread of this one, for longer than ``wait_s``: its POST may be under way,
        and who resigned beside it would let another process send the same.
        """
        if patched_late() or not self._one_at_a_time.acquire(timeout=wait_s):
            yield False
            return
        try:
            yield self._queue.elect()
        finally:
            try:
                if not keep():
                    self._queue.resign()
            finally:
                self._one_at_a_time.release()

    def run(self, *, everything: bool, deadline: float | None = None, patient: bool = True) -> Ending:
        """Send what is due, or everything; ``deadline`` on the monotonic clock. A second thread waits for the first.

        Not ``patient`` where a request or an exit waits: one batch in flight, one attempt, within the time left, and
        the stop event does not end it.
        """
        wait_s = -1.0 if deadline is None else max(0.0, deadline - self._clock())
        if not self._one_at_a_time.acquire(timeout=wait_s):
            return Ending.STOPPED
        try:
            return self.run_in_office(everything=everything, deadline=deadline, patient=patient)
        finally:
            self._one_at_a_time.release()

    def run_in_office(self, *, everything: bool, deadline: float | None = None, patient: bool = False) -> Ending:
        """Do what ``run`` does, for the thread that is in the ``office``."""
        self._look_at = self._clock() + LOOK_EVERY_S
        try:
            return self._run(_Leave(everything, deadline, patient))
        finally:
            self._clear_up(wait=not isinstance(sys.exc_info()[1], (KeyboardInterrupt, SystemExit)))

    def _clear_up(self, *, wait: bool) -> None:
        """Settle what is left: nothing, unless a bug, the disk or a person, who does not wait, broke the run off."""
        self._flight.recall()
        with self._broken_off:
            for sent in self._flight.abandon(wait=wait):
                if sent.delivered:
                    self._delivered([sent.batch], [sent.outcome.verdict], None)
        self._release(self._unsettled)
        self._unsettled.clear()

    def _run(self, leave: _Leave) -> Ending:
        while True:
            hold = self.hold(write=leave.patient)
            limits = self._limits(hold, leave)
            ending = self._reason_to_end(hold, leave)
            if ending is None:
                self._launch(hold, limits, leave)
            else:
                self._recall()
            if not self._flight:
                return ending or Ending.DONE
            began = time.thread_time()
            self._settle(hold, limits, leave)
            if limits.inline and leave.patient and not leave.everything:
                self._stop.wait(min(REST_S, 2 * (time.thread_time() - began)))

    def _reason_to_end(self, hold: Hold | None, leave: _Leave) -> Ending | None:
        if hold is not None and hold.until > self._now():
            return Ending.HELD
        if leave.patient and (self._stop.is_set() or not self._in_office()):
            return Ending.STOPPED
        return Ending.STOPPED if self._time_is_up(leave) else None

    def _time_is_up(self, leave: _Leave) -> bool:
        return leave.deadline is not None and self._clock() >= leave.deadline

    def _in_office(self) -> bool:
        """Once a second, however long a POST or a backlog takes: show that we live, tend the queue."""
        if self._clock() < self._look_at:
            return True
        self._look_at = self._clock() + LOOK_EVERY_S
        in_office = self._queue.elect()
        self._queue.tend()
        return in_office

    def _launch(self, hold: Hold | None, limits: Limits, leave: _Leave) -> None:
        """Claim and send until as much is in flight as may be; after a hold, one batch alone.

        Where everything goes, what this thread sends itself is claimed one by one, the next while the server has the
        last. Else the requests of the app are better served by a pause then.
        """
        width = WIDTH if leave.patient and hold is None else 1
        one_ahead = leave.everything and limits.inline and width == WIDTH
        room = width + one_ahead - len(self._flight)
        self._still_to_claim = room if leave.everything else self._batches_due(room)
        self._limits_ahead = limits
        while self._still_to_claim and not (one_ahead and self._flight.ready):
            self._launch_next()

    def _launch_next(self) -> None:
        batch = self._queue.claim(self._batch_length, MAX_BATCH_BYTES)
        self._still_to_claim = self._still_to_claim - 1 if batch is not None else 0
        if batch is not None:
            self._unsettled.append(batch)
            self._flight.launch(batch, self._limits_ahead)

    def _look_ahead(self) -> None:
        """Claim the next batch. What stands against it is said by the claim that then waits for it, and no answer."""
        with contextlib.suppress(Exception):
            if self._still_to_claim and not self._flight.ready:
                self._launch_next()

    def _batches_due(self, at_most: int) -> int:
        """How many must be sent now."""
        unclaimed = self._queue.unclaimed(self._batch_length * at_most)
        return unclaimed.count // self._batch_length or int(self._due_in_s(unclaimed) == 0.0)

    def _limits(self, hold: Hold | None, leave: _Leave) -> Limits:
        if not leave.patient:
            left_s = self._configured_timeout_s if leave.deadline is None else leave.deadline - self._clock()
            return Limits(1, max(0.05, min(self._configured_timeout_s, left_s)), inline=True)
        timeout_s = max(self._learned_timeout_s, (hold and hold.timeout_s) or 0.0)
        return Limits(1 if hold is not None else 3, timeout_s, inline=self._quick and timeout_s <= LONGEST_WAIT_S)

    def _next(self) -> Sent:
        while (sent := self._flight.next(max(0.0, self._look_at - self._clock()))) is None:
            with self._tending:  # what stands against it is met again when nothing is on its way
                self._in_office()
        return sent

    def _settle(self, hold: Hold | None, limits: Limits, leave: _Leave) -> None:
        """Act on what came back; at trouble, first wait until nothing else is in flight."""
        delivered: list[Sent] = []
        troubled: list[Sent] = []
        try:
            while self._flight:
                sent = self._next()
                self._learn_from(sent)
                (delivered if sent.delivered else troubled).append(sent)
                if troubled or self._stop.is_set():
                    self._recall()
                if not troubled and (len(self._unsettled) > WIDTH or not self._flight.ready):
                    break
        finally:  # whatever broke it off, what was delivered is not sent again
            self._book(delivered, hold)
        if troubled:
            self._handle(troubled, hold, limits, leave)
            self._unsettled.clear()

    def _recall(self) -> None:
        """Claim no more, and give back what nobody has begun to send."""
        self._still_to_claim = 0
        for batch in self._flight.recall():
            self._queue.release(batch)
            self._unsettled.remove(batch)

    def _learn_from(self, sent: Sent) -> None:
        """A server that needs longer than ``timeout`` is given it, or it would be sent each batch more than once."""
        self._quick = sent.delivered and sent.took_s < QUICK_S
        if sent.delivered:
            self._learned_timeout_s = min(max(self._configured_timeout_s, sent.took_s * 2), LONGEST_TIMEOUT_S)

    def _book(self, delivered: list[Sent], hold: Hold | None) -> None:
        if delivered:
            self._delivered([sent.batch for sent in delivered], [sent.outcome.verdict for sent in delivered], hold)
        for sent in delivered:
            self._unsettled.remove(sent.batch)

    def _delivered(self, batches: Sequence[Batch], verdicts: Sequence[Verdict], hold: Hold | None) -> None:
        """Book it before anything else: what stands between a delivery and its booking may send it again."""
        with_errors = sum(verdict.errors_in_answer for verdict in verdicts)
        self._queue.ack(*batches, answers_with_errors=with_errors)
        self._unwritten_hold = None
        if hold is not None or self._stopped_for is not None:
            self._say_resumed(sum(map(len, batches)))
        if with_errors:
            self._warnings.warn("ReadMe took a batch but told of errors in it: readme-metrics status counts them")
        self._on_settled(sum(map(len, batches)))

    def _handle(self, troubled: list[Sent], hold: Hold | None, limits: Limits, leave: _Leave) -> None:
        """Hold where any answer asks for it, else divide; the longest hold wins."""
        holding = [sent.outcome.verdict for sent in troubled if sent.outcome.verdict.kind not in DIVIDED]
        while troubled and not holding:
            sent = troubled.pop()
            stopped_by = self._divide(sent.batch, sent.outcome.verdict, hold, leave)
            if stopped_by is not None:
                holding.append(stopped_by)
        self._release(sent.batch for sent in troubled)
        holds = [
            next_hold(verdict, hold, now=self._now(), timeout_s=limits.timeout_s)
            for verdict in holding
            if verdict is not TIME_IS_UP
        ]
        if holds:
            self._begin_hold(max(holds, key=lambda each: each.length_s))

    def _divide(self, batch: Batch, verdict: Verdict, hold: Hold | None, leave: _Leave) -> Verdict | None:
        """Send ever smaller parts until each guilty entry stands alone, and bury it; the verdict that ended it."""
        parts: list[tuple[Batch, Verdict | None]] = [(batch, verdict)]
        while parts:
            part, known = parts.pop()
            if known is None and self._reason_to_end(None, leave):
                answer = TIME_IS_UP
            else:
                answer = known or self._sent_alone(part, self._limits(hold, leave))
            if answer.kind is Kind.DELIVERED:
                self._delivered([part], [answer], None)
            elif answer.kind in DIVIDED and len(part) > 1:
                parts.extend((half, None) for half in reversed(part.halves()))
            elif answer.kind not in DIVIDED:
                self._release([part, *(rest for rest, _ in parts)])
                return TIME_IS_UP if answer.kind is Kind.LATER and self._time_is_up(leave) else answer
            elif self._bury(part, answer) >= MOST_REJECTIONS:
                self._release(rest for rest, _ in parts)
                return _all_rejected(answer)
        return None

    def _sent_alone(self, part: Batch, limits: Limits) -> Verdict:
        self._flight.launch(part, limits)
        return self._next().outcome.verdict

    def _release(self, batches: Iterable[Batch]) -> None:
        for batch in batches:
            self._queue.release(batch)

    def _bury(self, lone: Batch, verdict: Verdict) -> int:
        rejections = self._queue.bury(lone, status=verdict.status, reason=verdict.reason, answer=verdict.answer)
        with self._saying:
            logger.warning(
                "one entry was set aside as a dead letter (%s): readme-metrics dead-letters list", verdict.reason
            )
        self._on_settled(len(lone))
        return rejections

    def _begin_hold(self, hold: Hold) -> None:
        self._unwritten_hold = hold
        self._write_hold(hold)
        if self._stopped_for == hold.kind:
            return  # said already
        self._stopped_for = hold.kind
        level = logging.WARNING if hold.kind == Kind.LATER.value else logging.ERROR
        with self._saying:
            logger.log(level, "delivery stops (%s); entries wait in the queue and none is lost", hold.reason)

    def _write_hold(self, hold: Hold) -> None:
        with contextlib.suppress(QueueError):  # locked: obeyed all the same
            self._queue.set_hold(hold)
            self._unwritten_hold = None

    def hold(self, *, write: bool = True) -> Hold | None:
        """The queue's hold, or a later one of ours that could not be written; it is tried again where nobody waits."""
        unwritten = self._unwritten_hold
        if unwritten is not None and unwritten.until - self._now() > unwritten.length_s:
            unwritten = self._unwritten_hold = None  # the clock was set back
        if unwritten is not None and write:
            self._write_hold(unwritten)
        stored = self._queue.hold()
        return max(filter(None, (stored, self._unwritten_hold)), key=lambda each: each.until, default=None)

    def _say_resumed(self, count: int) -> None:
        self._stopped_for = None
        with self._saying:
            logger.warning("delivery resumes: %d entries waited", count + self._queue.backlog().count)

    # -- forks

    def before_fork(self) -> None:
        """Nothing: what is in flight stays the parent's."""

    def after_fork_in_parent(self) -> None:
        """Nothing: the drain goes on."""

    def after_fork_in_child(self) -> None:
        """Begin anew: a thread that drains exists in the parent only, and its lock would stay taken here for ever."""
        self._begin()


def _all_rejected(last: Verdict) -> Verdict:
    return Verdict(
        Kind.REJECTED,
        f"{MOST_REJECTIONS} entries in a row were rejected, the last with {last.reason}: is this really ReadMe's "
        "server? See readme-metrics dead-letters list",
        last.status,
    )
