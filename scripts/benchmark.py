#!/usr/bin/env python3
"""Measures every goal of speed and durability beside its yardstick, A B A B, and prints one table.

scripts/benchmark.py                   all twelve figures, about six minutes
scripts/benchmark.py --only 1,5        some of them
scripts/benchmark.py --quick           see that everything works, in a minute; its numbers mean little
scripts/benchmark.py --rival           figures 1 to 3 and 7 of the official readme-metrics 3.4.0, too
scripts/benchmark.py --json FILE       the same, for machines

Ratios to the yardstick in the same run count; absolute times only describe the machine. This is no test: a busy machine
misses goals that a quiet one meets. Nothing is left behind but the environments it installs itself into.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if importlib.util.find_spec("readme_metrics") is None:  # a fresh clone: go on in the environment of the other scripts
    script = 'source scripts/_venv.sh; make_venv "$root/.venv" "$(find_python)"; '
    os.chdir(ROOT)
    os.execvp("bash", ["bash", "-euo", "pipefail", "-c", script + 'exec .venv/bin/python "$0" "$@"', *sys.argv])
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "scripts"), str(ROOT)])

from bench import crowd, drains, kills, outage, puts, requests_added, rival, served  # noqa: E402 - found only now
from bench.result import Figures, Row, Size  # noqa: E402
from bench.table import line, table_of, telling  # noqa: E402

ALL = (
    Figures(frozenset({1, 2, 3}), "what logging adds to a request", requests_added.figures_1_to_3),
    Figures(frozenset({4}), "the same while the server is in trouble", requests_added.figure_4),
    Figures(frozenset({5}), "one put", puts.figure_5),
    Figures(frozenset({6}), "puts of four processes", crowd.figure_6),
    Figures(frozenset({7}), "requests a second under gunicorn", served.figure_7),
    Figures(frozenset({8}), "draining a backlog", drains.figure_8),
    Figures(frozenset({9}), "a million entries waiting", puts.figure_9),
    Figures(frozenset({10}), "memory while the server is down", outage.figure_10),
    Figures(frozenset({11}), "the file after a backlog is gone", puts.figure_11),
    Figures(frozenset({12}), "random kills under load", kills.figure_12),
)


def numbers(text: str) -> frozenset[int]:
    """``1,5`` of the command line."""
    wanted = frozenset(int(part) for part in text.split(","))
    if not wanted <= {number for each in ALL for number in each.numbers}:
        raise ValueError
    return wanted


def chosen(only: frozenset[int] | None) -> list[Figures]:
    """All, or those that have one of the numbers."""
    return [each for each in ALL if only is None or each.numbers & only]


def measured(figures: list[Figures], size: Size, only: frozenset[int] | None) -> list[Row]:
    """One after the other, telling of the progress on stderr."""
    rows = []
    for figure in figures:
        tell(f"{'/'.join(map(str, sorted(figure.numbers)))}: {figure.what} ...")
        began = time.monotonic()
        for row in figure.measure(size):
            if only is None or row.figure in only:
                rows.append(row)
                tell(f"{line(row)}\n      {telling(row)}")
        tell(f"      took {time.monotonic() - began:.0f} s")
    return rows


def tell(text: str) -> None:
    """Where a table may be piped elsewhere."""
    print(text, file=sys.stderr, flush=True)


def machine() -> str:
    """What the figures were measured on."""
    return f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", type=numbers, metavar="N[,N]", help="only these figures, 1 to 12")
    parser.add_argument("--quick", action="store_true", help="just enough to see that it works")
    parser.add_argument("--rival", action="store_true", help="also the official SDK, figures 1 to 3 and 7")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, too")
    options = parser.parse_args()
    size = Size(quick=options.quick)
    rows = measured(chosen(options.only), size, options.only)
    if options.rival:
        official = Figures(frozenset({1, 2, 3, 7}), rival.RIVAL, lambda size: rival.figures(size, ROOT / ".venv-rival"))
        rows += measured([official], size, options.only)
    print(f"{machine()}\n{table_of(rows)}")
    if options.json:
        told = {"machine": machine(), "quick": size.quick, "rows": [row.as_dict() for row in rows]}
        options.json.write_text(json.dumps(told, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
