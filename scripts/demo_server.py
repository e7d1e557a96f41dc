"""The demo's ReadMe: the inspector, turned off and on again at the same address."""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from typing import Any

from readme_metrics.inspector import Inspector
from readme_metrics.inspector.desk import Cursor, Desk


class StandIn:
    """Listens on a port of 127.0.0.1 that stays the same from one ``turn_on`` to the next."""

    def __init__(self) -> None:
        self._port = 0
        self._desks: list[Desk] = []
        """What arrived, one desk for each time it was on."""
        self._running: tuple[Inspector, threading.Thread] | None = None

    @property
    def url(self) -> str:
        """Known from the first ``turn_on``."""
        return f"http://127.0.0.1:{self._port}"

    def turn_on(self) -> None:
        """Take entries from now on."""
        self._desks.append(Desk())
        with socket.create_server(("127.0.0.1", self._port)) as listener:
            inspector = Inspector(listener, self._desks[-1], None)
        self._port = inspector.port
        serving = threading.Thread(target=inspector.serve_forever)
        serving.start()
        self._running = inspector, serving

    def turn_off(self) -> None:
        """Refuse connections from now on; what is being answered is answered."""
        if self._running is not None:
            inspector, serving = self._running
            inspector.shutdown()
            serving.join()
            self._running = None

    def times_received(self) -> Counter[str]:
        """How often each ``_id`` came."""
        times: Counter[str] = Counter()
        for desk in self._desks:
            for row in desk.update(Cursor())[1]["rows"]:
                times[row["id"]] += row["times"]
        return times

    def wires(self) -> list[bytes]:
        """Every entry as it arrived."""
        return [wire for desk in self._desks for wire in desk.wires()]

    def example(self, path: str) -> dict[str, Any] | None:
        """Some entry of a request for that path."""
        for wire in self.wires():
            entry: dict[str, Any] = json.loads(wire)
            if entry["request"]["log"]["entries"][0]["request"]["url"].endswith(path):
                return entry
        return None
