"""What was answered, and the moment it is recorded: before a client can have its whole answer, and once."""

from __future__ import annotations

import gzip
import io
from typing import TYPE_CHECKING, Any

import flask
import pytest
from werkzeug.test import EnvironBuilder
from werkzeug.wsgi import ClosingIterator, FileWrapper

from readme_metrics.exchange import NO_BODY, Body
from tests.captured import ListRecorder, log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from readme_metrics.exchange import Exchange, Group
    from readme_metrics.redaction import Redaction


@pytest.fixture
def app() -> flask.Flask:
    return flask.Flask("tests")


@pytest.fixture
def recorder(app: flask.Flask) -> ListRecorder:
    return log(app)


def fails() -> str:
    raise ZeroDivisionError


def log_of(app: flask.Flask, inner: Callable[..., Any], **options: Any) -> ListRecorder:
    """Put a WSGI app that is not Flask's behind the extension."""
    app.wsgi_app = inner  # type: ignore[method-assign]  # Flask's own way
    return log(app, **options)


class Server:
    """A WSGI server by hand: calls the app, then takes one chunk at a time."""

    def __init__(self, app: flask.Flask, **overrides: Any) -> None:
        self.status: str | None = None
        self.headers: list[tuple[str, str]] = []
        self.written: list[bytes] = []
        environ = EnvironBuilder("/", environ_overrides=overrides).get_environ()
        self.body = app.wsgi_app(environ, self.start_response)

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        self.status, self.headers = status, headers
        return self.written.append

    def chunks(self) -> Iterator[bytes]:
        return iter(self.body)

    def close(self) -> None:
        if hasattr(self.body, "close"):
            self.body.close()


@pytest.mark.parametrize("whole", ["hello", ["hel", b"lo"], (b"hel", b"lo"), b"hello"])
def test_a_body_at_hand_is_recorded_before_the_first_byte(app: flask.Flask, recorder: ListRecorder, whole: Any) -> None:
    app.add_url_rule("/", view_func=lambda: flask.Response(whole))

    server = Server(app)

    assert Body(b"hello", 5) == recorder.only.response_body
    assert b"hello" == b"".join(server.chunks())
    server.close()
    assert 1 == len(recorder.exchanges)


def test_a_body_at_hand_is_handed_on_untouched(app: flask.Flask) -> None:
    app.add_url_rule("/", view_func=lambda: "hello")
    bodies = []
    inner = app.wsgi_app

    def remember(environ: Any, start_response: Any) -> Any:
        bodies.append(inner(environ, start_response))
        return bodies[0]

    log_of(app, remember)

    assert Server(app).body is bodies[0]


def test_a_stream_with_content_length_is_recorded_before_the_chunk_that_completes_it(
    app: flask.Flask, recorder: ListRecorder
) -> None:
    app.add_url_rule("/", view_func=lambda: flask.Response(iter(["abc", "def"]), headers={"Content-Length": "6"}))
    server = Server(app)
    chunks = server.chunks()

    assert b"abc" == next(chunks)
    assert [] == recorder.exchanges
    assert b"def" == next(chunks)
    assert Body(b"abcdef", 6) == recorder.only.response_body


def test_another_stream_is_recorded_before_its_iterator_says_it_is_over(
    app: flask.Flask, recorder: ListRecorder
) -> None:
    app.add_url_rule("/", view_func=lambda: flask.Response(iter(["abc", "def"])))
    server = Server(app)
    chunks = server.chunks()

    assert [b"abc", b"def"] == [next(chunks), next(chunks)]
    assert [] == recorder.exchanges
    assert [] == list(chunks)
    assert Body(b"abcdef", 6) == recorder.only.response_body
    server.close()
    assert 1 == len(recorder.exchanges)


def test_the_first_byte_of_a_stream_waits_for_nothing_but_itself(app: flask.Flask, recorder: ListRecorder) -> None:
    made = []

    @app.get("/")
    def stream() -> Iterator[str]:
        for number in range(3):
            made.append(number)
            yield str(number)

    chunks = Server(app).chunks()

    assert [] == made
    assert b"0" == next(chunks)
    assert [0] == made


