"""The dangers that only real sockets have: clients that stall or leave, files sent past us, bodies in pieces."""

from __future__ import annotations

import gzip
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import flask
import pytest

from readme_metrics.exchange import Body
from tests.captured import ListRecorder, log, served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEADLINE_S = 10


@pytest.fixture
def app() -> flask.Flask:
    app = flask.Flask("tests")

    @app.post("/refused")
    def refused() -> tuple[str, int]:
        return "who are you?", 401

    @app.post("/read")
    def read() -> str:
        return str(len(flask.request.get_data()))

    @app.post("/unread")
    def unread() -> str:
        return "ok"

    return app


@pytest.fixture
def recorder(app: flask.Flask) -> ListRecorder:
    return log(app)


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as client:
        yield client


def answer(client: socket.socket) -> bytes:
    """Everything until the server closes."""
    return b"".join(iter(lambda: client.recv(65536), b""))


def test_a_client_that_stalls_behind_a_401_is_answered_at_once(app: flask.Flask, recorder: ListRecorder) -> None:
    with served(app) as port, connected(port) as client:
        client.sendall(b"POST /refused HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n")

        assert client.recv(65536).startswith(b"HTTP/1.1 401")
    assert Body(None, 100) == recorder.only.request_body


def test_a_client_that_expects_to_be_asked_is_not_waited_for(app: flask.Flask, recorder: ListRecorder) -> None:
    with served(app) as port, connected(port) as client:
        client.sendall(b"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n")
        received = b""
        while b"200 OK" not in received:
            received += client.recv(65536)
    assert Body(None, 100) == recorder.only.request_body


def test_a_chunked_body_reaches_the_view_and_the_log(app: flask.Flask, recorder: ListRecorder) -> None:
    with served(app) as port, connected(port) as client:
        client.sendall(b"POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.sendall(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")

        assert answer(client).endswith(b"\r\n\r\n11")
    assert Body(b"hello world", 11) == recorder.only.request_body


def test_a_client_that_has_its_whole_answer_has_its_record(app: flask.Flask, recorder: ListRecorder) -> None:
    with served(app) as port:
        for number in range(20):
            with connected(port) as client:
                client.sendall(b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
                while not client.recv(65536).endswith(b"3"):
                    pass

                assert number + 1 == len(recorder.exchanges)


def test_the_first_bytes_of_a_stream_arrive_while_it_is_still_made(app: flask.Flask, recorder: ListRecorder) -> None:
    client_has_it = threading.Event()

    @app.get("/stream")
    def stream() -> Iterator[str]:
        yield "first"
        assert client_has_it.wait(DEADLINE_S)
        yield "second"

    with served(app) as port, connected(port) as client:
        client.sendall(b"GET /stream HTTP/1.0\r\n\r\n")
        received = b""
        while b"first" not in received:
            received += client.recv(65536)
        client_has_it.set()

        assert b"second" in answer(client)
    assert Body(b"firstsecond", 11) == recorder.only.response_body
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/stream", recorder.only.url)


def test_a_client_that_leaves_early_ends_the_stream_and_is_recorded(app: flask.Flask, recorder: ListRecorder) -> None:
    closed = threading.Event()

    @app.get("/endless")
    def endless() -> flask.Response:
        def chunks() -> Iterator[bytes]:
            while True:
                yield b"x" * 65536

        response = flask.Response(chunks())
        response.call_on_close(closed.set)
        return response

    with served(app) as port:
        with connected(port) as client:
            client.sendall(b"GET /endless HTTP/1.0\r\n\r\n")
            client.recv(65536)
        assert closed.wait(DEADLINE_S)
        assert recorder.recorded.wait(DEADLINE_S)

    body = recorder.only.response_body
    assert body.data is None
    assert body.size


def test_a_compressed_answer_and_a_file_arrive_as_they_are(
    app: flask.Flask, recorder: ListRecorder, tmp_path: Path
) -> None:
    packed = gzip.compress(b"hello" * 100)
    (tmp_path / "file.bin").write_bytes(b"\x00\xff" * 50_000)
    app.add_url_rule("/gzip", "gzip", lambda: flask.Response(packed, headers={"Content-Encoding": "gzip"}))
    app.add_url_rule("/file", "file", lambda: flask.send_file(tmp_path / "file.bin"))

    with served(app) as port:
        for path, whole in ((b"/gzip", packed), (b"/file", b"\x00\xff" * 50_000)):
            with connected(port) as client:
                client.sendall(b"GET " + path + b" HTTP/1.0\r\n\r\n")
                assert whole == answer(client).partition(b"\r\n\r\n")[2]

    assert [Body(packed, len(packed)), Body(None, 100_000)] == [each.response_body for each in recorder.exchanges]


GUNICORN_APP = """
import sys
import flask
from tests.captured import ListRecorder, log

class PrintingRecorder(ListRecorder):
    def record(self, exchange, group):
        super().record(exchange, group)
        body = exchange.response_body
        print(exchange.method, exchange.url, exchange.status, body.data is None, body.size,
              exchange.request_body.size, file=sys.stdout, flush=True)

app = flask.Flask("gunicorn")
log(app, recorder=PrintingRecorder())

@app.get("/file")
def file():
    return flask.send_file(__file__)

@app.post("/refused")
def refused():
    return "no", 401

@app.post("/read")
def read():
    return str(len(flask.request.get_data()))
"""


@contextmanager
def gunicorn(tmp_path: Path, *arguments: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    (tmp_path / "gunicorn_app.py").write_text(GUNICORN_APP)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.set_inheritable(True)
        command = [sys.executable, "-m", "gunicorn", "--bind", f"fd://{listener.fileno()}"]
        process = subprocess.Popen(
            [*command, "--chdir", str(tmp_path), *arguments, "gunicorn_app:app"],
            pass_fds=[listener.fileno()],
            env={**os.environ, "PYTHONPATH": os.getcwd(), "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},  # noqa: PTH109  # a path in text
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        try:
            yield listener.getsockname()[1], process
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(DEADLINE_S)
            assert process.stdout is not None
            process.stdout.close()


@pytest.mark.parametrize("worker", [["--worker-class", "sync"], ["--worker-class", "gthread", "--threads", "2"]])
def test_gunicorn_sends_files_answers_stallers_and_takes_chunks(tmp_path: Path, worker: list[str]) -> None:
    with gunicorn(tmp_path, *worker) as (port, process):
        assert process.stdout is not None
        with connected(port) as client:
            client.sendall(b"GET /file HTTP/1.0\r\nHost: h\r\n\r\n")
            assert GUNICORN_APP.encode() == answer(client).partition(b"\r\n\r\n")[2]
        began = time.monotonic()
        with connected(port) as client:
            client.sendall(b"POST /refused HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 401")
        assert time.monotonic() - began < DEADLINE_S / 2
        with connected(port) as client:
            client.sendall(b"POST /read HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
            client.sendall(b"5\r\nhello\r\n0\r\n\r\n")
            assert answer(client).endswith(b"5")

        lines = [process.stdout.readline().split() for _ in range(3)]

    assert [
        ["GET", "http://h/file", "200", "True", str(len(GUNICORN_APP)), "0"],
        ["POST", "http://h/refused", "401", "False", "2", "100"],
        ["POST", "http://h/read", "200", "False", "1", "5"],
    ] == lines
