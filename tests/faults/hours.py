"""Outages of hours on a clock that is moved by hand, over a real queue file and real sockets."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from readme_metrics.delivery import Delivery
from readme_metrics.drain import Drain
from readme_metrics.queue.durable import SqliteQueue
from tests.faults.app import KEY

if TYPE_CHECKING:
    from pathlib import Path

    from readme_metrics.queue.contract import Hold
    from tests.metrics_server import MetricsServer

HOUR_S = 3600.0
ENTRIES = 95
BATCH_LENGTH = 10


class Hours:
    """A queue file, a drain and a delivery whose wall clock is moved by hand; the network is real."""

    def __init__(self, directory: Path, server: MetricsServer) -> None:
        self.now = 1_800_000_000.0
        self.server = server
        self.path = directory / "q" / "entries.sqlite"
        self.stop = threading.Event()
        self.delivery = Delivery(
            server=server.url,
            api_key=KEY,
            timeout_s=0.3,
            stop=self.stop,
            now=lambda: self.now,
            sleep=lambda _: None,
        )
        self.open()

    def open(self) -> None:
        """As a process that starts does."""
        self.queue = SqliteQueue(self.path, max_bytes=1 << 29, now=lambda: self.now)
        self.drain = Drain(
            self.queue,
            self.delivery.send,
            batch_length=BATCH_LENGTH,
            flush_interval_s=10,
            timeout_s=0.3,
            stop=self.stop,
            now=lambda: self.now,
        )
        assert self.queue.elect()

    def restart(self) -> None:
        self.queue.close()
        self.open()

    def probe(self) -> int:
        """Drain once; how many POSTs that made."""
        before = len(self.server.posts)
        self.drain.run(everything=True)
        return len(self.server.posts) - before

    def hold(self) -> Hold:
        hold = self.queue.hold()
        assert hold is not None
        return hold

    def pass_hours(self, hours: float) -> list[int]:
        """Whenever a hold ends, drain; how many POSTs each made."""
        ends_at = self.now + hours * HOUR_S
        probes = []
        while self.now < ends_at:
            probes.append(self.probe())
            self.now = self.hold().until
        return probes
