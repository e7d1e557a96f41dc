"""What a request was: its address, URL, route, headers and body, as the app saw them and without taking a byte."""

from __future__ import annotations

import gc
import io
import tracemalloc
from typing import TYPE_CHECKING, Any

import flask
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import EnvironBuilder, run_wsgi_app

from readme_metrics.capture import UNREAD_BODY_BYTES
from readme_metrics.exchange import NO_BODY, Body
from tests.captured import ListRecorder, log

if TYPE_CHECKING:
    from collections.abc import Callable

    from readme_metrics.exchange import Exchange


@pytest.fixture
def app() -> flask.Flask:
    app = flask.Flask("tests")

    @app.route("/users/<int:id>", methods=["GET", "POST"])
    def user(id: int) -> str:  # noqa: A002  # as the route names it
        return "ok"

    @app.post("/read")
    def read() -> str:
        return str(len(flask.request.get_data()))

    @app.post("/unread")
    def unread() -> str:
        return "ok"

    @app.post("/refused")
    def refused() -> tuple[str, int]:
        return "who are you?", 401

    return app


@pytest.fixture
def recorder(app: flask.Flask) -> ListRecorder:
    return log(app)


PROXY_HEADERS = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Host": "api.example.com",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Prefix": "/v2",
}


def proxied(recorder: ListRecorder) -> tuple[str, str, str]:
    return recorder.only.client_address, recorder.only.url, recorder.only.page


CORRECTED = ("203.0.113.9", "https://api.example.com/v2/users/1?a=1", "https://api.example.com/v2/users/<int:id>")


def test_behind_proxy_fix_outside_address_host_and_scheme_are_corrected(
    app: flask.Flask, recorder: ListRecorder
) -> None:
    app.wsgi_app = ProxyFix(app.wsgi_app, x_host=1, x_prefix=1)  # type: ignore[method-assign]  # Flask's own way

    app.test_client().get("/users/1?a=1", headers=PROXY_HEADERS)

    assert CORRECTED == proxied(recorder)


def test_behind_proxy_fix_inside_address_host_and_scheme_are_corrected(app: flask.Flask) -> None:
    app.wsgi_app = ProxyFix(app.wsgi_app, x_host=1, x_prefix=1)  # type: ignore[method-assign]  # Flask's own way
    recorder = log(app)

    app.test_client().get("/users/1?a=1", headers=PROXY_HEADERS)

    assert CORRECTED == proxied(recorder)


def test_a_middleware_inside_that_copies_the_environ_changes_nothing(app: flask.Flask) -> None:
    inner = ProxyFix(app.wsgi_app, x_host=1, x_prefix=1)
    app.wsgi_app = lambda environ, start_response: inner(dict(environ), start_response)  # type: ignore[method-assign]  # Flask's own way
    recorder = log(app)

    app.test_client().get("/users/1?a=1", headers=PROXY_HEADERS)

    assert CORRECTED == proxied(recorder)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/users/1?a=%20b&a=&c", "/users/1?a=%20b&a=&c"),
        ("/us%65rs/%31", "/us%65rs/%31"),
        ("//users///1", "//users///1"),
        ("/caf\xc3\xa9?q=\xff \x01", "/caf%C3%A9?q=%FF%20%01"),
        ("/users/1?a=1#fragment?token=secret", "/users/1?a=1"),
        ("http://proxy.example.com/users/1?a", "/users/1?a"),
        ("http://proxy.example.com", "/"),
        ("http://proxy.example.com?token=secret/tail", "/?token=secret/tail"),
        ("http://proxy.example.com#token=secret/tail", "/"),
    ],
)
def test_the_url_is_as_asked_and_still_encoded(
    app: flask.Flask, recorder: ListRecorder, target: str, expected: str
) -> None:
    app.test_client().get("/users/1", environ_overrides={"RAW_URI": target, "REQUEST_URI": target})

    assert "http://localhost" + expected == recorder.only.url


