# expected == actual, in every test

from __future__ import annotations

import contextlib
import itertools
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from readme_metrics.errors import ConfigurationError, QueueUnavailable
from readme_metrics.inspector import books, desk, make_server, outage, routes, server
from readme_metrics.inspector.desk import Cursor, Desk
from readme_metrics.inspector.routes import Routes
from readme_metrics.inspector.wire import MAX_FAULTS, NotEntries, read_entries
from readme_metrics.queue.contract import Activity, Backlog, Books, Hold, Report
from tests.inspector_helpers import KEY, check_har, post, running_inspector, wire_entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flask.testing import FlaskClient
    from werkzeug.test import TestResponse

    from readme_metrics.inspector import Inspector

STATIC = Path(server.__file__).parent / "static"


@pytest.fixture(name="inspector")
def _inspector() -> Iterator[Inspector]:
    with running_inspector() as inspector:
        yield inspector


@pytest.fixture(name="client")
def _client() -> FlaskClient:
    return Routes(Desk()).app().test_client()


class Page:
    """What one open page is told."""

    def __init__(self, inspector: Inspector, last_event_id: str = "") -> None:
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        self.answer = requests.get(f"{inspector.url}/api/live", headers=headers, stream=True, timeout=10)
        self._lines = self.answer.iter_lines()
        self.last_event_id = ""

    def next(self, wanted: Callable[[dict[str, Any]], object] = lambda update: True) -> dict[str, Any]:
        """The next update that holds what is wanted."""
        for line in self._lines:
            if line.startswith(b"id: "):
                self.last_event_id = line[4:].decode()
            if line.startswith(b"data: "):
                update: dict[str, Any] = json.loads(line[6:])
                if wanted(update):
                    return update
        raise AssertionError("the stream ended")


@contextlib.contextmanager
def open_page(inspector: Inspector, last_event_id: str = "") -> Iterator[Page]:
    page = Page(inspector, last_event_id)
    try:
        yield page
    finally:
        page.answer.close()


def figures(inspector: Inspector) -> dict[str, Any]:
    answer: dict[str, Any] = requests.get(f"{inspector.url}/api/figures", timeout=10).json()
    return answer


def said(answer: TestResponse) -> dict[str, Any]:
    """A small JSON answer of the test client."""
    found: dict[str, Any] = json.loads(answer.data)
    return found


def play(inspector: Inspector, mode: str) -> requests.Response:
    return requests.post(f"{inspector.url}/api/outage", json={"mode": mode}, timeout=10)


def changed(path: str, value: object) -> dict[str, Any]:
    """A valid entry with one field changed; ``...`` takes it out."""
    entry = wire_entry()
    *steps, last = (int(step) if step.isdecimal() else step for step in path.split("/"))
    at: Any = entry
    for step in steps:
        at = at[step]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return entry


