"""Numbers from many short slices. Standard library only: the rival's environment runs this too."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Spread(NamedTuple):
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float

    def times(self, factor: float) -> Spread:
        """In another unit."""
        return Spread(self.median * factor, self.low * factor, self.high * factor)


def quantile(values: Sequence[float], share: float) -> float:
    """The value that so great a share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles."""
    return Spread(quantile(values, 0.5), quantile(values, 0.25), quantile(values, 0.75))


def overall(slices: Sequence[Sequence[float]], share: float) -> Spread:
    """The quantile of all; the spread is that between longer slices."""
    groups = [quantile(group, share) for group in in_groups(slices)]
    return Spread(quantile(joined(slices), share), quantile(groups, 0.25), quantile(groups, 0.75))


def ratios(these: Sequence[Sequence[float]], those: Sequence[Sequence[float]], share: float = 0.5) -> Spread:
    """How many times the quantile of those these have; the spread is that between pairs of slices."""
    pairs = [
        quantile(one, share) / quantile(other, share)
        for one, other in zip(in_groups(these), in_groups(those), strict=True)
    ]
    overall = quantile(joined(these), share) / quantile(joined(those), share)
    return Spread(overall, quantile(pairs, 0.25), quantile(pairs, 0.75))


def joined(slices: Sequence[Sequence[float]]) -> list[float]:
    """All values of all slices."""
    return [value for values in slices for value in values]


def in_groups(slices: Sequence[Sequence[float]], groups: int = 10) -> list[list[float]]:
    """Fewer and longer slices, so that a quantile of each means something."""
    size = max(1, len(slices) // groups)
    return [joined(slices[start : start + size]) for start in range(0, size * (len(slices) // size), size)]


def timed(action: Callable[[], object], *, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds that one call takes."""
    began = clock()
    action()
    return clock() - began


def take_turns(actions: Sequence[Callable[[], object]], *, slices: int, per_slice: int) -> list[list[list[float]]]:
    """Time each action in turn, ``per_slice`` calls at a time: for each action its slices of seconds."""
    taken: list[list[list[float]]] = [[] for _ in actions]
    for _ in range(slices):
        for mine, action in zip(taken, actions, strict=True):
            mine.append([timed(action) for _ in range(per_slice)])
    return taken