def without_raw_uri(app: flask.Flask, **overrides: str) -> None:
    environ = EnvironBuilder("/users/1", environ_overrides=overrides).get_environ()
    for key in ("RAW_URI", "REQUEST_URI", *(key for key, value in overrides.items() if not value)):
        environ.pop(key, None)
    run_wsgi_app(app.wsgi_app, environ, buffered=True)


def test_where_the_server_keeps_no_raw_uri_the_url_is_quoted_anew(app: flask.Flask, recorder: ListRecorder) -> None:
    without_raw_uri(app, PATH_INFO="/caf\xc3\xa9 \xff/1", QUERY_STRING="q=%20&n=\xe9", SCRIPT_NAME="/mö")

    assert "http://localhost/m%F6/caf%C3%A9%20%FF/1?q=%20&n=%E9" == recorder.only.url


def test_where_the_server_keeps_no_raw_uri_a_raw_hash_in_the_query_starts_no_fragment(
    app: flask.Flask, recorder: ListRecorder
) -> None:
    without_raw_uri(app, QUERY_STRING="token=secret#tail")

    assert "http://localhost/users/1?token=secret%23tail" == recorder.only.url


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"SERVER_NAME": "10.0.0.1", "SERVER_PORT": "8080"}, "http://10.0.0.1:8080"),
        ({"SERVER_NAME": "10.0.0.1", "SERVER_PORT": "80"}, "http://10.0.0.1"),
        ({"SERVER_NAME": "::1", "SERVER_PORT": "5000"}, "http://[::1]:5000"),
        ({"SERVER_NAME": "", "SERVER_PORT": ""}, "http://localhost"),
        ({"HTTP_HOST": "bad host/x?y"}, "http://bad%20host%2Fx%3Fy"),
        ({"HTTP_HOST": "[::1"}, "http://%5B::1"),
        ({"HTTP_HOST": "b\xc3\xbccher.example"}, "http://b%C3%BCcher.example"),
    ],
)
def test_the_host_is_the_one_asked_for_else_the_servers_own(
    app: flask.Flask, recorder: ListRecorder, overrides: dict[str, str], expected: str
) -> None:
    without_raw_uri(app, **{"HTTP_HOST": "", "SERVER_PROTOCOL": "HTTP/1.0", **overrides})

    assert f"{expected}/users/1" == recorder.only.url
    assert "HTTP/1.0" == recorder.only.http_version


def test_a_url_that_matches_no_route_is_its_own_page(app: flask.Flask, recorder: ListRecorder) -> None:
    app.test_client().get("/nowhere?token=1")

    assert (404, "http://localhost/nowhere") == (recorder.only.status, recorder.only.page)


def test_headers_keep_their_order_and_every_byte(app: flask.Flask, recorder: ListRecorder) -> None:
    headers = {"X-One": "1", "X-Utf8": "caf\xc3\xa9", "X-Empty": "", "X-Two": "\xff"}

    app.test_client().get("/users/1", headers=headers)

    sent = [field for field in recorder.only.request_headers if field[0].startswith("X-")]
    assert list(headers.items()) == sent


def test_content_headers_are_logged_once(app: flask.Flask, recorder: ListRecorder) -> None:
    app.test_client().post(
        "/read", data=b"{}", content_type="application/json", environ_overrides={"HTTP_CONTENT_TYPE": "text/evil"}
    )

    names = [field for field in recorder.only.request_headers if field[0].startswith("Content-")]
    assert [("Content-Type", "application/json"), ("Content-Length", "2")] == sorted(names, reverse=True)


@pytest.mark.parametrize("long", ["host", "scheme", "header"])
def test_what_clients_make_up_at_length_is_not_remembered(app: flask.Flask, recorder: ListRecorder, long: str) -> None:
    def ask(number: int) -> None:
        made_up = {"host": "localhost", "scheme": "http", "header": "x", long: f"{number}" + "x" * 50_000}
        overrides = {"HTTP_HOST": made_up["host"], "wsgi.url_scheme": made_up["scheme"]}
        environ = EnvironBuilder("/users/1", environ_overrides=overrides).get_environ()
        run_wsgi_app(app.wsgi_app, {**environ, f"HTTP_{made_up['header']}": "y"}, buffered=True)
        recorder.exchanges.clear()

    ask(0)
    tracemalloc.start()
    try:
        for number in range(1, 30):
            ask(number)
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert kept < 500_000


