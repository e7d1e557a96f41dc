"""The scripts say what is missing and how to mend it, and the demo knows when something was lost."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from importlib.metadata import requires
from pathlib import Path

import pytest
from demo_result import Result

from readme_metrics.queue.contract import Books

ROOT = Path(__file__).parent.parent
Bash = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="the scripts are written for bash")


@pytest.fixture
def bash(tmp_path: Path) -> Bash:
    """Runs a line with the scripts' functions at hand, on a machine with no programs but those it is given."""

    def run(line: str, programs: dict[str, str], path: str = "") -> subprocess.CompletedProcess[str]:
        for name, body in programs.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
            (tmp_path / name).chmod(0o755)
        script = f'source scripts/_venv.sh; source scripts/_steps.sh; PATH="{tmp_path}{path}"; {line}'
        command = ["/bin/bash", "-euo", "pipefail", "-c", script]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)

    return run


TOO_OLD = 'if [ "$1" = --version ]; then echo Python 3.9.2; else exit 1; fi'


def test_a_python_that_is_too_old_is_named_with_the_fix(bash: Bash) -> None:
    done = bash("find_python", {"python3": TOO_OLD})
    assert done.returncode == 1
    assert "Python 3.10 or later is needed; found: Python 3.9.2" in done.stderr
    assert "apt install python3" in done.stderr


def test_a_newer_python_beside_one_that_is_too_old_is_taken(bash: Bash) -> None:
    done = bash("find_python", {"python3": TOO_OLD, "python3.13": "exit 127", "python3.12": "exit 0"})
    assert done.stdout == "python3.12\n"


def test_a_python_without_venv_is_named_with_the_fix(bash: Bash, tmp_path: Path) -> None:
    done = bash(f"make_venv '{tmp_path}/venv' python3", {"python3": TOO_OLD}, path=":/usr/bin:/bin")
    assert done.returncode == 1
    assert "python3 has no venv or no pip" in done.stderr
    assert "apt install python3-venv python3-pip" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_pip_is_silent_unless_it_fails(bash: Bash) -> None:
    words = {"pip": "echo noise; exit $1"}
    done = bash("quietly pip 0; echo between; quietly pip 3", words, path=":/usr/bin:/bin")
    assert (done.returncode, done.stdout, done.stderr) == (3, "between\n", "noise\n")


def test_a_step_that_fails_is_named_and_the_others_still_run(bash: Bash) -> None:
    done = bash("step lint exit_with 1; step tests exit_with 0; sum_up", {"exit_with": "exit $1"})
    assert done.returncode == 1
    assert "FAILED  lint" in done.stdout
    assert "ok      tests" in done.stdout


def test_steps_that_all_go_well_end_well(bash: Bash) -> None:
    done = bash("step lint exit_with 0; sum_up", {"exit_with": "exit $1"})
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "All is well.")


def test_every_dependency_has_a_lowest_version_to_be_tested_with() -> None:
    command = [sys.executable, "scripts/lowest_versions.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=True)
    constraints = done.stdout.splitlines()
    assert len(constraints) == len(requires("readme-metrics") or ())
    assert all("==" in constraint for constraint in constraints)


def result(*, answered: str, received: str, accepted: int, delivered: int, leaks: int = 0) -> Result:
    return Result(
        sent=4,
        answered=list(answered),
        books=Books(accepted=accepted, delivered=delivered, dead=0, dropped={}, waiting=0),
        times_received=Counter(received),
        leaks=leaks,
        sample=None,
    )


def test_the_demo_is_content_when_every_entry_arrived() -> None:
    it = result(answered="abc", received="abcd", accepted=4, delivered=4)
    assert (it.lost, it.twice, it.well) == (0, 0, True)
    assert "1 cut off by kill -9" in it.told(took_s=3)


def test_the_demo_fails_when_an_answered_request_never_arrived() -> None:
    it = result(answered="abcd", received="abc", accepted=3, delivered=3)
    assert (it.lost, it.missing, it.well) == (1, ["d"], False)
    assert "missing: d" in it.told(took_s=3)


def test_the_demo_fails_when_a_captured_entry_never_arrived() -> None:
    it = result(answered="abc", received="abc", accepted=4, delivered=4)
    assert (it.lost, it.missing, it.well) == (1, [], False)


def test_the_demo_counts_entries_that_came_twice() -> None:
    it = result(answered="ab", received="abbb", accepted=2, delivered=2)
    assert (it.twice, it.lost, it.well) == (1, 0, True)


def test_the_demo_fails_when_the_password_was_seen() -> None:
    assert not result(answered="a", received="a", accepted=1, delivered=1, leaks=1).well


def test_the_demo_fails_when_the_books_do_not_balance() -> None:
    it = result(answered="ab", received="ab", accepted=2, delivered=1)
    assert not it.well
    assert "the books do not balance" in it.told(took_s=3)
