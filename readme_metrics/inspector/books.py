"""The queue's books as the page's panel shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from readme_metrics.errors import MetricsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class BooksView(TypedDict):
    """The figures of one queue, its hold, or why neither can be read."""

    accepted: int
    delivered: int
    dead: int
    dropped: int
    waiting: int
    balanced: bool
    hold_until: float | None
    """Wall clock; None: delivery is not held."""
    hold_reason: str
    trouble: str
    """Why the books cannot be read; empty: they can."""


def read(source: Callable[[], Mapping[str, object] | None]) -> BooksView | None:
    """Ask for the books, None where there are none; a queue that cannot be read is shown, not raised."""
    try:
        report = source()
        return None if report is None else view(report)
    except (MetricsError, OSError) as error:
        return {**view({}), "trouble": str(error) or type(error).__name__}


def view(report: Mapping[str, object]) -> BooksView:
    """Read a queue's ``Report`` as a dict, or its ``Books`` alone; a figure that is not there is 0."""
    books = _mapping(report.get("books")) or report
    hold = _mapping(report.get("hold"))
    until = hold.get("until")
    figures = {name: _count(books.get(name)) for name in ("accepted", "delivered", "dead", "dropped", "waiting")}
    return {
        "accepted": figures["accepted"],
        "delivered": figures["delivered"],
        "dead": figures["dead"],
        "dropped": figures["dropped"],
        "waiting": figures["waiting"],
        "balanced": figures["accepted"] == sum(figures.values()) - figures["accepted"],
        "hold_until": float(until) if isinstance(until, (int, float)) else None,
        "hold_reason": str(hold.get("reason", "")),
        "trouble": "",
    }


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int:
    """A figure, or the sum of a figure kept by reason."""
    if isinstance(value, dict):
        return sum(_count(part) for part in value.values())
    return value if isinstance(value, int) else 0