def test_a_header_value_that_a_middleware_left_as_a_number_is_text(app: flask.Flask, recorder: ListRecorder) -> None:
    app.test_client().get("/users/1", environ_overrides={"HTTP_X_COUNT": 3})

    assert ("X-Count", "3") in recorder.only.request_headers


@pytest.mark.parametrize(
    "read",
    [
        lambda request: request.get_data(),
        lambda request: request.get_json(),
        lambda request: request.stream.read(),
        lambda request: [*iter(lambda: request.stream.read(5), b"")],
        lambda request: [*request.stream],
        lambda request: request.stream.readlines(),
        lambda request: [*iter(request.stream.readline, b"")],
        lambda request: request.stream.readinto(bytearray(100)),
        lambda request: request.environ["wsgi.input"].read1(100),
        lambda request: request.environ["wsgi.input"].read(),
    ],
)
def test_a_body_is_kept_whichever_way_the_view_reads_it(
    app: flask.Flask, recorder: ListRecorder, read: Callable[[flask.Request], object]
) -> None:
    seen = []

    @app.post("/any")
    def any_way() -> str:
        seen.append(read(flask.request))
        return "ok"

    body = b'{"a": 1,\n"b": 2}\n'
    app.test_client().post("/any", data=body, content_type="application/json")

    assert Body(body, len(body)) == recorder.only.request_body
    assert [read_of(body, read)] == [str(value) for value in seen]


def read_of(body: bytes, read: Callable[[flask.Request], object]) -> str:
    """What the same read gives in an app without the extension."""
    environ = EnvironBuilder(method="POST", data=body, content_type="application/json").get_environ()
    return str(read(flask.Request(environ)))


def test_forms_and_files_reach_the_view_and_the_log(app: flask.Flask, recorder: ListRecorder) -> None:
    got = []

    @app.post("/form")
    def form() -> str:
        got.append((flask.request.form["name"], flask.request.files["file"].read()))
        return "ok"

    data = {"name": "Jürgen", "file": (io.BytesIO(b"\x00\xff" * 40_000), "ä.bin")}
    app.test_client().post("/form", data=data)

    assert [("Jürgen", b"\x00\xff" * 40_000)] == got
    assert recorder.only.request_body.data is not None
    assert b"\x00\xff" * 40_000 in recorder.only.request_body.data


@pytest.mark.parametrize(
    ("method", "announced"),
    [("GET", {"CONTENT_LENGTH": "3"}), ("GET", {"HTTP_TRANSFER_ENCODING": "chunked"}), ("POST", {})],
)
def test_a_body_is_looked_for_wherever_there_may_be_one(
    app: flask.Flask, recorder: ListRecorder, method: str, announced: dict[str, str]
) -> None:
    @app.route("/body", methods=["GET", "POST"])
    def body() -> bytes:
        return flask.request.environ["wsgi.input"].read()  # type: ignore[no-any-return]  # bytes

    environ = EnvironBuilder("/body", method=method).get_environ()
    environ.pop("CONTENT_LENGTH", None)
    run_wsgi_app(app, environ | announced | {"wsgi.input": io.BytesIO(b"tea")})

    assert Body(b"tea", 3) == recorder.only.request_body


@pytest.mark.parametrize("announced", [{}, {"CONTENT_LENGTH": ""}, {"CONTENT_LENGTH": "0"}])
def test_a_get_that_announces_no_body_keeps_the_stream_that_the_server_made(
    app: flask.Flask, recorder: ListRecorder, announced: dict[str, str]
) -> None:
    stream = io.BytesIO()
    app.add_url_rule("/body", view_func=lambda: str(flask.request.environ["wsgi.input"] is stream))
    environ = EnvironBuilder("/body").get_environ()
    environ.pop("CONTENT_LENGTH", None)
    body, _, _ = run_wsgi_app(app, environ | announced | {"wsgi.input": stream})

    assert b"True" == b"".join(body)
    assert NO_BODY == recorder.only.request_body


