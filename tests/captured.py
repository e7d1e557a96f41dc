"""What the capture tests share: a Flask app whose exchanges land in a list, and real servers on 127.0.0.1."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from werkzeug.serving import WSGIRequestHandler, make_server

from readme_metrics import MetricsApiConfig
from readme_metrics.entry import build_entry
from readme_metrics.flask_readme import ReadMeMetrics
from readme_metrics.redaction import Redaction
from tests.har import check_entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import flask
    from _typeshed.wsgi import WSGIApplication

    from readme_metrics.exchange import Exchange, Group

CALLER = {"api_key": "caller-1", "label": "Caller", "email": "caller@example.com"}


class ListRecorder:
    """A recorder that keeps exchanges; each one must make a valid entry."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.groups: list[Group] = []
        self.recorded = threading.Event()

    def record(self, exchange: Exchange, group: Group, *_: Redaction) -> None:
        check_entry(build_entry(exchange, group, redaction=Redaction(), development=False, max_body_bytes=1024 * 1024))
        self.exchanges.append(exchange)
        self.groups.append(group)
        self.recorded.set()

    def serve(self, serves: Callable[[], bool]) -> None:
        self.serves = serves

    def flush(self, timeout_s: float) -> int:
        return int(timeout_s * 10)

    def status(self) -> dict[str, object]:
        return {"captured": len(self.exchanges)}

    @property
    def only(self) -> Exchange:
        """The one exchange there is."""
        (exchange,) = self.exchanges
        return exchange


def log(app: flask.Flask, recorder: ListRecorder | None = None, **options: Any) -> ListRecorder:
    """Give the app the extension; return where its exchanges land."""
    recorder = recorder or ListRecorder()
    options = {"grouping_function": lambda _: CALLER, **options}
    ReadMeMetrics(MetricsApiConfig(api_key="key", **options), app, open_recorder=lambda _: recorder)
    return recorder


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002  # werkzeug's name
        pass


@contextmanager
def served(app: WSGIApplication) -> Iterator[int]:
    """Run a real server; its port."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()
