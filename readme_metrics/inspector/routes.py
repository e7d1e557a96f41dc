"""HTTP over the desk: ReadMe's own address for entries, and the page with what it asks for.

======================  ===============================================
``POST /v1/request``    takes entries as ReadMe does
``GET /``               the page
``GET /api/live``       Server-Sent Events: rows, samples, figures;
                        ``?seen=`` an event's id: what came after
``GET /api/figures``    the figures once, for scripts
``GET /api/entries/ID`` one entry, parsed and written again
``GET /api/har``        everything kept, as a HAR file
``POST /api/outage``    ``{"mode": "off" | "503" | "429" | "hang"}``
``POST /api/clear``     forget the entries
======================  ===============================================
"""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Final

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, NotFound, ServiceUnavailable

from readme_metrics import __version__
from readme_metrics.inspector.access import ANSWER_HEADERS, why_refused
from readme_metrics.inspector.desk import Cursor
from readme_metrics.inspector.har import har_log
from readme_metrics.inspector.outage import MODES, RETRY_AFTER_S
from readme_metrics.inspector.wire import NotEntries, read_entries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from readme_metrics.inspector.desk import Desk

MAX_POST_BYTES: Final = 8 * 1024 * 1024
"""Twice the largest batch the queue sends."""
MAX_PAGES: Final = 12
"""Open pages that are told what arrives; each keeps a thread."""
RETRY_MS: Final = 1000
"""How soon a page that lost its connection asks again."""


class Routes:
    """The views over one desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._free_pages = threading.BoundedSemaphore(MAX_PAGES)

    def app(self) -> Flask:
        """Make the WSGI application."""
        app = Flask(__name__, static_folder="static")
        app.config["MAX_CONTENT_LENGTH"] = MAX_POST_BYTES
        app.before_request(_guard_access)
        app.after_request(_add_headers)
        app.register_error_handler(HTTPException, self._say_error)
        app.add_url_rule("/", view_func=lambda: app.send_static_file("index.html"), endpoint="page")
        app.add_url_rule("/v1/request", view_func=self.take, methods=["POST"])
        app.add_url_rule("/api/live", view_func=self.live)
        app.add_url_rule("/api/figures", view_func=self.figures)
        app.add_url_rule("/api/entries/<entry_id>", view_func=self.entry)
        app.add_url_rule("/api/har", view_func=self.har)
        app.add_url_rule("/api/outage", view_func=self.play, methods=["POST"])
        app.add_url_rule("/api/clear", view_func=self.clear, methods=["POST"])
        return app

    def take(self) -> Response:
        """Take a POST of entries, or answer what ReadMe would, or what the outage says."""
        # Read whole before anything is answered: a hanging server has the entries, and a client that is still
        # sending would see a reset instead of the answer.
        body = request.get_data()
        if self._desk.outage.mode != "off":
            return self._turn_away()
        if not (request.authorization and request.authorization.username):
            self._desk.refuse()
            return _no_key()
        try:
            entries = read_entries(body)
        except NotEntries as error:
            self._desk.refuse()
            return _json({"errors": error.faults}, 400)
        self._desk.take(entries)
        return _json({"received": len(entries)})

    def _turn_away(self) -> Response:
        self._desk.turn_away()
        if self._desk.outage.mode == "hang":
            self._desk.outage.hang()
        if self._desk.outage.mode == "429":
            return _json({"errors": ["an outage is being played: too many requests"]}, 429, _RETRY_AFTER)
        return _json({"errors": ["an outage is being played: service unavailable"]}, 503)

    def live(self) -> Response:
        """Tell one page what arrives, for as long as it listens."""
        if not self._free_pages.acquire(blocking=False):
            raise ServiceUnavailable(f"{MAX_PAGES} pages are open already: close one.")
        answer = Response(self._events(self._cursor()), mimetype="text/event-stream")
        # Not at the generator's end: one that was never begun has no end.
        answer.call_on_close(self._free_pages.release)
        return answer

    def _cursor(self) -> Cursor:
        """Where a page left off: the browser says it of a connection that was lost, the page of one that it closed."""
        run, _, seen = (request.headers.get("Last-Event-ID") or request.args.get("seen", "")).partition(".")
        revision, _, tick = seen.partition(".")
        if run != self._desk.run or not (revision.isdecimal() and tick.isdecimal()):
            return Cursor()
        return Cursor(int(revision), int(tick))

    def _events(self, seen: Cursor) -> Iterator[bytes]:
        yield f"retry: {RETRY_MS}\n\n".encode()
        going_on = True
        while going_on:
            seen, update = self._desk.update(seen)
            yield f"id: {self._desk.run}.{seen.revision}.{seen.tick}\ndata: {json.dumps(update)}\n\n".encode()
            going_on = self._desk.wait(seen)

    def figures(self) -> Response:
        """Answer with the figures once."""
        _, update = self._desk.update(Cursor())
        return _json({"figures": update["figures"], "books": update["books"], "outage": update["outage"]})

    def entry(self, entry_id: str) -> Response:
        """Answer with one entry, as the desk has it."""
        wire = self._desk.wire(entry_id)
        if wire is None:
            raise NotFound("This entry has made room for newer ones.")
        return Response(wire, mimetype="application/json")

    def har(self) -> Response:
        """Answer with everything kept, as a file."""
        answer = Response(har_log(self._desk.wires(), version=__version__), mimetype="application/json")
        answer.headers["Content-Disposition"] = 'attachment; filename="readme-metrics.har"'
        return answer

    def play(self) -> Response:
        """Play an outage, or end it."""
        asked = request.get_json()
        mode = asked.get("mode") if isinstance(asked, dict) else None
        if not isinstance(mode, str) or not self._desk.play(mode):
            return _json({"errors": [f"mode must be one of {', '.join(MODES)}"]}, 400)
        return _json({"outage": mode})

    def clear(self) -> Response:
        """Forget the entries; the figures stay."""
        self._desk.clear()
        return _json({})

    def _say_error(self, error: HTTPException) -> Response:
        if request.path == "/v1/request" and request.method == "POST":
            self._desk.refuse()
        return _json({"errors": [error.description or error.name]}, error.code or 500)


_RETRY_AFTER = {"Retry-After": str(RETRY_AFTER_S)}


def _guard_access() -> Response | None:
    refusal = why_refused(request.method, dict(request.headers))
    return _json({"errors": [refusal]}, 403) if refusal else None


def _add_headers(answer: Response) -> Response:
    answer.headers.update(ANSWER_HEADERS)
    return answer


def _no_key() -> Response:
    errors = ["an API key is missing: send it as the user of HTTP Basic, with an empty password"]
    return _json({"errors": errors}, 401, {"WWW-Authenticate": 'Basic realm="ReadMe"'})


def _json(answer: Mapping[str, object], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json.dumps(answer), status, headers, mimetype="application/json")
