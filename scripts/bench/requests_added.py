"""Figures 1 to 4: what logging adds to a request, by a server that is well and by one that is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench import server
from bench.measure import Spread, in_groups, joined, quantile, ratios, spread
from bench.result import Row, Size

if TYPE_CHECKING:
    from collections.abc import Iterator

REFERENCE_S: Final = 55e-6
"""The bare request of the machine on which the goals were set in microseconds: they count as multiples of it."""
REFERENCE_POST_S: Final = 71e-6
"""Its CPU for one entry of a bare POST, likewise."""
TROUBLES: Final = ("refusing", "hanging", "slow")
WITHIN_NOISE: Final = 1.15


def figures_1_to_3(size: Size) -> Iterator[Row]:
    """By a server that is well."""
    yield from rows_of(run(sys.executable, "well", size))


def figure_4(size: Size) -> Iterator[Row]:
    """The same requests by servers in trouble, each beside a server that is well, A B A B."""
    halves = Size(quick=True) if size.quick else size
    for mode in TROUBLES:
        rounds = [(run(sys.executable, "well", halves, alone=True), run(sys.executable, mode, halves, alone=True))]
        rounds.append((run(sys.executable, "well", halves, alone=True), run(sys.executable, mode, halves, alone=True)))
        well = [each for one, _ in rounds for each in one["pace"][1]]
        ill = [each for _, one in rounds for each in one["pace"][1]]
        bare = quantile(joined(rounds[0][0]["pace"][0]), 0.5)
        told = {"p50 well us": quantile(joined(well), 0.5) * 1e6, f"p50 {mode} us": quantile(joined(ill), 0.5) * 1e6}
        told |= {"p50 bare us": bare * 1e6}
        told |= {"p99 well us": quantile(joined(well), 0.99) * 1e6, f"p99 {mode} us": quantile(joined(ill), 0.99) * 1e6}
        yield Row(4, f"a logged request, server {mode} / well", ratios(ill, well), "x", WITHIN_NOISE, told=told)


def run(python: str, mode: str, size: Size, *, alone: bool = False) -> dict[str, Any]:
    """Run the program in a process of its own; ``alone``: only what needs no answer of the server."""
    program = Path(__file__).with_name("added.py")
    counts = {"slices": size.of(400, 20), "paced-requests": size.of(5000, 50), "rounds": size.of(12, 3)}
    if alone:
        counts |= {"paced-requests": size.of(500, 20), "rounds": 0}
    command = [python, str(program), *(f"--{name}={count}" for name, count in counts.items())]
    with server.running(mode) as metrics, tempfile.TemporaryDirectory() as queue:
        environment = os.environ | {"README_METRICS_SERVER": metrics.url, "README_METRICS_QUEUE_PATH": queue}
        environment["PYTHONPATH"] = str(Path(__file__).parents[1])
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, timeout=110)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def rows_of(measured: dict[str, Any], whose: str = "") -> Iterator[Row]:
    """Figures 1 to 3 of one run; the goals in microseconds as multiples of their yardsticks."""
    bare, logged = measured["pace"]
    told = latencies("full pace", bare, logged)
    yield Row(1, f"time added to a request, p50{whose}", less_one(ratios(logged, bare)), "x", 1.1, told=told)
    bare, logged = measured["paced"]
    told = latencies("paced", bare, logged)
    yield Row(2, f"time added to a request, p99{whose}", added_p99(bare, logged), "x", 200e-6 / REFERENCE_S, told=told)
    yield from cpu_rows(measured, whose)


def added_p99(bare: list[list[float]], logged: list[list[float]]) -> Spread:
    """In bare medians of the same loop: between paced requests the cores doze off, and bare ones are slower, too."""

    def added(some: list[float], plain: list[float]) -> float:
        return (quantile(some, 0.99) - quantile(plain, 0.99)) / quantile(plain, 0.5)

    groups = [added(some, plain) for some, plain in zip(in_groups(logged), in_groups(bare), strict=True)]
    return Spread(added(joined(logged), joined(bare)), quantile(groups, 0.25), quantile(groups, 0.75))


def cpu_rows(measured: dict[str, Any], whose: str) -> Iterator[Row]:
    """Figure 3: all threads, delivery included."""
    each = measured["cpu_requests"]
    bare, logged, posts = ([round_[which] / each for round_ in measured["cpu"]] for which in range(3))
    bare_s, post_s = quantile(bare, 0.5), quantile(posts, 0.5)
    added = [with_it - without for with_it, without in zip(logged, bare, strict=True)]
    above = [more - post for more, post in zip(added, posts, strict=True)]
    told = {"added us": spread(added).median * 1e6, "bare us": bare_s * 1e6, "bare post us": post_s * 1e6}
    ratio = spread(added).times(1 / bare_s)
    yield Row(3, f"CPU added to a request, all threads{whose}", ratio, "x", 170e-6 / REFERENCE_S, told=told)
    told = {"above us": spread(above).median * 1e6, "bare post us": post_s * 1e6}
    ratio = spread(above).times(1 / post_s)
    yield Row(3, f"of that, above bare POSTs{whose}", ratio, "x", 100e-6 / REFERENCE_POST_S, told=told)


def latencies(how: str, bare: list[list[float]], logged: list[list[float]]) -> dict[str, float]:
    """In microseconds."""
    return {
        f"{whose} {name} us, {how}": quantile(joined(slices), share) * 1e6
        for whose, slices in (("bare", bare), ("logged", logged))
        for name, share in (("p50", 0.5), ("p99", 0.99))
    }


def less_one(ratio: Spread) -> Spread:
    """What is added, from what it becomes."""
    return Spread(ratio.median - 1, ratio.low - 1, ratio.high - 1)