def test_a_body_that_is_rewound_and_read_again_counts_once(app: flask.Flask) -> None:
    inner = app.wsgi_app

    def signature_check(environ: Any, start_response: Any) -> Any:
        environ["wsgi.input"].read(3)
        environ["wsgi.input"].seek(0)
        return inner(environ, start_response)

    app.wsgi_app = signature_check  # type: ignore[method-assign]  # Flask's own way
    recorder = log(app)

    assert "10" == app.test_client().post("/read", data=b"0123456789").text
    assert Body(b"0123456789", 10) == recorder.only.request_body


def test_a_body_above_the_cap_is_counted_and_not_kept(app: flask.Flask) -> None:
    recorder = log(app, max_body_bytes=1000)

    assert "5000" == app.test_client().post("/read", data=b"x" * 5000).text
    assert Body(None, 5000) == recorder.only.request_body


class CountedInput(io.BytesIO):
    """Counts the reads that reach the client's connection."""

    reads = 0

    def read(self, *args: Any) -> bytes:
        self.reads += 1
        return super().read(*args)


def post(app: flask.Flask, path: str, body: bytes, **overrides: str) -> CountedInput:
    stream = CountedInput(body)
    app.test_client().post(path, input_stream=stream, environ_overrides={"CONTENT_LENGTH": str(len(body)), **overrides})
    return stream


def test_a_small_body_that_the_view_left_unread_is_read_afterwards(app: flask.Flask, recorder: ListRecorder) -> None:
    post(app, "/unread", b"x" * UNREAD_BODY_BYTES)

    assert Body(b"x" * UNREAD_BODY_BYTES, UNREAD_BODY_BYTES) == recorder.only.request_body


def test_the_rest_of_a_body_that_the_view_began_is_read_afterwards(app: flask.Flask, recorder: ListRecorder) -> None:
    app.add_url_rule("/begin", view_func=lambda: flask.request.stream.read(3), methods=["POST"])

    post(app, "/begin", b"0123456789")

    assert Body(b"0123456789", 10) == recorder.only.request_body


@pytest.mark.parametrize(
    ("path", "size", "overrides"),
    [
        ("/refused", 10, {}),
        ("/nowhere", 10, {}),
        ("/unread", UNREAD_BODY_BYTES + 1, {}),
        ("/unread", 10, {"HTTP_EXPECT": "100-continue"}),
    ],
)
def test_other_unread_bodies_are_left_alone(
    app: flask.Flask, recorder: ListRecorder, path: str, size: int, overrides: dict[str, str]
) -> None:
    stream = post(app, path, b"x" * size, **overrides)

    assert 0 == stream.reads
    assert Body(None, size) == recorder.only.request_body


def test_a_body_that_breaks_off_is_not_taken_for_whole(app: flask.Flask, recorder: ListRecorder) -> None:
    post(app, "/unread", b"x" * 10, CONTENT_LENGTH="20")

    assert Body(None, 20) == recorder.only.request_body


