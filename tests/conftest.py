"""Fixtures that several test files share."""

from __future__ import annotations

import signal
import ssl
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from readme_metrics.delivery import Delivery
from readme_metrics.inspector.desk import Desk
from readme_metrics.inspector.routes import Routes
from tests.delivering import CERTIFICATE, KEY, TIMEOUT_S, MakeDelivery
from tests.inspector_helpers import running_inspector
from tests.metrics_server import MetricsServer
from tests.queues import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flask.testing import FlaskClient

    from readme_metrics.inspector import Inspector


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that runs us in the background ignores Ctrl-C for us and, through us, for the processes of the tests.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a queue file may be."""
    return tmp_path / "queue.sqlite"


@pytest.fixture
def clock() -> Clock:
    """Moves when told to."""
    return Clock()


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A volume of 12 MiB."""
    mounted = tmp_path / "volume"
    mounted.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m,mode=0700", "tmpfs", str(mounted)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small volume")
    try:
        yield mounted
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=True)


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    """A ReadMe server that can be made to fail in every way; answers 200 until told otherwise."""
    with MetricsServer() as running:
        yield running


@pytest.fixture
def tls_server() -> Iterator[MetricsServer]:
    """The same over TLS, with a certificate that nobody vouches for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    with MetricsServer(tls=context) as running:
        yield running


@pytest.fixture
def stop() -> threading.Event:
    """Ends retries."""
    return threading.Event()


@pytest.fixture
def deliver(server: MetricsServer, stop: threading.Event) -> Iterator[MakeDelivery]:
    """Makes deliveries, to ``server`` unless told otherwise, and closes them."""
    made: list[Delivery] = []

    def make(address: str | None = None, timeout_s: float = TIMEOUT_S) -> Delivery:
        made.append(Delivery(server=address or server.url, api_key=KEY, timeout_s=timeout_s, stop=stop))
        return made[-1]

    yield make
    for delivery in made:
        delivery.close()


@pytest.fixture
def inspector() -> Iterator[Inspector]:
    """One that listens."""
    with running_inspector() as running:
        yield running


@pytest.fixture
def client() -> FlaskClient:
    """Asks the inspector's routes, without a socket."""
    return Routes(Desk()).app().test_client()
