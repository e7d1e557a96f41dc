"""The least that keeps a log of each request on disk and sends it: a yardstick of figure 7, which captures nothing.

One INSERT of the same size a request, in a file that all workers share, and a bare ``requests`` POST for each batch, in
another thread. No capture, no redaction, no books, nothing deleted, nothing checkpointed.
"""

from __future__ import annotations

import os
import queue
import sqlite3
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import requests

from bench.web import BATCH, new_app

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flask import Flask

ENTRY: Final = b'{"_id":"' + b"x" * 2760 + b'"}'
SETTINGS: Final = ("page_size=2048", "journal_mode=WAL", "synchronous=NORMAL", "wal_autocheckpoint=0")
OPENING_S: Final = 5.0


def least_app() -> Flask:
    """The bare app, with that beside it; opened by the first request, in the worker."""
    app = new_app()
    inner, opening = app.wsgi_app, threading.Lock()
    opened: list[_Least] = []

    def wsgi_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = inner(environ, start_response)
        with opening:
            if not opened:
                opened.append(_Least())
        opened[0].log()
        return body

    app.wsgi_app = wsgi_app  # type: ignore[method-assign]  # Flask's own way
    return app


class _Least:
    def __init__(self) -> None:
        path = Path(os.environ["README_METRICS_QUEUE_PATH"]) / "least.sqlite"
        self._connection = sqlite3.connect(path, isolation_level=None, timeout=OPENING_S, check_same_thread=False)
        for setting in SETTINGS:
            self._connection.execute(f"PRAGMA {setting}").close()
        self._connection.execute("CREATE TABLE IF NOT EXISTS entries (id INTEGER PRIMARY KEY, data BLOB, at REAL)")
        self._connection.execute("PRAGMA busy_timeout=0").close()
        self._inserting = threading.Lock()
        self._count = 0
        self._full: queue.SimpleQueue[None] = queue.SimpleQueue()
        threading.Thread(target=self._post, daemon=True).start()

    def log(self) -> None:
        with self._inserting:
            while not self._inserted():
                os.sched_yield()  # to a sibling, which holds the lock for 20 µs; SQLite would sleep for 1 ms
            self._count += 1
            if self._count % BATCH == 0:
                self._full.put(None)

    def _inserted(self) -> bool:
        try:
            self._connection.execute("INSERT INTO entries (data, at) VALUES (?, ?)", (ENTRY, time.time()))
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            return False
        return True

    def _post(self) -> None:
        session, url = requests.Session(), os.environ["README_METRICS_SERVER"] + "/v1/request"
        body = b"[" + b",".join([ENTRY] * BATCH) + b"]"
        headers = {"Content-Type": "application/json"}
        while True:
            self._full.get()
            session.post(url, data=body, headers=headers, auth=("key", ""), timeout=3)
