"""The Flask extension: ``ReadMeMetrics`` wraps ``app.wsgi_app``.

Why there: ``start_response`` gets the final status and headers, session cookie included, inside the request context;
``after_request`` sees none of that, and ``request_finished`` does not fire when an ``after_request`` raises.
"""

from __future__ import annotations

import logging
import os
import sys
import weakref
from typing import TYPE_CHECKING, Any, Final, Protocol

import flask
from flask.signals import got_request_exception

from readme_metrics.capture import KEY, Capture, Capturer
from readme_metrics.config import MOST_SECONDS, MetricsApiConfig
from readme_metrics.errors import ConfigurationError, MetricsError
from readme_metrics.recorder import open_recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from _typeshed.wsgi import StartResponse, WSGIApplication

    from readme_metrics.exchange import Exchange, Group
    from readme_metrics.redaction import Redaction

    Environ = dict[str, Any]

_log: Final = logging.getLogger("readme_metrics.flask_readme")


class Recorder(Protocol):
    """What capture needs of a recorder."""

    def record(self, exchange: Exchange, group: Group, *mounted: Redaction) -> None:
        """Store one exchange; ``mounted``: the lists of apps mounted in this one, which count too."""

    def serve(self, serves: Callable[[], bool]) -> None:
        """Send what an earlier run left, soon and without traffic, if ``serves()`` says then that we serve."""

    def flush(self, timeout_s: float) -> int:
        """Drain now; how many entries still wait."""

    def status(self) -> dict[str, object]:
        """The queue's figures and this process's own."""


class ReadMeMetrics:
    """Logs each request of a Flask app to ReadMe: ``ReadMeMetrics(config, app)`` or ``init_app`` in a factory."""

    def __init__(
        self,
        config: MetricsApiConfig,
        app: flask.Flask | None = None,
        *,
        open_recorder: Callable[[MetricsApiConfig], Recorder] = open_recorder,
    ) -> None:
        if not isinstance(config, MetricsApiConfig):
            raise ConfigurationError(f"config is of type {type(config).__name__}; allowed: a MetricsApiConfig")
        self.config = config
        self._open_recorder = open_recorder
        self._recorder: Recorder | None = None
        self._capturer: Capturer | None = None
        if app is not None:
            self.init_app(app)

    def init_app(self, app: flask.Flask) -> None:
        """Wrap the app, once; serves any number of apps."""
        if "readme_metrics" in app.extensions:
            if app.extensions["readme_metrics"] is not self:
                _log.warning("this app already has a ReadMeMetrics extension: the second one is ignored")
            return
        app.extensions["readme_metrics"] = self
        if self._recorder is None or self._capturer is None:
            self._recorder = self._open_recorder(self.config)
            self._capturer = Capturer(self.config, self._recorder.record, _request_of)
        app.wsgi_app = _CapturedApp(app.wsgi_app, self._capturer)  # type: ignore[method-assign]  # Flask's own way
        got_request_exception.connect(_ask_before_the_context_goes, app)
        self._recorder.serve(_serves(app))

    def flush(self, timeout_s: float | None = None) -> int:
        """Drain now, for at most ``timeout_s`` (None: ``shutdown_timeout``); return how many entries still wait."""
        return self._opened().flush(self.config.shutdown_timeout if timeout_s is None else min(timeout_s, MOST_SECONDS))

    def status(self) -> dict[str, object]:
        """The figures of ``readme-metrics status`` and this process's own."""
        return self._opened().status()

    def _opened(self) -> Recorder:
        if self._recorder is None:
            raise MetricsError("ReadMeMetrics has no app yet: call init_app(app) first")
        return self._recorder


class _CapturedApp:
    """The WSGI app that stands in front of Flask's own."""

    def __init__(self, app: WSGIApplication, capturer: Capturer) -> None:
        self._app = app
        self._capturer = capturer

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        outer = environ.get(KEY)
        if outer is not None:  # mounted in a captured app, whose record this becomes
            outer.heed(self._capturer.redaction)
            return self._app(environ, start_response)
        if environ.get("REQUEST_METHOD") == "OPTIONS":
            return self._app(environ, start_response)
        capture = Capture(self._capturer, environ, start_response)
        try:
            body = self._app(environ, capture.start_response)
        except StopIteration:
            capture.stopped()
            raise
        except BaseException:
            capture.broke()
            raise
        return capture.follow(body)


def _serves(app: flask.Flask) -> Callable[[], bool]:
    """Whether this process answers requests: not in a test, nor in a ``flask`` command other than ``run``."""
    found = weakref.ref(app)

    def serves() -> bool:
        app = found()
        in_command = os.environ.get("FLASK_RUN_FROM_CLI") == "true" and flask_command(sys.argv) != "run"
        return app is not None and not app.testing and not in_command

    return serves


def flask_command(argv: Sequence[str]) -> str | None:
    """The command of ``flask --app wsgi:app run --debug``."""
    arguments = iter(argv[1:])
    for argument in arguments:
        if argument in {"-A", "--app", "-e", "--env-file"}:
            next(arguments, None)
        elif not argument.startswith("-"):
            return argument
    return None


def _request_of(environ: Environ) -> flask.Request:
    """The request that Flask is at, if it is this one's; outside its context one made anew."""
    try:
        request: flask.Request = flask.request._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001  # documented by werkzeug's LocalProxy
    except RuntimeError:  # outside any request context
        return flask.Request(environ, populate_request=False)
    return request if request.environ.get(KEY) is environ[KEY] else flask.Request(environ, populate_request=False)


def _ask_before_the_context_goes(_: flask.Flask, **__: object) -> None:
    """In debug and testing an exception leaves the app without ``start_response``; this is its last moment inside."""
    capture = flask.request.environ.get(KEY) if flask.has_request_context() else None  # any code may send the signal
    if isinstance(capture, Capture):
        capture.ask()
