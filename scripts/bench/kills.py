"""Figure 12: ``kill -9`` at random instants under load, judged by the oracle of the fault tests."""

from __future__ import annotations

import contextlib
import json
import os
import random
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.result import Row, Size, exactly
from tests.faults import oracle
from tests.faults.app import KEY
from tests.faults.client import Clients
from tests.faults.oracle import Interruption
from tests.faults.processes import ROOT, AppServer, gunicorn, poll
from tests.metrics_server import MetricsServer

if TYPE_CHECKING:
    from collections.abc import Iterator

OPTIONS: Final = {"buffer_length": 10, "flush_interval": 0.2, "timeout": 2}
MOST_ANSWERS_BETWEEN: Final = 60
SERVER_LAG_S: Final = 1.0
"""A batch that was on its way when its sender died may be read so much later."""
LOAD_S: Final = 100.0
"""However slow the machine: fewer kills then, and the row says how many."""


def figure_12(size: Size) -> Iterator[Row]:
    """Answers that came whole and whose entry never arrived; repeats that no kill explains."""
    with tempfile.TemporaryDirectory() as name, MetricsServer() as metrics, contextlib.ExitStack() as ending:
        directory = Path(name)
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "README_METRICS_SERVER": metrics.url,
            "README_METRICS_QUEUE_PATH": str(directory / "queue"),
            "README_API_KEY": KEY,
            "FAULTS_OPTIONS": json.dumps(OPTIONS),
        }
        app = AppServer(gunicorn("--workers=4"), environment, directory / "log")
        ending.callback(app.end)
        with Clients(app.start().port) as clients:
            kills = kill_at_random(app, clients, size.of(200, 4))
            clients.wait_for(20)
        queue = directory / "queue"
        poll(lambda: oracle.books(queue).waiting == 0, 60, "an empty queue")
        app.end()
        path = oracle.queue_file(queue)
        found, _ = oracle.examine("benchmark", answered=clients.ids, posts=metrics.posts, path=path, runs=len(kills))
        repeats = oracle.unexplained_repeats(oracle.taken_at(metrics.posts), kills)
    told = {"kills": float(len(kills)), "answered": float(found.answered), "delivered": float(found.delivered)}
    yield Row(12, "lost over 200 random kill -9", exactly(found.lost), "", 0, told=told)
    told = {"repeated": float(found.repeated)}
    yield Row(12, "repeats that no kill explains", exactly(len(repeats)), "", 0, told=told)


def kill_at_random(app: AppServer, clients: Clients, count: int) -> list[Interruption]:
    """Workers, and now and then the master."""
    chance = random.Random()
    kills: list[Interruption] = []
    gives_up_at = time.monotonic() + LOAD_S
    while len(kills) < count and time.monotonic() < gives_up_at:
        clients.wait_for(chance.randrange(1, MOST_ANSWERS_BETWEEN))
        began = time.monotonic()
        if chance.random() < 0.05:
            app.end()
            app.start()
        else:
            poll(lambda: bool(app.workers()), 20, "a worker")
            app.kill(chance.choice(app.workers()))
        kills.append(Interruption(began, time.monotonic() + SERVER_LAG_S))
    return kills
