"""The queue's promises, and the contract every backend keeps.

1. **Captured means kept.** An entry is on disk before the last byte of its response is handed to the server: for a
   body at hand before the first byte, for a stream with Content-Length before the chunk that completes it, for
   another stream before its iterator says it is over. A client that has its whole answer has its entry in the queue,
   and ``kill -9`` at any instant loses nothing. Two exceptions, said aloud: power loss without ``fsync=True``, and a
   file that a stranger keeps locked (entries then wait in memory, at most 10 MiB).
2. **Deleted only on success.** An entry leaves the queue by a 2xx for the batch that held it, by burial as a dead
   letter, or by a counted drop with a reason. Nothing else.
3. **The books balance.** At every instant, over all processes and restarts:
   ``accepted = delivered + dead + dropped + waiting``. The figures live in the queue's own file and change in the
   transaction that changes the rows; whoever checks counts the rows in one read transaction and compares.
4. **At least once, almost always once.** An entry is delivered twice only if its batch was sent and no 2xx for it was
   committed to the file. Never by two processes sending at once.
5. **Our failure is never the host's.** No fault of ours raises into the app, keeps the process from exiting, or grows
   memory without bound; no request waits on the network for us unless ``background_worker_mode=False``.
6. **A dead server costs the request path nothing**, and one queue file sends one probe per hold.
7. **One bad entry never blocks the rest.**
8. **Nothing redacted ever reaches the disk.** Redaction comes before ``put``.

The queue knows bytes: neither HAR nor HTTP. Many processes may ``put``; only the holder of the drainer lock may
``claim`` and settle what it claimed. Claims live in the drainer's memory: what is not acked is simply still there for
the next drainer.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Batch:
    """The entries of one claim, oldest first: ``ids[i]`` is the queue's id of ``entries[i]``."""

    ids: tuple[int, ...]
    entries: tuple[bytes, ...]
    source: object = field(default=None, repr=False, compare=False)
    """What the ids belong to, for the backend alone: after a fork, or in a file made anew, they mean nothing."""

    def __len__(self) -> int:
        return len(self.ids)

    def halves(self) -> tuple[Batch, Batch]:
        """Cut in two, the older half first; only for a batch of two or more."""
        middle = len(self.ids) // 2
        return (
            Batch(self.ids[:middle], self.entries[:middle], self.source),
            Batch(self.ids[middle:], self.entries[middle:], self.source),
        )


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits."""

    count: int
    size_bytes: int
    """Bytes of the waiting entries; an estimate from the file's pages where counting would cost too much."""
    oldest_at: float | None
    """Wall clock of the oldest entry's put; None when nothing waits."""


@dataclass(frozen=True, slots=True)
class Hold:
    """A stop of delivery until a moment, kept in the queue's file: every process and command obeys it."""

    until: float
    """Wall clock."""
    length_s: float
    """Its own whole length: it never lasts longer than this, whatever the clock does."""
    kind: str
    """``later``, ``refused``, ``misdirected`` or ``rejected`` (the verdict that began it)."""
    reason: str
    """One sentence for a person."""
    timeout_s: float | None = None
    """Time-out of the next probe where the last one was not answered in time; None: the configured one."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An entry the server will never take, set aside with its reason."""

    id: int
    entry: bytes
    status: int | None
    """HTTP status of the refusal; None where the entry could not even be sent."""
    reason: str
    answer: str
    """The start of what the server answered, at most 2,000 characters."""
    buried_at: float
    """Wall clock."""


@dataclass(frozen=True, slots=True)
class Books:
    """The figures of one queue file, read in one transaction. ``waiting`` and ``dead`` are counted rows."""

    accepted: int
    delivered: int
    dead: int
    dropped: dict[str, int]
    """By reason: ``queue full``, ``purged``."""
    waiting: int
    epoch: int = 1
    """One more after each salvage or recreated directory: older figures are gone with the older file."""
    epoch_began_at: float = 0.0
    not_accepted: dict[str, int] = field(default_factory=dict)
    """Beside the books: entries that never became rows, by reason."""

    @property
    def balanced(self) -> bool:
        """Promise 3."""
        return self.accepted == self.delivered + self.dead + sum(self.dropped.values()) + self.waiting


