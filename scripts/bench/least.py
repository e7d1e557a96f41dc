"""The least that keeps what was logged on disk until ReadMe has it: a yardstick of figure 7.

Written straight through for the one request that is measured: the entry in ReadMe's form, one INSERT in a file that all
workers share, and in another thread a bare ``requests`` POST for each batch and a DELETE. No redaction but one masked
header, no limits, no streams, no guards, no books, no retries; nothing is checkpointed, or found again after a crash.
"""

from __future__ import annotations

import base64
import hashlib
import os
import queue
import random
import sqlite3
import threading
import time
import urllib.parse
import uuid
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import flask
import orjson
import requests
from werkzeug.wsgi import ClosingIterator

from bench.web import BATCH, LOG_URL, grouping_function, new_app

if TYPE_CHECKING:
    from collections.abc import Iterable

SETTINGS: Final = ("page_size=2048", "journal_mode=WAL", "synchronous=NORMAL", "wal_autocheckpoint=0")
OPENING_S: Final = 5.0
CREATOR: Final = {"name": "readme-metrics (python)", "version": "4.0.0", "comment": "the least"}


def least_app() -> flask.Flask:
    """The bare app, with that beside it; opened by the first request, in the worker."""
    app = new_app()
    inner, opening = app.wsgi_app, threading.Lock()
    opened: list[_Least] = []

    def wsgi_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        began, began_at = time.perf_counter(), time.time()
        id_ = str(uuid.UUID(int=random.getrandbits(128), version=4))
        seen: dict[str, Any] = {"id": id_, "began_at": began_at}

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            headers = [*headers, ("x-documentation-url", f"{LOG_URL}/logs/{id_}")]
            rule = flask.request.url_rule
            seen.update(status=status, headers=headers, group=grouping_function(flask.request), rule=rule and rule.rule)
            return start_response(status, headers, exc_info)

        body: Any = inner(environ, start)
        seen["body"] = b"".join(body)
        seen["took_ms"] = (time.perf_counter() - began) * 1e3
        with opening:
            if not opened:
                opened.append(_Least())
        opened[0].log(least_entry(environ, **seen))
        return ClosingIterator([seen["body"]], body.close)

    app.wsgi_app = wsgi_app  # type: ignore[method-assign]  # Flask's own way
    return app


def least_entry(
    environ: dict[str, Any],
    *,
    id: str,  # noqa: A002 - its name there
    began_at: float,
    took_ms: float,
    status: str,
    headers: list[tuple[str, str]],
    group: dict[str, str],
    rule: str,
    body: bytes,
) -> bytes:
    """What ReadMe is told of one GET."""
    base, query = f"http://{environ['HTTP_HOST']}", environ["QUERY_STRING"]
    code, _, text = status.partition(" ")
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(began_at))
    request = {
        "method": environ["REQUEST_METHOD"],
        "url": f"{base}{environ['PATH_INFO']}?{query}",
        "httpVersion": environ["SERVER_PROTOCOL"],
        "headers": [
            {"name": _name(key), "value": _masked(value) if key == "HTTP_AUTHORIZATION" else value}
            for key, value in environ.items()
            if key.startswith("HTTP_")
        ],
        "queryString": [{"name": name, "value": value} for name, value in urllib.parse.parse_qsl(query)],
        "cookies": [],
        "headersSize": -1,
        "bodySize": 0,
    }
    response = {
        "status": int(code),
        "statusText": text,
        "httpVersion": environ["SERVER_PROTOCOL"],
        "headers": [{"name": name, "value": value} for name, value in headers],
        "cookies": [],
        "redirectURL": "",
        "headersSize": -1,
        "bodySize": len(body),
        "content": {"text": body.decode(), "size": len(body), "mimeType": "application/json"},
    }
    exchange = {
        "pageref": base + rule,
        "startedDateTime": f"{stamp}.{int(began_at % 1 * 1000):03}Z",
        "time": took_ms,
        "request": request,
        "response": response,
        "cache": {},
        "timings": {"send": 0, "wait": took_ms, "receive": 0},
    }
    return orjson.dumps(
        {
            "_id": id,
            "_version": 3,
            "group": {"id": _masked(group["api_key"]), "label": group["label"], "email": group["email"]},
            "clientIPAddress": environ["REMOTE_ADDR"],
            "development": False,
            "request": {"log": {"version": "1.2", "creator": CREATOR, "entries": [exchange]}},
        }
    )


@lru_cache
def _name(key: str) -> str:
    return key.removeprefix("HTTP_").replace("_", "-").title()


@lru_cache
def _masked(value: str) -> str:
    return f"sha512-{base64.b64encode(hashlib.sha512(value.encode()).digest()).decode()}?{value[-4:]}"


class _Least:
    def __init__(self) -> None:
        self._connection, self._deleting = _opened(busy_s=0), _opened(busy_s=OPENING_S)
        self._inserting = threading.Lock()
        self._batch: list[tuple[int, bytes]] = []
        self._full: queue.SimpleQueue[list[tuple[int, bytes]]] = queue.SimpleQueue()
        threading.Thread(target=self._post, daemon=True).start()

    def log(self, entry: bytes) -> None:
        with self._inserting:
            while (id_ := self._inserted(entry)) is None:
                os.sched_yield()  # to a sibling, which holds the lock for 20 µs; SQLite would sleep for 1 ms
            self._batch.append((id_, entry))
            if len(self._batch) == BATCH:
                self._full.put(self._batch)
                self._batch = []

    def _inserted(self, entry: bytes) -> int | None:
        try:
            values = (entry, time.time())
            return self._connection.execute("INSERT INTO entries (data, at) VALUES (?, ?)", values).lastrowid
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            return None

    def _post(self) -> None:
        session, url = requests.Session(), os.environ["README_METRICS_SERVER"] + "/v1/request"
        headers = {"Content-Type": "application/json"}
        marks = ",".join("?" * BATCH)
        while True:
            batch = self._full.get()
            body = b"[" + b",".join([entry for _, entry in batch]) + b"]"
            session.post(url, data=body, headers=headers, auth=("key", ""), timeout=3)
            self._deleting.execute(f"DELETE FROM entries WHERE id IN ({marks})", [id_ for id_, _ in batch])


def _opened(*, busy_s: float) -> sqlite3.Connection:
    path = Path(os.environ["README_METRICS_QUEUE_PATH"]) / "least.sqlite"
    connection = sqlite3.connect(path, isolation_level=None, timeout=OPENING_S, check_same_thread=False)
    for setting in SETTINGS:
        connection.execute(f"PRAGMA {setting}").close()
    connection.execute("CREATE TABLE IF NOT EXISTS entries (id INTEGER PRIMARY KEY, data BLOB, at REAL)")
    connection.execute(f"PRAGMA busy_timeout={int(busy_s * 1000)}").close()
    return connection
