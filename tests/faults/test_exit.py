"""Exit: every way in which a program leaves, with the server well and with the server hanging."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.faults import script
from tests.faults.bench import full_only
from tests.faults.processes import ROOT
from tests.metrics_server import after, answer, hang_after_reading

if TYPE_CHECKING:
    from tests.faults.bench import Bench

SHUTDOWN_S = 1.0
TEARDOWN_S = 1.0
"""What an interpreter on a busy machine takes for itself."""
COUNT = 15
QUICK = {"at_the_end", "with_a_daemon_thread_in_the_middle", "logging_at_exit", "without_threads", "with_children"}
NAMES = [way.__name__ for way in script.WAYS]
CUT_SHORT = {"by_os_exit", "as_a_daemon", "forked_in_the_middle_of_a_drain", "with_a_daemon_thread_in_the_middle"}
"""They may leave with a batch in flight."""
LOGGING_AFTER_THE_LAST_FLUSH = {"by_os_exit", "logging_at_exit", "with_a_daemon_thread_in_the_middle"}


def run(bench: Bench, how: str, *, timeout_s: float = 2.0) -> tuple[list[str], float]:
    """The ids that were answered, and how long the last of its processes took to leave."""
    with bench.log.open("ab") as log:
        program = subprocess.run(
            [sys.executable, "-m", "tests.faults.script", how, str(COUNT)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=ROOT,
            env=bench.environment(shutdown_timeout=SHUTDOWN_S, timeout=timeout_s, flush_interval=0.05),
            timeout=50,
            check=False,
        )  # ends when every process that holds the pipe has
    ended = time.monotonic()
    words = [line.split() for line in program.stdout.decode().splitlines()]
    left = max(float(moment) for _, moment in (each for each in words if len(each) == 2))
    return [each[0] for each in words if len(each) == 1], ended - left


@pytest.mark.parametrize("how", [name if name in QUICK else pytest.param(name, marks=full_only) for name in NAMES])
def test_a_program_that_leaves_loses_nothing_and_leaves_in_time_though_the_server_hangs(bench: Bench, how: str) -> None:
    bench.server.behave(hang_after_reading)
    ids, took_s = run(bench, how, timeout_s=20.0)
    bench.server.behave(answer())
    status, words = bench.flushed("--force")

    assert 0 == status, words
    assert took_s < SHUTDOWN_S + TEARDOWN_S
    bench.answered.extend(ids)
    bench.judge(f"exit {how.replace('_', ' ')}, the server hangs")


@pytest.mark.parametrize("how", NAMES)
def test_a_program_that_leaves_has_sent_everything_if_the_server_is_well(bench: Bench, how: str) -> None:
    if how == "forked_in_the_middle_of_a_drain":
        bench.server.script(after(0.3, answer()))
    with bench.interrupted() if how in CUT_SHORT else contextlib.nullcontext():
        ids, _ = run(bench, how)
    if how in LOGGING_AFTER_THE_LAST_FLUSH:
        assert 0 == bench.flushed()[0]

    bench.answered.extend(ids)
    bench.judge(f"exit {how.replace('_', ' ')}")