@pytest.mark.parametrize("error", [ConnectionResetError, ValueError, RuntimeError, AttributeError])
def test_a_stream_that_fails_when_its_unread_body_is_read_costs_nothing(
    app: flask.Flask, recorder: ListRecorder, caplog: pytest.LogCaptureFixture, error: type[Exception]
) -> None:
    class Gone(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            raise error

    app.test_client().post("/unread", input_stream=Gone(), environ_overrides={"CONTENT_LENGTH": "5"})

    assert Body(None, 5) == recorder.only.request_body
    assert [] == caplog.records


@pytest.mark.parametrize("declared", ["", "-5", "five", "0", "9" * 5000])
def test_a_nonsense_length_is_no_length(app: flask.Flask, recorder: ListRecorder, declared: str) -> None:
    environ = EnvironBuilder("/users/1", environ_overrides={"CONTENT_LENGTH": declared}).get_environ()

    run_wsgi_app(app.wsgi_app, environ, buffered=True)

    assert NO_BODY == recorder.only.request_body


def chunked(app: flask.Flask, path: str, body: bytes) -> None:
    environ = EnvironBuilder(path, method="POST", input_stream=io.BytesIO(body)).get_environ()
    environ.pop("CONTENT_LENGTH", None)
    environ.update({"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True})
    run_wsgi_app(app.wsgi_app, environ, buffered=True)


def test_a_chunked_body_that_the_view_read_is_kept(app: flask.Flask, recorder: ListRecorder) -> None:
    chunked(app, "/read", b"x" * 100)

    assert Body(b"x" * 100, 100) == recorder.only.request_body


def test_of_a_chunked_body_that_the_view_left_unread_nobody_knows_the_size(
    app: flask.Flask, recorder: ListRecorder
) -> None:
    chunked(app, "/unread", b"x" * 100)

    assert Body(None, None) == recorder.only.request_body


def test_of_a_chunked_body_that_the_view_only_began_nobody_knows_the_size(
    app: flask.Flask, recorder: ListRecorder
) -> None:
    app.add_url_rule("/begin", view_func=lambda: flask.request.stream.read(3), methods=["POST"])

    chunked(app, "/begin", b"x" * 100)

    assert Body(None, None) == recorder.only.request_body


def test_the_tee_offers_what_the_servers_stream_offers_and_no_more(app: flask.Flask, recorder: ListRecorder) -> None:
    class Sparse:
        name = "socket"

        def read(self, *_: Any) -> bytes:
            return b""

    offered = []

    @app.post("/look")
    def look() -> str:
        stream = flask.request.environ["wsgi.input"]
        offered.append([hasattr(stream, name) for name in ("readinto", "seek", "fileno")] + [stream.name])
        return "ok"

    app.test_client().post("/look", environ_overrides={"wsgi.input": Sparse()})

    assert [[False, False, False, "socket"]] == offered


ANY_KEYS = (
    "PATH_INFO", "QUERY_STRING", "RAW_URI", "SCRIPT_NAME", "HTTP_HOST", "HTTP_COOKIE", "CONTENT_LENGTH",
    "CONTENT_TYPE", "SERVER_PROTOCOL", "HTTP_TRANSFER_ENCODING", "HTTP_X_ANY", "REMOTE_ADDR", "SERVER_NAME",
)  # fmt: skip
ANY_TEXT = st.text(st.characters(max_codepoint=255), max_size=30)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    environ=st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(ANY_KEYS, ANY_TEXT),
    ),
    body=st.binary(max_size=50),
)
def test_whatever_the_bytes_the_app_answers_as_it_does_bare_and_the_request_is_logged(
    app: flask.Flask, environ: dict[str, str], body: bytes
) -> None:
    def answer(of: flask.Flask) -> object:
        whole = EnvironBuilder("/read", method="POST", input_stream=io.BytesIO(body)).get_environ()
        app_iter, status, headers = run_wsgi_app(of.wsgi_app, {**whole, **environ}, buffered=True)
        return list(app_iter), status, list(headers)

    logged = flask.Flask("logged")
    logged.add_url_rule("/read", view_func=app.view_functions["read"], methods=["POST"])
    recorder = log(logged)

    assert answer(app) == answer(logged)
    assert 1 == len(recorder.exchanges)


def test_the_exchange_tells_when_and_how_long(app: flask.Flask, recorder: ListRecorder) -> None:
    app.test_client().get("/users/1")

    exchange: Exchange = recorder.only
    assert 0 <= exchange.wait_ms <= exchange.time_ms < 60_000
    assert ("GET", "127.0.0.1", "HTTP/1.1", 200, "OK") == (
        exchange.method, exchange.client_address, exchange.http_version, exchange.status, exchange.status_text,
    )  # fmt: skip
