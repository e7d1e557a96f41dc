"""What the page is told: rows, samples, updates."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypedDict

if TYPE_CHECKING:
    from readme_metrics.inspector.books import BooksView
    from readme_metrics.inspector.wire import Entry

MAX_PATH: Final = 500
MAX_CALLER: Final = 200

_SCHEME_AND_HOST = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#]*", re.IGNORECASE)


class Row(TypedDict):
    """One line of the page's list."""

    id: str
    seq: int
    times: int
    method: str
    path: str
    status: int
    time_ms: float
    started: str
    caller: str
    caller_id: str
    development: bool


class Sample(TypedDict):
    """One second of the chart."""

    tick: int
    waiting: int | None
    """None: no books are at hand."""
    delivered: int
    turned_away: int
    outage: bool


class Update(TypedDict):
    """What a page is told: the rows and samples it has not seen, and everything else as it is now."""

    run: str
    """Another value: the inspector was started anew, what the page shows is of the last run."""
    oldest: int
    """Rows with a lower ``seq`` are gone."""
    rows: list[Row]
    samples: list[Sample]
    figures: dict[str, int]
    books: BooksView | None
    outage: str


def summary(entry: Entry, *, seq: int) -> Row:
    """Pick what the list shows, cut to a bounded length."""
    har_entry = entry["request"]["log"]["entries"][0]
    group = entry["group"]
    return {
        "id": entry["_id"],
        "seq": seq,
        "times": 1,
        "method": har_entry["request"]["method"][:20],
        "path": (_SCHEME_AND_HOST.sub("", har_entry["request"]["url"], count=1) or "/")[:MAX_PATH],
        "status": har_entry["response"]["status"],
        "time_ms": har_entry["time"],
        "started": har_entry["startedDateTime"],
        "caller": (group.get("label") or group.get("email") or group["id"])[:MAX_CALLER],
        "caller_id": group["id"][:MAX_CALLER],
        "development": entry["development"],
    }
