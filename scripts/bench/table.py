"""The table: a row for each goal, with a bar that ends before the mark (or reaches it) where the goal is met."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.measure import Spread
    from bench.result import Row

MARK: Final = 12
"""Where the goal stands in the bar."""
BAR: Final = 16
WIDTH: Final = 100
HEAD: Final = f"{'#':>2}  {'what':40} {'measured':>9} {'quartiles':>13} {'goal':>10} {'':{MARK}}|\n{'-' * WIDTH}"


def table_of(rows: Sequence[Row]) -> str:
    """At most ``WIDTH`` columns."""
    judged = [row.met for row in rows if row.judged]
    end = f"{sum(judged)} of {len(judged)} goals met; the mark is the goal, x: times the yardstick"
    return "\n".join([HEAD, *map(line, rows), "-" * WIDTH, end])


def line(row: Row) -> str:
    """One row."""
    sign = ">=" if row.at_least else "<="
    goal = f"{sign} {number(row.goal)}{row.unit:>3}"
    verdict = ("ok" if row.met else "NOT") if row.judged else "-"
    measured = f"{number(row.value.median)}{row.unit:>3}"
    return f"{row.figure:>2}  {row.what:40.40} {measured:>9} {between(row.value):>13} {goal:>10} {bar(row)} {verdict}"


def bar(row: Row) -> str:
    """How much of the goal is used up, or reached; an arrow where it does not fit."""
    share = row.value.median / row.goal if row.goal else float(row.value.median > 0) * 2
    cells = max(0, round(share * MARK))
    drawn = "#" * cells if cells <= BAR else "#" * (BAR - 1) + ">"
    drawn = f"{drawn:{BAR}}"
    mark = "+" if drawn[MARK] == "#" else "|"
    return drawn[:MARK] + mark + drawn[MARK + 1 :]


def between(value: Spread) -> str:
    """The quartiles; empty for what was measured once."""
    return "" if value.low == value.high else f"{number(value.low)}..{number(value.high)}"


def number(value: float) -> str:
    """Three digits that mean something."""
    if value == round(value) or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def telling(row: Row) -> str:
    """What only describes, for the progress."""
    return ", ".join(f"{name} {number(value)}" for name, value in row.told.items())