def test_an_aborted_stream_is_recorded_when_it_is_closed_and_closes_the_apps_own(
    app: flask.Flask, recorder: ListRecorder
) -> None:
    closed = []

    @app.get("/")
    def stream() -> flask.Response:
        response = flask.Response(iter(["abc", "def"]))
        response.call_on_close(lambda: closed.append(len(recorder.exchanges)))
        return response

    server = Server(app)
    next(server.chunks())
    server.close()
    server.close()

    assert Body(None, 3) == recorder.only.response_body
    assert [1, 1] == closed


def test_a_stream_that_raises_is_recorded_and_its_error_goes_on(app: flask.Flask, recorder: ListRecorder) -> None:
    @app.get("/")
    def stream() -> Iterator[str]:
        yield "abc"
        raise ZeroDivisionError

    server = Server(app)
    chunks = server.chunks()
    next(chunks)

    with pytest.raises(ZeroDivisionError):
        next(chunks)
    assert (200, Body(None, 3)) == (recorder.only.status, recorder.only.response_body)
    server.close()
    assert 1 == len(recorder.exchanges)


def test_a_stream_that_raises_before_its_first_byte_is_the_servers_500(
    app: flask.Flask, recorder: ListRecorder
) -> None:
    @app.get("/")
    def stream() -> Iterator[str]:
        raise ZeroDivisionError
        yield ""

    with pytest.raises(ZeroDivisionError):
        next(Server(app).chunks())

    assert (500, ()) == (recorder.only.status, recorder.only.response_headers)


def test_a_stream_that_raises_behind_an_empty_chunk_is_no_500(app: flask.Flask, recorder: ListRecorder) -> None:
    @app.get("/")
    def stream() -> Iterator[str]:
        yield ""
        raise ZeroDivisionError

    chunks = Server(app).chunks()
    next(chunks)

    with pytest.raises(ZeroDivisionError):
        next(chunks)
    assert (200, Body(None, 0)) == (recorder.only.status, recorder.only.response_body)


def test_a_websocket_that_is_over_is_not_logged(app: flask.Flask, recorder: ListRecorder) -> None:
    class Over(flask.Response):
        def __call__(self, *_: Any) -> Any:
            raise StopIteration  # how flask-sock says it to gunicorn

    app.add_url_rule("/", view_func=Over)

    with pytest.raises(StopIteration):
        Server(app)

    assert [] == recorder.exchanges


def test_a_view_that_raises_stop_iteration_is_logged(app: flask.Flask, recorder: ListRecorder) -> None:
    app.testing = True
    app.add_url_rule("/", view_func=lambda: next(iter([])))

    with pytest.raises(StopIteration):
        Server(app)

    assert 500 == recorder.only.status


@pytest.mark.parametrize("kind", [GeneratorExit, KeyboardInterrupt, SystemExit])
def test_what_ends_the_process_or_the_greenlet_passes_and_is_recorded(
    app: flask.Flask, recorder: ListRecorder, kind: type[BaseException]
) -> None:
    @app.get("/")
    def leave() -> str:
        raise kind

    with pytest.raises(kind):
        Server(app)

    assert 500 == recorder.only.status


@pytest.mark.parametrize("answer", [("", 204), ("", 304), (b"", 200), ("text", 204)])
def test_an_answer_without_a_body_is_recorded_at_once(app: flask.Flask, recorder: ListRecorder, answer: Any) -> None:
    app.add_url_rule("/", view_func=lambda: answer)

    Server(app)

    assert NO_BODY == recorder.only.response_body


def test_head_is_recorded_at_once_with_no_body(app: flask.Flask, recorder: ListRecorder) -> None:
    app.add_url_rule("/", view_func=lambda: "hello")

    server = Server(app, REQUEST_METHOD="HEAD")

    assert ("HEAD", NO_BODY) == (recorder.only.method, recorder.only.response_body)
    assert ("Content-Length", "5") in server.headers


def test_a_body_above_the_cap_is_counted_and_not_kept(app: flask.Flask) -> None:
    recorder = log(app, max_body_bytes=1000)
    app.add_url_rule("/whole", "whole", lambda: "x" * 5000)
    app.add_url_rule("/stream", "stream", lambda: flask.Response(iter(["x" * 10] * 500)))

    for path in ("/whole", "/stream"):
        assert 5000 == len(app.test_client().get(path).data)

    assert [Body(None, 5000)] * 2 == [exchange.response_body for exchange in recorder.exchanges]


