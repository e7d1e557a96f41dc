"""The inspector at work: memory, outage, live stream, books, download, sockets and threads."""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import orjson
import pytest
import requests

from readme_metrics.errors import ConfigurationError, QueueUnavailable
from readme_metrics.inspector import books, desk, make_server, outage, routes, server
from readme_metrics.inspector.desk import Cursor, Desk
from readme_metrics.inspector.routes import Routes
from readme_metrics.inspector.wire import read_entries
from readme_metrics.queue.contract import Activity, Backlog, Books, Hold, Report
from tests.inspector_helpers import (
    KEY,
    check_har,
    figures,
    open_page,
    play,
    post,
    running_inspector,
    said,
    taken,
    wire_entry,
)

if TYPE_CHECKING:
    from flask.testing import FlaskClient

    from readme_metrics.inspector import Inspector


# What arrives


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


def test_a_get_of_the_entries_address_is_no_post(client: FlaskClient) -> None:
    assert 405 == client.get("/v1/request", auth=KEY).status_code  # as doctor asks
    client.post("/v1/request", data="[]", auth=KEY)
    found = said(client.get("/api/figures"))["figures"]
    assert (1, 1) == (found["posts"], found["refused"])


# The live stream


def test_a_page_that_lost_its_connection_is_told_only_what_it_missed(inspector: Inspector) -> None:
    with open_page(inspector) as live:
        post(inspector, wire_entry("http://api.test/seen"))
        live.next(lambda update: update["rows"])
    post(inspector, wire_entry("http://api.test/missed"))
    with open_page(inspector, live.last_event_id) as again:
        assert ["/missed"] == [row["path"] for row in again.next()["rows"]]


def test_a_page_that_listens_anew_names_what_it_saw_and_its_browser_what_it_saw_since(inspector: Inspector) -> None:
    seen = []
    for path in ("/one", "/two", "/three"):
        post(inspector, wire_entry(f"http://api.test{path}"))
        with open_page(inspector) as live:
            live.next(lambda update: update["rows"])
            seen.append(live.last_event_id)
    with open_page(inspector, seen=seen[0]) as anew:
        assert ["/two", "/three"] == [row["path"] for row in anew.next()["rows"]]
    with open_page(inspector, seen[1], seen=seen[0]) as reconnected:
        assert ["/three"] == [row["path"] for row in reconnected.next()["rows"]]


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
    assert found
    assert (10, 1, 2, None) == (found["accepted"], found["dropped"], found["waiting"], found["hold_until"])


def test_books_that_do_not_balance_say_so() -> None:
    assert not books.view({"accepted": 3, "delivered": 1, "waiting": 1})["balanced"]


@pytest.mark.parametrize("error", [QueueUnavailable("the file is of a newer schema"), OSError("no such volume")])
def test_books_that_cannot_be_read_are_shown_and_not_raised(error: Exception) -> None:
    def unreadable() -> dict[str, object]:
        raise error

    found = books.read(unreadable)
    assert found
    assert str(error) == found["trouble"]
    blind = Desk()
    blind.sample(found)
    assert blind.update(Cursor())[1]["samples"][-1]["waiting"] is None


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


def test_an_entry_is_given_back_with_the_values_that_came(client: FlaskClient) -> None:
    entry = wire_entry(text="\ud800 \u2028 é", label="<b>")
    client.post("/v1/request", data=json.dumps([entry]), auth=KEY)
    assert entry == said(client.get(f"/api/entries/{entry['_id']}"))
    assert 404 == client.get("/api/entries/unknown").status_code


def test_an_entry_of_this_package_is_given_back_byte_by_byte(client: FlaskClient) -> None:
    entry = orjson.dumps(wire_entry(text="é \u2028 😀 \\ \x7f", label="Zoë", time_ms=1234.125))
    client.post("/v1/request", data=b"[" + entry + b"]", auth=KEY)
    assert entry == client.get(f"/api/entries/{json.loads(entry)['_id']}").data


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
    code = (
        "import signal; from readme_metrics.inspector import serve\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background is born without it
        "serve(port=0, announce=lambda url: print(url, flush=True))"
    )
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
