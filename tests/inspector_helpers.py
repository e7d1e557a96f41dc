"""What the inspector's tests share: entries as they go over the wire, and an inspector that runs in a thread."""

from __future__ import annotations

import contextlib
import json
import threading
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import requests
from jsonschema import Draft202012Validator

from readme_metrics.inspector import Inspector, make_server
from readme_metrics.inspector.desk import Desk
from readme_metrics.inspector.wire import read_entries
from tests import har

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from werkzeug.test import TestResponse

KEY = ("any-key", "")
MASKED = "sha512-" + "Zm9vYmFyYmF6" * 7 + "==?a1b2"

HAR_FILE = {
    "type": "object",
    "required": ["log"],
    "properties": {
        "log": {
            "type": "object",
            "required": ["version", "creator", "entries", "pages"],
            "properties": {
                "version": {"const": "1.2"},
                "creator": {"type": "object", "required": ["name", "version"]},
                "pages": {"type": "array", "items": {"required": ["id", "title", "startedDateTime", "pageTimings"]}},
                "entries": {"type": "array", "items": har.ENTRY},
            },
        }
    },
}


def wire_entry(
    url: str = "http://api.test/users/7?page=2",
    *,
    entry_id: str | None = None,
    method: str = "GET",
    status: int = 200,
    label: str = "Ada",
    text: str = '{"ok":true}',
    mime_type: str = "application/json",
    post_data: dict[str, Any] | None = None,
    route: str = "http://api.test/users/<int:id>",
    started: str = "2026-01-31T12:00:00.123Z",
    time_ms: float = 12.5,
    request_headers: tuple[tuple[str, str], ...] = (),
) -> dict[str, Any]:
    """One valid entry."""
    parts = urlsplit(url)
    har_entry = {
        "pageref": route,
        "startedDateTime": started,
        "time": time_ms,
        "request": {
            "method": method,
            "url": url,
            "httpVersion": "HTTP/1.1",
            "headers": _pairs(("Host", parts.netloc), ("Authorization", MASKED), *request_headers),
            "queryString": _pairs(*parse_qsl(parts.query)),
            "cookies": [],
            "headersSize": -1,
            "bodySize": len((post_data or {}).get("text", "")),
            **({"postData": post_data} if post_data else {}),
        },
        "response": {
            "status": status,
            "statusText": {200: "OK", 201: "CREATED", 404: "NOT FOUND", 500: "INTERNAL SERVER ERROR"}.get(status, ""),
            "httpVersion": "HTTP/1.1",
            "headers": [{"name": "Content-Type", "value": mime_type}],
            "cookies": [],
            "redirectURL": "",
            "headersSize": -1,
            "bodySize": len(text),
            "content": {"text": text, "size": len(text), "mimeType": mime_type},
        },
        "cache": {},
        "timings": {"send": 0, "wait": time_ms * 0.9, "receive": 0},
    }
    return {
        "_id": entry_id or str(uuid.uuid4()),
        "_version": 3,
        "development": False,
        "clientIPAddress": "127.0.0.1",
        "group": {"id": MASKED, "label": label, "email": f"{label.split(maxsplit=1)[0].lower()}@example.com"},
        "request": {
            "log": {
                "version": "1.2",
                "creator": {"name": "readme-metrics (python)", "version": "4.0.0", "comment": "x86_64-linux/3.11"},
                "entries": [har_entry],
            }
        },
    }


def _pairs(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in pairs]


@contextlib.contextmanager
def running_inspector(
    books: Callable[[], dict[str, object] | None] | None = None, *, port: int = 0
) -> Iterator[Inspector]:
    """An inspector, on a free port if none is named; when it ends, so have all its threads."""
    before = set(threading.enumerate())
    inspector = make_server(port, books=books)
    thread = threading.Thread(target=inspector.serve_forever)
    thread.start()
    try:
        yield inspector
    finally:
        inspector.shutdown()
        for each in set(threading.enumerate()) - before:  # those of clients that were answered just now, too
            each.join(20)
        assert set() == set(threading.enumerate()) - before


def post(inspector: Inspector, *entries: dict[str, Any], timeout_s: float = 10) -> requests.Response:
    """Send entries as the queue does."""
    return requests.post(f"{inspector.url}/v1/request", json=list(entries), auth=KEY, timeout=timeout_s)


def check_har(file: dict[str, Any]) -> None:
    """Assert that this is a HAR 1.2 file once its custom fields are set aside."""
    for entry in file["log"]["entries"]:
        for name in [name for name in entry if name.startswith("_")]:
            del entry[name]
    Draft202012Validator(HAR_FILE).validate(file)
    assert {entry["pageref"] for entry in file["log"]["entries"]} <= {page["id"] for page in file["log"]["pages"]}


class Page:
    """What one open page is told."""

    def __init__(self, inspector: Inspector, last_event_id: str = "", *, seen: str = "") -> None:
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        self.answer = requests.get(
            f"{inspector.url}/api/live", params={"seen": seen}, headers=headers, stream=True, timeout=10
        )
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
def open_page(inspector: Inspector, last_event_id: str = "", *, seen: str = "") -> Iterator[Page]:
    page = Page(inspector, last_event_id, seen=seen)
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


def taken(count: int, *, text: str = "{}", **bounds: int) -> Desk:
    full = Desk(**bounds)
    for _ in range(count):
        full.take(read_entries(json.dumps([wire_entry(text=text)]).encode()))
    return full