def test_a_file_is_recorded_before_it_goes_out_and_is_handed_on_as_the_servers_own(
    app: flask.Flask, recorder: ListRecorder, tmp_path: Path
) -> None:
    class ServersOwn(FileWrapper):
        pass

    (tmp_path / "file.txt").write_bytes(b"hello")
    app.add_url_rule("/", view_func=lambda: flask.send_file(tmp_path / "file.txt"))

    server = Server(app, **{"wsgi.file_wrapper": ServersOwn})

    assert ServersOwn is type(server.body)
    assert Body(None, 5) == recorder.only.response_body
    server.close()


def test_a_file_wrapper_that_is_a_function_gets_its_own_object_back(
    app: flask.Flask, recorder: ListRecorder, tmp_path: Path
) -> None:
    handed_on = []

    def sendfile(file: Any, _: int) -> Any:
        handed_on.append(file)
        return file

    (tmp_path / "file.txt").write_bytes(b"hello")
    app.add_url_rule("/", view_func=lambda: flask.send_file(tmp_path / "file.txt"))

    server = Server(app, **{"wsgi.file_wrapper": sendfile})

    assert server.body is handed_on[0]
    assert Body(None, 5) == recorder.only.response_body
    server.close()


def test_part_of_a_file_reaches_the_client(app: flask.Flask, recorder: ListRecorder, tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_bytes(b"0123456789")
    app.add_url_rule("/", view_func=lambda: flask.send_file(tmp_path / "file.txt", conditional=True))

    with app.test_client().get("/", headers={"Range": "bytes=2-4"}) as answer:
        assert (206, b"234") == (answer.status_code, answer.data)
    assert 206 == recorder.only.status


def test_repeated_headers_and_the_session_cookie_are_logged_as_sent(app: flask.Flask, recorder: ListRecorder) -> None:
    app.secret_key = "k"

    @app.get("/")
    def cookies() -> flask.Response:
        flask.session["name"] = "Ann"
        response = flask.Response("ok")
        response.set_cookie("a", "1")
        response.set_cookie("b", "2")
        return response

    server = Server(app)

    assert tuple(server.headers) == recorder.only.response_headers
    cookies_set = [value.partition("=")[0] for name, value in recorder.only.response_headers if name == "Set-Cookie"]
    assert ["a", "b", "session"] == cookies_set


def test_a_compressed_body_is_kept_as_it_went_over_the_wire(app: flask.Flask, recorder: ListRecorder) -> None:
    packed = gzip.compress(b'{"a": 1}')
    app.add_url_rule("/", view_func=lambda: flask.Response(packed, headers={"Content-Encoding": "gzip"}))

    app.test_client().get("/")

    assert Body(packed, len(packed)) == recorder.only.response_body


def test_an_iterator_encoded_by_the_response_itself_is_recorded_as_it_went_out(
    app: flask.Flask, recorder: ListRecorder
) -> None:
    class Shouting(flask.Response):
        def iter_encoded(self) -> Iterator[bytes]:
            return (chunk.upper() for chunk in super().iter_encoded())

    app.add_url_rule("/", view_func=lambda: Shouting("hello"))

    assert b"HELLO" == app.test_client().get("/").data
    assert Body(b"HELLO", 5) == recorder.only.response_body


def test_what_the_response_makes_of_its_body_itself_is_recorded_as_it_went_out(
    app: flask.Flask, recorder: ListRecorder
) -> None:
    class Shouting(flask.Response):
        def get_app_iter(self, environ: Any) -> Any:
            return ClosingIterator((chunk.upper() for chunk in self.iter_encoded()), self.close)

    app.add_url_rule("/", view_func=lambda: Shouting("hello"))

    assert b"HELLO" == app.test_client().get("/").data
    assert Body(b"HELLO", 5) == recorder.only.response_body


@pytest.mark.parametrize("length", [5, b"5", None, "9" * 5000, "\u0665"])
def test_a_content_length_that_is_no_number_in_a_text_changes_nothing(app: flask.Flask, length: Any) -> None:
    def odd(_: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", length)])
        return [b"hello"]

    log_of(app, odd)
    server = Server(app)

    assert (b"hello", [("Content-Length", length)]) == (b"".join(server.chunks()), server.headers)


def test_a_body_changed_behind_the_response_is_recorded_as_it_went_out(app: flask.Flask) -> None:
    def shouting(environ: Any, start_response: Any) -> Any:
        response = flask.Response("hello")
        start_response("200 OK", [("Content-Length", "7")])
        return ClosingIterator(iter([b"HELLO!!"]), response.close)

    recorder = log_of(app, shouting)

    assert b"HELLO!!" == app.test_client().get("/").data
    assert Body(b"HELLO!!", 7) == recorder.only.response_body


def test_the_unread_body_of_a_client_that_left_is_not_waited_for(app: flask.Flask, recorder: ListRecorder) -> None:
    class Silent(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            raise AssertionError("this would wait for ever")

    app.add_url_rule("/", view_func=lambda: flask.Response(iter(["abc", "def"])), methods=["POST"])
    server = Server(app, **{"REQUEST_METHOD": "POST", "CONTENT_LENGTH": "10", "wsgi.input": Silent()})
    next(server.chunks())
    server.close()

    assert Body(None, 10) == recorder.only.request_body


@pytest.mark.parametrize("option", ["DEBUG", "TESTING"])
def test_an_unhandled_exception_is_recorded_as_a_500_and_raised_on(
    app: flask.Flask, recorder: ListRecorder, option: str
) -> None:
    app.config[option] = True

    @app.get("/<name>")
    def fail(name: str) -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        app.test_client().get("/x")

    assert (500, "http://localhost/<name>") == (recorder.only.status, recorder.only.page)


def test_who_called_is_known_where_an_exception_is_raised_on(app: flask.Flask) -> None:
    recorder = log(app, grouping_function=lambda _: {"api_key": flask.g.user})
    app.testing = True

    @app.before_request
    def sign_in() -> None:
        flask.g.user = "ann"

    app.add_url_rule("/", view_func=fails)

    with pytest.raises(ZeroDivisionError):
        app.test_client().get("/")

    assert ["ann"] == [group.api_key for group in recorder.groups]


def test_an_unhandled_exception_in_production_is_recorded_with_flasks_own_page(
    app: flask.Flask, recorder: ListRecorder
) -> None:
    app.add_url_rule("/", view_func=fails)
    app.register_error_handler(500, lambda _: ("sorry", 500))

    answer = Server(app)

    assert b"sorry" == b"".join(answer.chunks())
    assert (500, Body(b"sorry", 5)) == (recorder.only.status, recorder.only.response_body)


@pytest.mark.parametrize("testing", [True, False])
def test_an_after_request_that_raises_is_recorded_once(
    app: flask.Flask, recorder: ListRecorder, *, testing: bool
) -> None:
    app.testing = testing
    app.add_url_rule("/", view_func=lambda: "hello")

    @app.after_request
    def fail(_: flask.Response) -> flask.Response:
        raise ZeroDivisionError

    if testing:
        with pytest.raises(ZeroDivisionError):
            Server(app)
    else:
        server = Server(app)
        assert "500 INTERNAL SERVER ERROR" == server.status
        next(server.chunks())

    assert 500 == recorder.only.status


def test_a_teardown_that_raises_is_recorded_as_the_servers_500(app: flask.Flask, recorder: ListRecorder) -> None:
    app.add_url_rule("/", view_func=lambda: "hello")

    @app.teardown_request
    def fail(_: BaseException | None) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Server(app)

    assert 500 == recorder.only.status


def test_error_handlers_redirects_and_other_before_requests_are_logged(
    app: flask.Flask, recorder: ListRecorder
) -> None:
    app.add_url_rule("/old", "old", lambda: flask.redirect("/new?a=1"))
    app.add_url_rule("/teapot", "teapot", lambda: flask.abort(418))
    app.register_error_handler(418, lambda _: ("short and stout", 418))

    @app.before_request
    def closed() -> str | None:
        return "closed" if flask.request.path == "/closed" else None

    for path in ("/old", "/teapot", "/closed", "/nowhere"):
        app.test_client().get(path)
    app.test_client().post("/old")

    assert [302, 418, 200, 404, 405] == [exchange.status for exchange in recorder.exchanges]
    assert ("Location", "/new?a=1") in recorder.exchanges[0].response_headers


def test_a_start_response_called_late_is_seen(app: flask.Flask) -> None:
    def late(_: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", "6")])
        yield b"abc"
        yield b"def"

    recorder = log_of(app, late)
    chunks = Server(app).chunks()

    assert b"abc" == next(chunks)
    assert [] == recorder.exchanges
    next(chunks)
    assert Body(b"abcdef", 6) == recorder.only.response_body


def test_a_stream_closed_before_it_began_is_recorded(app: flask.Flask) -> None:
    def late(_: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"abc"

    recorder = log_of(app, late)
    Server(app).close()

    assert 1 == len(recorder.exchanges)


def test_what_is_written_by_hand_is_recorded_before_the_byte_that_completes_it(app: flask.Flask) -> None:
    moments = []

    def writing(_: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [("Content-Length", "6")])
        for data in (b"abc", b"def"):
            write(data)
            moments.append(len(captured.exchanges))
        return []

    captured = log_of(app, writing)
    server = Server(app)

    assert [b"abc", b"def"] == server.written
    assert [0, 1] == moments
    assert Body(b"abcdef", 6) == captured.only.response_body


def test_a_second_start_response_replaces_the_first(app: flask.Flask) -> None:
    def twice(_: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "100")])
        start_response("503 Service Unavailable", [("Content-Length", "4")], (ValueError, ValueError(), None))
        return [b"busy"]

    recorder = log_of(app, twice)
    Server(app)

    assert (503, "Service Unavailable") == (recorder.only.status, recorder.only.status_text)
    assert Body(b"busy", 4) == recorder.only.response_body


def test_an_iterable_keeps_its_length_and_attributes(app: flask.Flask) -> None:
    class Sized:
        name = "sized"

        def __len__(self) -> int:
            return 1

        def __iter__(self) -> Iterator[bytes]:
            return iter([b"abc"])

    def sized(_: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return Sized()

    recorder = log_of(app, sized)
    body: Any = Server(app).body

    assert (1, "sized", [b"abc"]) == (len(body), body.name, list(body))
    assert not hasattr(body, "close") or body.close() is None
    assert Body(b"abc", 3) == recorder.only.response_body


def test_a_request_that_is_not_logged_keeps_its_body_untouched(app: flask.Flask) -> None:
    stream = iter([b"abc"])

    def streaming(_: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return stream

    log_of(app, streaming, grouping_function=lambda _: None)

    assert stream is Server(app).body


def test_the_view_may_read_the_request_while_it_streams_the_answer(app: flask.Flask, recorder: ListRecorder) -> None:
    @app.post("/echo")
    def echo() -> flask.Response:
        stream = flask.request.stream
        return flask.Response(iter(lambda: stream.read(4), b""))

    assert b"0123456789" == app.test_client().post("/echo", data=b"0123456789").data
    assert Body(b"0123456789", 10) == recorder.only.request_body
    assert Body(b"0123456789", 10) == recorder.only.response_body


class Broken(ListRecorder):
    """A recorder with a bug."""

    def record(self, exchange: Exchange, group: Group, *mounted: Redaction) -> None:
        super().record(exchange, group, *mounted)
        raise RuntimeError("a bug of ours")


@pytest.mark.parametrize(
    "response",
    [
        lambda: flask.Response("abcdef"),
        lambda: flask.Response(iter(["abc", "def"])),
        lambda: flask.Response(iter(["abc", "def"]), headers={"Content-Length": "6"}),
    ],
)
def test_a_fault_of_ours_while_an_answer_goes_out_does_not_show(
    app: flask.Flask, response: Callable[[], flask.Response]
) -> None:
    broken = log(app, Broken())
    app.add_url_rule("/", view_func=response)
    server = Server(app)

    assert b"abcdef" == b"".join(server.chunks())
    server.close()
    assert 1 == len(broken.exchanges)


def test_a_fault_of_ours_when_a_stream_is_left_does_not_show(app: flask.Flask) -> None:
    broken = log(app, Broken())
    app.add_url_rule("/", view_func=lambda: flask.Response(iter(["abc", "def"])))
    server = Server(app)
    next(server.chunks())
    server.close()

    assert 1 == len(broken.exchanges)


def test_a_fault_of_ours_while_an_exception_goes_out_does_not_take_its_place(app: flask.Flask) -> None:
    broken = log_of(app, lambda *_: fails(), recorder=Broken())
    with pytest.raises(ZeroDivisionError):
        Server(app)

    assert 1 == len(broken.exchanges)
