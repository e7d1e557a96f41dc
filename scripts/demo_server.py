"""A stand-in for ReadMe's server that can be turned off and on, and remembers what it was sent."""

from __future__ import annotations

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class StandIn:
    """Listens on a port of 127.0.0.1 that stays the same from one ``turn_on`` to the next."""

    def __init__(self) -> None:
        self.times_received: Counter[str] = Counter()
        """How often each ``_id`` came."""
        self.entries: dict[str, dict[str, Any]] = {}
        self.bodies: list[bytes] = []
        self._lock = threading.Lock()
        self._port = 0
        self._listening: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Known from the first ``turn_on``."""
        return f"http://127.0.0.1:{self._port}"

    def turn_on(self) -> None:
        """Answer from now on."""
        self._listening = ThreadingHTTPServer(("127.0.0.1", self._port), self._handler())
        self._port = self._listening.server_port
        threading.Thread(target=self._listening.serve_forever, args=(0.02,), daemon=True).start()

    def turn_off(self) -> None:
        """Refuse connections from now on; what is being answered is answered."""
        if self._listening is not None:
            self._listening.shutdown()
            self._listening.server_close()
            self._listening = None

    def example(self, path: str) -> dict[str, Any] | None:
        """Some entry of a request for that path."""
        for entry in self.entries.values():
            if entry["request"]["log"]["entries"][0]["request"]["url"].endswith(path):
                return entry
        return None

    def take(self, body: bytes) -> None:
        """Remember one POST."""
        with self._lock:
            self.bodies.append(body)
            for entry in json.loads(body):
                self.times_received[entry["_id"]] += 1
                self.entries[entry["_id"]] = entry

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        take = self.take

        class Handler(BaseHTTPRequestHandler):
            """HTTP/1.0: no connection outlives its answer, so none is left when the server is turned off."""

            def do_POST(self) -> None:
                take(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
                """Say nothing."""

        return Handler
