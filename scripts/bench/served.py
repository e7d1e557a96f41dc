"""Figure 7: requests a second under gunicorn, a bare app and a logged one in turn, on the same cores as their load.

Beside ours also ``least``: a durable log written straight through, which tells how near to the goal one can come here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench import load, server
from bench.measure import Spread, quantile, ratios, spread
from bench.result import Row, Size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.server import RunningServer

ARRANGEMENTS: Final = {
    "2 sync workers": ("--workers=2",),
    "1 worker, 8 threads": ("--worker-class=gthread", "--threads=8", "--workers=1"),
}
STARTS_WITHIN_S: Final = 30.0
QUIET_S: Final = 0.2
MOST_WAIT_S: Final = 5.0


def figure_7(size: Size, python: str = sys.executable, whose: str = "") -> Iterator[Row]:
    """Rate and p99 of both arrangements; ``python``: of the environment that has the SDK."""
    apps = ("bare", "logged") if whose else ("bare", "logged", "least")
    for name, options in ARRANGEMENTS.items():
        with tempfile.TemporaryDirectory() as directory, server.running() as metrics, contextlib.ExitStack() as ending:
            environment = os.environ | {
                "README_METRICS_SERVER": metrics.url,
                "README_METRICS_QUEUE_PATH": directory,
                "PYTHONPATH": str(Path(__file__).parents[1]),
            }
            ports = [
                ending.enter_context(gunicorn(python, environment | {"BENCHMARK_APP": app}, *options)) for app in apps
            ]
            slices = in_turn(ports, metrics, rounds=size.of(7, 2), seconds=size.of(2, 1))
        yield from rows_of(name, slices[:2], whose)
        for least in slices[2:]:
            for row in rows_of(name, [slices[0], least], " (least)"):
                yield dataclasses.replace(row, judged=False)


def rows_of(name: str, slices: list[list[list[float]]], whose: str) -> Iterator[Row]:
    """Rate and p99."""
    rates = [len(logged) / len(bare) for bare, logged in zip(*slices, strict=True)]
    totals = [sum(map(len, each)) for each in slices]
    rate = Spread(totals[1] / totals[0], spread(rates).low, spread(rates).high)
    told = {"bare answers": float(totals[0]), "answers": float(totals[1])}
    yield Row(7, f"{name}: requests/s{whose}", rate, "x", 0.75, at_least=True, told=told)
    told = {
        f"{kind} {share} ms": quantile([value for each in part for value in each], number) * 1e3
        for kind, part in zip(("bare", "logged"), slices, strict=True)
        for share, number in (("p50", 0.5), ("p99", 0.99))
    }
    yield Row(7, f"{name}: p99{whose}", ratios(slices[1], slices[0], 0.99), "x", 1.5, told=told)


def in_turn(ports: list[int], metrics: RunningServer, *, rounds: int, seconds: int) -> list[list[list[float]]]:
    """Seconds of each answer, in slices, by port. What a slice leaves to be delivered is waited for."""
    slices: list[list[list[float]]] = [[] for _ in ports]
    for port in ports:
        loaded(port, 1)
    settle(metrics)
    for _ in range(rounds):
        for taken, port in zip(slices, ports, strict=True):
            taken.append(loaded(port, seconds))
            settle(metrics)
    return slices


def loaded(port: int, seconds: int) -> list[float]:
    """By a generator in a process of its own."""
    command = [sys.executable, load.__file__, str(port), str(seconds)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=seconds + 20)
    taken: list[float] = json.loads(done.stdout)
    return taken


def settle(metrics: RunningServer) -> None:
    """Wait until nothing arrives any more."""
    gives_up_at = time.monotonic() + MOST_WAIT_S
    count = -1
    while count != (count := metrics.count()) and time.monotonic() < gives_up_at:
        time.sleep(QUIET_S)


@contextlib.contextmanager
def gunicorn(python: str, environment: dict[str, str], *options: str) -> Iterator[int]:
    """Its port; it has answered once."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    command = [python, "-m", "gunicorn", "bench.web:wsgi()", f"--bind=127.0.0.1:{port}", "--log-level=warning"]
    elsewhere = Path(__file__).parents[1]  # gunicorn imports from where it is: not our SDK in place of the rival's
    process = subprocess.Popen([*command, *options], env=environment, cwd=elsewhere, stdin=subprocess.DEVNULL)
    try:
        wait_for(port, process)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(port: int, process: subprocess.Popen[Any]) -> None:
    """Return when it answers."""
    gives_up_at = time.monotonic() + STARTS_WITHIN_S
    while not answers(port):
        if process.poll() is not None or time.monotonic() > gives_up_at:
            raise ConnectionError("gunicorn does not answer")
        time.sleep(0.05)


def answers(port: int) -> bool:
    """Whether it does."""
    try:
        load.ask(port)
    except OSError:
        return False
    return True