def log_of(entry: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = entry["request"]["log"]["entries"][0]
    return found


# The wire


def test_entries_with_any_key_are_taken_and_shown(inspector: Inspector) -> None:
    with open_page(inspector) as live:
        answer = post(inspector, wire_entry("http://api.test/a?b=1", method="PUT", status=404), wire_entry())
        rows = live.next(lambda update: update["rows"])["rows"]
    assert (200, {"received": 2}) == (answer.status_code, answer.json())
    assert ("PUT", "/a?b=1", 404, "Ada", 1) == tuple(
        rows[0][name] for name in ("method", "path", "status", "caller", "times")
    )
    assert [1, 2] == [row["seq"] for row in rows]


@pytest.mark.parametrize("auth", [None, ("", ""), ("", "only a password")])
def test_without_a_key_nothing_is_taken(inspector: Inspector, auth: tuple[str, str] | None) -> None:
    answer = requests.post(f"{inspector.url}/v1/request", json=[wire_entry()], auth=auth, timeout=10)
    assert 401 == answer.status_code
    assert "Basic" in answer.headers["WWW-Authenticate"]
    assert (0, 1) == (figures(inspector)["figures"]["entries"], figures(inspector)["figures"]["refused"])


LOG = "request/log/entries/0"


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        ("_id", ..., "entry 1: _id is missing"),
        ("_id", "7", "entry 1: _id must be a lower-case UUID, found a text"),
        ("_version", 2, "entry 1: _version must be 3, found the number 2"),
        ("_version", True, "entry 1: _version must be 3, found true"),
        ("development", "no", "entry 1: development must be true or false, found a text"),
        ("clientIPAddress", None, "entry 1: clientIPAddress must be a text, found null"),
        ("group", [], "entry 1: group must be an object, found an empty array"),
        ("group/id", "", "entry 1: group.id must be a text that is not empty, found an empty text"),
        ("group/label", None, "entry 1: group.label must be a text, found null"),
        ("request/log/creator/name", ..., "entry 1: request.log.creator.name is missing"),
        ("request/log/entries", [], "entry 1: request.log.entries must hold exactly 1, found 0"),
        (f"{LOG}/startedDateTime", "now", "startedDateTime must be a time like 2026-01-31T12:00:00.123Z"),
        (f"{LOG}/startedDateTime", "2026-01-31T12:00:00", "startedDateTime must be a time like"),
        (f"{LOG}/time", -1, "entry 1: request.log.entries[0].time must be a number, 0 or more, found the number -1"),
        (f"{LOG}/timings/wait", ..., "entry 1: request.log.entries[0].timings.wait is missing"),
        (f"{LOG}/request/method", ..., "entry 1: request.log.entries[0].request.method is missing"),
        (f"{LOG}/request/headers", {"a": "b"}, "request.headers must be an array, found an object"),
        (f"{LOG}/request/headers/1/value", 7, "request.headers[1].value must be a text, found the number 7"),
        (f"{LOG}/request/postData", {"text": ""}, "request.postData.mimeType is missing"),
        (f"{LOG}/response/status", "200", "response.status must be a status from 100 to 999, found a text"),
        (f"{LOG}/response/content/size", 1.5, "response.content.size must be a whole number, found the number 1.5"),
    ],
)
def test_each_fault_names_its_entry_and_field(client: FlaskClient, path: str, value: object, fault: str) -> None:
    posted = [wire_entry(), changed(path, value)]
    answer = client.post("/v1/request", json=posted, auth=KEY)
    assert 400 == answer.status_code
    assert 1 == sum(fault in found for found in said(answer)["errors"]), said(answer)


def test_one_invalid_entry_keeps_the_whole_post_out(client: FlaskClient) -> None:
    client.post("/v1/request", json=[wire_entry(), changed("_id", 1)], auth=KEY)
    assert 0 == said(client.get("/api/figures"))["figures"]["entries"]


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", "the body is not JSON"),
        (b"\xff", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b"[NaN]", "NaN is not a JSON value"),
        (b"[1e999]", "1e999 is too large a number"),
        (b"{}", "the body must be an array of one entry or more, found an empty object"),
        (b"[]", "found an empty array"),
        (b'["text"]', "entry 0 must be an object, found a text"),
        (b"[null]", "entry 0 must be an object, found null"),
    ],
)
def test_what_is_no_array_of_entries_is_refused_with_its_reason(client: FlaskClient, body: bytes, fault: str) -> None:
    answer = client.post("/v1/request", data=body, auth=KEY)
    assert 400 == answer.status_code
    assert fault in said(answer)["errors"][0]


def test_a_post_of_a_million_faults_is_told_the_first_few() -> None:
    with pytest.raises(NotEntries) as caught:
        read_entries(b"[" + b"1," * 100_000 + b"1]")
    assert MAX_FAULTS == len(caught.value.faults)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["_id", "group", "group/id", "request", "request/log", LOG, f"{LOG}/request/url", f"{LOG}/time"]
)


@settings(max_examples=60, deadline=None)
@given(path=FIELDS, value=JSON)
def test_whatever_stands_in_a_field_it_is_taken_or_refused_and_never_breaks_the_page(path: str, value: object) -> None:
    client = Routes(Desk()).app().test_client()
    posted = changed(path, value)
    answer = client.post("/v1/request", data=json.dumps([posted]), auth=KEY)
    assert answer.status_code in {200, 400}
    if answer.status_code == 200:
        assert posted == said(client.get(f"/api/entries/{posted['_id']}"))
        said(client.get("/api/har"))


def test_a_post_above_the_limit_is_refused_and_the_next_is_taken(inspector: Inspector) -> None:
    large = wire_entry(text="x" * routes.MAX_POST_BYTES)
    assert 413 == post(inspector, large).status_code
    assert 200 == post(inspector, wire_entry()).status_code
    assert 1 == figures(inspector)["figures"]["refused"]


