"""Crash: ``kill -9`` of any process, at random instants and at each step of the drain."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.faults.bench import Bench, size
from tests.faults.client import KINDS, ask
from tests.faults.fault_points import BY_THE_SERVER, STEPS, WITH_THE_LAST_BYTE
from tests.faults.processes import AppServer, gunicorn, poll

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.client import Clients
    from tests.metrics_server import Call

SERVERS = {
    "sync": gunicorn(),
    "gthread": gunicorn("--worker-class=gthread", "--threads=4"),
    "gevent": gunicorn("--worker-class=gevent"),
    "preload": gunicorn("--preload"),
}


class Killer:
    """Kills somebody, after a random number of further answers."""

    def __init__(self, bench: Bench, app: AppServer, clients: Clients, chance: random.Random) -> None:
        self._bench = bench
        self._app = app
        self._clients = clients
        self._chance = chance

    def kill_somebody(self) -> None:
        self._clients.wait_for(self._chance.randrange(1, 60))
        with self._bench.interrupted():
            self._chance.choice([self._worker, self._worker, self._drainer, self._drainer, self._master, self._flush])()

    def _worker(self) -> None:
        poll(lambda: bool(self._app.workers()), 20, "a worker")
        self._app.kill(self._chance.choice(self._app.workers()))

    def _drainer(self) -> None:
        drainer = self._bench.wait_for_a_drainer()
        if drainer == self._app.pid:
            self._master()
        else:
            self._app.kill(drainer)

    def _master(self) -> None:
        """Under --preload it may be the drainer; its workers leave without it."""
        self._app.kill(self._app.pid)
        self._app.end()
        self._app.start()

    def _flush(self) -> None:
        flush = self._bench.flush()
        self._clients.wait_for(self._chance.randrange(1, 100))
        flush.kill()
        flush.communicate()


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("name", "quick", "full"),
    [("sync", 8, 70), ("gthread", 0, 50), ("gevent", 0, 40), ("preload", 0, 40)],
)
def test_nothing_is_lost_by_killing_anybody_at_random_instants_under_load(
    bench: Bench, name: str, quick: int, full: int
) -> None:
    kills = size(quick, full)
    if not kills:
        pytest.skip("at full size only: scripts/faults")
    app = bench.app(SERVERS[name]).start()
    with bench.clients(app) as clients:
        killer = Killer(bench, app, clients, random.Random())
        for _ in range(kills):
            killer.kill_somebody()
        clients.wait_for(20)
    bench.wait_until_empty()
    app.stop()

    bench.judge(f"random kills under load, gunicorn {name}", runs=kills)


@pytest.mark.timeout(600)
def test_nothing_is_lost_by_a_death_at_any_step_of_the_drain(bench: Bench) -> None:
    app = bench.app(gunicorn()).start()
    steps = STEPS * size(1, 6)
    with bench.clients(app, threads=2) as clients:
        for step in steps:
            with bench.interrupted():
                die_at(bench, app, step)
            clients.wait_for(20)
    bench.wait_until_empty()
    app.stop()

    bench.judge(f"a death at each of {len(STEPS)} steps of the drain", runs=len(steps))


@pytest.mark.parametrize(("method", "path", "body"), [KINDS[0], KINDS[1], KINDS[3]])
def test_an_answer_that_came_whole_is_kept_though_its_process_died_with_the_last_byte(
    bench: Bench, method: str, path: str, body: bytes
) -> None:
    app = bench.app(gunicorn("--workers=1"), auto_flush=False).start()
    (bench.points / WITH_THE_LAST_BYTE).touch()
    answered = ask(app.port, method, path, body)
    poll(lambda: not (bench.points / WITH_THE_LAST_BYTE).exists(), 10, "its death")
    app.end()

    assert answered is not None
    assert 0 == bench.flushed()[0]
    bench.answered.append(str(answered.entry_id))
    bench.judge(f"a death with the last byte of {path.partition('?')[0]}")


def die_at(bench: Bench, app: AppServer, step: str) -> None:
    """Return when somebody has died there."""
    drainer = bench.wait_for_a_drainer()
    if step == BY_THE_SERVER:
        bench.server.script(kill_when_read(app, drainer))
    else:
        (bench.points / step).touch()
        poll(lambda: not (bench.points / step).exists(), 20, f"somebody at the step: {step}")
    poll(lambda: bench.drainer() not in {None, drainer}, 20, "another drainer")


def kill_when_read(app: AppServer, drainer: int) -> Callable[[Call], None]:
    def behave(call: Call) -> None:
        call.read()
        app.kill(drainer)
        call.answer()

    return behave
