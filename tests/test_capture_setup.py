"""The extension: set up in any order, logging each request once, and who is logged at all."""

from __future__ import annotations

import gc
import json
import logging
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import flask
import pytest
from flask.signals import got_request_exception
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from readme_metrics import MetricsApiConfig
from readme_metrics.errors import ConfigurationError, MetricsError
from readme_metrics.flask_readme import ReadMeMetrics
from tests.captured import CALLER, ListRecorder, log
from tests.har import check_entry, har_entry
from tests.metrics_server import MetricsServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def app() -> flask.Flask:
    app = flask.Flask("tests")
    app.secret_key = "k"

    @app.get("/users/<int:id>")
    def user(id: int) -> dict[str, int]:  # noqa: A002  # as the route names it
        return {"id": id}

    return app


def extension(recorder: ListRecorder, app: flask.Flask | None = None) -> ReadMeMetrics:
    return ReadMeMetrics(MetricsApiConfig("key", lambda _: CALLER), app, open_recorder=lambda _: recorder)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("readme_metrics")]


def test_init_app_twice_logs_each_request_once(app: flask.Flask, caplog: pytest.LogCaptureFixture) -> None:
    recorder = ListRecorder()
    metrics = extension(recorder, app)
    metrics.init_app(app)

    app.test_client().get("/users/1")

    assert 1 == len(recorder.exchanges)
    assert metrics is app.extensions["readme_metrics"]
    assert [] == warnings_of(caplog)


