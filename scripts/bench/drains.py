"""Figure 8: how fast a backlog leaves, beside the same POSTs by a bare ``requests`` session from memory."""

from __future__ import annotations

import tempfile
import threading
from typing import TYPE_CHECKING, Final

import requests

from bench import server
from bench.measure import Spread, quantile, spread, timed
from bench.puts import ENTRY, a_queue
from bench.result import Row, Size
from readme_metrics.delivery import Delivery
from readme_metrics.drain import Drain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BACKLOG: Final = 2_000
LENGTHS: Final = (10, 100)


def figure_8(size: Size) -> Iterator[Row]:
    """Entries a second, for both lengths of a batch."""
    backlog = size.of(BACKLOG, 200)
    with server.running() as metrics:
        for length in LENGTHS:
            rounds = list(measured(metrics.url, backlog, length, rounds=size.of(16, 3)))
            each = spread([posts_s / drain_s for drain_s, posts_s in rounds])
            ours, theirs = (quantile([round_[which] for round_ in rounds], 0.5) for which in range(2))
            told = {"entries/s": backlog / ours, "entries/s of bare POSTs": backlog / theirs}
            ratio = Spread(theirs / ours, each.low, each.high)
            yield Row(8, f"drain, batches of {length} / bare POSTs", ratio, "x", 0.8, at_least=True, told=told)


def measured(url: str, backlog: int, length: int, *, rounds: int) -> Iterator[tuple[float, float]]:
    """Seconds of a drain and of the bare POSTs, in turn."""
    stop = threading.Event()
    delivery = Delivery(server=url, api_key="key", timeout_s=3, stop=stop)
    with tempfile.TemporaryDirectory() as directory, a_queue(directory) as queue:
        queue.elect()
        drain = Drain(queue, delivery.send, batch_length=length, flush_interval_s=1, timeout_s=3, stop=stop)
        post = poster(url, backlog, length)
        for _ in range(rounds):
            for _ in range(backlog):
                queue.put(ENTRY)
            queue.tend()  # what was put is checkpointed: this is about what leaves
            drain_s = timed(lambda: drain.run(everything=True))
            assert queue.backlog().count == 0, "the drain left something behind"
            queue.tend()
            yield drain_s, timed(post)
    delivery.close()


def poster(url: str, backlog: int, length: int) -> Callable[[], None]:
    """Post as many entries, one batch after the other."""
    session = requests.Session()
    body = b"[" + b",".join([ENTRY] * length) + b"]"
    headers = {"Content-Type": "application/json"}

    def post() -> None:
        for _ in range(backlog // length):
            session.post(f"{url}/v1/request", data=body, headers=headers, auth=("key", ""), timeout=3)

    return post