def test_a_repeat_is_shown_once_with_how_often_it_came(inspector: Inspector) -> None:
    entry = wire_entry()
    with open_page(inspector) as live:
        post(inspector, entry)
        live.next(lambda update: update["rows"])
        post(inspector, entry, wire_entry())
        rows = live.next(lambda update: update["rows"])["rows"]
    assert [(1, 2), (2, 1)] == [(row["seq"], row["times"]) for row in rows]
    assert (2, 1) == tuple(figures(inspector)["figures"][name] for name in ("entries", "repeats"))


# Memory


def taken(count: int, *, text: str = "{}", **bounds: int) -> Desk:
    full = Desk(**bounds)
    for _ in range(count):
        full.take(read_entries(json.dumps([wire_entry(text=text)]).encode()))
    return full


def test_the_oldest_entries_make_room_by_count() -> None:
    full = taken(5, max_entries=3)
    _, update = full.update(Cursor())
    assert ([3, 4, 5], 3, 2) == ([row["seq"] for row in update["rows"]], update["oldest"], update["figures"]["gone"])


def test_the_oldest_entries_make_room_by_bytes() -> None:
    full = taken(10, text="x" * 10_000, max_bytes=35_000)
    assert 3 == len(full.wires())
    assert sum(len(wire) for wire in full.wires()) <= 35_000


def test_an_entry_larger_than_the_bound_does_not_stay() -> None:
    assert [] == taken(1, text="x" * 10_000, max_bytes=5_000).wires()


def test_a_row_is_short_however_long_the_url() -> None:
    full = Desk()
    full.take(read_entries(json.dumps([wire_entry(f"http://api.test/{'x' * 100_000}", label="y" * 9_000)]).encode()))
    assert len(json.dumps(full.update(Cursor())[1])) < 2_000


def test_the_chart_keeps_five_minutes() -> None:
    full = Desk()
    for _ in range(desk.MAX_SAMPLES + 10):
        full.sample(None)
    samples = full.update(Cursor())[1]["samples"]
    assert (desk.MAX_SAMPLES, 11) == (len(samples), samples[0]["tick"])


def test_clear_forgets_the_entries_and_keeps_the_figures(client: FlaskClient) -> None:
    client.post("/v1/request", json=[wire_entry()], auth=KEY)
    client.post("/api/clear")
    assert [] == said(client.get("/api/har"))["log"]["entries"]
    assert 1 == said(client.get("/api/figures"))["figures"]["entries"]


# Who may ask


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


# The outage


@pytest.mark.parametrize(("mode", "status", "retry_after"), [("503", 503, None), ("429", 429, "20")])
def test_an_outage_turns_posts_away_until_it_ends(
    inspector: Inspector, mode: str, status: int, retry_after: str | None
) -> None:
    play(inspector, mode)
    answer = post(inspector, wire_entry())
    assert (status, retry_after) == (answer.status_code, answer.headers.get("Retry-After"))
    assert (0, 1) == tuple(figures(inspector)["figures"][name] for name in ("entries", "turned_away"))
    play(inspector, "off")
    assert 200 == post(inspector, wire_entry()).status_code


def test_a_hanging_post_gets_no_answer_in_time_and_takes_nothing(inspector: Inspector) -> None:
    play(inspector, "hang")
    with pytest.raises(requests.ReadTimeout):
        post(inspector, wire_entry(), timeout_s=0.2)
    assert 0 == figures(inspector)["figures"]["entries"]


def hanging_post(inspector: Inspector, statuses: list[int]) -> threading.Thread:
    """A POST that hangs by the time this returns."""

    def send() -> None:
        with contextlib.suppress(requests.ConnectionError):
            statuses.append(post(inspector, wire_entry(), timeout_s=30).status_code)

    with open_page(inspector) as live:
        before = figures(inspector)["figures"]["turned_away"]
        thread = threading.Thread(target=send)
        thread.start()
        live.next(lambda update: update["figures"]["turned_away"] > before)
    return thread


@pytest.mark.parametrize("mode", ["off", "503"])
def test_a_hanging_post_is_let_go_when_the_outage_changes(inspector: Inspector, mode: str) -> None:
    play(inspector, "hang")
    statuses: list[int] = []
    thread = hanging_post(inspector, statuses)
    play(inspector, mode)
    thread.join(10)
    assert [503] == statuses


def test_shutdown_lets_a_hanging_post_and_an_open_page_go() -> None:
    statuses: list[int] = []
    with running_inspector() as inspector, open_page(inspector) as live:
        live.next()
        play(inspector, "hang")
        thread = hanging_post(inspector, statuses)
    thread.join(10)  # running_inspector saw that none of its own is left
    assert not thread.is_alive()