def test_a_second_extension_on_one_app_is_ignored_with_a_warning(
    app: flask.Flask, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = ListRecorder(), ListRecorder()
    metrics = extension(first, app)
    extension(second, app)

    app.test_client().get("/users/1")

    assert [1, 0] == [len(first.exchanges), len(second.exchanges)]
    assert metrics is app.extensions["readme_metrics"]
    assert ["this app already has a ReadMeMetrics extension: the second one is ignored"] == warnings_of(caplog)


def test_one_extension_serves_several_apps_made_by_a_factory() -> None:
    recorder = ListRecorder()
    metrics = extension(recorder)

    def make_app(name: str) -> flask.Flask:
        app = flask.Flask(name)
        blueprint = flask.Blueprint("b", name)
        blueprint.add_url_rule(f"/{name}", view_func=lambda: name)
        app.register_blueprint(blueprint, url_prefix="/v1")
        metrics.init_app(app)
        return app

    for app in (make_app("one"), make_app("two")):
        app.test_client().get(f"/v1/{app.name}")

    assert ["http://localhost/v1/one", "http://localhost/v1/two"] == [exchange.page for exchange in recorder.exchanges]


def test_an_app_mounted_in_another_is_logged_once_with_its_own_route(app: flask.Flask) -> None:
    outer = flask.Flask("outer")
    outer.wsgi_app = DispatcherMiddleware(outer.wsgi_app, {"/inner": app})  # type: ignore[method-assign]  # Flask's own way
    outer_recorder, inner_recorder = log(outer), log(app)

    outer.test_client().get("/inner/users/7?a=1")

    assert [] == inner_recorder.exchanges
    assert "http://localhost/inner/users/<int:id>" == outer_recorder.only.page
    assert "http://localhost/inner/users/7?a=1" == outer_recorder.only.url


def mounted(outer_lists: dict[str, Any], inner_lists: dict[str, Any], directory: Path) -> Iterator[str]:
    """Ask an app that is mounted in another, both with lists; the URL that would leave, of each request."""
    outer, inner = flask.Flask("outer"), flask.Flask("inner")
    for each in (outer, inner):
        each.add_url_rule("/", view_func=lambda: "ok")
    outer.wsgi_app = DispatcherMiddleware(outer.wsgi_app, {"/inner": inner})  # type: ignore[method-assign]  # Flask's own way
    options: dict[str, Any] = {"queue_path": directory, "auto_flush": False}
    with MetricsServer() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("README_METRICS_SERVER", server.url)
        metrics = ReadMeMetrics(MetricsApiConfig("key", lambda _: CALLER, **options, **outer_lists), outer)
        ReadMeMetrics(MetricsApiConfig("key", lambda _: CALLER, **options, **inner_lists), inner)
        for path in ("/inner/?token=1&secret=2", "/?token=1&secret=2"):
            outer.test_client().get(path)
        metrics.flush(10)
        entries = [check_entry(json.dumps(entry).encode()) for post in server.posts for entry in post.entries]
    return (har_entry(entry)["request"]["url"].partition("?")[2] for entry in entries)


@pytest.mark.parametrize(
    ("outer_lists", "inner_lists", "left"),
    [
        ({}, {"denylist": ["secret"]}, ["token=1&secret=%5BREDACTED%201%5D", "token=1&secret=2"]),
        ({"denylist": ["secret"]}, {}, ["token=1&secret=%5BREDACTED%201%5D", "token=1&secret=%5BREDACTED%201%5D"]),
        ({"allowlist": ["token"]}, {"allowlist": ["secret"]}, ["", "token=1"]),
    ],
)
def test_of_an_app_mounted_in_another_leaves_only_what_the_lists_of_both_let(
    tmp_path: Path, outer_lists: dict[str, Any], inner_lists: dict[str, Any], left: list[str]
) -> None:
    assert left == list(mounted(outer_lists, inner_lists, tmp_path))


def test_an_environ_used_twice_by_a_middleware_outside_is_two_requests(app: flask.Flask) -> None:
    recorder = log(app)
    inner = app.wsgi_app

    def twice(environ: Any, start_response: Any) -> Any:
        inner(environ, lambda *_: lambda _: None)
        return inner(environ, start_response)

    app.wsgi_app = twice  # type: ignore[method-assign]  # Flask's own way

    app.test_client().get("/users/1")

    assert 2 == len(recorder.exchanges)


def test_a_wrong_config_is_refused_with_the_fix(app: flask.Flask) -> None:
    with pytest.raises(ConfigurationError, match="config is of type dict; allowed: a MetricsApiConfig"):
        ReadMeMetrics({"api_key": "x"}, app)  # type: ignore[arg-type]  # the wrong value under test


def test_flush_and_status_before_init_app_say_what_is_missing() -> None:
    metrics = extension(ListRecorder())

    for call in (metrics.flush, metrics.status):
        with pytest.raises(MetricsError, match=r"call init_app\(app\) first"):
            call()


def test_flush_takes_shutdown_timeout_where_no_time_is_given(app: flask.Flask) -> None:
    metrics = extension(ListRecorder(), app)

    assert [20, 5] == [metrics.flush(), metrics.flush(0.5)]
    assert {"captured": 0} == metrics.status()


def test_a_process_that_answers_requests_serves(app: flask.Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLASK_RUN_FROM_CLI", raising=False)
    recorder = log(app)

    assert recorder.serves()


def test_an_app_under_test_or_gone_does_not_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLASK_RUN_FROM_CLI", raising=False)
    app = flask.Flask("short-lived")
    recorder = log(app)
    app.testing = True

    assert not recorder.serves()
    app.testing = False
    del app
    gc.collect()
    assert not recorder.serves()


@pytest.mark.parametrize(
    ("argv", "serves"),
    [
        ("flask run", True),
        ("flask --app wsgi:app --debug run -p 80", True),
        ("flask -A run shell", False),
        ("flask --env-file run routes", False),
        ("flask readme-metrics flush", False),
        ("flask", False),
    ],
)
def test_of_the_flask_commands_only_run_serves(
    app: flask.Flask, monkeypatch: pytest.MonkeyPatch, argv: str, *, serves: bool
) -> None:
    monkeypatch.setenv("FLASK_RUN_FROM_CLI", "true")
    monkeypatch.setattr("sys.argv", argv.split())
    recorder = log(app)

    assert serves == recorder.serves()


def test_options_is_not_logged(app: flask.Flask) -> None:
    recorder = log(app)

    assert 200 == app.test_client().options("/users/1").status_code
    assert [] == recorder.exchanges


@pytest.mark.parametrize(
    ("listed", "host", "logged"),
    [
        ("api.example.com", "api.example.com", True),
        ("api.example.com", "API.Example.COM:8080", True),
        ("API.example.com", "api.example.com.", True),
        ("api.example.com:8080", "api.example.com:8080", True),
        ("api.example.com:8080", "api.example.com:9090", False),
        ("api.example.com:80", "api.example.com", True),
        ("api.example.com", "evil.example.com", False),
        ("api.example.com", "api.example.com.evil.org", False),
        ("[::1]", "[::1]:5000", True),
        ("::1", "[::1]:5000", True),
        ("[::1]:5000", "[::1]:5001", False),
    ],
)
def test_only_the_allowed_hosts_are_logged(app: flask.Flask, listed: str, host: str, *, logged: bool) -> None:
    recorder = log(app, allowed_http_hosts=[listed])

    app.test_client().get("/users/1", headers={"Host": host})

    assert logged == bool(recorder.exchanges)


def test_a_request_without_a_host_is_not_one_of_the_allowed(app: flask.Flask) -> None:
    recorder = log(app, allowed_http_hosts=["localhost"])

    app.test_client().get("/users/1", environ_overrides={"HTTP_HOST": "", "SERVER_PROTOCOL": "HTTP/1.0"})

    assert [] == recorder.exchanges


def test_the_answer_carries_the_address_of_its_log(app: flask.Flask) -> None:
    recorder = log(app, base_log_url="https://docs.example.com/")

    response = app.test_client().get("/users/1")

    expected = f"https://docs.example.com/logs/{recorder.only.id}"
    assert expected == response.headers["x-documentation-url"]
    assert ("x-documentation-url", expected) in recorder.only.response_headers


def test_an_answer_that_is_not_logged_carries_no_address(app: flask.Flask) -> None:
    log(app, base_log_url="https://docs.example.com", grouping_function=lambda _: None)

    assert "x-documentation-url" not in app.test_client().get("/users/1").headers


def test_the_grouping_function_gets_the_current_request_inside_its_context(app: flask.Flask) -> None:
    def group(request: flask.Request) -> dict[str, object]:
        return {
            "api_key": flask.g.user,
            "label": flask.session["name"],
            "email": f"{request.view_args}{request is flask.request._get_current_object()}",  # type: ignore[attr-defined]  # the proxy's own
        }

    recorder = log(app, grouping_function=group)

    @app.before_request
    def sign_in() -> None:
        flask.g.user = "ann"
        flask.session["name"] = "Ann"

    app.test_client().get("/users/1")

    assert ("ann", "Ann", "{'id': 1}True") == recorder.groups[0]


def test_an_exception_signalled_outside_of_any_request_does_not_fail(app: flask.Flask) -> None:
    log(app)

    with app.app_context():
        answers = got_request_exception.send(app, exception=ValueError())

    assert [None] == [answer for _, answer in answers]


def test_the_same_dict_every_time_is_never_changed(app: flask.Flask) -> None:
    shared = dict(CALLER)
    recorder = log(app, grouping_function=lambda _: shared)

    for _ in range(3):
        app.test_client().get("/users/1")

    assert CALLER == shared
    assert ["caller-1"] * 3 == [group.api_key for group in recorder.groups]


def _raise(_: object) -> None:
    raise KeyError("sk-secret")


@pytest.mark.parametrize(
    ("grouping_function", "said"),
    [
        (lambda _: None, []),
        (lambda _: "caller", ["not a dict"]),
        (lambda _: ["caller"], ["not a dict"]),
        (lambda _: 7, ["not a dict"]),
        (lambda _: {}, ["without api_key"]),
        (lambda _: {"api_key": None, "label": "x"}, ["without api_key"]),
        (lambda _: {"api_key": ""}, ["without api_key"]),
        (_raise, ["grouping_function failed (KeyError at capture.py:"]),
        (lambda: {"api_key": "takes no request"}, ["grouping_function failed (TypeError at capture.py:"]),
    ],
)
def test_what_names_no_caller_is_not_logged_and_warned_of_once(
    app: flask.Flask, caplog: pytest.LogCaptureFixture, grouping_function: Callable[..., Any], said: list[str]
) -> None:
    recorder = log(app, grouping_function=grouping_function)

    answers = [app.test_client().get("/users/1") for _ in range(3)]

    assert [{"id": 1}] * 3 == [answer.json for answer in answers]
    assert [] == recorder.exchanges
    assert len(said) == len(warnings_of(caplog))
    for expected, sentence in zip(said, warnings_of(caplog), strict=True):
        assert expected in sentence
    assert {logging.WARNING} >= {record.levelno for record in caplog.records}
    assert "sk-secret" not in caplog.text


def test_extra_keys_are_left_out_with_one_warning(app: flask.Flask, caplog: pytest.LogCaptureFixture) -> None:
    recorder = log(app, grouping_function=lambda _: {"api_key": b"k\xc3\xa9y", "label": 5, "plan": "gold"})

    for _ in range(3):
        app.test_client().get("/users/1")

    assert [("kéy", "5", None)] * 3 == recorder.groups
    assert 1 == len(warnings_of(caplog))


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_a_grouping_function_throws_at_the_host_passes(app: flask.Flask, kind: type[BaseException]) -> None:
    def group(_: object) -> None:
        raise kind

    log(app, grouping_function=group)

    with pytest.raises(kind):
        app.test_client().get("/users/1")


def test_a_recorder_that_fails_does_not_reach_the_app(app: flask.Flask, caplog: pytest.LogCaptureFixture) -> None:
    recorder = log(app)
    recorder.exchanges = None  # type: ignore[assignment]  # a bug of ours

    assert {"id": 1} == app.test_client().get("/users/1").json
    assert ["capturing a request failed (AttributeError"] == [line.partition(" at ")[0] for line in warnings_of(caplog)]


LOGS_WITHOUT_LOGGING_SET_UP = """
import flask
from tests.captured import log

app = flask.Flask("tests")
log(app, grouping_function=lambda _: 1 / 0)
app.test_client().get("/")
"""


def test_a_warning_reaches_stderr_in_an_app_that_never_set_up_logging() -> None:
    run = subprocess.run(
        [sys.executable, "-c", LOGS_WITHOUT_LOGGING_SET_UP], capture_output=True, text=True, timeout=30, check=True
    )

    assert "grouping_function failed (ZeroDivisionError at capture.py:" in run.stderr
    assert 1 == len(run.stderr.splitlines())


def test_through_the_real_recorder_each_request_is_in_the_queue_when_it_is_answered_and_arrives_by_flush(
    app: flask.Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with MetricsServer() as server:
        monkeypatch.setenv("README_METRICS_SERVER", server.url)
        config = MetricsApiConfig("key", lambda _: CALLER, queue_path=tmp_path, auto_flush=False)
        metrics = ReadMeMetrics(config, app)
        waiting = []

        for number in range(3):
            app.test_client().get(f"/users/{number}")
            waiting.append(metrics.status()["backlog"])

        assert [1, 2, 3] == [backlog["count"] for backlog in waiting]  # type: ignore[index]  # the figures are plain dicts
        assert 0 == metrics.flush(10)
        entries = [check_entry(json.dumps(entry).encode()) for post in server.posts for entry in post.entries]

    assert ["http://localhost/users/0", "http://localhost/users/1", "http://localhost/users/2"] == [
        entry["request"]["log"]["entries"][0]["request"]["url"] for entry in entries
    ]
