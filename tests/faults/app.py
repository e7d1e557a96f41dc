"""The app that runs under the servers, told by the environment what to be.

``FAULTS_OPTIONS``: options of ``MetricsApiConfig`` as JSON; empty: a bare app. ``FAULTS_POINTS``: a directory;
see ``fault_points``.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import flask

from readme_metrics import MetricsApiConfig
from readme_metrics.flask_readme import ReadMeMetrics
from tests.faults import fault_points

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "rdme_key_that_nobody_may_read"
SECRET = "a-secret-that-must-not-leave"
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"]
LOG_URL = "https://docs.example.com"


def grouping_function(request: flask.Request) -> dict[str, Any] | None:
    if "X-Not-Logged" in request.headers:
        return None
    return {"api_key": request.headers.get("X-Api-Key", "nobody"), "label": "Ada", "email": "ada@example.com"}


def create_app() -> flask.Flask:
    app = flask.Flask("faults")
    app.register_blueprint(views)
    options = os.environ.get("FAULTS_OPTIONS")
    if options:
        ReadMeMetrics(MetricsApiConfig(KEY, grouping_function, LOG_URL, **json.loads(options)), app)
    if "FAULTS_POINTS" in os.environ:
        app.wsgi_app = fault_points.die_with_the_last_byte(app.wsgi_app, os.environ["FAULTS_POINTS"])  # type: ignore[method-assign,assignment]  # Flask's way
    return app


views = flask.Blueprint("views", __name__)


@views.get("/json")
def json_answer() -> dict[str, Any]:
    return {"pid": os.getpid(), "text": "b" * 1000}


@views.post("/orders")
def order() -> tuple[flask.Response, int]:
    return flask.jsonify(flask.request.get_json()), 201


@views.get("/stream")
def stream() -> flask.Response:
    return flask.Response(rows(20), mimetype="text/csv")


@views.get("/sized-stream")
def sized_stream() -> flask.Response:
    whole = "".join(rows(20))
    headers = {"Content-Length": str(len(whole))}
    return flask.Response(iter(whole.splitlines(keepends=True)), headers=headers, mimetype="text/csv")


@views.get("/fails")
def fails() -> tuple[str, int]:
    return "no", 500


@views.get("/status")
def status() -> dict[str, Any]:
    extension: ReadMeMetrics = flask.current_app.extensions["readme_metrics"]
    return dict(extension.status())


@views.get("/large")
def large() -> flask.Response:
    """200 MB in chunks of 64 KiB."""
    chunk = b"x" * 65536
    return flask.Response((chunk for _ in range(3200)), mimetype="application/octet-stream")


@views.get("/endless")
def endless() -> flask.Response:
    return flask.Response(iter(lambda: b"y" * 65536, b""), mimetype="application/octet-stream")


@views.post("/upload")
def upload() -> dict[str, int]:
    size = 0
    while part := flask.request.stream.read(65536):
        size += len(part)
    return {"size": size}


@views.post("/read-whole")
def read_whole() -> dict[str, int]:
    return {"size": len(flask.request.get_data(cache=False))}


@views.route("/echo", defaults={"rest": ""}, methods=METHODS)
@views.route("/echo/<path:rest>", methods=METHODS)
def echo(rest: str) -> dict[str, str]:
    """All that a view can see of its request."""
    request = flask.request
    seen = {
        "rest": rest,
        "url": request.url,
        "query": list(request.args.items(multi=True)),
        "headers": list(request.headers.items()),
        "cookies": list(request.cookies.items(multi=True)),
        "form": list(request.form.items(multi=True)),
        "files": [(name, file.filename, file.read()) for name, file in request.files.items(multi=True)],
        "data": request.get_data(),
    }
    return {name: ascii(value) for name, value in seen.items()}


@views.get("/fork")
def fork() -> dict[str, int]:
    """Fork inside a request; the child answers a request of its own before it goes, without any clean-up."""
    child = os.fork()
    if child == 0:
        flask.current_app.test_client().get("/json")
        os._exit(0)
    os.waitpid(child, 0)
    return {"child": child}


@views.get("/rss")
def rss() -> dict[str, int]:
    """Resident memory in bytes, of Linux."""
    with open("/proc/self/statm") as statm:  # noqa: PTH123 - /proc is no file of ours
        return {"pid": os.getpid(), "rss": int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")}


@views.get("/exit")
def leave() -> str:
    """Leave without any clean-up, a moment after the answer."""
    threading.Timer(0.2, os._exit, [0]).start()
    return "bye"


def rows(count: int) -> Iterator[str]:
    for number in range(count):
        yield f"row {number}\n"


if "FAULTS_POINTS" in os.environ:
    fault_points.install(os.environ["FAULTS_POINTS"])
sys.setswitchinterval(0.001)  # threads take turns at more points
app = create_app()
