"""The benchmark runs, judges by its goals and draws its table; how fast anything is, is none of a test's business."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bench.measure import Spread, ratios
from bench.result import Row, exactly
from bench.table import WIDTH, line, table_of

ROOT = Path(__file__).parent.parent


def a_row(value: float, *, at_least: bool = False, judged: bool = True) -> Row:
    return Row(7, "what is measured", Spread(value, value / 2, value * 2), "x", 2.0, at_least, judged=judged)


@pytest.mark.parametrize(
    ("value", "at_least", "met"), [(1.9, False, True), (2.1, False, False), (1.9, True, False), (2.1, True, True)]
)
def test_a_goal_is_met_on_its_own_side_of_the_limit(value: float, *, at_least: bool, met: bool) -> None:
    assert a_row(value, at_least=at_least).met is met
    assert ("ok" if met else "NOT") == line(a_row(value, at_least=at_least)).split()[-1]


@pytest.mark.parametrize("value", [0.0, 0.001, 1.0, 2.0, 123.4, 54321.0])
def test_the_table_fits_its_width_whatever_was_measured(value: float) -> None:
    assert WIDTH >= max(map(len, table_of([a_row(value)]).splitlines()))


def test_the_bar_of_a_limit_crosses_its_mark_only_when_the_limit_is_passed() -> None:
    assert "|" in line(a_row(1.9))
    assert "+" in line(a_row(3.0))


def test_a_rival_is_shown_and_not_judged() -> None:
    assert "1 of 1 goals met" in table_of([a_row(1.0), a_row(3.0, judged=False)])


def test_nothing_lost_is_a_goal_that_a_single_loss_misses() -> None:
    assert Row(12, "lost", exactly(0), "", 0).met
    assert not Row(12, "lost", exactly(1), "", 0).met


def test_a_ratio_is_that_of_the_medians_and_its_spread_that_between_slices() -> None:
    assert Spread(2.0, 2.0, 2.0) == ratios([[2.0, 2.0]] * 10, [[1.0, 1.0]] * 10)


def test_the_benchmark_measures_prints_and_writes_what_is_asked_for(tmp_path: Path) -> None:
    command = [sys.executable, "scripts/benchmark.py", "--quick", "--only", "1,5,11", "--json", str(tmp_path / "rows")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert 0 == done.returncode, done.stderr
    rows = json.loads((tmp_path / "rows").read_text())["rows"]
    assert [1, 5, 11] == [row["figure"] for row in rows]
    assert all(row["value"] > 0 for row in rows)
    assert "of 3 goals met" in done.stdout


def test_a_figure_that_does_not_exist_is_refused() -> None:
    command = [sys.executable, "scripts/benchmark.py", "--only", "13"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert 2 == done.returncode
    assert "--only" in done.stderr
