"""A bare app and a logged one take turns in one process: what logging adds to a request, in time and in CPU.

A program, started in whatever environment has the SDK to be measured, ours or the official one: the names and options
are the same. Standard library, Flask, requests and the SDK only. Prints what it measured as JSON, seconds.

Three ways, because each shows what the others can't:

- at full pace, in slices of one batch; the batch is delivered between the slices. What a request costs by itself.
- paced, one request every 2 ms, delivery falling where it falls. What a request meets in a process that also delivers.
- CPU of all threads for hundreds of requests until all is delivered; beside it that of bare POSTs of the same batches.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from typing import TYPE_CHECKING, Any, Final

import requests

from bench.measure import timed
from bench.web import BATCH, Sdk, ask, new_app

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask

PACE_S: Final = 0.002
WARM_UP: Final = 300
CPU_REQUESTS: Final = 400


def at_full_pace(bare: Flask, logged: Flask, settle: Callable[[], object], slices: int) -> list[list[list[float]]]:
    """Seconds of each request, in slices: bare, logged."""
    taken: list[list[list[float]]] = [[], []]
    for _ in range(slices):
        taken[0].append([timed(lambda: ask(bare)) for _ in range(BATCH)])
        taken[1].append([timed(lambda: ask(logged)) for _ in range(BATCH)])
        settle()
    return taken


def paced(bare: Flask, logged: Flask, requests_each: int) -> list[list[list[float]]]:
    """Seconds of each request, in slices: bare, logged."""

    def turn(app: Flask) -> list[float]:
        time.sleep(PACE_S)
        return [timed(lambda: ask(app))]

    taken: list[list[list[float]]] = [[], []]
    for _ in range(requests_each):
        taken[0].append(turn(bare))
        taken[1].append(turn(logged))
    return taken


def cpu(actions: list[Callable[[], None]], rounds: int) -> list[list[float]]:
    """CPU seconds of each action, all threads of this process, once a round."""
    return [[timed(action, clock=time.process_time) for action in actions] for _ in range(rounds)]


def measured(sdk: Sdk, server: str, *, slices: int, paced_requests: int, rounds: int) -> dict[str, Any]:
    """All of it; without rounds there is nothing to wait for: the server does not answer."""
    bare, logged = new_app(), sdk.app
    settle = sdk.settle if rounds else nothing
    if not rounds:
        logging.getLogger("readme_metrics").setLevel(logging.CRITICAL)  # that delivery stops is what is wanted
    for _ in range(WARM_UP):
        ask(bare)
        ask(logged)
    settle()
    result: dict[str, Any] = {
        "pace": at_full_pace(bare, logged, settle, slices),
        "paced": paced(bare, logged, paced_requests),
    }
    settle()
    result["cpu"] = cpu([lambda: asked(bare), lambda: asked(logged, settle), poster(server)], rounds)
    result["cpu_requests"] = CPU_REQUESTS
    return result


def nothing() -> None:
    """Wait for nothing."""


def asked(app: Flask, settle: Callable[[], object] = nothing) -> None:
    """Many requests, and all that they cause."""
    for _ in range(CPU_REQUESTS):
        ask(app)
    settle()


def poster(server: str) -> Callable[[], None]:
    """Bare POSTs of as many entries, from memory, by one kept-alive session."""
    entry = json.dumps({"_id": "0" * 36, "request": "x" * 2600}).encode()
    body = b"[" + b",".join([entry] * BATCH) + b"]"
    session = requests.Session()
    headers = {"Content-Type": "application/json"}

    def post() -> None:
        for _ in range(CPU_REQUESTS // BATCH):
            session.post(f"{server}/v1/request", data=body, headers=headers, auth=("key", ""), timeout=10)

    return post


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    for option in ("--slices", "--paced-requests", "--rounds"):
        parser.add_argument(option, type=int, required=True)
    counts = vars(parser.parse_args())
    print(json.dumps(measured(Sdk(), os.environ["README_METRICS_SERVER"], **counts)), flush=True)
    os._exit(0)  # a server that hangs need not be waited for


if __name__ == "__main__":
    main()
