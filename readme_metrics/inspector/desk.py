"""What arrived, the figures and the last minutes, in bounded memory and under one lock."""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
from collections import deque
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from readme_metrics.inspector.outage import Outage
from readme_metrics.inspector.shown import summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from readme_metrics.inspector.books import BooksView
    from readme_metrics.inspector.shown import Row, Sample, Update
    from readme_metrics.inspector.wire import Entry

MAX_ENTRIES: Final = 2_000
MAX_BYTES: Final = 64 * 1024 * 1024
MAX_SAMPLES: Final = 300
"""One a second: the last five minutes."""
GATHER_S: Final = 0.1
"""Arrivals of this long go to a page together: a burst costs it ten updates a second, not a thousand."""


@dataclass(slots=True)
class Figures:
    """What the inspector itself saw since it started."""

    posts: int = 0
    entries: int = 0
    """Distinct entries taken."""
    repeats: int = 0
    """Arrivals of an entry that is still kept."""
    refused: int = 0
    """POSTs without a key, too large, or not an array of valid entries."""
    turned_away: int = 0
    """POSTs that met an outage."""
    gone: int = 0
    """Entries that made room for newer ones."""


class Cursor(NamedTuple):
    """How much a page has seen."""

    revision: int = 0
    tick: int = 0


@dataclass(slots=True)
class _Kept:
    wire: bytes
    row: Row
    revision: int


class Desk:
    """Takes entries, forgets the oldest, and tells pages what is new; every method is safe from any thread."""

    def __init__(self, *, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> None:
        self.outage = Outage()
        self.run = secrets.token_hex(4)
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._kept: dict[str, _Kept] = {}
        self._kept_bytes = 0
        self._seq = 0
        self._now = Cursor()
        self._figures = Figures()
        self._books: BooksView | None = None
        self._samples: deque[Sample] = deque(maxlen=MAX_SAMPLES)
        self._sampled = Figures()

    def take(self, entries: Iterable[Entry]) -> None:
        """Keep the entries of one POST, oldest first; one that is kept already is counted again, not shown again."""
        with self._telling():
            self._figures.posts += 1
            for entry in entries:
                self._keep(entry)
            self._forget_oldest()

    def refuse(self) -> None:
        """Count a POST that was refused."""
        with self._telling():
            self._figures.posts += 1
            self._figures.refused += 1

    def turn_away(self) -> None:
        """Count a POST that met an outage."""
        with self._telling():
            self._figures.posts += 1
            self._figures.turned_away += 1

    def sample(self, books: BooksView | None) -> None:
        """Close one second of the chart; called once a second, which also wakes the pages."""
        with self._changed:
            tick = self._now.tick + 1
            self._books = books
            self._samples.append(self._second(tick, books))
            self._sampled = Figures(**asdict(self._figures))
            self._now = self._now._replace(tick=tick)
            self._changed.notify_all()

    def update(self, seen: Cursor) -> tuple[Cursor, Update]:
        """All that is new to a page that has seen so much."""
        with self._changed:
            return self._now, {
                "run": self.run,
                "oldest": self._oldest(),
                "rows": [kept.row for kept in self._kept.values() if kept.revision > seen.revision],
                "samples": [sample for sample in self._samples if sample["tick"] > seen.tick],
                "figures": asdict(self._figures),
                "books": self._books,
                "outage": self.outage.mode,
            }

    def wait(self, seen: Cursor) -> bool:
        """Block until a page that has seen so much can be told more; False: the inspector is closing."""
        with self._changed:
            self._changed.wait_for(lambda: self._now != seen or self._closing.is_set())
        return not self._closing.wait(GATHER_S)

    def wire(self, entry_id: str) -> bytes | None:
        """One entry: what arrived, parsed and written again; None: unknown, or gone."""
        kept = self._kept.get(entry_id)
        return kept.wire if kept else None

    def wires(self) -> list[bytes]:
        """All kept entries, oldest first."""
        with self._changed:
            return [kept.wire for kept in self._kept.values()]

    def clear(self) -> None:
        """Forget all entries; the figures stay."""
        with self._telling():
            self._kept.clear()
            self._kept_bytes = 0

    def play(self, mode: str) -> bool:
        """Play an outage or end it, and tell the pages; False: there is no such mode."""
        with self._telling():
            return self.outage.play(mode)

    def close(self) -> None:
        """Let every waiting thread go."""
        self.outage.play("off")
        with self._changed:
            self._closing.set()
            self._changed.notify_all()

    def pause(self, seconds: float) -> bool:
        """Wait between two samples; False: the inspector is closing."""
        return not self._closing.wait(seconds)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Change something under the lock, then wake the pages."""
        with self._changed:
            self._now = self._now._replace(revision=self._now.revision + 1)
            yield
            self._changed.notify_all()

    def _keep(self, entry: Entry) -> None:
        known = self._kept.get(entry["_id"])
        if known:
            known.row = {**known.row, "times": known.row["times"] + 1}
            known.revision = self._now.revision
            self._figures.repeats += 1
            return
        self._seq += 1
        self._figures.entries += 1
        wire = _written(entry)
        self._kept[entry["_id"]] = _Kept(wire, summary(entry, seq=self._seq), self._now.revision)
        self._kept_bytes += len(wire)

    def _forget_oldest(self) -> None:
        while len(self._kept) > self._max_entries or self._kept_bytes > self._max_bytes:
            oldest = self._kept.pop(next(iter(self._kept)))
            self._kept_bytes -= len(oldest.wire)
            self._figures.gone += 1

    def _oldest(self) -> int:
        return next((kept.row["seq"] for kept in self._kept.values()), self._seq + 1)

    def _second(self, tick: int, books: BooksView | None) -> Sample:
        now, before = self._figures, self._sampled
        return {
            "tick": tick,
            "waiting": books["waiting"] if books and not books["trouble"] else None,
            "delivered": now.entries + now.repeats - before.entries - before.repeats,
            "turned_away": now.turned_away - before.turned_away,
            "outage": self.outage.mode != "off",
        }


def _written(entry: Entry) -> bytes:
    """Write as the package writes: what it sent comes out byte by byte the same, the exponent of a float aside."""
    try:
        return json.dumps(entry, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a lone surrogate: JSON can say it, UTF-8 cannot
        return json.dumps(entry, separators=(",", ":")).encode()


def ticking(desk: Desk, books: Callable[[], BooksView | None], *, every_s: float = 1.0) -> None:
    """Sample until the desk closes."""
    while desk.pause(every_s):
        desk.sample(books())