def test_many_hanging_posts_do_not_lock_the_page_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "MAX_HANGING", 1)
    with running_inspector() as inspector:
        play(inspector, "hang")
        thread = hanging_post(inspector, [])
        assert 503 == post(inspector, wire_entry()).status_code
    thread.join(10)


def test_a_hang_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "MAX_HANG_S", 0.05)
    with running_inspector() as inspector:
        play(inspector, "hang")
        assert 503 == post(inspector, wire_entry()).status_code


@pytest.mark.parametrize("asked", [{"mode": "500"}, {"mode": 503}, {}, [], "off"], ids=str)
def test_an_outage_of_no_known_kind_is_refused(client: FlaskClient, asked: object) -> None:
    answer = client.post("/api/outage", json=asked)
    assert (400, ["mode must be one of off, 503, 429, hang"]) == (answer.status_code, said(answer)["errors"])


# The live stream


def test_a_page_that_lost_its_connection_is_told_only_what_it_missed(inspector: Inspector) -> None:
    with open_page(inspector) as live:
        post(inspector, wire_entry("http://api.test/seen"))
        live.next(lambda update: update["rows"])
    post(inspector, wire_entry("http://api.test/missed"))
    with open_page(inspector, live.last_event_id) as again:
        assert ["/missed"] == [row["path"] for row in again.next()["rows"]]


@pytest.mark.parametrize("last_event_id", ["of-another-run.7.7", "x", "{run}.7", "{run}.²."])
def test_a_page_of_an_earlier_run_is_told_everything(client: FlaskClient, last_event_id: str) -> None:
    full = taken(2)
    client = Routes(full).app().test_client()
    headers = {"Last-Event-ID": last_event_id.format(run=full.run).encode("utf-8").decode("latin-1")}
    with client.get("/api/live", headers=headers, buffered=False) as answer:
        event = b"".join(itertools.islice(answer.iter_encoded(), 2))
    assert 2 == len(json.loads(event.partition(b"data: ")[2])["rows"])


def test_a_page_is_told_the_figures_every_second_without_an_arrival() -> None:
    full = Desk()
    seen, _ = full.update(Cursor())
    ticker = threading.Thread(target=desk.ticking, args=(full, lambda: None), kwargs={"every_s": 0.01})
    ticker.start()
    assert full.wait(seen)
    full.close()
    ticker.join(10)
    assert not full.wait(Cursor())


def test_one_page_too_many_is_told_so_and_a_closed_one_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "MAX_PAGES", 1)
    with running_inspector() as inspector:
        with open_page(inspector) as first:
            first.next()
            with open_page(inspector) as second:
                assert 503 == second.answer.status_code
        deadline = time.monotonic() + 10
        statuses = [503]
        while statuses[-1] == 503 and time.monotonic() < deadline:  # seen at the first's next update
            with open_page(inspector) as third:
                statuses.append(third.answer.status_code)
        assert 200 == statuses[-1]


# The books


QUEUE_BOOKS = Books(accepted=10, delivered=6, dead=1, dropped={"queue full": 1, "purged": 0}, waiting=2)
REPORT = Report(
    path="/queue.sqlite",
    books=QUEUE_BOOKS,
    backlog=Backlog(2, 5_000, 0.0),
    hold=Hold(until=99.0, length_s=5.0, kind="later", reason="503 Service Unavailable"),
    activity=Activity(),
    drainer=None,
    file_bytes=1,
    wal_bytes=1,
)


def test_the_books_are_read_from_a_queues_report() -> None:
    expected = {
        "accepted": 10, "delivered": 6, "dead": 1, "dropped": 1, "waiting": 2, "balanced": True,
        "hold_until": 99.0, "hold_reason": "503 Service Unavailable", "trouble": "",
    }  # fmt: skip
    assert expected == books.read(lambda: asdict(REPORT))


def test_the_books_alone_will_do() -> None:
    found = books.read(lambda: asdict(QUEUE_BOOKS))
    assert (10, 1, 2, None) == (found["accepted"], found["dropped"], found["waiting"], found["hold_until"])


def test_books_that_do_not_balance_say_so() -> None:
    assert not books.view({"accepted": 3, "delivered": 1, "waiting": 1})["balanced"]


@pytest.mark.parametrize("error", [QueueUnavailable("the file is of a newer schema"), OSError("no such volume")])
def test_books_that_cannot_be_read_are_shown_and_not_raised(error: Exception) -> None:
    def unreadable() -> dict[str, object]:
        raise error

    assert str(error) == books.read(unreadable)["trouble"]


