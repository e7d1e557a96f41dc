"""The README's examples run as they are written there."""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask

from tests.faults.processes import free_port, poll
from tests.readme import README, blocks

if TYPE_CHECKING:
    from pathlib import Path

    from tests.metrics_server import MetricsServer

SET_UP, CRON, SERVERLESS, TESTING, WEBHOOK = blocks("python")  # a new example wants its own test below


@pytest.fixture
def stranger(tmp_path: Path, server: MetricsServer) -> dict[str, str]:
    """The environment of somebody who has set nothing but the server."""
    (tmp_path / "app.py").write_text(SET_UP)
    ours = {name: value for name, value in os.environ.items() if not name.startswith("README_")}
    homes = {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}
    return {**ours, **homes, "README_METRICS_SERVER": server.url}


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def get(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_the_set_up_typed_word_for_word_logs_to_the_server(
    tmp_path: Path, server: MetricsServer, stranger: dict[str, str]
) -> None:
    assert "flask --app app run" in README
    port = free_port()
    command = [sys.executable, "-m", "flask", "--app", "app", "run", "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=stranger, stdout=log, stderr=log)
    try:
        poll(lambda: answers(port), 30, (tmp_path / "log").read_text)
        seen = [get(port) for _ in range(10)]  # a batch: it leaves at once
        server.wait_for(lambda: len(server.taken_ids) == 10)
    finally:
        process.kill()
        process.wait(10)
    assert all(answer.endswith(b'{"hello":"world"}\n') for answer in seen)
    entry: dict[str, Any] = dict(server.posts[0].entries[0])
    assert "display name" == entry["group"]["label"]
    assert '{"hello":"world"}\n' == entry["request"]["log"]["entries"][0]["response"]["content"]["text"]


def test_the_examples_for_cron_and_serverless_run_as_written(
    tmp_path: Path, server: MetricsServer, stranger: dict[str, str]
) -> None:
    around = (
        "from app import *\n"
        "def handle(event):\n"
        "    return app.test_client().get('/').json\n"
        f"{CRON}\n{SERVERLESS}\n"
        "print(config.auto_flush, handler({}, None))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", around],
        cwd=tmp_path,
        env=stranger,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert (0, "False {'hello': 'world'}\n") == (done.returncode, done.stdout), done.stderr
    assert 1 == len(server.taken_ids)


def test_the_example_for_tests_logs_nothing_in_them_and_everything_else(
    tmp_path: Path, server: MetricsServer, stranger: dict[str, str]
) -> None:
    for testing, taken in (True, 0), (False, 1):
        around = f"from app import *\n{TESTING}\ncreate_app({testing}).test_client().get('/')\n"
        done = subprocess.run([sys.executable, "-c", around], cwd=tmp_path, env=stranger, timeout=40, check=False)
        assert (0, taken) == (done.returncode, len(server.taken_ids))


def test_the_webhook_example_tells_readme_from_a_stranger() -> None:
    space: dict[str, object] = {}
    exec(WEBHOOK, space)
    app = space["app"]
    assert isinstance(app, Flask)
    stamp, body = f"{time.time() * 1000:.0f}", b'{"email":"ada@example.com"}'
    digest = hmac.new(b"your webhook secret", stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    client = app.test_client()
    signed = client.post("/webhook", data=body, headers={"readme-signature": f"t={stamp},v0={digest}"})
    forged = client.post("/webhook", data=body + b" ", headers={"readme-signature": f"t={stamp},v0={digest}"})
    assert (200, {"name": "Ada"}) == (signed.status_code, signed.json)
    assert (401, {"error": "Invalid Signature"}) == (forged.status_code, forged.json)
