"""Fixtures of the fault tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.bench import Bench
from tests.faults.hours import ENTRIES, Hours

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.metrics_server import MetricsServer


@pytest.fixture
def bench(server: MetricsServer, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(server, tmp_path)
    yield bench
    bench.end()


@pytest.fixture
def hours(tmp_path: Path, server: MetricsServer) -> Iterator[Hours]:
    hours = Hours(tmp_path, server)
    for number in range(ENTRIES):
        hours.queue.put(b'{"_id":"%d"}' % number)
    yield hours
    hours.queue.close()
    hours.delivery.close()
