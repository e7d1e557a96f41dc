"""How figures, sizes, ages and captured text are shown to a person. Pure."""

from __future__ import annotations

import textwrap
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WIDTH: Final = 80
_SPANS: Final = ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
"""Longer than this many seconds: shown in whole units of it, with a second, smaller unit beside."""
_SECOND_UNIT_UP_TO: Final = 10
"""Beside more than ten of the larger unit, the smaller one says nothing."""


def number(count: int) -> str:
    """``1,234,567``."""
    return f"{count:,}"


def entries(count: int) -> str:
    """``1 entry``, ``12 entries``."""
    return f"{number(count)} {'entry' if count == 1 else 'entries'}"


def dead_letters(count: int) -> str:
    """``1 dead letter``, ``12 dead letters``."""
    return f"{number(count)} dead letter{'' if count == 1 else 's'}"


def size(size_bytes: float) -> str:
    """``512 bytes``, ``12.3 MiB``."""
    if size_bytes < 1024:
        return f"{size_bytes:.0f} bytes"
    power = 1 + (size_bytes >= 1024**2) + (size_bytes >= 1024**3)
    return f"{size_bytes / 1024**power:.1f} {('KiB', 'MiB', 'GiB')[power - 1]}"


def span(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``4 min 10 s``, ``3 h``, ``12 d``."""
    if seconds < 1:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    for length_s, unit, smaller_s, smaller in _SPANS:
        if whole >= length_s:
            units, rest = divmod(whole, length_s)
            beside = rest // smaller_s if units < _SECOND_UNIT_UP_TO else 0
            return f"{units} {unit} {beside} {smaller}" if beside else f"{units} {unit}"
    return f"{whole} s"


def stamp(at: float) -> str:
    """Local date and time of a wall clock."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def moment(at: float, now: float) -> str:
    """``2026-01-31 12:00:00 (4 min ago)``."""
    return f"{stamp(at)} ({span(now - at)} ago)"


def per_second(rate: float) -> str:
    """``0.5 a second``, ``1,250 a second``."""
    return f"{rate:.1f} a second" if rate < 10 else f"{rate:,.0f} a second"


def by_reason(counts: dict[str, int]) -> str:
    """``queue full 12, purged 3``."""
    return ", ".join(f"{reason} {number(count)}" for reason, count in sorted(counts.items()))


def printable(text: str) -> str:
    """Text that cannot steer a terminal: what was captured, or answered, is hostile input."""
    return "".join(each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in text)


def one_line(text: str, width: int) -> str:
    """The start of a text, in one line of at most ``width`` characters."""
    line = " ".join(printable(text).split())
    return line if len(line) <= width else line[: width - 3] + "..."


def field(name: str, value: str, *, indent: int = 2, column: int = 18) -> str:
    """``name   value``, the value wrapped under itself; a path or an address is never broken."""
    first = f"{' ' * indent}{name}".ljust(column)
    return _filled(value, first, " " * column)


def wrapped(sentence: str) -> str:
    """A sentence over as many lines as it needs; a path or an address is never broken."""
    return _filled(printable(sentence))


def _filled(text: str, first: str = "", rest: str = "") -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; the last one takes what is left of the line."""
    lines = [head, *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(head) - 1)]
    left = WIDTH - sum(widths) - 2 * len(widths)
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), one_line(line[-1], left)])
        for line in lines
    )
