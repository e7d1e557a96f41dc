"""The benchmark runs, judges by its goals and draws its table; how fast anything is, is none of a test's business."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any, Final

import pytest
from bench.measure import Spread, ratios
from bench.result import Row, exactly
from bench.table import WIDTH, line, table_of

from tests.commanding import wait_until
from tests.metrics_server import MetricsServer

ROOT = Path(__file__).parent.parent


ASK: Final = """
import sys
from bench import least, web
app = least.least_app() if sys.argv[1] == "least" else web.Sdk().app
for _ in range(web.BATCH):
    web.ask(app)
sys.stdin.read()
"""


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


def first_entry(which: str, server: MetricsServer, directory: Path) -> Any:
    """Of ten that the least log, or ours, made of the request that is measured."""
    directory.mkdir(mode=0o700)
    environment = os.environ | {
        "README_METRICS_SERVER": server.url,
        "README_METRICS_QUEUE_PATH": str(directory),
        "PYTHONPATH": f"{ROOT / 'scripts'}{os.pathsep}{ROOT}",
    }
    with subprocess.Popen([sys.executable, "-c", ASK, which], env=environment, stdin=subprocess.PIPE) as process:
        try:
            wait_until(lambda: bool(server.taken_ids))
        finally:
            process.communicate(timeout=30)
    return server.posts[0].entries[0]


def values_by_path(value: Any, path: str = "") -> dict[str, Any]:
    """Each value under the names that lead to it."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    below = [values_by_path(part, f"{path}/{name}") for name, part in items]
    return dict(chain.from_iterable(each.items() for each in below)) or {path: value}


def test_the_least_log_says_of_the_request_that_is_measured_all_that_ours_says(tmp_path: Path) -> None:
    said = []
    for which in ("least", "logged"):
        with MetricsServer() as server:
            said.append(values_by_path(first_entry(which, server, tmp_path / which)))
    differ = {path.rpartition("/")[2] for path in said[0] if said[0][path] != said[1].get(path)}
    assert said[0].keys() == said[1].keys()
    assert {"_id", "comment", "startedDateTime", "time", "wait", "value"} >= differ


def test_a_figure_that_does_not_exist_is_refused() -> None:
    command = [sys.executable, "scripts/benchmark.py", "--only", "13"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert 2 == done.returncode
    assert "--only" in done.stderr
