"""What ``readme-metrics status`` says of a queue file: first whether anything is wrong, then the figures. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

from readme_metrics.cli import figures

if TYPE_CHECKING:
    from pathlib import Path

    from readme_metrics.queue.contract import Books, Drainer, Report

SILENT_S: Final = 10.0
"""The lock file's time stamp moves once a second while the drainer lives, but for the 8 s that the attempts at a server
may take that was quick until now; older than this is said."""
LEFT_ALONE_S: Final = 60.0
"""Entries older than this that nobody drains are worth a word."""


class Level(IntEnum):
    """How bad a finding is."""

    WELL = 0
    WARNING = 1
    WRONG = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know about a queue file, in words."""

    level: Level
    sentence: str


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a queue file empties, from two looks at its books."""

    drains_per_s: float
    empty_in_s: float | None
    """None: at this speed never, as much comes as goes."""


def speed(first: Report, second: Report, elapsed_s: float) -> Speed:
    """Compare two reports of one file."""
    left = first.books.waiting - second.books.waiting
    settled = max(0, _settled(second.books) - _settled(first.books))
    per_s = left / elapsed_s
    empty_in_s = second.books.waiting / per_s if per_s > 0 else None
    return Speed(settled / elapsed_s, 0.0 if not second.books.waiting else empty_in_s)


def _settled(books: Books) -> int:
    return books.delivered + books.dead + sum(books.dropped.values())


def held(report: Report, now: float) -> bool:
    """Whether a hold runs."""
    return report.hold is not None and report.hold.until > now


def moving(report: Report, now: float) -> bool:
    """Whether entries are on their way."""
    return bool(report.books.waiting) and report.drainer is not None and not held(report, now)


def findings(report: Report, now: float) -> list[Finding]:
    """What is wrong with a queue file, the worst first; nothing where all is well."""
    found = [
        *_of_the_books(report.books),
        *_of_delivery(report, now),
        *_of_losses(report.books, now),
    ]
    return sorted(found, key=lambda finding: -finding.level)


def _of_the_books(books: Books) -> list[Finding]:
    if books.balanced:
        return []
    gap = books.accepted - _settled(books) - books.waiting
    return [Finding(Level.WRONG, f"The books do not balance: {gap:+,} entries are unaccounted for. Please report it.")]


def _of_delivery(report: Report, now: float) -> list[Finding]:
    waiting = report.books.waiting
    if not waiting:
        return []
    if report.hold is not None:  # running, or being tried: only a delivery forgets it
        sentence = f"Delivery is stopped since {_since(report, now)}: {report.hold.reason}. "
        level = Level.WARNING if report.hold.kind == "later" else Level.WRONG
        return [Finding(level, f"{sentence}{_wait(waiting)}, none is lost.")]
    if report.drainer is not None and now - report.drainer.seen_at > SILENT_S:
        sentence = (
            f"{who(report.drainer)} drains but gave no sign of life since {_moment(report.drainer.seen_at, now)}: it "
            f"is frozen, or waits for a slow server. {_wait(waiting)}."
        )
        return [Finding(Level.WRONG, sentence)]
    oldest_at = report.backlog.oldest_at or now
    if report.drainer is None and now - oldest_at > LEFT_ALONE_S:
        sentence = (
            f"{_wait(waiting)} since {_moment(oldest_at, now)} and nobody drains: start the app, or run "
            "readme-metrics flush."
        )
        return [Finding(Level.WARNING, sentence)]
    return []


def _of_losses(books: Books, now: float) -> list[Finding]:
    found = []
    if books.not_accepted:
        told = figures.by_reason(books.not_accepted)
        since = _moment(books.epoch_began_at, now)
        sentence = f"Not stored at all since {since}: {told}. readme-metrics doctor looks for why."
        found.append(Finding(Level.WARNING, sentence))
    if full := books.dropped.get("queue full"):
        since = _moment(books.epoch_began_at, now)
        sentence = f"{figures.entries(full)} dropped since {since}, the queue was full: raise max_queue_bytes."
        found.append(Finding(Level.WARNING, sentence))
    if books.dead:
        what = figures.dead_letters(books.dead)
        found.append(Finding(Level.WARNING, f"{what}: readme-metrics dead-letters list."))
    return found


def _since(report: Report, now: float) -> str:
    """Since the last success, or since the oldest entry waits, whatever is later."""
    last_success_at = report.activity.last_success_at or 0.0
    return _moment(max(last_success_at, report.backlog.oldest_at or 0.0), now)


def _wait(waiting: int) -> str:
    return f"{figures.entries(waiting)} {'waits' if waiting == 1 else 'wait'}"


def _moment(at: float, now: float) -> str:
    return figures.moment(at, now) if at else "the beginning"


def who(drainer: Drainer) -> str:
    """Name the process that drains."""
    return f"process {drainer.pid} on {drainer.host}"


def unsaved(path: Path) -> str:
    """Tell of what stands beside a queue file."""
    return f"{path.name} holds logs that are not in the queue yet: start the app, or run readme-metrics flush."


def well(waiting: int) -> str:
    """The first line where nothing is wrong."""
    return f"All is well: {_wait(waiting) if waiting else 'nothing waits'}."


def lines(report: Report, now: float, measured: Speed | None) -> list[str]:
    """The figures of one queue file, a line each, at most 80 columns wide."""
    return [figures.field(name, value) for name, value in _fields(report, now, measured) if value]


def _fields(report: Report, now: float, measured: Speed | None) -> list[tuple[str, str]]:
    books, activity = report.books, report.activity
    return [
        ("accepted", figures.number(books.accepted)),
        ("delivered", _delivered(report)),
        ("dead letters", figures.number(books.dead)),
        ("dropped", figures.by_reason(books.dropped) or "0"),
        ("waiting", _backlog(report, now)),
        ("books", _balance(books)),
        ("not stored", figures.by_reason(books.not_accepted)),
        ("drainer", _drainer(report.drainer, now)),
        ("hold", _hold(report, now)),
        ("last success", figures.moment(activity.last_success_at, now) if activity.last_success_at else "never"),
        ("last error", _last_error(report, now)),
        ("speed", _speed(measured)),
        ("on disk", f"{figures.size(report.file_bytes)} and {figures.size(report.wal_bytes)} of WAL"),
    ]


def _delivered(report: Report) -> str:
    told = report.activity.answers_with_errors
    errors = f"; {figures.number(told)} answers told of errors" if told else ""
    return f"{figures.number(report.books.delivered)}{errors}"


def _backlog(report: Report, now: float) -> str:
    if report.backlog.oldest_at is None:
        return figures.number(report.books.waiting)
    oldest = figures.span(now - report.backlog.oldest_at)
    size = figures.size(report.backlog.size_bytes)
    return f"{figures.number(report.books.waiting)}, about {size}, the oldest for {oldest}"


def _balance(books: Books) -> str:
    words = "balance" if books.balanced else "DO NOT BALANCE"
    return f"{words}; kept since {figures.stamp(books.epoch_began_at)} (epoch {books.epoch})"


def _drainer(drainer: Drainer | None, now: float) -> str:
    if drainer is None:
        return "nobody"
    return f"{who(drainer)}, for {figures.span(now - drainer.since)}, seen {figures.span(now - drainer.seen_at)} ago"


def _hold(report: Report, now: float) -> str:
    hold = report.hold
    if hold is None:
        return ""
    if not held(report, now):
        return f"over: the next attempt is under way, or comes with the next batch ({hold.reason})"
    return f"until {figures.stamp(hold.until)}, for {figures.span(hold.until - now)} more ({hold.reason})"


def _last_error(report: Report, now: float) -> str:
    activity = report.activity
    if activity.last_error_at is None:
        return "none"
    return f"{figures.moment(activity.last_error_at, now)} {figures.printable(activity.last_error or '')}"


def _speed(measured: Speed | None) -> str:
    if measured is None:
        return ""
    empty = (
        "as much comes as goes"
        if measured.empty_in_s is None
        else f"empty in about {figures.span(measured.empty_in_s)}"
    )
    return f"{figures.per_second(measured.drains_per_s)}; {empty}"


def as_dict(report: Report, measured: Speed | None) -> dict[str, Any]:
    """One element of ``queues`` in ``status --json``."""
    return {
        **report.as_dict(),
        "drains_per_s": measured and measured.drains_per_s,
        "empty_in_s": measured and measured.empty_in_s,
    }
