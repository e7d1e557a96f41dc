"""One row of the table: what was measured, against which goal, and what else there is to say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.measure import Spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass(frozen=True, slots=True)
class Row:
    """``value`` is what is compared with ``goal``."""

    figure: int
    what: str
    value: Spread
    unit: str
    """``x`` (times the yardstick), ``ms``, ``MiB`` or empty for a count."""
    goal: float
    at_least: bool = False
    """The goal is a lower bound."""
    judged: bool = True
    """False for what is only shown beside ours."""
    told: dict[str, float] = field(default_factory=dict)
    """What only describes: the absolute times of this machine. Units are part of the names."""

    @property
    def met(self) -> bool:
        """Whether the goal is."""
        return self.value.median >= self.goal if self.at_least else self.value.median <= self.goal

    def as_dict(self) -> dict[str, Any]:
        """As ``--json`` shows it."""
        return {
            "figure": self.figure,
            "what": self.what,
            "value": self.value.median,
            "quartiles": [self.value.low, self.value.high],
            "unit": self.unit,
            "goal": self.goal,
            "goal_is": "at least" if self.at_least else "at most",
            "met": self.met if self.judged else None,
            "told": self.told,
        }


def exactly(value: float) -> Spread:
    """A value that was measured once."""
    return Spread(value, value, value)


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured: all of it, or just enough to see that it works."""

    quick: bool

    def of(self, full: int, quick: int) -> int:
        """One of the two."""
        return quick if self.quick else full


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures that are measured together."""

    numbers: frozenset[int]
    what: str
    measure: Callable[[Size], Iterable[Row]]