@dataclass(frozen=True, slots=True)
class Activity:
    """What delivery last did; None where it never happened."""

    last_success_at: float | None = None
    last_error_at: float | None = None
    last_error: str | None = None
    rejections_in_a_row: int = 0
    """Lone rejections since the last delivery."""
    answers_with_errors: int = 0
    """2xx answers whose JSON body told of ``errors``."""


@dataclass(frozen=True, slots=True)
class Drainer:
    """The process that holds the drainer lock."""

    pid: int
    host: str
    since: float
    """Wall clock of its election."""
    seen_at: float
    """Wall clock of the lock file's time stamp, which moves once a second while it lives; older: frozen."""


@dataclass(frozen=True, slots=True)
class Report:
    """All that ``status`` shows of one queue file, read in one transaction."""

    path: str
    books: Books
    backlog: Backlog
    hold: Hold | None
    activity: Activity
    drainer: Drainer | None
    file_bytes: int
    wal_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """Give it as plain data, as ``status --json`` shows it."""
        figures = dataclasses.asdict(self)
        figures["books"]["balanced"] = self.books.balanced
        return figures


@dataclass(frozen=True, slots=True)
class Unclaimed:
    """What the drainer could claim now."""

    count: int
    """Counted up to the number asked for, not further."""
    oldest_at: float | None
    """Wall clock of the oldest one's put."""
    asked: bool
    """Whether someone asked, in whatever process, that the oldest one be sent without waiting."""


class DurableQueue(Protocol):
    """The contract. Every method may be called from any thread, is atomic, and raises ``QueueError`` only.

    Any process may call what stands under *anyone*; only the drainer what stands under *drainer*.
    """

    # -- anyone

    @property
    def durable(self) -> bool:
        """Whether what is put now outlives this process."""

    def put(self, entry: bytes) -> None:
        """Store one entry; it is committed when this returns. Raises ``NotAccepted``, and has counted it."""

    def hold(self) -> Hold | None:
        """The hold, running or over; corrected where the clock was set back. A delivery forgets it."""

    def end_hold(self) -> None:
        """End a running hold, whoever began it; the next batch still goes alone, as a probe."""

    def ask_flush(self) -> None:
        """Ask the drainer, in whatever process, to send what waits now without waiting for more."""

    def backlog(self) -> Backlog:
        """What waits, claimed or not."""

    def report(self) -> Report:
        """Everything, the rows counted, in one read transaction."""

    def dead_letters(self) -> list[DeadLetter]:
        """All of them, oldest first."""

    def requeue(self, ids: Sequence[int]) -> int:
        """Put dead letters back into the queue, at its end; how many there were."""

    def purge(self, ids: Sequence[int]) -> int:
        """Delete dead letters, booked as dropped: purged; how many there were."""

    def elect(self) -> bool:
        """Become the drainer or stay it; False while another process is. Each call also shows that we live."""

    def tend(self, *, idle: bool = False) -> None:
        """Once a second: write what waits in memory; as the drainer also checkpoint, make room, shrink."""

    def leave(self) -> None:
        """Write what waits in memory, wherever that can be: this process is ending."""

    def close(self) -> None:
        """Leave; let go of every file and of the drainer's office; a later call opens again."""

    # -- drainer

    def resign(self) -> None:
        """Let another process become the drainer; what was claimed is unclaimed again."""

    def unclaimed(self, at_most: int) -> Unclaimed:
        """Look at what could be claimed; costs no more than ``at_most`` rows."""

    def claim(self, limit: int, max_bytes: int) -> Batch | None:
        """Take the oldest unclaimed entries, at most ``limit`` and ``max_bytes`` (a larger lone entry goes alone)."""

    def ack(self, *batches: Batch, answers_with_errors: int = 0) -> None:
        """Delete delivered batches and book them, in one transaction; forgets the hold.

        Never fails: what cannot be written yet is remembered, not claimed again, and written by ``tend``.
        """

    def release(self, batch: Batch) -> None:
        """Give a batch back, to its place."""

    def bury(self, batch: Batch, *, status: int | None, reason: str, answer: str) -> int:
        """Set entries aside as dead letters; how many lone rejections in a row that makes."""

    def set_hold(self, hold: Hold) -> None:
        """Stop delivery; its reason becomes the last error."""
