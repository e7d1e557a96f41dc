"""The app that is measured, bare or logged, called directly or under gunicorn: one GET that answers about 1 KB of JSON.

Runs with our SDK and with the official one, whose names and options are the same; ours also takes ``queue_path`` from
the environment.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any, Final

from flask import Flask

BATCH: Final = 10
KEY: Final = "rdme_key_of_the_benchmark"
LOG_URL: Final = "https://docs.example.com"
"""Named, because the official SDK would else ask ReadMe for it before it logs anything."""
ABOUT: Final = "She wrote the first program for a machine that did not exist. " * 13
HEADERS: Final = {
    "HTTP_HOST": "api.example.com",
    "HTTP_CONNECTION": "keep-alive",
    "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0",
    "HTTP_ACCEPT": "application/json, text/plain, */*",
    "HTTP_ACCEPT_ENCODING": "gzip, deflate, br",
    "HTTP_ACCEPT_LANGUAGE": "en-GB,en;q=0.9,de;q=0.8",
    "HTTP_AUTHORIZATION": "Bearer 0123456789abcdef0123456789abcdef",
    "HTTP_X_REQUEST_ID": "5f0c1b4e-8f4c-4a3f-9a3e-2f6f4f7f9a10",
}


def new_app() -> Flask:
    """Make it, bare."""
    app = Flask(__name__)

    @app.get("/users/<int:number>")
    def user(number: int) -> dict[str, Any]:
        return {"id": number, "name": "Ada", "email": "ada@example.com", "tags": ["a", "b", "c"], "about": ABOUT}

    return app


def grouping_function(_: object) -> dict[str, str]:
    """Everybody is Ada."""
    return {"api_key": "customer-0001", "label": "Ada", "email": "ada@example.com"}


class Sdk:
    """A logged app, and how to wait until everything of it has been delivered."""

    def __init__(self) -> None:
        from readme_metrics import MetricsApiConfig  # noqa: PLC0415 - a bare app loads no SDK
        from readme_metrics.flask_readme import ReadMeMetrics  # noqa: PLC0415

        self.app = new_app()
        config = MetricsApiConfig(KEY, grouping_function, LOG_URL, BATCH)
        self._metrics: Any = ReadMeMetrics(config, self.app)

    def settle(self, timeout_s: float = 30) -> None:
        """Wait until nothing waits."""
        if hasattr(self._metrics, "flush"):
            self._metrics.flush(timeout_s)
        else:
            self._metrics.metrics_core.queue.join()


def environ() -> dict[str, Any]:
    """What a server makes of a browser's request."""
    return {
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/users/4711",
        "QUERY_STRING": "page=2&sort=name",
        "RAW_URI": "/users/4711?page=2&sort=name",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "benchmark",
        "REMOTE_ADDR": "203.0.113.7",
        "REMOTE_PORT": "51724",
        **HEADERS,
    }


def ask(app: Flask) -> None:
    """One whole request, as a server calls it."""
    body: Any = app(environ(), _start_response)
    for _ in body:
        pass
    body.close()


def _start_response(_status: str, _headers: list[tuple[str, str]], _exc_info: object = None) -> Any:
    return None


def wsgi() -> Flask:
    """For gunicorn: ``bench.web:wsgi()``."""
    which = os.environ["BENCHMARK_APP"]
    if which == "least":
        from bench.least import least_app  # noqa: PLC0415 - the other apps load none of it

        return least_app()
    return Sdk().app if which == "logged" else new_app()
