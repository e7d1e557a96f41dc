"""Who may ask the inspector, and what its answers forbid a browser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from readme_metrics.inspector import server
from readme_metrics.inspector.desk import Desk
from readme_metrics.inspector.routes import Routes
from tests.inspector_helpers import KEY, said, wire_entry

if TYPE_CHECKING:
    from flask.testing import FlaskClient

    from readme_metrics.inspector import Inspector


STATIC = Path(server.__file__).parent / "static"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:4400", "localhost:1", "LOCALHOST", "[::1]:4400"])
def test_this_machines_own_hosts_may_ask(client: FlaskClient, host: str) -> None:
    assert 200 == client.get("/api/figures", headers={"Host": host}).status_code


@pytest.mark.parametrize(
    "host",
    ["evil.test", "evil.test:4400", "127.0.0.1.evil.test", "127.0.0.1@evil.test", "localhost.evil.test", "", "[::2]",
     "127.0.0.1:4400\n", "0.0.0.0:4400"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/api/figures", "/api/har", "/static/main.js", "/nowhere"])
def test_a_name_that_was_made_to_point_here_is_turned_away(host: str, path: str) -> None:
    client = Routes(Desk()).app().test_client()
    assert 403 == client.get(path, environ_overrides={"HTTP_HOST": host}).status_code


FROM_ELSEWHERE: list[dict[str, str]] = [
    {"Origin": "http://evil.test"},
    {"Origin": "null"},
    {"Origin": "http://localhost:3000"},
    {"Origin": "https://localhost"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
]


@pytest.mark.parametrize("headers", FROM_ELSEWHERE, ids=str)
@pytest.mark.parametrize("path", ["/v1/request", "/api/outage", "/api/clear"])
def test_a_page_from_elsewhere_changes_nothing(client: FlaskClient, path: str, headers: dict[str, str]) -> None:
    client.post("/v1/request", json=[wire_entry()], auth=KEY)
    posted: object = {"mode": "503"} if path == "/api/outage" else [wire_entry()]
    assert 403 == client.post(path, json=posted, auth=KEY, headers=headers).status_code
    assert "off" == said(client.get("/api/figures"))["outage"]
    assert 1 == len(said(client.get("/api/har"))["log"]["entries"])


def test_a_page_from_elsewhere_reads_nothing_but_may_link_here(client: FlaskClient) -> None:
    assert 403 == client.get("/api/har", headers={"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}).status_code
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    with client.get("/", headers=link) as answer:
        assert 200 == answer.status_code


def test_the_page_itself_may_play_an_outage(client: FlaskClient) -> None:
    headers = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    assert 200 == client.post("/api/outage", json={"mode": "429"}, headers=headers).status_code


@pytest.mark.parametrize("path", ["/", "/static/main.js", "/api/figures", "/api/har", "/nowhere", "/v1/request"])
def test_every_answer_forbids_inline_script_and_framing(client: FlaskClient, path: str) -> None:
    with client.get(path) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert ("nosniff", "no-store", "no-referrer") == tuple(
        answer.headers[name] for name in ("X-Content-Type-Options", "Cache-Control", "Referrer-Policy")
    )


def test_the_page_loads_nothing_from_elsewhere_and_writes_no_markup() -> None:
    for file in STATIC.iterdir():
        text = file.read_text("utf-8").replace("http://www.w3.org/2000/svg", "").replace("http://127.0.0.1:5000/", "")
        assert not re.search(r"https?://|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), file
    page = (STATIC / "index.html").read_text("utf-8")
    assert not re.search(r"<script>|<style|\sstyle=|\son\w+=", page)


def test_it_listens_on_loopback_only(inspector: Inspector) -> None:
    assert ("127.0.0.1", inspector.port) == inspector._server.socket.getsockname()