def test_the_panel_shows_the_books_and_the_chart_what_waits() -> None:
    with running_inspector(lambda: asdict(REPORT)) as inspector, open_page(inspector) as live:
        post(inspector, wire_entry(), wire_entry())
        update = live.next(lambda update: update["books"] and update["figures"]["entries"])
    assert (10, 2) == (update["books"]["accepted"], update["samples"][-1]["waiting"])


def test_a_second_of_the_chart_counts_what_came_in_it() -> None:
    full = taken(3)
    full.turn_away()
    full.play("503")
    full.sample(None)
    full.sample(None)
    first, second = full.update(Cursor())[1]["samples"]
    assert {"tick": 1, "waiting": None, "delivered": 3, "turned_away": 1, "outage": True} == first
    assert (0, 0) == (second["delivered"], second["turned_away"])


# HAR


def test_everything_is_downloaded_as_one_valid_har_file(inspector: Inspector) -> None:
    post(inspector, wire_entry("http://api.test/é?<script>", route="http://api.test/é", text="</script>\ud800"))
    post(inspector, wire_entry(method="POST", post_data={"mimeType": "text/plain", "text": "hello"}), wire_entry())
    answer = requests.get(f"{inspector.url}/api/har", timeout=10)
    assert 'attachment; filename="readme-metrics.har"' == answer.headers["Content-Disposition"]
    file = answer.json()
    assert 3 == len(file["log"]["entries"])
    assert "Ada" == file["log"]["entries"][0]["_group"]["label"]
    check_har(file)


def test_an_empty_har_file_is_valid_too(client: FlaskClient) -> None:
    check_har(said(client.get("/api/har")))


def test_an_entry_is_given_back_as_it_came(client: FlaskClient) -> None:
    entry = wire_entry(text="\ud800 \u2028 é", label="<b>")
    client.post("/v1/request", data=json.dumps([entry]), auth=KEY)
    assert entry == said(client.get(f"/api/entries/{entry['_id']}"))
    assert 404 == client.get("/api/entries/unknown").status_code


# Sockets, threads and processes


def test_a_port_that_is_taken_is_named_with_the_fix(inspector: Inspector) -> None:
    with pytest.raises(ConfigurationError, match=rf"port is {inspector.port}, which another program uses .*--port"):
        make_server(inspector.port)


@pytest.mark.parametrize("port", [-1, 70_000])
def test_a_port_that_is_none_is_named_with_what_is_allowed(port: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"port is {port}.*allowed"):
        make_server(port)


def test_an_inspector_that_never_served_is_shut_down_and_frees_its_port() -> None:
    never = make_server(0)
    never.shutdown()
    never.serve_forever()  # too late: it returns at once
    make_server(never.port).shutdown()


def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 1)
    with running_inspector() as inspector, open_page(inspector) as live:
        live.next()
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{inspector.url}/api/figures", timeout=10)


def test_shutdown_cuts_a_client_that_sends_nothing() -> None:
    with contextlib.ExitStack() as until_later, running_inspector() as inspector:
        until_later.enter_context(socket.create_connection(("127.0.0.1", inspector.port), 10))
        figures(inspector)  # came later and was answered: the silent one has its thread; running_inspector looks for it


def test_a_client_that_sends_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    assert server.IDLE_S == server._Handler.timeout
    monkeypatch.setattr(server._Handler, "timeout", 0.05)
    with running_inspector() as inspector, socket.create_connection(("127.0.0.1", inspector.port), 10) as silent:
        assert b"" == silent.recv(1)


def test_garbage_on_the_socket_is_answered_quietly(
    inspector: Inspector, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection(("127.0.0.1", inspector.port), 10) as garbage:
        garbage.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        assert b"400" in garbage.recv(1_000)
    post(inspector, wire_entry())
    assert ("", "", "") == (*capfd.readouterr(), caplog.text)


def test_serve_announces_its_address_and_leaves_at_once_and_quietly_on_ctrl_c() -> None:
    code = "from readme_metrics.inspector import serve; serve(port=0, announce=lambda url: print(url, flush=True))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        with contextlib.closing(requests.get(f"{url}/api/live", stream=True, timeout=10)) as page:
            assert 200 == page.status_code
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=server._LEAVE_S)
    assert (0, "", "") == (process.returncode, output, errors)
